//! What happens to the backends.

use std::collections::{BTreeMap, BTreeSet};

use xdp_lb::{config::WhenDown, director::simulation::Backend};

use super::Plan;
use crate::random::Random;

/// When the first change comes, in seconds: by then all connections have begun.
const FIRST: u32 = 330;
/// From one planned change to the next, in seconds.
const PLANNED: u32 = 180;
/// From one flap to the next.
const FLAPS: u32 = 90;
/// The longest time that a backend is down when it flaps.
const LONGEST_FLAP: usize = 60;
/// From a crash to the day that somebody takes the dead backend out.
const UNTIL_BURIED: u32 = 300;

/// Something happens to a backend, named by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new one is added.
    Add(u16),
    /// It is to get no new connections.
    Drain(u16),
    /// It is given another weight.
    Weigh(u16, u32),
    /// It is taken out; if it was draining, some while after that.
    Remove(u16),
    /// Its health check fails, though it can serve.
    Down(u16),
    /// Its health check succeeds again.
    Up(u16),
    /// It dies, and its health check notices.
    Crash(u16),
}

impl Change {
    /// True for what its operator knows beforehand.
    #[must_use]
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            Self::Add(_) | Self::Drain(_) | Self::Weigh(..) | Self::Remove(_)
        )
    }
}

/// The backends, and which of them are there to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// By number.
    pub backends: BTreeMap<u16, Backend>,
    /// Those that have died.
    pub dead: BTreeSet<u16>,
}

impl Pool {
    /// The pool at the beginning: backends 1 to `count`.
    #[must_use]
    pub fn new(count: u16) -> Self {
        Self {
            backends: (1..=count).map(|number| (number, Backend::NEW)).collect(),
            dead: BTreeSet::new(),
        }
    }

    /// True if a backend would answer, and packets may be sent to it.
    #[must_use]
    pub fn is_there(&self, number: u16) -> bool {
        let backend = self.backends.get(&number);
        let is_served = backend.is_some_and(|it| it.is_up || it.when_down == WhenDown::Keep);
        is_served && !self.dead.contains(&number)
    }

    /// Makes a change.
    pub fn make(&mut self, change: Change) {
        let (Change::Add(number)
        | Change::Drain(number)
        | Change::Weigh(number, _)
        | Change::Remove(number)
        | Change::Down(number)
        | Change::Up(number)
        | Change::Crash(number)) = change;
        match change {
            Change::Add(_) => drop(self.backends.insert(number, Backend::NEW)),
            Change::Remove(_) => drop(self.backends.remove(&number)),
            Change::Crash(_) => drop(self.dead.insert(number)),
            _ => {}
        }
        let Some(backend) = self.backends.get_mut(&number) else {
            return;
        };
        match change {
            Change::Drain(_) => backend.is_draining = true,
            Change::Weigh(_, weight) => backend.weight = weight,
            Change::Down(_) | Change::Crash(_) => backend.is_up = false,
            Change::Up(_) => backend.is_up = true,
            Change::Add(_) | Change::Remove(_) => {}
        }
    }
}

/// What happens when, in order; times in seconds.
///
/// Every three minutes something planned, in turn: a backend is added; one is drained; one gets another weight, of 50
/// to 200; the drained one is taken out. Every 90 seconds some backend flaps: its health check fails for 5 to 60
/// seconds. In the middle of it one dies, and is taken out five minutes later.
#[must_use]
pub fn script(plan: &Plan) -> Vec<(u32, Change)> {
    let mut random = Random::new(plan.seed);
    let mut script = Vec::new();
    let mut pool: Vec<u16> = (1..=plan.backends).collect();
    let mut next = plan.backends + 1;
    let mut drained = Vec::new();
    let crash = FIRST + (plan.seconds.saturating_sub(FIRST)) / 2;
    let take =
        |pool: &mut Vec<u16>, random: &mut Random| pool.swap_remove(random.below(pool.len()));
    let dying = take(&mut pool, &mut random);
    script.push((crash, Change::Crash(dying)));
    script.push((crash + UNTIL_BURIED, Change::Remove(dying)));
    for (turn, at) in (FIRST..plan.seconds).step_by(PLANNED as usize).enumerate() {
        let change = match turn % 4 {
            0 => {
                pool.push(next);
                next += 1;
                Change::Add(next - 1)
            }
            1 => {
                drained.push(take(&mut pool, &mut random));
                Change::Drain(drained[drained.len() - 1])
            }
            2 => {
                let weight = u32::try_from(50 + random.below(151)).unwrap_or(u32::MAX);
                Change::Weigh(random.one_of(&pool), weight)
            }
            _ => Change::Remove(drained.pop().unwrap_or(0)),
        };
        script.push((at, change));
    }
    // Those that stay all the time, so that no two things happen to one.
    let leaving: BTreeSet<u16> = script
        .iter()
        .filter_map(|&(_, change)| leaves(change))
        .collect();
    let staying: Vec<u16> = (1..=plan.backends)
        .filter(|it| !leaving.contains(it))
        .collect();
    for at in (FIRST + FLAPS / 3..plan.seconds).step_by(FLAPS as usize) {
        let number = random.one_of(&staying);
        let until = at + u32::try_from(5 + random.below(LONGEST_FLAP - 4)).unwrap_or(u32::MAX);
        script.push((at, Change::Down(number)));
        script.push((until, Change::Up(number)));
    }
    script.retain(|&(at, _)| at < plan.seconds);
    script.sort_by_key(|&(at, _)| at);
    script
}

fn leaves(change: Change) -> Option<u16> {
    match change {
        Change::Drain(number) | Change::Remove(number) | Change::Crash(number) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_was_there_and_what_is_down_comes_up_again() {
        for plan in [Plan::THOROUGH, Plan::QUICK] {
            let script = script(&plan);
            assert_eq!(
                script,
                super::script(&plan),
                "the same seed, the same script"
            );
            let mut pool = Pool::new(plan.backends);
            for &(at, change) in &script {
                assert!((FIRST..plan.seconds).contains(&at));
                match change {
                    Change::Add(number) => assert!(!pool.backends.contains_key(&number)),
                    Change::Drain(number)
                    | Change::Weigh(number, _)
                    | Change::Remove(number)
                    | Change::Crash(number) => {
                        assert!(pool.backends.contains_key(&number), "{change:?}");
                    }
                    Change::Down(number) => assert!(pool.backends[&number].is_up),
                    Change::Up(number) => assert!(!pool.backends[&number].is_up),
                }
                pool.make(change);
            }
            let kinds: BTreeSet<_> = script
                .iter()
                .map(|(_, change)| format!("{change:?}").split('(').next().map(str::to_owned))
                .collect();
            assert_eq!(kinds.len(), 7, "{kinds:?}");
        }
    }
}
