//! Health checks: whether backends can serve, found out by asking them.
//!
//! `probe` asks once, over the network; `judge` makes a state of the answers, and `timetable` says when to
//! ask, both without I/O and with the time passed in; `runner` brings them together, on a thread of its own.
//! [`Checks`] is what the director has of all that: it says which checks it wants, reads their states, and
//! is woken when one changes.

mod cause;
mod judge;
pub mod probe;
mod runner;
mod status;
mod timetable;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    cause::{Cause, Kind},
    judge::{Begin, State},
    status::{Check, Circumstances, Event, Key, Outcome, Status},
};
use self::{
    judge::Judge,
    runner::{Command, Id, Runner},
    timetable::Timetable,
};
use crate::config::{HealthCheck, Start};

/// Reads how many packets with a mark were steered, if any are to be.
pub type Steered = Arc<dyn Fn(u32) -> Option<u64> + Send + Sync>;

/// Is told of backends that do not answer.
pub type Silent = Arc<dyn Fn(IpAddr) + Send + Sync>;

/// A check that is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// What it is.
    pub key: Key,
    /// What it needs besides.
    pub circumstances: Circumstances,
    /// Whether the backend is in use by now. Of importance to a check that is new only.
    pub is_in_use: bool,
}

/// All checks of a director.
pub struct Checks {
    checks: HashMap<Key, (Id, Arc<Check>)>,
    commands: mpsc::UnboundedSender<Command>,
    changed: watch::Receiver<u64>,
    next_id: Id,
}

impl Checks {
    /// Begins, with no check, on a thread that ends with what is returned.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the thread.
    pub fn new(at_once: u32) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, changed) = watch::channel(0);
        Runner::spawn(receiver, sender, room_for(at_once))?;
        Ok(Self {
            checks: HashMap::new(),
            commands,
            changed,
            next_id: 0,
        })
    }

    /// Runs so many at once at most, or as many as this process may have open files.
    pub fn set_at_once(&self, at_once: u32) {
        self.tell(Command::AtOnce(room_for(at_once)));
    }

    /// Has successes of steered checks doubted whose packets were not.
    pub fn set_steered(&self, steered: Steered) {
        self.tell(Command::Steered(steered));
    }

    /// Tells of each check that a backend does not answer.
    pub fn set_silent(&self, silent: Silent) {
        self.tell(Command::Silent(silent));
    }

    /// Runs these checks from now on, and no others. Those that go on keep their state.
    pub fn want(&mut self, wanted: Vec<Wanted>) {
        let keys: HashSet<&Key> = wanted.iter().map(|wanted| &wanted.key).collect();
        let gone: Vec<_> = self
            .checks
            .extract_if(|key, _| !keys.contains(key))
            .collect();
        for (_, (id, _)) in gone {
            self.tell(Command::Remove(id));
        }
        for Wanted {
            key,
            circumstances,
            is_in_use,
        } in wanted
        {
            match self.checks.get(&key) {
                Some((id, check)) => {
                    if check.set_circumstances(circumstances) && !check.is_decided() {
                        self.tell(Command::RunNow(*id));
                    }
                }
                None => self.add(key, circumstances, is_in_use),
            }
        }
    }

    fn add(&mut self, key: Key, circumstances: Circumstances, is_in_use: bool) {
        let begin = if is_in_use {
            Begin::Assumed
        } else {
            Begin::Unproven
        };
        let starts_up = is_in_use || key.check.judgement.start == Start::Up;
        let mut status = if starts_up {
            Status::new(State::Up, false)
        } else {
            Status::new(State::Down, true)
        };
        status.is_decided = is_in_use;
        let check = Arc::new(Check::new(key.clone(), circumstances, status));
        let id = self.next_id;
        self.next_id += 1;
        self.checks.insert(key, (id, Arc::clone(&check)));
        self.tell(Command::Add { id, check, begin });
    }

    /// What is known by a check.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Check>> {
        self.checks.get(key).map(|(_, check)| check)
    }

    /// All checks.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.checks.values().map(|(_, check)| check)
    }

    /// Waits for the next result of a check, which is run at once if `now`. The receiver fails if the check
    /// is not wanted any more.
    #[must_use]
    pub fn report(&self, key: &Key, now: bool) -> Option<oneshot::Receiver<Outcome>> {
        let (id, _) = self.checks.get(key)?;
        let (reply, outcome) = oneshot::channel();
        let id = *id;
        self.tell(Command::Report { id, now, reply });
        Some(outcome)
    }

    /// Waits until a state has changed since the last call.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The runner has ended, which it does with this.
            std::future::pending::<()>().await;
        }
    }

    fn tell(&self, command: Command) {
        // The runner lives as long as this.
        let _ = self.commands.send(command);
    }
}

/// As many checks at once as are asked for, but no more than there may be sockets.
fn room_for(at_once: u32) -> usize {
    use nix::sys::resource::{Resource, getrlimit};

    /// Files that the rest of the daemon has open.
    const OTHERS: u64 = 256;
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let room = files.saturating_sub(OTHERS).max(16);
    usize::try_from(room.min(at_once.into())).unwrap_or(usize::MAX)
}

/// Makes equal checks one, so that they can be compared by their place in memory.
#[derive(Debug, Default)]
pub struct Interned(HashSet<Arc<HealthCheck>>);

impl Interned {
    /// The one that is equal to `check`.
    pub fn intern(&mut self, check: &Arc<HealthCheck>) -> Arc<HealthCheck> {
        match self.0.get(check) {
            Some(known) => Arc::clone(known),
            None => {
                self.0.insert(Arc::clone(check));
                Arc::clone(check)
            }
        }
    }

    /// Forgets those that nobody else has.
    pub fn forget_unused(&mut self) {
        self.0.retain(|check| Arc::strong_count(check) > 1);
    }
}
