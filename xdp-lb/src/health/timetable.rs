//! When each check is to be run. No I/O, and the time is passed in.
//!
//! Each check has a grid of its own, as wide as its interval. Grids are shifted against each other by the
//! golden ratio, which spreads them evenly however many there are, without a look at the others. Jitter is
//! around the grid and does not add up; a check that is late skips what it has missed.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::runner::Id;
use crate::config::Pace;

/// The first run of a check comes within this time, or within an interval: a start is to be quick.
const FIRST: Duration = Duration::from_millis(500);

/// The golden ratio's fraction, in units of 2^-64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// All checks, each with the time of its next run.
#[derive(Debug)]
pub(super) struct Timetable {
    queue: BTreeSet<(Instant, Id)>,
    entries: HashMap<Id, Entry>,
    /// Of the next grid, in units of 2^-64 of an interval.
    phase: u64,
    /// State of the generator of jitter.
    random: u64,
}

#[derive(Debug)]
struct Entry {
    pace: Pace,
    /// Its grid begins here.
    origin: Instant,
    /// The next point of the grid to be used.
    point: u32,
    /// None while it runs.
    due: Option<Instant>,
}

impl Timetable {
    /// Without any check. Jitter follows from the seed.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            queue: BTreeSet::new(),
            entries: HashMap::new(),
            phase: seed,
            random: seed,
        }
    }

    /// Takes a check in; one of the same name is replaced.
    pub(super) fn insert(&mut self, id: Id, pace: Pace, now: Instant) {
        self.remove(id);
        let due = now + part(pace.interval.min(FIRST), self.phase);
        let entry = Entry {
            pace,
            origin: now + part(pace.interval, self.phase),
            point: 0,
            due: Some(due),
        };
        self.phase = self.phase.wrapping_add(GOLDEN);
        self.entries.insert(id, entry);
        self.queue.insert((due, id));
    }

    /// Forgets a check, also while it runs.
    pub(super) fn remove(&mut self, id: Id) {
        if let Some(due) = self.entries.remove(&id).and_then(|entry| entry.due) {
            self.queue.remove(&(due, id));
        }
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// A check that is due. It is taken for running until it is [`done`](Self::done).
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Id> {
        let id = pop_until(&mut self.queue, now)?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = None;
        }
        Some(id)
    }

    /// A check has ended. It comes again soon if it is not settled, else at the next point of its grid.
    pub(super) fn done(&mut self, id: Id, now: Instant, is_settled: bool) {
        let jitter = self.random();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let due = if is_settled {
            entry.next_point(now, jitter)
        } else {
            now + entry.pace.fast_interval
        };
        entry.due = Some(due);
        self.queue.insert((due, id));
    }

    /// Has a check run at once, if it does not run already.
    pub(super) fn hurry(&mut self, id: Id, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(due) = entry.due.replace(now) {
            self.queue.remove(&(due, id));
            self.queue.insert((now, id));
        } else {
            entry.due = None;
        }
    }

    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(GOLDEN);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Entry {
    /// The next point of the grid that has not passed, a little earlier or later.
    fn next_point(&mut self, now: Instant, jitter: u64) -> Instant {
        let interval = self.pace.interval;
        let passed = now.saturating_duration_since(self.origin).as_nanos();
        let missed = passed.div_ceil(interval.as_nanos());
        let point = u32::try_from(missed).unwrap_or(u32::MAX).max(self.point);
        self.point = point.saturating_add(1);
        let at = self.origin + interval * point;
        let reach = interval * u32::from(self.pace.jitter) / 100;
        let shifted = at + part(reach * 2, jitter);
        shifted.checked_sub(reach).unwrap_or(shifted).max(now)
    }
}

/// Takes out the first, if its time has come.
fn pop_until(queue: &mut BTreeSet<(Instant, Id)>, now: Instant) -> Option<Id> {
    let (due, _) = queue.first()?;
    if *due > now {
        return None;
    }
    queue.pop_first().map(|(_, id)| id)
}

/// A part of a time, in units of 2^-64.
fn part(time: Duration, part: u64) -> Duration {
    let nanos = (time.as_nanos() * u128::from(part)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace(interval: u32, jitter: u8) -> Pace {
        Pace {
            interval: interval * MS,
            fast_interval: interval * MS / 4,
            timeout: interval * MS,
            jitter,
        }
    }

    /// Runs a timetable for so long; each check takes `took`. Returns the starts.
    fn run(
        timetable: &mut Timetable,
        from: Instant,
        time: Duration,
        took: Duration,
    ) -> Vec<(Instant, Id)> {
        let mut starts = Vec::new();
        let mut running = BTreeSet::new();
        loop {
            let ends = running.first().map(|(at, _)| *at);
            let Some(now) = timetable.next().into_iter().chain(ends).min() else {
                break;
            };
            if now > from + time {
                break;
            }
            while let Some(id) = pop_until(&mut running, now) {
                timetable.done(id, now, true);
            }
            while let Some(id) = timetable.take_due(now) {
                starts.push((now, id));
                running.insert((now + took, id));
            }
        }
        starts
    }

    #[test]
    fn thousands_of_checks_are_spread_evenly_from_the_beginning_on() {
        for jitter in [0, 5, 50] {
            let mut timetable = Timetable::new(7);
            let begin = Instant::now();
            for id in 0..5000 {
                timetable.insert(id, pace(1000, jitter), begin);
            }
            let starts = run(&mut timetable, begin, 10_000 * MS, MS);
            let mut buckets = vec![0; 1001];
            for (at, _) in &starts {
                buckets[usize::try_from((*at - begin).as_millis() / 10).unwrap()] += 1;
            }
            // 50 in ten milliseconds on average; the first second has two rounds.
            let most = buckets[150..].iter().max();
            assert!(most <= Some(&100), "jitter {jitter}: {most:?}");
            let least = buckets[150..1000].iter().min();
            assert!(least >= Some(&15), "jitter {jitter}: {least:?}");
            assert!(
                starts.len() > 5000 * 10 && starts.len() < 5000 * 12,
                "{}",
                starts.len()
            );
        }
    }

    #[test]
    fn a_check_that_is_late_does_not_catch_up() {
        let mut timetable = Timetable::new(1);
        let begin = Instant::now();
        timetable.insert(1, pace(1000, 0), begin);
        let late = begin + 60_000 * MS;
        assert_eq!(timetable.take_due(late), Some(1));
        timetable.done(1, late, true);
        assert!(timetable.next().unwrap() >= late);
        let starts = run(&mut timetable, late, 10_000 * MS, MS);
        assert!((10..=11).contains(&starts.len()), "{}", starts.len());
    }

    #[test]
    fn what_is_not_settled_comes_again_soon() {
        let mut timetable = Timetable::new(1);
        let begin = Instant::now();
        timetable.insert(1, pace(1000, 5), begin);
        let now = timetable.next().unwrap();
        timetable.take_due(now);
        timetable.done(1, now + 10 * MS, false);
        assert_eq!(timetable.next(), Some(now + 260 * MS));
    }

    #[test]
    fn one_is_hurried_unless_it_runs() {
        let mut timetable = Timetable::new(1);
        let begin = Instant::now();
        timetable.insert(1, pace(1000, 0), begin);
        timetable.hurry(1, begin);
        assert_eq!(timetable.next(), Some(begin));
        assert_eq!(timetable.take_due(begin), Some(1));
        timetable.hurry(1, begin);
        assert_eq!(timetable.next(), None);
        timetable.remove(1);
        timetable.done(1, begin, true);
        timetable.hurry(1, begin);
        assert_eq!(timetable.next(), None, "it was removed while it ran");
        timetable.insert(2, pace(1000, 0), begin);
        timetable.insert(2, pace(100, 0), begin);
        assert_eq!(timetable.queue.len(), 1);
    }

    proptest! {
        #[test]
        fn each_check_keeps_its_pace(
            paces in proptest::collection::vec((100_u32..5000, 0_u8..=50), 1..50),
            took in 0_u32..50,
            seed: u64,
        ) {
            let mut timetable = Timetable::new(seed);
            let begin = Instant::now();
            for (id, &(interval, jitter)) in (0..).zip(&paces) {
                timetable.insert(id, pace(interval, jitter), begin);
            }
            let time = 500_000 * MS;
            let starts = run(&mut timetable, begin, time, took * MS);
            for (id, &(interval, _)) in (0..).zip(&paces) {
                let of_it: Vec<_> = starts.iter().filter(|(_, it)| *it == id).collect();
                let due = time.as_millis() / u128::from(interval);
                let count = of_it.len() as u128;
                // The early one, and one more at each end.
                prop_assert!(count + 3 >= due && count <= due + 3, "{count} of {due}");
                for pair in of_it.windows(2) {
                    prop_assert!(pair[1].0 - pair[0].0 >= took * MS, "no two at once");
                }
            }
        }
    }
}
