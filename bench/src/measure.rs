//! Measuring a case, in rounds: the wrapper alone, the floor programs and the program under test take
//! turns, so that whatever else the machine does meets all of them alike.

use anyhow::{Context, Result, ensure};
use xdp_lb::dataplane::Counters;
use xdp_lb_common::counters::Counter;
use xtask::bench::report::{self, Round};

use crate::{
    cases::{Case, Traffic},
    packets::Packets,
    plane::{Plane, Scale},
    wrapper::{Order, Own, PASS, Run, TX, Wrapper, once},
};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is in the maps.
    pub scale: Scale,
    /// Rounds of each case.
    pub rounds: u32,
    /// Connections of each case that has many: a tenth of [`CONNECTIONS`] at the most.
    ///
    /// [`CONNECTIONS`]: crate::abi::CONNECTIONS
    pub connections: u32,
    /// Packets in each run, those before it not counted.
    pub packets: u32,
    /// Packets that are given to the program one by one as well, without the wrapper.
    pub singles: u32,
}

impl Plan {
    /// The same in parts, of so many rounds at the most.
    pub fn passes(self, rounds: u32) -> impl Iterator<Item = Self> {
        let parts = self.rounds.div_ceil(rounds);
        (0..parts).map(move |part| Self {
            rounds: rounds.min(self.rounds - part * rounds),
            ..self
        })
    }
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
        packets_per_run: bench.timed,
        connections: bench.packets.connections,
        rounds,
        single: bench.single()?,
    })
}

struct Bench<'a> {
    plane: &'a mut Plane,
    wrapper: &'a mut Wrapper,
    case: Case,
    packets: Packets,
    /// Packets of each run.
    timed: u32,
    /// Packets before each, since the caches are full of what another program has used.
    untimed: u32,
    singles: u32,
}

impl<'a> Bench<'a> {
    fn new(plane: &'a mut Plane, wrapper: &'a mut Wrapper, case: Case, plan: Plan) -> Result<Self> {
        let packets = case.packets(plan.scale, plan.connections);
        wrapper.set_packets(&packets)?;
        plane.track(case.tracking);
        let (timed, untimed) = if case.begins_anew() {
            (packets.connections, 0)
        } else {
            let enough = 3 * plan.connections;
            (plan.packets, packets.connections.min(enough))
        };
        Ok(Self {
            plane,
            wrapper,
            case,
            packets,
            timed,
            untimed,
            singles: plan.singles,
        })
    }

    /// The first sight of the connections: those that get entries have them from here on.
    fn warm_up(&mut self) -> Result<()> {
        self.plane.forget();
        let connections = self.packets.connections;
        let expected = self
            .case
            .expected_at_first(connections.into(), connections.into());
        self.select_program()?;
        self.checked(&expected, |bench| {
            bench.wrapper.run(connections, Order::Scattered)
        })?;
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
                    round.wrapper = self.run()?.nanoseconds;
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
                    self.select_program()?;
                    let packets = u64::from(self.untimed) + u64::from(self.timed);
                    let expected = self.case.expected(packets);
                    round.program = self.checked(&expected, Self::run)?;
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
        let run = self.run()?;
        ensure!(run.action == TX, "{own:?} ended with action {}", run.action);
        Ok(run.nanoseconds)
    }

    /// Runs what is selected.
    fn run(&mut self) -> Result<Run> {
        if self.untimed > 0 {
            self.wrapper.run(self.untimed, Order::Scattered)?;
        }
        let order = if self.case.begins_anew() {
            Order::Scattered
        } else {
            Order::Drawn
        };
        self.wrapper.run(self.timed, order)
    }

    fn select_program(&mut self) -> Result<()> {
        let fd = self.plane.program()?.fd()?.try_clone()?;
        self.wrapper.select(Some(&fd))
    }

    /// Runs the program under test; an error if it counts anything else than `expected`.
    fn checked(
        &mut self,
        expected: &[(Counter, u64)],
        run: impl FnOnce(&mut Self) -> Result<Run>,
    ) -> Result<f64> {
        let before = self.plane.counters()?;
        let run = run(self)?;
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
        let connections = self.packets.connections;
        let count = if self.case.begins_anew() {
            self.singles.min(connections)
        } else {
            self.singles
        };
        let (mut program, mut floor) = (Vec::new(), Vec::new());
        let before = self.plane.counters()?;
        for number in 0..count {
            let packet = self.packets.get(number % connections);
            let duration = self.wrapper.run_once(Own::FloorTx, &packet)?;
            floor.push(duration.as_secs_f64() * 1e9);
            let (duration, _) = once(self.plane.program()?, self.case.family, &packet)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_have_all_rounds_between_them() {
        let rounds = |rounds: u32, at_a_time| -> Vec<u32> {
            let plan = Plan {
                scale: Scale::default(),
                rounds,
                connections: 1,
                packets: 2,
                singles: 3,
            };
            plan.passes(at_a_time).map(|pass| pass.rounds).collect()
        };
        assert_eq!(rounds(15, 5), [5, 5, 5]);
        assert_eq!(rounds(7, 5), [5, 2]);
        assert_eq!(rounds(3, 5), [3]);
    }
}
