//! The thread that runs checks: when `timetable` says so, and no more at once than allowed.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};
use tracing::{info, warn};

use super::{Begin, Cause, Check, Judge, Kind, Outcome, Silent, State, Steered, Timetable, probe};

/// Results that are looked at together.
const CROWD: usize = 256;

/// How long a shortage is not told of again.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// What a check is called; never used again.
pub(super) type Id = u64;

/// What the runner is told.
pub(super) enum Command {
    /// Run this check from now on.
    Add {
        id: Id,
        check: Arc<Check>,
        begin: Begin,
    },
    /// Do not run it any more.
    Remove(Id),
    /// Tell of the next result, and hurry if asked to.
    Report {
        id: Id,
        now: bool,
        reply: oneshot::Sender<Outcome>,
    },
    /// Run this check at once.
    RunNow(Id),
    /// Run so many at once at most.
    AtOnce(usize),
    /// Where to read how many packets were steered.
    Steered(Steered),
    /// Whom to tell of backends that do not answer.
    Silent(Silent),
}

struct Running {
    check: Arc<Check>,
    judge: Judge,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

struct Done {
    id: Id,
    outcome: Outcome,
    /// Whether there was a way to the backend, as far as is known.
    could_be_reached: bool,
}

pub(super) struct Runner {
    commands: mpsc::UnboundedReceiver<Command>,
    results: mpsc::UnboundedReceiver<Done>,
    report: mpsc::UnboundedSender<Done>,
    changed: watch::Sender<u64>,
    timetable: Timetable,
    checks: HashMap<Id, Running>,
    steered: Option<Steered>,
    silent: Option<Silent>,
    at_once: usize,
    in_flight: usize,
    warned: Option<Instant>,
}

impl Runner {
    /// Begins to run checks, on a thread of its own that ends with the sender of commands. One thread is
    /// enough for all of them, and costs less than waking others for each.
    ///
    /// # Errors
    ///
    /// If there can be no thread, or nothing to wait for sockets with.
    pub(super) fn spawn(
        commands: mpsc::UnboundedReceiver<Command>,
        changed: watch::Sender<u64>,
        at_once: usize,
    ) -> io::Result<()> {
        let (report, results) = mpsc::unbounded_channel();
        let runner = Self {
            commands,
            results,
            report,
            changed,
            timetable: Timetable::new(seed()),
            checks: HashMap::new(),
            steered: None,
            silent: None,
            at_once,
            in_flight: 0,
            warned: None,
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("health".into())
            .spawn(move || runtime.block_on(runner.run()))?;
        Ok(())
    }

    async fn run(mut self) {
        let mut done = Vec::with_capacity(CROWD);
        loop {
            let has_room = self.in_flight < self.at_once;
            let next = self.timetable.next().filter(|_| has_room);
            let due = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = self.results.recv_many(&mut done, CROWD) => {
                    let now = Instant::now();
                    let has_changed = done.drain(..).fold(false, |any, done| self.finish(done, now) | any);
                    if has_changed {
                        self.changed.send_modify(|changes| *changes += 1);
                    }
                }
                () = due => self.start_due(Instant::now()),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Add { id, check, begin } => {
                let described = &check.key().check;
                self.timetable.insert(id, described.pace, now);
                let judge = Judge::new(described.judgement, begin);
                let running = Running {
                    check,
                    judge,
                    waiting: Vec::new(),
                };
                self.checks.insert(id, running);
            }
            Command::Remove(id) => {
                self.timetable.remove(id);
                self.checks.remove(&id);
            }
            Command::Report {
                id,
                now: hurry,
                reply,
            } => {
                if let Some(running) = self.checks.get_mut(&id) {
                    running.waiting.push(reply);
                    if hurry {
                        self.timetable.hurry(id, now);
                    }
                }
            }
            Command::RunNow(id) => self.timetable.hurry(id, now),
            Command::AtOnce(at_once) => self.at_once = at_once,
            Command::Steered(steered) => self.steered = Some(steered),
            Command::Silent(silent) => self.silent = Some(silent),
        }
    }

    fn start_due(&mut self, now: Instant) {
        while self.in_flight < self.at_once {
            let Some(id) = self.timetable.take_due(now) else {
                return;
            };
            self.start(id);
        }
        if self.timetable.next().is_some_and(|next| next <= now) {
            let at_once = self.at_once;
            self.warn_sometimes(now, || {
                warn!(
                    at_once,
                    "health checks are late: too many are waiting for answers; raise \
                     `health.at_once`, or make intervals longer or timeouts shorter"
                );
            });
        }
    }

    fn start(&mut self, id: Id) {
        let Some(running) = self.checks.get(&id) else {
            return;
        };
        let check = Arc::clone(&running.check);
        let steered = self.steered.clone();
        let report = self.report.clone();
        self.in_flight += 1;
        tokio::spawn(async move {
            let could_be_reached = check.circumstances().is_reachable;
            let outcome = ask(&check, steered).await;
            // The runner is gone when the daemon ends.
            let _ = report.send(Done {
                id,
                outcome,
                could_be_reached,
            });
        });
    }

    /// Takes a result in. True if it changed a state, or decided one.
    fn finish(&mut self, done: Done, now: Instant) -> bool {
        let Done {
            id,
            outcome,
            could_be_reached,
        } = done;
        self.in_flight -= 1;
        let Some(running) = self.checks.get_mut(&id) else {
            return false;
        };
        if let (Err(cause), Some(silent)) = (&outcome.result, &self.silent)
            && matches!(cause.kind, Kind::Timeout | Kind::Unreachable)
        {
            silent(running.check.key().backend);
        }
        // What this host lacks tells nothing about the backend.
        let local = match &outcome.result {
            Err(cause) if cause.kind == Kind::Local => Some(cause.clone()),
            _ => None,
        };
        let was_decided = running.judge.is_decided();
        let transition = match local {
            Some(_) => None,
            None => {
                let passed = outcome.result.is_ok();
                running.judge.weigh(passed, could_be_reached);
                running.judge.observe(now, passed)
            }
        };
        let is_news = running.judge.is_decided() && !was_decided;
        self.timetable.done(id, now, running.judge.is_settled(now));
        note(running, outcome.clone(), transition, now);
        // Who has waited finds the state as the result has made it.
        for reply in running.waiting.drain(..) {
            let _ = reply.send(outcome.clone());
        }
        if let Some(cause) = local {
            let check = Arc::clone(&running.check);
            self.warn_sometimes(now, || {
                warn!(
                    backend = %check.key().backend, check = %check.key(), %cause,
                    "a health check could not be made; the backend's state stays as it is"
                );
            });
        }
        transition.is_some() || is_news
    }

    fn warn_sometimes(&mut self, now: Instant, warn: impl FnOnce()) {
        let is_soon = |warned: Instant| now.duration_since(warned) < BETWEEN_WARNINGS;
        if !self.warned.is_some_and(is_soon) {
            self.warned = Some(now);
            warn();
        }
    }
}

/// Different for each daemon, so that directors do not all check at the same moments.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(std::process::id())
}

/// Runs a check once.
async fn ask(check: &Check, steered: Option<Steered>) -> Outcome {
    let circumstances = check.circumstances();
    let target = match &circumstances.target {
        Ok(target) => target,
        Err(reason) => {
            return outcome(
                Err(Cause::new(Kind::Unreachable, reason.clone())),
                Duration::ZERO,
            );
        }
    };
    let packets = |mark| steered.as_ref().and_then(|steered| steered(mark));
    let before = target.mark.and_then(packets);
    let (mut result, took) = probe::run_in_time(&check.key().check, target).await;
    let after = target.mark.and_then(packets);
    let went_its_way = target.mark.is_none() || after.is_some() && after != before;
    if result.is_ok() && !went_its_way {
        let reason = "its packets left by an interface that is not among `interfaces`";
        result = Err(Cause::new(Kind::Unreachable, reason));
    }
    outcome(result, took)
}

fn outcome(result: Result<(), Cause>, took: Duration) -> Outcome {
    Outcome {
        at: Instant::now(),
        took,
        result,
    }
}

/// Writes a result down where others read it, and a change of state into the log.
fn note(running: &Running, outcome: Outcome, transition: Option<State>, now: Instant) {
    let Running { check, judge, .. } = running;
    let cause = outcome.result.as_ref().err().cloned();
    let mut is_first = false;
    check.update(|status| {
        is_first = status.last.is_none();
        status.count(outcome);
        status.held_until = judge.held_until();
        status.is_decided = judge.is_decided();
        if let Some(to) = transition {
            status.change(to, now);
        }
    });
    if transition.is_none() && !is_first {
        return;
    }
    let key = check.key();
    let circumstances = check.circumstances();
    let services = circumstances.services.join(", ");
    match (transition, cause) {
        (Some(State::Down), Some(cause)) => match judge.held_until() {
            Some(until) => {
                let held = humane(until.saturating_duration_since(now));
                warn!(backend = %key.backend, %services, check = %key, %cause, %held, "down, again");
            }
            None => warn!(backend = %key.backend, %services, check = %key, %cause, "down"),
        },
        (Some(_), _) => info!(backend = %key.backend, %services, check = %key, "up"),
        (None, Some(cause)) if is_first && !check.is_up() => {
            warn!(backend = %key.backend, %services, check = %key, %cause, "not up yet");
        }
        (None, _) => {}
    }
}

fn humane(time: Duration) -> String {
    format!("{}s", time.as_secs().max(1))
}
