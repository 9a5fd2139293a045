//! Makes a state of results: a backend is up or down. No I/O, and the time is passed in.
//!
//! A state changes by so many equal results in a row; a single one that disagrees begins the count
//! anew. What goes down often stays down for longer and longer ([`Damping`]).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::config::{Damping, Judgement, Start};

/// Whether a backend is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Up,
    /// It is not.
    Down,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What is known of a backend before the first result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Nothing: it is what the config says until results say otherwise, and where that is down, one
    /// success is enough.
    Unproven,
    /// It was in use before: it stays so until results say otherwise.
    Assumed,
}

/// Downs beyond the free ones that are remembered: by then the hold is at its longest, whatever it was.
const DOUBLINGS: u32 = 32;

/// The state of one check.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Judgement,
    state: State,
    /// True until the first success, unless it began up.
    is_unproven: bool,
    /// The last result, and how many equal ones there were in a row.
    run: Option<(bool, u32)>,
    /// Failures in a row that the backend is to blame for.
    failures: u32,
    is_decided: bool,
    /// When it went down, within the window.
    downs: VecDeque<Instant>,
    held_until: Option<Instant>,
}

impl Judge {
    /// Begins.
    pub(super) fn new(rules: Judgement, begin: Begin) -> Self {
        let state = match (begin, rules.start) {
            (Begin::Assumed, _) | (_, Start::Up) => State::Up,
            (Begin::Unproven, Start::Down) => State::Down,
        };
        Self {
            rules,
            state,
            is_unproven: state == State::Down,
            run: None,
            failures: 0,
            is_decided: begin == Begin::Assumed,
            downs: VecDeque::new(),
            held_until: None,
        }
    }

    /// Whether results have said anything of the backend: it has succeeded, or failed often enough in a row
    /// while it could be reached. Until then its state is the one it began with, and says nothing.
    pub(super) fn is_decided(&self) -> bool {
        self.is_decided
    }

    /// Takes a result in, as far as it decides whether anything is known: see
    /// [`is_decided`](Self::is_decided). To be called before [`observe`](Self::observe).
    pub(super) fn weigh(&mut self, passed: bool, could_be_reached: bool) {
        self.failures = match (passed, could_be_reached) {
            (false, true) => self.failures.saturating_add(1),
            (_, _) => 0,
        };
        let is_enough = match self.run {
            _ if !passed => self.failures >= self.rules.fall,
            _ if self.is_unproven => true,
            Some((true, length)) => length.saturating_add(1) >= self.rules.rise,
            _ => self.rules.rise <= 1,
        };
        self.is_decided |= is_enough;
    }

    /// Takes a result in. Returns the state if it changes.
    pub(super) fn observe(&mut self, now: Instant, passed: bool) -> Option<State> {
        let length = match self.run {
            Some((last, length)) if last == passed => length.saturating_add(1),
            _ => 1,
        };
        self.run = Some((passed, length));
        match (self.state, passed) {
            (State::Up, false) if length >= self.rules.fall => {
                self.state = State::Down;
                self.hold(now);
            }
            (State::Down, true) if self.may_rise(now, length) => {
                self.state = State::Up;
                self.held_until = None;
            }
            _ => return None,
        }
        self.is_unproven = false;
        Some(self.state)
    }

    fn may_rise(&self, now: Instant, length: u32) -> bool {
        let is_held = self.held_until.is_some_and(|until| now < until);
        !is_held && (self.is_unproven || length >= self.rules.rise)
    }

    /// Notes that it went down, and holds it there if it did so too often. It comes up by the first
    /// result after that, as results come anyway.
    fn hold(&mut self, now: Instant) {
        let Some(Damping {
            free,
            hold,
            longest,
            window,
        }) = self.rules.damping
        else {
            return;
        };
        let is_old = |down: &Instant| now.saturating_duration_since(*down) >= window;
        while self.downs.front().is_some_and(is_old) {
            self.downs.pop_front();
        }
        self.downs.push_back(now);
        let downs = u32::try_from(self.downs.len()).unwrap_or(u32::MAX);
        if downs > free + DOUBLINGS {
            self.downs.pop_front();
        }
        self.held_until = downs
            .checked_sub(free + 1)
            .map(|doublings| now + held(hold, doublings.min(DOUBLINGS)).min(longest));
    }

    /// Until when it stays down, whatever the results; None where it is not held, or is up.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// False while the last result disagrees with the state, so that more results are of use soon.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        let is_held = self.held_until.is_some_and(|until| now < until);
        match (self.state, self.run) {
            (_, None) => true,
            // Others wait for the decision.
            (_, Some((passed, _))) if !self.is_decided => !passed && self.failures == 0,
            (State::Up, Some((passed, _))) => passed,
            (State::Down, Some((passed, _))) => !passed || is_held,
        }
    }
}

/// How long the hold is after so many doublings.
fn held(hold: Duration, doublings: u32) -> Duration {
    hold.saturating_mul(2_u32.saturating_pow(doublings))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(rise: u32, fall: u32, start: Start, damping: Option<Damping>) -> Judgement {
        Judgement {
            rise,
            fall,
            start,
            damping,
        }
    }

    /// The changes by results that come each second: `+` a success, `-` a failure.
    fn changes(judge: &mut Judge, from: Instant, results: &str) -> Vec<(usize, State)> {
        let times = (0..).map(|second| from + second * SECOND);
        let results = results.chars().zip(times).enumerate();
        results
            .filter_map(|(index, (result, now))| {
                let changed = judge.observe(now, result == '+');
                changed.map(|state| (index, state))
            })
            .collect()
    }

    fn of(begin: Begin, start: Start, results: &str) -> Vec<(usize, State)> {
        let mut judge = Judge::new(rules(2, 3, start, None), begin);
        changes(&mut judge, Instant::now(), results)
    }

    #[test]
    fn an_unproven_backend_comes_up_by_its_first_success() {
        use State::{Down, Up};
        assert_eq!(of(Begin::Unproven, Start::Down, "----+"), [(4, Up)]);
        assert_eq!(
            of(Begin::Unproven, Start::Down, "+---+-++"),
            [(0, Up), (3, Down), (7, Up)],
            "afterwards it takes as many as the others'"
        );
    }

    #[test]
    fn one_that_begins_up_goes_down_by_failures_in_a_row() {
        use State::Down;
        for (begin, start) in [
            (Begin::Unproven, Start::Up),
            (Begin::Assumed, Start::Down),
            (Begin::Assumed, Start::Up),
        ] {
            assert_eq!(of(begin, start, "--+---+-+"), [(5, Down)], "{begin:?}");
        }
    }

    #[test]
    fn a_decision_takes_a_rise_or_a_fall() {
        /// `+` a success, `-` a failure, `x` one while the backend could not be reached.
        fn decided_after(begin: Begin, start: Start, results: &str) -> Option<usize> {
            let mut judge = Judge::new(rules(2, 3, start, None), begin);
            if judge.is_decided() {
                return Some(0);
            }
            let mut now = Instant::now();
            for (index, result) in results.chars().enumerate() {
                judge.weigh(result == '+', result != 'x');
                judge.observe(now, result == '+');
                now += SECOND;
                if judge.is_decided() {
                    return Some(index + 1);
                }
            }
            None
        }
        for (start, results, expected) in [
            (Start::Down, "+", Some(1)),
            (Start::Down, "--", None),
            (Start::Down, "---", Some(3)),
            (Start::Down, "xxxxxx", None),
            (Start::Down, "xx---", Some(5)),
            (Start::Down, "--x--", None),
            (Start::Down, "--x+", Some(4)),
            (Start::Up, "+", None),
            (Start::Up, "++", Some(2)),
            (Start::Up, "+-+-+-", None),
            (Start::Up, "---", Some(3)),
        ] {
            let decided = decided_after(Begin::Unproven, start, results);
            assert_eq!(decided, expected, "{start:?} {results}");
        }
        assert_eq!(decided_after(Begin::Assumed, Start::Down, ""), Some(0));
    }

    #[test]
    fn what_disagrees_with_the_state_is_looked_at_soon() {
        let now = Instant::now();
        let mut judge = Judge::new(rules(2, 2, Start::Down, None), Begin::Assumed);
        let mut settled = |passed| {
            judge.observe(now, passed);
            judge.is_settled(now)
        };
        assert!(settled(true));
        assert!(!settled(false), "one failure");
        assert!(settled(false), "down");
        assert!(!settled(true), "one success");
        assert!(settled(true), "up");
    }

    #[test]
    fn what_keeps_going_down_is_held_for_longer_and_longer() {
        let damping = Damping {
            free: 2,
            hold: 10 * SECOND,
            longest: 30 * SECOND,
            window: 600 * SECOND,
        };
        let mut judge = Judge::new(rules(1, 1, Start::Down, Some(damping)), Begin::Assumed);
        let mut now = Instant::now();
        let mut holds = Vec::new();
        for _ in 0..6 {
            assert_eq!(judge.observe(now, false), Some(State::Down));
            let held = judge
                .held_until()
                .map_or(Duration::ZERO, |until| until - now);
            holds.push(held.as_secs());
            if !held.is_zero() {
                assert_eq!(judge.observe(now + held - SECOND, true), None);
                assert!(judge.is_settled(now + held - SECOND), "there is no hurry");
            }
            now += held;
            assert_eq!(judge.observe(now, true), Some(State::Up));
            assert_eq!(judge.held_until(), None);
            now += SECOND;
        }
        assert_eq!(holds, [0, 0, 10, 20, 30, 30]);
        now += 600 * SECOND;
        judge.observe(now, false);
        assert_eq!(judge.held_until(), None, "what is long ago does not count");
    }

    #[test]
    fn twenty_flaps_a_minute_are_a_few_changes_in_ten() {
        let damping = Some(Damping::default());
        let mut judge = Judge::new(rules(1, 1, Start::Down, damping), Begin::Assumed);
        let results = "-+".repeat(20 * 10 * 3 / 2);
        let changes = changes(&mut judge, Instant::now(), &results);
        // Two are free; then it is held for 10, 20, 40, 80, 160 and 300 seconds.
        assert_eq!(changes.len(), 2 * (2 + 6) - 1, "{changes:?}");
    }

    /// The same by remembering everything.
    struct Model {
        rules: Judgement,
        results: Vec<(Instant, bool)>,
        downs: Vec<Instant>,
        ups: usize,
        state: State,
        began: State,
    }

    impl Model {
        fn observe(&mut self, now: Instant, passed: bool) -> Option<State> {
            self.results.push((now, passed));
            let run = self
                .results
                .iter()
                .rev()
                .take_while(|(_, it)| *it == passed);
            let run = u32::try_from(run.count()).unwrap();
            let is_first = self.began == State::Down && self.ups == 0;
            if self.state == State::Up && !passed && run >= self.rules.fall {
                self.downs.push(now);
                self.state = State::Down;
                return Some(State::Down);
            }
            let rise = if is_first { 1 } else { self.rules.rise };
            if self.state == State::Down && passed && run >= rise && !self.is_held(now) {
                self.ups += 1;
                self.state = State::Up;
                return Some(State::Up);
            }
            None
        }

        fn is_held(&self, now: Instant) -> bool {
            let (Some(damping), Some(&last)) = (self.rules.damping, self.downs.last()) else {
                return false;
            };
            let counts = self
                .downs
                .iter()
                .filter(|down| last - **down < damping.window);
            let excess = u32::try_from(counts.count())
                .unwrap()
                .saturating_sub(damping.free);
            let factor = 2_f64.powi(i32::try_from(excess).unwrap() - 1);
            let hold = damping.hold.as_secs_f64() * factor;
            excess > 0 && (now - last).as_secs_f64() < hold.min(damping.longest.as_secs_f64())
        }
    }

    fn damping() -> impl Strategy<Value = Damping> {
        (0_u32..4, 1_u64..20, 0_u64..100, 1_u64..500).prop_map(|(free, hold, more, window)| {
            Damping {
                free,
                hold: Duration::from_secs(hold),
                longest: Duration::from_secs(hold + more),
                window: Duration::from_secs(window),
            }
        })
    }

    proptest! {
        #[test]
        fn judge_and_model_agree(
            (rise, fall, starts_up, is_assumed) in (1_u32..5, 1_u32..5, any::<bool>(), any::<bool>()),
            damping in proptest::option::of(damping()),
            results in proptest::collection::vec((any::<bool>(), 1_u64..10), 1..300),
        ) {
            let start = if starts_up { Start::Up } else { Start::Down };
            let begin = if is_assumed { Begin::Assumed } else { Begin::Unproven };
            let rules = rules(rise, fall, start, damping);
            let mut judge = Judge::new(rules, begin);
            let began = judge.state;
            let mut model = Model {
                rules, results: Vec::new(), downs: Vec::new(), ups: 0, state: began, began,
            };
            let mut now = Instant::now();
            for (passed, seconds) in results {
                now += Duration::from_secs(seconds);
                prop_assert_eq!(judge.observe(now, passed), model.observe(now, passed));
                prop_assert!(judge.downs.len() <= 5 + DOUBLINGS as usize);
            }
        }

        /// Between the k-th and the next down after the free ones lies the k-th hold, so that within a
        /// window there are no more than fit into it.
        #[test]
        fn downs_in_a_window_are_bounded(
            damping in damping(),
            results in proptest::collection::vec(any::<bool>(), 1..2000),
        ) {
            let mut judge = Judge::new(rules(1, 1, Start::Up, Some(damping)), Begin::Assumed);
            let begin = Instant::now();
            let mut downs = Vec::new();
            for (second, passed) in (0..).zip(results) {
                let now = begin + second * SECOND;
                if judge.observe(now, passed) == Some(State::Down) {
                    downs.push(now);
                }
            }
            let mut most = damping.free + 1;
            let mut taken = Duration::ZERO;
            for doublings in 0.. {
                taken += held(damping.hold, doublings).min(damping.longest);
                if taken >= damping.window {
                    break;
                }
                most += 1;
            }
            for (index, first) in downs.iter().enumerate() {
                let within = downs[index..].iter().filter(|down| **down - *first < damping.window);
                prop_assert!(within.count() <= most as usize);
            }
        }
    }
}
