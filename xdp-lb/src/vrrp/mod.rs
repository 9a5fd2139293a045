//! The Virtual Router Redundancy Protocol, version 3 (RFC 9568): which of several directors has the VIPs.
//!
//! [`packet`] is how an advertisement looks; [`machine`] decides what a virtual router does, [`group`] what
//! several do that fail over together, and [`priority`] with which priority. All four are without I/O, and
//! the time is passed in. `router` and `team` carry the decisions out: `sender` and `receiver` exchange
//! advertisements, [`ownership`] has the addresses on the interface or not. `runner` is the thread that all
//! of it runs on, and [`Vrrp`] what others have of it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::{adjust::Change, priority::Share};
use self::{
    runner::{Command, Runner},
    view::VrrpView,
};
use crate::{config::VirtualRouter, director::ChangeError};

mod adjust;
pub mod announce;
pub mod counters;
mod filter;
mod gateways;
pub mod group;
mod link_socket;
mod listeners;
pub mod machine;
mod notify;
pub mod ownership;
pub mod packet;
pub mod priority;
mod receiver;
mod report;
mod router;
mod runner;
mod sender;
mod team;
pub mod view;

/// How many backends of each service can serve.
pub type Shares = Arc<BTreeMap<String, Share>>;

/// An address that the active router has on its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits: up to 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}

/// VRRP at work, on a thread of its own. Cheap to clone; the thread leaves, and ends, with the last one.
#[derive(Clone, Debug)]
pub struct Vrrp {
    commands: mpsc::UnboundedSender<Command>,
    shares: Arc<watch::Sender<Shares>>,
    obstacle: Arc<watch::Sender<Option<String>>>,
    pulse: Arc<Pulse>,
}

impl Vrrp {
    /// Begins, without a virtual router.
    ///
    /// # Errors
    ///
    /// If the kernel refuses something, or a file of the state directory cannot be read.
    pub fn start(state: &Path) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (shares, told) = watch::channel(Shares::default());
        let (obstacle, obstacle_told) = watch::channel(None);
        let pulse = Arc::new(Pulse::new());
        let director = Told {
            shares: told,
            obstacle: obstacle_told,
            pulse: Arc::clone(&pulse),
        };
        Runner::spawn(state, receiver, director)?;
        Ok(Self {
            commands,
            shares: Arc::new(shares),
            obstacle: Arc::new(obstacle),
            pulse,
        })
    }

    /// Runs these virtual routers from now on, and no others. Those that are the same as before go on.
    pub async fn want(&self, entries: Vec<VirtualRouter>) {
        // The runner lives as long as this.
        let _ = self.ask(|reply| Command::Want(entries, reply)).await;
    }

    /// Tells how many backends of each service can serve.
    pub fn set_shares(&self, shares: BTreeMap<String, Share>) {
        self.shares.send_if_modified(|told| {
            let differs = **told != shares;
            if differs {
                *told = Arc::new(shares);
            }
            differs
        });
    }

    /// Tells why this host cannot forward packets, if it cannot: then no virtual router takes part.
    pub fn set_obstacle(&self, obstacle: Option<String>) {
        self.obstacle.send_if_modified(|told| {
            let differs = *told != obstacle;
            *told = obstacle;
            differs
        });
    }

    /// Says that the director's task is alive.
    pub fn beat(&self) {
        self.pulse.beat();
    }

    /// How all virtual routers are.
    pub async fn views(&self) -> Vec<VrrpView> {
        self.ask(Command::View).await.unwrap_or_default()
    }

    /// Changes an entry by hand; in force when this returns, and after a restart.
    ///
    /// # Errors
    ///
    /// If there is no such entry, or the change cannot be kept; then nothing has changed.
    pub async fn change(&self, name: String, change: Change) -> Result<(), ChangeError> {
        let changed = self.ask(|reply| Command::Change {
            name,
            change,
            reply,
        });
        let gone = || Err(ChangeError::Refused("the daemon is stopping".into()));
        changed.await.unwrap_or_else(gone)
    }

    /// Takes part no more: others have been told, and the addresses are given up when this returns. If
    /// `patiently`, others have taken over by then, or should have.
    pub async fn leave(&self, patiently: bool) {
        let _ = self.ask(|reply| Command::Leave { patiently, reply }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).ok()?;
        answer.await.ok()
    }
}

/// What the director tells.
pub(super) struct Told {
    shares: watch::Receiver<Shares>,
    /// Why this host cannot forward packets, if it cannot.
    obstacle: watch::Receiver<Option<String>>,
    pulse: Arc<Pulse>,
}

/// Tells whether the director's task is alive.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: Mutex<Instant>,
    did_beat: AtomicBool,
}

impl Pulse {
    fn new() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
            did_beat: AtomicBool::new(true),
        }
    }

    fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the last beat is not longer ago than this.
    fn beats(&self, patience: Duration) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() <= patience
    }

    /// Whether that is otherwise than at the last call.
    fn has_turned(&self, patience: Duration) -> bool {
        let beats = self.beats(patience);
        self.did_beat.swap(beats, Ordering::Relaxed) != beats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_that_stops_is_noticed_once() {
        let pulse = Pulse::new();
        let patience = Duration::from_millis(20);
        pulse.beat();
        assert!(!pulse.has_turned(Duration::from_secs(60)));
        std::thread::sleep(patience * 2);
        assert!(!pulse.beats(patience));
        assert!(pulse.has_turned(patience));
        assert!(!pulse.has_turned(patience));
        pulse.beat();
        assert!(pulse.has_turned(Duration::from_secs(60)));
    }
}
