//! Measuring a case, in rounds: the wrapper alone, the floor programs and the program under test take
//! turns, so that whatever else the machine does meets all of them alike.

use anyhow::{Context, Result, ensure};
use xdp_lb::dataplane::Counters;
use xdp_lb_common::counters::Counter;
use xtask::bench::report::{self, Round};

use crate::{
    abi::Template,
    cases::{Case, Traffic},
    packets::Connection,
    plane::{Plane, Scale},
    wrapper::{Order, Own, PASS, TX, Wrapper, once},
};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is in the maps.
    pub scale: Scale,
    /// Rounds of each case.
    pub rounds: u32,
    /// Connections of each case that has many: a tenth of [`TEMPLATES`] at the most.
    ///
    /// [`TEMPLATES`]: crate::abi::TEMPLATES
    pub connections: u32,
    /// Packets in each run. Several for each of the connections, since the first one finds caches that another
    /// program has filled.
    pub packets: u32,
    /// Packets that are given to the program one by one as well, without the wrapper.
    pub singles: u32,
}

/// A program that takes its turn.
#[derive(Clone, Copy)]
enum Turn {
    Wrapper,
    Own(Own),
    Program,
}

const TURNS: [Turn; 5] = [
    Turn::Wrapper,
    Turn::Own(Own::FloorTx),
    Turn::Own(Own::FloorParse),
    Turn::Own(Own::FloorStateless),
    Turn::Program,
];

/// Measures one case.
///
/// # Errors
///
/// If the program did anything else with a packet than the case says, by its counters.
pub fn measure(
    plane: &mut Plane,
    wrapper: &mut Wrapper,
    case: Case,
    plan: Plan,
) -> Result<report::Case> {
    let mut bench = Bench::new(plane, wrapper, case, plan)?;
    bench.warm_up()?;
    let rounds = (0..plan.rounds)
        .map(|round| bench.round(round))
        .collect::<Result<_>>()?;
    Ok(report::Case {
        mode: case.mode.name().to_owned(),
        family: case.family.name().to_owned(),
        tracking: case.tracking.name().to_owned(),
        traffic: case.traffic.name().to_owned(),
        packets_per_run: bench.packets,
        connections: u32::try_from(bench.connections.len())?,
        rounds,
        single: bench.single()?,
    })
}

struct Bench<'a> {
    plane: &'a mut Plane,
    wrapper: &'a mut Wrapper,
    case: Case,
    connections: Vec<Connection>,
    templates: Vec<Template>,
    /// In each run.
    packets: u32,
    singles: u32,
}

impl<'a> Bench<'a> {
    fn new(plane: &'a mut Plane, wrapper: &'a mut Wrapper, case: Case, plan: Plan) -> Result<Self> {
        let connections = case.connections(plan.scale, plan.connections);
        let packet = |connection: &Connection| connection.packet(case.traffic.segment());
        let templates: Vec<Template> = connections.iter().map(packet).collect();
        wrapper.set_packets(case.family, &templates)?;
        plane.track(case.tracking);
        Ok(Self {
            plane,
            wrapper,
            case,
            connections,
            templates,
            packets: if case.begins_anew() {
                plan.connections
            } else if case.traffic == Traffic::TenfoldFlows {
                // Ten for each slot's cache line.
                10 * plan.connections
            } else {
                plan.packets
            },
            singles: plan.singles,
        })
    }

    /// The first sight of the connections: those that get entries have them from here on.
    fn warm_up(&mut self) -> Result<()> {
        self.plane.forget();
        let connections = self.connections.len().try_into()?;
        let expected = self
            .case
            .expected_at_first(self.packets.into(), connections);
        self.program(Order::Scattered, &expected)?;
        Ok(())
    }

    fn round(&mut self, number: u32) -> Result<Round> {
        let mut round = Round::default();
        // Another one comes first in each round.
        let first = usize::try_from(number)? % TURNS.len();
        for turn in TURNS.iter().cycle().skip(first).take(TURNS.len()) {
            match turn {
                Turn::Wrapper => {
                    self.wrapper.select(None)?;
                    round.wrapper = self.wrapper.run(self.packets, Order::Given)?.nanoseconds;
                }
                // It would take what is for no service for a service's.
                Turn::Own(Own::FloorStateless) if self.case.traffic == Traffic::NoService => {}
                Turn::Own(own) => {
                    let nanoseconds = self.floor(*own)?;
                    match own {
                        Own::FloorTx => round.floor_tx = nanoseconds,
                        Own::FloorStateless => round.floor_stateless = Some(nanoseconds),
                        _ => round.floor_parse = nanoseconds,
                    }
                }
                Turn::Program => {
                    self.begin_anew()?;
                    let expected = self.case.expected(self.packets.into());
                    round.program = self.program(Order::Given, &expected)?;
                }
            }
        }
        Ok(round)
    }

    fn begin_anew(&mut self) -> Result<()> {
        if self.case.begins_anew() {
            self.plane.forget();
        }
        Ok(())
    }

    fn floor(&mut self, own: Own) -> Result<f64> {
        self.wrapper.select_own(own)?;
        let run = self.wrapper.run(self.packets, Order::Given)?;
        ensure!(run.action == TX, "{own:?} ended with action {}", run.action);
        Ok(run.nanoseconds)
    }

    /// Runs the program under test; an error if it counts anything else than `expected`.
    fn program(&mut self, order: Order, expected: &[(Counter, u64)]) -> Result<f64> {
        let fd = self.plane.program()?.fd()?.try_clone()?;
        self.wrapper.select(Some(&fd))?;
        let before = self.plane.counters()?;
        let run = self.wrapper.run(self.packets, order)?;
        check(&before, &self.plane.counters()?, expected)
            .with_context(|| format!("{}: the program did something else", self.case.name()))?;
        let action = match self.case.traffic {
            Traffic::NoService => PASS,
            _ => TX,
        };
        let (length, expected) = (run.frame.len(), self.case.frame_out());
        ensure!(
            (run.action, length) == (action, expected),
            "{}: the last packet left with action {} and {length} bytes, where action {action} and \
             {expected} bytes were expected",
            self.case.name(),
            run.action
        );
        Ok(run.nanoseconds)
    }

    /// One call of the kernel for each packet: the median time, less that of the floor that sends
    /// packets back as they are.
    fn single(&mut self) -> Result<f64> {
        self.begin_anew()?;
        let templates = self.templates.iter().cycle();
        let count = if self.case.begins_anew() {
            self.singles.min(self.packets)
        } else {
            self.singles
        };
        let (mut program, mut floor) = (Vec::new(), Vec::new());
        let before = self.plane.counters()?;
        for (_, template) in (0..count).zip(templates) {
            let duration = self.wrapper.run_once(Own::FloorTx, template)?;
            floor.push(duration.as_secs_f64() * 1e9);
            let (duration, _) = once(self.plane.program()?, self.case.family, template)?;
            program.push(duration.as_secs_f64() * 1e9);
        }
        let expected = self.case.expected(count.into());
        check(&before, &self.plane.counters()?, &expected)
            .with_context(|| format!("{}, one by one", self.case.name()))?;
        Ok(report::Spread::of(&program).median - report::Spread::of(&floor).median)
    }
}

/// Compares all counters with what they should have grown by.
///
/// # Errors
///
/// If one differs.
pub fn check(before: &Counters, after: &Counters, expected: &[(Counter, u64)]) -> Result<()> {
    for &counter in Counter::ALL {
        let grown = after.get(counter).packets - before.get(counter).packets;
        let expected = expected.iter().find(|(name, _)| *name == counter);
        let expected = expected.map_or(0, |(_, packets)| *packets);
        ensure!(
            grown == expected,
            "it counted {grown} packets as {}, where {expected} were expected",
            counter.name()
        );
    }
    Ok(())
}
