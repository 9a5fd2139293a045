//! What is known of one check: written by the runner, read by whoever wants to know.

use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{Cause, Kind, State, probe::Target};
use crate::config::{Forwarding, HealthCheck};

/// Changes of state that are remembered of each check.
const HISTORY: usize = 16;

/// What makes a check the same as another: it is run once, whichever services ask for it.
///
/// Checks are compared by their place in memory: whoever makes keys sees to it that equal ones are one
/// (see [`Interned`](super::Interned)).
#[derive(Clone, Debug)]
pub struct Key {
    /// What is asked.
    pub check: Arc<HealthCheck>,
    /// Whom.
    pub backend: IpAddr,
    /// How packets to the VIP get there; None where the backend's own address is asked.
    pub forwarding: Option<Forwarding>,
}

impl Key {
    fn parts(&self) -> (*const HealthCheck, IpAddr, Option<Forwarding>) {
        (Arc::as_ptr(&self.check), self.backend, self.forwarding)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// "http GET /healthz, port 80, via vip 192.0.2.10".
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.check.probe.fmt(f)?;
        if self.check.port != 0 {
            write!(f, ", port {}", self.check.port)?;
        }
        match self.check.vip_for(self.backend) {
            Some(vip) => write!(f, ", via vip {vip}"),
            None => f.write_str(", via backend"),
        }
    }
}

/// What a check needs besides, and what may change while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// Whom to ask, or why nobody can be asked.
    pub target: Result<Target, String>,
    /// The services that ask for it.
    pub services: Vec<String>,
    /// Whether there is a way to the backend: where there is none, a failure says nothing of the backend.
    pub is_reachable: bool,
}

/// A check that is run.
#[derive(Debug)]
pub struct Check {
    key: Key,
    is_up: AtomicBool,
    is_decided: AtomicBool,
    circumstances: Mutex<Arc<Circumstances>>,
    status: Mutex<Status>,
}

/// What is known of the backend by a check.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it is to be used.
    pub state: State,
    /// Since when; None: since before the daemon began.
    pub since: Option<Instant>,
    /// True until the first success, where it is down.
    pub is_unproven: bool,
    /// See [`Check::is_decided`].
    pub is_decided: bool,
    /// Until when it stays down, whatever the results: it went down too often.
    pub held_until: Option<Instant>,
    /// The last result; None: there is none yet.
    pub last: Option<Outcome>,
    /// The last failure.
    pub last_failure: Option<(SystemTime, Cause)>,
    /// Successes so far.
    pub passed: u64,
    /// Failures so far, in the order of [`Kind::ALL`].
    pub failed: [u64; Kind::ALL.len()],
    /// The last changes of state, the newest last.
    pub history: VecDeque<Event>,
}

/// A result.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it came.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What it was.
    pub result: Result<(), Cause>,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// To what.
    pub to: State,
    /// Why, if it went down.
    pub cause: Option<Cause>,
}

impl Check {
    pub(super) fn new(key: Key, circumstances: Circumstances, status: Status) -> Self {
        Self {
            key,
            is_up: AtomicBool::new(status.state == State::Up),
            is_decided: AtomicBool::new(status.is_decided),
            circumstances: Mutex::new(Arc::new(circumstances)),
            status: Mutex::new(status),
        }
    }

    /// What it is.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// True if the backend is to be used.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// True if results have said anything of the backend, or it was in use before.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.is_decided.load(Ordering::Relaxed)
    }

    /// What is known.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// True if the last result was a failure.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let status = self.lock();
        status
            .last
            .as_ref()
            .is_some_and(|last| last.result.is_err())
    }

    /// Since when the backend is up, if it came up under this daemon.
    #[must_use]
    pub fn up_since(&self) -> Option<Instant> {
        let status = self.lock();
        status.since.filter(|_| status.state == State::Up)
    }

    /// Why the backend is down, in words; empty if it is up.
    #[must_use]
    pub fn reason(&self) -> String {
        let status = self.lock();
        match (status.state, &status.last, &status.last_failure) {
            (State::Up, ..) => String::new(),
            (_, None, _) => "not checked yet".into(),
            (_, Some(Outcome { result: Ok(()), .. }), _) if status.held_until.is_some() => {
                "held down: it went down too often".into()
            }
            (_, _, Some((_, cause))) => cause.to_string(),
            (_, Some(_), None) => "not checked yet".into(),
        }
    }

    pub(super) fn circumstances(&self) -> Arc<Circumstances> {
        Arc::clone(&lock(&self.circumstances))
    }

    /// Returns whether the backend can be reached now, and could not before.
    pub(super) fn set_circumstances(&self, circumstances: Circumstances) -> bool {
        let mut held = lock(&self.circumstances);
        let is_news = circumstances.is_reachable && !held.is_reachable;
        if **held != circumstances {
            *held = Arc::new(circumstances);
        }
        is_news
    }

    /// Changes what is known.
    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.lock();
        change(&mut status);
        self.is_up
            .store(status.state == State::Up, Ordering::Relaxed);
        self.is_decided.store(status.is_decided, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    pub(super) fn new(state: State, is_unproven: bool) -> Self {
        Self {
            state,
            since: None,
            is_unproven,
            is_decided: false,
            held_until: None,
            last: None,
            last_failure: None,
            passed: 0,
            failed: [0; Kind::ALL.len()],
            history: VecDeque::new(),
        }
    }

    /// Notes a result.
    pub(super) fn count(&mut self, outcome: Outcome) {
        match &outcome.result {
            Ok(()) => self.passed += 1,
            Err(cause) => {
                self.failed[cause.kind as usize] += 1;
                self.last_failure = Some((SystemTime::now(), cause.clone()));
            }
        }
        self.last = Some(outcome);
    }

    /// Notes a change of state.
    pub(super) fn change(&mut self, to: State, now: Instant) {
        self.state = to;
        self.since = Some(now);
        self.is_unproven = false;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let failure = self.last_failure.as_ref();
        self.history.push_back(Event {
            at: SystemTime::now(),
            to,
            cause: failure
                .filter(|_| to == State::Down)
                .map(|(_, cause)| cause.clone()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_count_at_their_place() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{}", kind.name());
        }
    }

    #[test]
    fn only_the_last_changes_are_remembered() {
        let mut status = Status::new(State::Down, true);
        let now = Instant::now();
        for turn in 0..100 {
            let to = if turn % 2 == 0 {
                State::Up
            } else {
                State::Down
            };
            status.change(to, now);
        }
        assert_eq!(status.history.len(), HISTORY);
        assert_eq!(
            status.history.back().map(|event| event.to),
            Some(State::Down)
        );
    }
}
