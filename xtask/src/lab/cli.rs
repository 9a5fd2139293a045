//! `cargo xtask lab`: labs that stay up while one works in them.

use std::env;
use std::fmt::Write;
use std::fs::File;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::setup::Tools;

use super::keeper::{self, UpArgs};
use super::namespace::ns_path;
use super::registry::{self, HostState, Kind, LabState};

/// Network namespaces with a client, a router, directors and backends
#[derive(Debug, Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Build a lab, start its servers and the daemon, and leave it in the background
    Up(UpArgs),
    /// Show the labs of this machine, those of running tests too
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a host of a lab: exec [LAB] HOST -- COMMAND
    Exec {
        /// The lab, if there are several, and the host
        #[arg(required = true, num_args = 1..=2, value_names = ["LAB", "HOST"])]
        place: Vec<String>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// End a lab and everything that runs in it
    Down {
        /// The lab; may be left out if there is one only
        #[arg(conflicts_with = "all")]
        name: Option<String>,
        /// End all labs made by `up`
        #[arg(long)]
        all: bool,
    },
    /// The process behind a lab
    #[command(hide = true)]
    Keep(UpArgs),
}

/// Does what the command line says; the caller has made sure to be root.
pub fn run(args: LabArgs) -> Result<ExitCode> {
    match args.command {
        LabCommand::Keep(args) => keeper::keep(args)?,
        LabCommand::Up(args) => {
            living()?;
            up(&args)?;
        }
        LabCommand::Status { json: true } => {
            let labs: Vec<Value> = living()?.iter().map(to_json).collect();
            println!("{}", serde_json::to_string_pretty(&labs)?);
        }
        LabCommand::Status { json: false } => match living()?.as_slice() {
            [] => println!("no lab is up; `cargo xtask lab up` builds one"),
            labs => println!("{}", table(labs)),
        },
        LabCommand::Exec { place, command } => return exec(&place, &command),
        LabCommand::Down { name, all } => down(name.as_deref(), all)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The labs that are up; says which dead ones it found and removed.
fn living() -> Result<Vec<LabState>> {
    let (labs, swept) = registry::labs()?;
    for name in swept {
        eprintln!("removed the remains of the lab {name}: its process had died");
    }
    Ok(labs)
}

fn up(args: &UpArgs) -> Result<()> {
    let lab = keeper::up(args)?;
    println!("{}", table(std::slice::from_ref(&lab)));
    let place = if lab.name == "default" {
        String::new()
    } else {
        format!("{} ", lab.name)
    };
    if let Some(vip) = lab.vips.first() {
        println!("cargo xtask lab exec {place}client -- curl http://{vip}/");
    }
    println!("cargo xtask lab down {}", lab.name);
    Ok(())
}

fn down(name: Option<&str>, all: bool) -> Result<()> {
    let labs = living()?;
    let chosen: Vec<&LabState> = if all {
        labs.iter().filter(|lab| lab.kind == Kind::Kept).collect()
    } else {
        vec![pick(&labs, name)?]
    };
    for lab in chosen {
        keeper::down(lab)?;
        println!("the lab {} is down", lab.name);
    }
    Ok(())
}

/// The lab with that name; without a name, the only one that `up` made.
fn pick<'a>(labs: &'a [LabState], name: Option<&str>) -> Result<&'a LabState> {
    if let Some(name) = name {
        let found = labs.iter().find(|lab| lab.name == name);
        return found.with_context(|| format!("no lab named {name} is up; see `lab status`"));
    }
    let kept: Vec<&LabState> = labs.iter().filter(|lab| lab.kind == Kind::Kept).collect();
    match kept.as_slice() {
        [] => bail!("no lab is up; `cargo xtask lab up` builds one"),
        [only] => Ok(only),
        several => {
            let names: Vec<&str> = several.iter().map(|lab| lab.name.as_str()).collect();
            bail!("several labs are up; name one of: {}", names.join(", "))
        }
    }
}

/// Becomes the command, in the host's namespaces; returns only if that fails.
fn exec(place: &[String], command: &[String]) -> Result<ExitCode> {
    let (name, host) = match place {
        [host] => (None, host),
        [name, host, ..] => (Some(name.as_str()), host),
        [] => bail!("no host given"),
    };
    let labs = living()?;
    let lab = pick(&labs, name)?;
    let found = lab.hosts.iter().find(|it| it.name == *host);
    let found = found.with_context(|| {
        let names: Vec<&str> = lab.hosts.iter().map(|it| it.name.as_str()).collect();
        format!(
            "the lab {} has no host {host}, only: {}",
            lab.name,
            names.join(", ")
        )
    })?;
    enter(lab, found)?;
    let (program, args) = command.split_first().context("no command given")?;
    // A program that setup brought is in no PATH.
    let brought = Tools::new()?
        .path(program)
        .filter(|_| !program.contains('/'));
    let mut command = Command::new(brought.unwrap_or_else(|| program.into()));
    let error = command.arg0(program).args(args).exec();
    Err(error).with_context(|| format!("cannot run {program} on {host}"))
}

fn enter(lab: &LabState, host: &HostState) -> Result<()> {
    let open = |kind| {
        let path = ns_path(lab.owner.pid, host.tid, kind);
        File::open(&path).with_context(|| format!("cannot open {}", path.display()))
    };
    let (net, mnt) = (open("net")?, open("mnt")?);
    // Only now is it certain that the files are not those of a later process with the same id.
    if !lab.owner.is_alive() {
        bail!("the lab {} has just ended", lab.name);
    }
    let folder = env::current_dir().context("cannot find the current folder")?;
    setns(net, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
    setns(mnt, CloneFlags::CLONE_NEWNS).context("cannot enter the mount namespace")?;
    // Entering a mount namespace leads to its root.
    env::set_current_dir(&folder).with_context(|| format!("cannot enter {}", folder.display()))
}

fn table(labs: &[LabState]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["LAB", "AGE", "HOST", "ADDRESSES"]);
    for lab in labs {
        let state = if lab.ready { "" } else { " (starting)" };
        let mut first = [lab.name.clone(), format!("{}{state}", in_words(lab.age()))];
        for host in lab.hosts.iter().filter(|host| !host.interfaces.is_empty()) {
            let [name, age] = std::mem::take(&mut first);
            table.add_row([name, age, host.name.clone(), addresses(host)]);
        }
        let vips: Vec<String> = lab.vips.iter().map(IpAddr::to_string).collect();
        table.add_row(["", "", "VIPs", &vips.join("  ")]);
    }
    table
}

fn addresses(host: &HostState) -> String {
    let mut text = String::new();
    for interface in &host.interfaces {
        let _ = write!(text, "{}  {}  ", interface.v4, interface.v6);
    }
    text.trim_end().to_owned()
}

fn to_json(lab: &LabState) -> Value {
    json!({
        "name": lab.name,
        "kind": lab.kind,
        "ready": lab.ready,
        "age_seconds": lab.age().as_secs(),
        "pid": lab.owner.pid,
        "vips": lab.vips,
        "hosts": lab.hosts,
    })
}

/// A duration to read at a glance: `12s`, `5m`, `3h`, `2d`.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
