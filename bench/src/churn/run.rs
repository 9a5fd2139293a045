//! The run itself.

use std::thread;

use anyhow::{Result, anyhow, ensure};
use xdp_lb::director::simulation::Segment;
use xtask::bench::churn::{Outcome, Report};

use super::{
    Plan,
    clients::{Clients, IDLE, Packet},
    script::{Change, Pool, script},
    strategies::{REFERENCE, Strategy, all},
};

/// How often entries are counted, in seconds.
const COUNT: u32 = 60;

/// What has become of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Kept,
    Broken,
    Lost,
}

/// The backend of a connection's SYN, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    backend: u16,
    fate: Fate,
}

/// A strategy with its connections.
struct Runner {
    strategy: Box<dyn Strategy>,
    connections: Vec<Connection>,
    packets: u64,
    broken: u64,
    lost: u64,
    /// Not kept, though the reference has kept them.
    beyond: u64,
    most_entries: usize,
}

impl Runner {
    fn new(strategy: Box<dyn Strategy>, plan: &Plan) -> Self {
        Self {
            strategy,
            connections: vec![Connection::default(); plan.connections as usize],
            packets: 0,
            broken: 0,
            lost: 0,
            beyond: 0,
            most_entries: 0,
        }
    }

    /// Goes through the packets of a second.
    fn run(&mut self, packets: &[Packet], pool: &Pool) {
        for packet in packets {
            let connection = &mut self.connections[packet.place as usize];
            let opens = packet.segment == Segment::Opens;
            if connection.fate != Fate::Kept && !opens {
                // The client has been told.
                continue;
            }
            self.packets += 1;
            let found = self.strategy.packet(packet.hash, packet.segment);
            if opens {
                *connection = Connection {
                    backend: found.unwrap_or_default(),
                    fate: Fate::Kept,
                };
            }
            if !pool.is_there(connection.backend) {
                connection.fate = Fate::Lost;
                self.lost += 1;
            } else if found != Some(connection.backend) {
                connection.fate = Fate::Broken;
                self.broken += 1;
            }
        }
    }

    fn count_entries(&mut self) {
        self.most_entries = self.most_entries.max(self.strategy.entries());
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            name: self.strategy.name().to_owned(),
            packets: self.packets,
            broken: self.broken,
            lost: self.lost,
            broken_beyond_full: self.beyond,
            most_entries: self.most_entries as u64,
            lookups: self.strategy.lookups(),
        }
    }
}

/// Goes through all of it; `progress` is told each second.
///
/// # Errors
///
/// If a strategy fails.
pub fn run(plan: &Plan, mut progress: impl FnMut(u32)) -> Result<Report> {
    ensure!(
        plan.connections >= 100 && plan.backends >= 10,
        "too few to be of interest"
    );
    let script = script(plan);
    let mut clients = Clients::new(plan);
    let strategies = all(plan)?;
    let mut runners: Vec<Runner> = strategies
        .into_iter()
        .map(|it| Runner::new(it, plan))
        .collect();
    let mut pool = Pool::new(plan.backends);
    let mut to_come = script.as_slice();
    for second in 0..plan.seconds {
        let due = to_come.partition_point(|&(at, _)| at <= second);
        let (now, later) = to_come.split_at(due);
        to_come = later;
        now.iter().for_each(|&(_, change)| pool.make(change));
        let is_changed = !now.is_empty() || second == 0;
        let planned = is_changed.then(|| planned(&pool, later));
        let packets = clients.packets(second);
        judge(&mut runners, &packets)?;
        in_parallel(&mut runners, |runner| {
            runner.strategy.advance(second)?;
            if let Some(planned) = &planned {
                runner.strategy.change(&pool, planned)?;
            }
            runner.run(&packets, &pool);
            if second % COUNT == COUNT - 1 {
                runner.count_entries();
            }
            Ok(())
        })?;
        progress(second + 1);
    }
    let all: Vec<Packet> = (0..plan.connections)
        .map(|place| Packet {
            place,
            hash: 0,
            segment: Segment::Opens,
        })
        .collect();
    judge(&mut runners, &all)?;
    Ok(Report {
        seed: plan.seed,
        connections: plan.connections,
        begun: clients.begun,
        seconds: plan.seconds,
        backends: plan.backends,
        table_size: plan.table_size,
        idle_seconds: IDLE,
        changes: script
            .iter()
            .map(|(at, change)| (*at, words(*change)))
            .collect(),
        outcomes: runners.iter().map(Runner::outcome).collect(),
    })
}

/// The pool after what is planned next.
fn planned(pool: &Pool, to_come: &[(u32, Change)]) -> Pool {
    let mut planned = pool.clone();
    let next = to_come.iter().find(|(_, change)| change.is_planned());
    if let Some(&(_, change)) = next {
        planned.make(change);
    }
    planned
}

/// Connections that give their place to another are compared with what the reference made of them.
fn judge(runners: &mut [Runner], packets: &[Packet]) -> Result<()> {
    let reference = runners
        .iter()
        .position(|it| it.strategy.name() == REFERENCE);
    let reference = reference.ok_or_else(|| anyhow!("nobody remembers everything"))?;
    for packet in packets.iter().filter(|it| it.segment == Segment::Opens) {
        let place = packet.place as usize;
        if runners[reference].connections[place].fate != Fate::Kept {
            continue;
        }
        for runner in runners.iter_mut() {
            runner.beyond += u64::from(runner.connections[place].fate != Fate::Kept);
        }
    }
    Ok(())
}

/// Does the same for all, on as many threads as there are processors.
fn in_parallel(
    runners: &mut [Runner],
    work: impl Fn(&mut Runner) -> Result<()> + Sync,
) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = &work;
    thread::scope(|scope| {
        let parts = runners.chunks_mut(runners.len().div_ceil(threads));
        let started: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter_mut().try_for_each(work)))
            .collect();
        started
            .into_iter()
            .try_for_each(|it| it.join().map_err(|_| anyhow!("a strategy panicked"))?)
    })
}

fn words(change: Change) -> String {
    match change {
        Change::Add(number) => format!("backend {number} is added"),
        Change::Drain(number) => format!("backend {number} is drained"),
        Change::Weigh(number, weight) => format!("backend {number} gets weight {weight}"),
        Change::Remove(number) => format!("backend {number} is taken out"),
        Change::Down(number) => format!("backend {number} fails its health check"),
        Change::Up(number) => format!("backend {number} passes its health check again"),
        Change::Crash(number) => format!("backend {number} dies"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_keeps_what_is_kept_by_remembering_everything() {
        let plan = Plan {
            connections: 2000,
            seconds: 1500,
            table_size: 1009,
            ..Plan::QUICK
        };
        let mut seconds = 0;
        let report = run(&plan, |second| seconds = second).unwrap();
        assert_eq!(seconds, plan.seconds);
        let of = |name: &str| report.outcomes.iter().find(|it| it.name == name).unwrap();
        let (off, full, adaptive) = (of("off"), of("full"), of("adaptive"));
        for kept in [full, adaptive] {
            assert_eq!((kept.broken, kept.broken_beyond_full), (0, 0), "{kept:?}");
            assert!(kept.lost > 0, "backends go, and some die: {kept:?}");
        }
        assert_eq!(adaptive.packets, full.packets);
        for breaking in [off, of("full, LRU of 1/10"), of("known change")] {
            assert!(breaking.broken > 0, "{breaking:?}");
            assert!(breaking.broken_beyond_full > 0, "{breaking:?}");
        }
        assert_eq!((off.lookups, off.most_entries), (0, 0));
        assert!(adaptive.lookups * 2 < full.lookups, "{adaptive:?}");
        assert!(
            adaptive.most_entries * 2 < full.most_entries,
            "{adaptive:?}"
        );
        assert_eq!(
            run(&plan, |_| ()).unwrap(),
            report,
            "the same seed, the same run"
        );
    }
}
