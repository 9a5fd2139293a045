//! How long nobody forwards when a director dies, returns or leaves: our own VRRP beside keepalived.
//!
//! Both move the VIP between the same directors, whose data plane is ours in either case. Each run has a lab
//! of its own; the two take turns, so that both get their share of a busy machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::lab::gap::{Echo, Meter};
use crate::lab::keepalived::{Instance, Keepalived};
use crate::lab::{Director, Host, Lab, LabConfig, wait_for};

const BACKENDS: usize = 2;
/// Milliseconds between advertisements.
const INTERVALS: [u32; 2] = [100, 10];
/// Of the two directors; the first one has the VIP while it is there.
const PRIORITIES: [u8; 2] = [250, 240];
const VRID: u8 = 51;
/// Where the backends send datagrams back.
const ECHO_PORT: u16 = 7;

/// How long it is measured before something happens, and after it is over.
const CALM: Duration = Duration::from_secs(1);
/// Of the thousand datagrams that are sent while it is calm, the director with the VIP gets more than these.
const DATAGRAMS: u64 = 500;
/// How long a director may take to get the VIP.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who moves the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mover {
    Own,
    Keepalived,
}

impl Mover {
    const ALL: [Self; 2] = [Self::Own, Self::Keepalived];

    fn name(self) -> &'static str {
        match self {
            Self::Own => "xdp-lb",
            Self::Keepalived => "keepalived",
        }
    }
}

/// What happens to the first director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Nothing,
    Dies,
    Returns,
    Leaves,
}

impl Event {
    /// In an order in which each finds things as it needs them.
    const ALL: [Self; 4] = [Self::Nothing, Self::Dies, Self::Returns, Self::Leaves];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing happens",
            Self::Dies => "dies",
            Self::Returns => "boots and preempts",
            Self::Leaves => "leaves",
        }
    }

    /// Who has the VIP after it.
    fn next_holder(self) -> usize {
        match self {
            Self::Nothing | Self::Returns => 0,
            Self::Dies | Self::Leaves => 1,
        }
    }
}

/// The longest gap of each run.
type Gaps = BTreeMap<(u32, Event, Mover), Vec<Duration>>;

/// Measures, and prints a table. `program` is the daemon.
pub(super) fn run(program: &Path, is_quick: bool) -> Result<()> {
    let runs = if is_quick { 1 } else { 9 };
    let mut gaps = Gaps::new();
    for run in 1..=runs {
        for interval in INTERVALS {
            for mover in Mover::ALL {
                let name = mover.name();
                eprintln!("run {run} of {runs}: {name}, advertisements every {interval} ms");
                let mut pair = Pair::new(program, mover, interval)?;
                for event in Event::ALL {
                    // Deaths are spread over the time between two advertisements.
                    let phase = Duration::from_millis(interval.into()) * run / runs;
                    let gap = pair.measure(event, phase);
                    let gap = gap.with_context(|| format!("{name}: {}", event.name()))?;
                    gaps.entry((interval, event, mover)).or_default().push(gap);
                }
            }
        }
    }
    println!(
        "The longest time in which no datagram is answered, of one a millisecond, while something happens to the \
         director that has the VIP. Both move the VIP of the same data plane.\n\n{}",
        table(gaps)
    );
    Ok(())
}

fn table(gaps: Gaps) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "advertisements",
            "director",
            "VRRP by",
            "runs",
            "median ms",
            "worst ms",
        ]);
    for ((interval, event, mover), mut gaps) in gaps {
        gaps.sort_unstable();
        let milliseconds = |gap: Option<&Duration>| {
            let gap = gap.copied().unwrap_or_default();
            format!("{:.1}", gap.as_secs_f64() * 1e3)
        };
        table.add_row([
            format!("every {interval} ms"),
            event.name().to_owned(),
            mover.name().to_owned(),
            gaps.len().to_string(),
            milliseconds(gaps.get(gaps.len() / 2)),
            milliseconds(gaps.last()),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A director, and who moves its VIPs.
struct Node {
    director: Director,
    keepalived: Option<Keepalived>,
    instance: Instance,
}

impl Node {
    fn start(
        lab: &Lab,
        name: &str,
        program: &Path,
        mover: Mover,
        instance: Instance,
    ) -> Result<Self> {
        let host = lab.host(name);
        let config = config(lab, mover, &instance);
        let director = lab.start_director_on(host, program, &config)?;
        let keepalived = (mover == Mover::Keepalived)
            .then(|| Keepalived::start(host, lab.dir(), &instance))
            .transpose()?;
        Ok(Self {
            director,
            keepalived,
            instance,
        })
    }

    fn host(&self) -> &Arc<Host> {
        self.director.host()
    }

    fn die(&mut self, lab: &Lab) -> Result<()> {
        lab.lose_power(&mut self.director)?;
        self.keepalived.as_mut().map_or(Ok(()), Keepalived::kill)
    }

    fn boot(&mut self, lab: &Lab) -> Result<()> {
        lab.boot(&mut self.director)?;
        // Behind the daemon, as its unit would be ordered: it forwards before it has the VIP.
        let keepalived = self.keepalived.as_mut();
        keepalived.map_or(Ok(()), |it| it.restart(&self.instance))
    }

    fn leave(&mut self) -> Result<()> {
        match &mut self.keepalived {
            Some(keepalived) => keepalived.terminate().map(drop),
            None => self.director.terminate().map(drop),
        }
    }
}

/// Two directors that share a VIP.
struct Pair {
    nodes: [Node; 2],
    vip: IpAddr,
    _echoes: Vec<Echo>,
    lab: Lab,
}

impl Pair {
    /// Starts both, and waits until the first has the VIP.
    fn new(program: &Path, mover: Mover, interval: u32) -> Result<Self> {
        let lab = Lab::new(LabConfig::redundant(BACKENDS))?;
        let vip = lab.vip();
        let echoes = lab.backends();
        let echoes = echoes.map(|host| Echo::start(host, (vip, ECHO_PORT).into()));
        let echoes = echoes.collect::<Result<_>>()?;
        let start = |name, priority| {
            let instance = Instance {
                vrid: VRID,
                priority,
                interval,
                vips: vec![format!("{vip}/32")],
                unicast: None,
                nopreempt: false,
            };
            Node::start(&lab, name, program, mover, instance)
        };
        let [first, second] = PRIORITIES;
        let pair = Self {
            nodes: [start("director", first)?, start("director2", second)?],
            vip: vip.into(),
            _echoes: echoes,
            lab,
        };
        pair.wait_for_holder(0)?;
        Ok(pair)
    }

    fn wait_for_holder(&self, holder: usize) -> Result<()> {
        let host = self.nodes[holder].host();
        wait_for(
            &format!("{} to have the VIP", host.name()),
            PATIENCE,
            || Ok(host.has_address(self.vip)?.then_some(())),
        )
    }

    /// The longest gap while something happens.
    fn measure(&mut self, event: Event, phase: Duration) -> Result<Duration> {
        let to = (self.vip, ECHO_PORT).into();
        let meter = Meter::start(self.lab.host("client"), to)?;
        wait_until_answered(&meter)?;
        thread::sleep(CALM + phase);
        let first = &mut self.nodes[0];
        match event {
            Event::Nothing => {}
            Event::Dies => first.die(&self.lab)?,
            Event::Returns => first.boot(&self.lab)?,
            Event::Leaves => first.leave()?,
        }
        self.wait_for_holder(event.next_holder())?;
        wait_until_answered(&meter)?;
        let before = self.received_by(event.next_holder())?;
        thread::sleep(CALM);
        let received = self.received_by(event.next_holder())? - before;
        let gaps = meter.finish()?;
        // Else nothing has moved, and there was no gap for that reason.
        ensure!(
            received > DATAGRAMS,
            "the director with the VIP got {received} packets only"
        );
        Ok(gaps.longest())
    }

    /// Packets that a director has received.
    fn received_by(&self, director: usize) -> Result<u64> {
        self.nodes[director].host().rx_packets("eth0")
    }
}

/// Waits until datagrams are answered from now on.
fn wait_until_answered(meter: &Meter) -> Result<()> {
    let before = meter.answered();
    wait_for("datagrams to be answered", PATIENCE, || {
        Ok((meter.answered() > before + 100).then_some(()))
    })
}

fn config(lab: &Lab, mover: Mover, instance: &Instance) -> String {
    let backends: Vec<_> = lab.backends().map(|it| it.v4().to_string()).collect();
    let vip = lab.vip();
    let mut yaml = format!(
        "interfaces: [eth0]\nservices:\n- {{ name: echo, vip: {vip}, protocol: udp, port: {ECHO_PORT}, \
         backends: [{}] }}\n",
        backends.join(", ")
    );
    if mover == Mover::Own {
        let Instance {
            vrid,
            priority,
            interval,
            ..
        } = instance;
        yaml += &format!(
            "vrrp:\n- {{ name: main, interface: eth0, vrid: {vrid}, priority: {priority}, \
             advert_interval: {interval}ms, vips: [{vip}] }}\n"
        );
    }
    yaml
}
