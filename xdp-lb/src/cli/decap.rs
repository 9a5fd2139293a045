//! `xdp-lb decap`: a tunnel's end on a backend, without a daemon.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::bail;
use clap::{ValueEnum, builder::PossibleValue};
use serde::Serialize;
use xdp_lb_common::{counters::decap::Counter, decap::GUE_PORT};

use super::{commands::show, tables};
use crate::{
    api::Detached,
    config::{AttachMode, FramesTaken, Interface},
    daemon::needs_root,
    dataplane::{
        self, Attachment, Traffic, User,
        decap::{Decapsulator, Running},
    },
    decap::{self, Prefix, Settings},
    director::view::{CounterView, StatsView},
};

#[derive(Debug, clap::Args)]
pub(super) struct Decap {
    /// The interface that the directors' packets arrive at.
    #[arg(long, value_name = "IF")]
    interface: String,
    /// How to attach: in the driver, in the kernel's stack, or in the driver where that works.
    #[arg(long, value_enum, default_value = "auto")]
    mode: AttachMode,
    /// UDP port on which GUE comes in.
    #[arg(long, value_name = "PORT", default_value_t = GUE_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    gue_port: u16,
    /// Decapsulate packets from these outer sources only, and drop others' packets in tunnels. May
    /// be given several times.
    ///
    /// Without it anybody who can reach this host by a tunnel's protocol can have it receive any
    /// packet, with any source address, past the firewalls on the way. Give the directors'
    /// addresses, unless the network lets nobody else's tunnels through.
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    from: Vec<Prefix>,
    /// Where link and counters are pinned, in a folder for each interface: a directory on a BPF file
    /// system.
    #[arg(long, value_name = "DIR", default_value = decap::PINS)]
    pin_dir: PathBuf,
    /// Show what is attached, and its counters.
    #[arg(long, conflicts_with_all = ["detach", "mode", "gue_port", "from"])]
    show: bool,
    /// Take the program away, with its counters.
    #[arg(long, conflicts_with_all = ["mode", "gue_port", "from"])]
    detach: bool,
}

impl ValueEnum for AttachMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Native, Self::Generic]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

pub(super) fn run(decap: Decap, json: bool) -> anyhow::Result<()> {
    let done = if decap.show {
        show_running(&decap, json)
    } else if decap.detach {
        detach(&decap, json)
    } else {
        attach(decap, json)
    };
    done.map_err(needs_root)
}

/// What is in force, as it is shown.
#[derive(Serialize)]
struct RunningView {
    #[serde(flatten)]
    attachment: Attachment,
    #[serde(flatten)]
    settings: Settings,
    #[serde(flatten)]
    stats: StatsView,
}

fn attach(decap: Decap, json: bool) -> anyhow::Result<()> {
    let pins = decap::pins(&decap.pin_dir, &decap.interface);
    let interface = Interface {
        name: decap.interface,
        mode: decap.mode,
        frames: FramesTaken::Any,
    };
    // Before anything is made for it.
    dataplane::index_of(&interface.name)?;
    let settings = Settings {
        gue_port: decap.gue_port,
        from: decap.from,
    };
    let attachment = Decapsulator::load(pins, &settings)?.attach(&interface)?;
    show(json, &attachment, |attachment| {
        let mut text = format!(
            "attached to {} in {} mode; packets are decapsulated from now on, `--detach` ends that",
            attachment.interface, attachment.mode
        );
        if let Some(reason) = &attachment.fallback {
            let _ = write!(text, "\nnote: not in the driver: {reason}");
        }
        if settings.from.is_empty() {
            text += "\nnote: from every source; --from lets only the directors send by tunnels";
        }
        text
    })
}

fn show_running(decap: &Decap, json: bool) -> anyhow::Result<()> {
    let pins = decap::pins(&decap.pin_dir, &decap.interface);
    let Some(Running {
        attachment,
        settings,
        counters,
    }) = dataplane::decap::running(&pins, &decap.interface)?
    else {
        bail!(
            "nothing is attached to {} (nothing pinned in {}); `xdp-lb decap --interface {}` does that",
            decap.interface,
            pins.path().display(),
            decap.interface
        );
    };
    let counter = |(counter, traffic): (Counter, Traffic)| CounterView {
        name: counter.name().into(),
        kind: counter.kind().name().into(),
        text: counter.text().into(),
        packets: traffic.packets,
        bytes: traffic.bytes,
    };
    let view = RunningView {
        attachment,
        settings,
        stats: StatsView {
            counters: counters.into_iter().map(counter).collect(),
        },
    };
    show(json, &view, text)
}

fn text(view: &RunningView) -> String {
    let from = match view.settings.from.as_slice() {
        [] => "every source".to_owned(),
        from => tables::list(from),
    };
    let fields = tables::fields(&[
        (
            "interface",
            format!("{} {}", view.attachment.interface, view.attachment.mode),
        ),
        ("gue port", view.settings.gue_port.to_string()),
        ("from", from),
    ]);
    format!("{fields}\n\n{}", tables::stats(&view.stats, true))
}

fn detach(decap: &Decap, json: bool) -> anyhow::Result<()> {
    let pins = decap::pins(&decap.pin_dir, &decap.interface);
    let detached = Detached::from(pins.remove_unused(User::Decap)?);
    show(json, &detached, |detached| match detached.pins_removed {
        0 => format!("nothing was attached to {}", decap.interface),
        _ => format!(
            "detached from {}; packets in tunnels go to the kernel as they are",
            decap.interface
        ),
    })
}
