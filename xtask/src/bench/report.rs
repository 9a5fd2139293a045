//! What a run of the packet benchmark found, as it stands in the JSON file.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// Bytes of each frame, from the Ethernet header on, without the checksum at its end: of IPv4, and of IPv6.
    pub frame_bytes: [u32; 2],
    /// Services in the maps.
    pub services: u32,
    /// Backends of each service.
    pub backends_per_service: u32,
    /// Slots of each service's lookup table.
    pub table_size: u32,
    /// Flows that can be remembered.
    pub flow_limit: u32,
    /// Whether packets came from a list in memory.
    #[serde(default)]
    pub listed: bool,
    /// The XDP program; `None` where no case was measured.
    pub program: Option<ProgramSize>,
    /// What was measured.
    pub cases: Vec<Case>,
    /// Reads of memory, between the cases.
    #[serde(default)]
    pub memory: Vec<MemoryTimes>,
    /// Lookup tables.
    #[serde(default)]
    pub tables: Vec<TableTimes>,
    /// How long the daemon waits for packets under way before it uses memory anew, in milliseconds.
    #[serde(default)]
    pub waits: Vec<f64>,
}

/// How long a read takes, of any byte of so much memory. It tells how much of the caches is there for the one who measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryTimes {
    /// How much memory is read from, in MiB.
    pub mebibytes: u32,
    /// What was measured, in the order of time.
    pub nanoseconds: Vec<f64>,
}

/// How long a lookup table takes, in milliseconds, in the order of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableTimes {
    /// How it is filled.
    pub scheduler: String,
    /// Backends that share it.
    pub backends: u32,
    /// Its slots.
    pub table_size: u32,
    /// To build it.
    pub build: Vec<f64>,
    /// Until a service has another one in force, by one backend more or less: the table is built, compared with the one
    /// before slot by slot, and written. In memory of the process; the maps are mapped like that.
    pub update: Vec<f64>,
}

/// A machine in general terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model, as the kernel names it.
    pub processor: String,
    /// CPUs.
    pub cpus: usize,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// The processor's architecture.
    pub architecture: String,
    /// Version of the kernel: major and minor number.
    pub kernel: String,
}

/// How large the XDP program is, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSize {
    /// Instructions that the verifier went through, those of all paths.
    pub verified_instructions: Option<u32>,
    /// Bytes of BPF instructions, as the verifier left them.
    pub translated_bytes: Option<u32>,
    /// Bytes of machine code.
    pub jitted_bytes: Option<u32>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Forwarding mode.
    pub mode: String,
    /// Address family.
    pub family: String,
    /// Which flows are remembered.
    pub tracking: String,
    /// Kind of traffic.
    pub traffic: String,
    /// Packets in each run of a program.
    pub packets_per_run: u32,
    /// Connections that these packets are of.
    pub connections: u32,
    /// What was measured, in the order of time.
    pub rounds: Vec<Round>,
    /// Nanoseconds that the program takes in a run of one packet, less those of the floor that sends
    /// frames back: medians.
    pub single: f64,
}

/// Nanoseconds per packet, as measured: the wrapper's own are in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The wrapper alone.
    pub wrapper: f64,
    /// The floor that sends frames back.
    pub floor_tx: f64,
    /// The floor that reads headers, swaps the MAC addresses and sends frames back.
    pub floor_parse: f64,
    /// The floor that balances as little as one can; `None` for packets that are for no service.
    #[serde(default)]
    pub floor_stateless: Option<f64>,
    /// The program under test.
    pub program: f64,
}

/// Of how many rounds of a case one is called quiet.
const QUIET_OF: usize = 20;
/// Quiet rounds of a case, if it has as many.
const QUIET: usize = 5;

/// A case in short: nanoseconds per packet, without the wrapper's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The floor that sends frames back.
    pub floor_tx: Spread,
    /// The floor that reads headers.
    pub floor_parse: Spread,
    /// The program under test.
    pub program: Spread,
    /// The program's time divided by that of the floor that reads headers.
    pub ratio: Spread,
    /// The same with the wrapper's time in both.
    pub with_wrapper: Spread,
    /// The floor that balances; `None` where it was not measured.
    pub floor_stateless: Option<Spread>,
    /// The program's time divided by that of the floor that balances.
    pub by_stateless: Option<Spread>,
    /// What the quiet rounds show: see [`Case::quiet`]. `None` where no memory is waited for.
    pub quiet: Option<Quiet>,
}

/// A case by its quiet rounds alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quiet {
    /// The program under test, without the wrapper's time.
    pub program: Spread,
    /// The program's time divided by that of the floor that reads headers, with the wrapper's time in both.
    pub with_wrapper: Spread,
}

impl Report {
    /// One of nothing.
    #[cfg(test)]
    pub(super) fn any() -> Self {
        Self {
            machine: Machine::any(),
            frame_bytes: [64, 80],
            services: 1,
            backends_per_service: 1,
            table_size: 65_537,
            flow_limit: 1,
            listed: false,
            program: None,
            cases: Vec::new(),
            memory: Vec::new(),
            tables: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// Takes what was measured of a case: for the first time, or once more. Returns how many rounds it has now.
    pub fn add(&mut self, case: Case) -> usize {
        let known = self
            .cases
            .iter_mut()
            .find(|known| known.name() == case.name());
        match known {
            Some(known) => {
                known.rounds.extend(case.rounds);
                known.rounds.len()
            }
            None => {
                let rounds = case.rounds.len();
                self.cases.push(case);
                rounds
            }
        }
    }
}

/// The middle of some values: the median, and the quartiles that half of the values lie between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A quarter of the values is below.
    pub lower: f64,
    /// Half of them is below.
    pub median: f64,
    /// Three quarters of them are below.
    pub upper: f64,
}

impl Round {
    fn with_wrapper(&self) -> f64 {
        self.program / self.floor_parse
    }

    fn net(&self) -> f64 {
        self.program - self.wrapper
    }
}

impl Case {
    /// What tells it from all others.
    fn name(&self) -> [&str; 4] {
        [&self.mode, &self.family, &self.tracking, &self.traffic]
    }

    /// The rounds in which the floor that balances waited least for memory: one in twenty, and five at the least. That is another
    /// program, so what the program under test took then is not what these rounds are chosen by, be it little or much.
    ///
    /// None where this floor was not measured.
    #[must_use]
    pub fn quiet(&self) -> Vec<Round> {
        let mut rounds = self.rounds.clone();
        rounds.retain(|round| round.floor_stateless.is_some());
        rounds.sort_by(|a, b| f64::total_cmp(&floor(a), &floor(b)));
        let count = rounds.len().div_ceil(QUIET_OF).max(QUIET);
        rounds.truncate(count);
        return rounds;

        fn floor(round: &Round) -> f64 {
            round.floor_stateless.unwrap_or(f64::INFINITY)
        }
    }

    /// The medians over the rounds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let net = |of: fn(&Round) -> f64| -> Vec<f64> {
            let rounds = self.rounds.iter();
            rounds.map(|round| of(round) - round.wrapper).collect()
        };
        let (parse, program) = (net(|round| round.floor_parse), net(|round| round.program));
        let ratios: Vec<f64> = program.iter().zip(&parse).map(|(a, b)| a / b).collect();
        let stateless = self.rounds.iter().map(|round| {
            let floor = round.floor_stateless? - round.wrapper;
            Some((floor, (round.program - round.wrapper) / floor))
        });
        let stateless: Option<(Vec<f64>, Vec<f64>)> = stateless.collect();
        let (floor_stateless, by_stateless) = stateless
            .map(|(floor, ratios)| (Spread::of(&floor), Spread::of(&ratios)))
            .unzip();
        let with_wrapper: Vec<f64> = self.rounds.iter().map(Round::with_wrapper).collect();
        let quiet = self.quiet();
        let quiet = (!quiet.is_empty()).then(|| Quiet {
            program: Spread::of(&quiet.iter().map(Round::net).collect::<Vec<_>>()),
            with_wrapper: Spread::of(&quiet.iter().map(Round::with_wrapper).collect::<Vec<_>>()),
        });
        Summary {
            floor_tx: Spread::of(&net(|round| round.floor_tx)),
            floor_parse: Spread::of(&parse),
            program: Spread::of(&program),
            ratio: Spread::of(&ratios),
            with_wrapper: Spread::of(&with_wrapper),
            floor_stateless,
            by_stateless,
            quiet,
        }
    }
}

impl Spread {
    /// The quartiles of some values; between two values where there is none in the place. Of no values,
    /// all are NaN.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quarters: usize| {
            let Some(last) = sorted.len().checked_sub(1) else {
                return f64::NAN;
            };
            let (index, rest) = (last * quarters / 4, last * quarters % 4);
            let (low, high) = (sorted[index], sorted[(index + 1).min(last)]);
            low + (high - low) * [0.0, 0.25, 0.5, 0.75][rest]
        };
        Self {
            lower: at(1),
            median: at(2),
            upper: at(3),
        }
    }
}

impl Machine {
    /// The machine that this runs on.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell about the processor or its own version.
    pub fn this() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let field = |name: &str| {
            let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let release = nix::sys::utsname::uname()?;
        let release = release.release().to_string_lossy().into_owned();
        Ok(Self {
            processor: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus: std::thread::available_parallelism()?.get(),
            is_virtual: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            architecture: std::env::consts::ARCH.to_owned(),
            kernel: release.split('.').take(2).collect::<Vec<_>>().join("."),
        })
    }

    /// Some machine.
    #[cfg(test)]
    pub(super) fn any() -> Self {
        Self {
            processor: "Model".to_owned(),
            cpus: 2,
            is_virtual: false,
            architecture: "x86_64".to_owned(),
            kernel: "6.18".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(lower: f64, median: f64, upper: f64) -> Spread {
        Spread {
            lower,
            median,
            upper,
        }
    }

    #[test]
    fn quartiles_lie_where_they_should() {
        assert_eq!(Spread::of(&[7.0]), spread(7.0, 7.0, 7.0));
        assert_eq!(
            Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]),
            spread(2.0, 3.0, 4.0)
        );
        assert_eq!(Spread::of(&[0.0, 4.0]), spread(1.0, 2.0, 3.0));
        assert!(Spread::of(&[]).median.is_nan());
    }

    fn case(traffic: &str, rounds: Vec<Round>) -> Case {
        Case {
            mode: "l2".to_owned(),
            family: "ipv4".to_owned(),
            tracking: "full".to_owned(),
            traffic: traffic.to_owned(),
            packets_per_run: 1,
            connections: 1,
            rounds,
            single: 60.0,
        }
    }

    /// A round in which the floor that balances took so long, and the program something else.
    fn waiting(stateless: f64, program: f64) -> Round {
        Round {
            wrapper: 10.0,
            floor_tx: 12.0,
            floor_parse: 20.0,
            floor_stateless: Some(stateless),
            program,
        }
    }

    #[test]
    fn rounds_are_quiet_by_what_the_other_program_waited() {
        // The program itself is slowest in those.
        let rounds: Vec<Round> = (0..200)
            .map(|n| f64::from((n * 77 + 13) % 200))
            .map(|wait| waiting(30.0 + wait, 1000.0 - wait))
            .collect();
        let quiet = case("flows", rounds.clone()).quiet();
        let waits: Vec<_> = quiet
            .iter()
            .filter_map(|round| round.floor_stateless)
            .collect();
        assert_eq!(
            waits,
            (0..10).map(|n| 30.0 + f64::from(n)).collect::<Vec<_>>()
        );
        let few = case("flows", rounds[..21].to_vec()).quiet();
        assert_eq!(few.len(), 5);
        let fewer = case("flows", rounds[..2].to_vec());
        assert_eq!(fewer.quiet().len(), 2);
        let shown = fewer.summary().quiet.expect("quiet rounds");
        assert_eq!(
            shown.program,
            Spread::of(&fewer.rounds.iter().map(Round::net).collect::<Vec<_>>())
        );
    }

    #[test]
    fn no_round_is_quiet_where_no_memory_is_waited_for() {
        let round = Round {
            floor_stateless: None,
            ..waiting(0.0, 30.0)
        };
        let case = case("no-service", vec![round; 30]);
        assert!(case.quiet().is_empty());
        assert_eq!(case.summary().quiet, None);
        assert_eq!(case.summary().with_wrapper, spread(1.5, 1.5, 1.5));
    }

    #[test]
    fn what_is_measured_once_more_has_more_rounds() {
        let mut report = Report::any();
        let [one, other] = [waiting(30.0, 40.0), waiting(50.0, 60.0)];
        assert_eq!(report.add(case("flows", vec![one])), 1);
        assert_eq!(report.add(case("syns", vec![one, one])), 2);
        assert_eq!(report.add(case("flows", vec![other])), 2);
        assert_eq!(
            report.cases,
            [
                case("flows", vec![one, other]),
                case("syns", vec![one, one])
            ]
        );
    }

    #[test]
    fn the_wrapper_of_the_same_round_is_subtracted() {
        let round = |wrapper: f64| Round {
            wrapper,
            floor_tx: wrapper + 2.0,
            floor_parse: wrapper + 5.0,
            floor_stateless: Some(wrapper + 25.0),
            program: wrapper + 50.0,
        };
        let case = case("flows", vec![round(10.0), round(30.0), round(20.0)]);
        let summary = case.summary();
        assert_eq!(summary.floor_tx, spread(2.0, 2.0, 2.0));
        assert_eq!(summary.floor_parse.median, 5.0);
        assert_eq!(summary.program.median, 50.0);
        assert_eq!(summary.ratio, spread(10.0, 10.0, 10.0));
        assert_eq!(summary.floor_stateless, Some(spread(25.0, 25.0, 25.0)));
        assert_eq!(summary.by_stateless, Some(spread(2.0, 2.0, 2.0)));
    }
}
