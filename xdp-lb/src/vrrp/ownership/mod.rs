//! Who has the addresses: they are put on the interface and announced, and taken away again.
//!
//! One thread does that (`keeper`), so that nobody waits for it: a change of an interface waits for others
//! in the kernel, and a file for the disk, but an advertisement must not. Addresses that were there before are
//! left alone: what may be ours is written to a file before it is touched. `plan` decides what is to be done,
//! `announcer` when to tell of it, and `settings` has what else the kernel is told.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};

use self::{
    keeper::{Command, Keeper},
    plan::{Device, Spot},
};
use super::VirtualAddress;
use crate::netlink::LinkMap;

mod announcer;
mod keeper;
mod plan;
mod settings;

/// The addresses of one virtual router, and where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The interface that its packets come in by.
    pub interface: String,
    /// Virtual router identifier: 1..=255.
    pub vrid: u8,
    /// The family of its addresses.
    pub is_ipv6: bool,
    /// The addresses.
    pub addresses: Vec<VirtualAddress>,
    /// Whether they have a MAC address of their own (RFC 9568, section 7.3), and so a device.
    pub virtual_mac: bool,
}

impl Holding {
    /// The device that has the addresses.
    fn device(&self) -> String {
        if !self.virtual_mac {
            return self.interface.clone();
        }
        let family = if self.is_ipv6 { 6 } else { 4 };
        // A name has room for 15 bytes, of which these take up to seven.
        let place = match self.interface.len() {
            ..=8 => self.interface.clone(),
            _ => format!("{:08x}", fnv(self.interface.as_bytes())),
        };
        format!("v{family}-{}-{place}", self.vrid)
    }

    /// The device that is to be made for them.
    fn own_device(&self) -> Option<Device> {
        self.mac().map(|mac| Device {
            name: self.device(),
            parent: self.interface.clone(),
            mac,
            is_ipv6: self.is_ipv6,
        })
    }

    fn spots(&self) -> impl Iterator<Item = Spot> {
        let device = self.device();
        self.addresses.iter().map(move |&address| Spot {
            device: device.clone(),
            address,
        })
    }

    /// The MAC address of its own, if it has one.
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        let family = if self.is_ipv6 { 2 } else { 1 };
        self.virtual_mac
            .then_some([0x00, 0x00, 0x5e, 0x00, family, self.vrid])
    }
}

/// Where the addresses of a virtual router are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Where an earlier life has left them.
    AsFound,
    /// Here.
    Held,
    /// Not here.
    Released,
}

/// Whether an address is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// It is on its device.
    pub is_held: bool,
    /// Why it could not be brought there, or is not taken away.
    pub error: Option<String>,
}

/// Of a few names, that are told apart (FNV-1a).
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

type Board = Arc<Mutex<BTreeMap<(usize, VirtualAddress), Held>>>;

/// Has addresses on interfaces, on a thread of its own that ends with this.
#[derive(Debug)]
pub struct Ownership {
    commands: mpsc::UnboundedSender<Command>,
    board: Board,
}

impl Ownership {
    /// Begins; `record` is the file that says what earlier lives have left. One that cannot be read is told
    /// of and moved out of the way: to serve matters more than to tidy up.
    ///
    /// # Errors
    ///
    /// If no netlink socket or no thread can be had.
    pub fn start(record: PathBuf, links: watch::Receiver<LinkMap>) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let board = Board::default();
        Keeper::spawn(record, links, receiver, Arc::clone(&board))?;
        Ok(Self { commands, board })
    }

    /// Says where the addresses of a virtual router are to be from now on.
    pub fn set(&self, id: usize, holding: Holding, wanted: Wanted) {
        self.tell(Command::Set(id, holding, wanted));
    }

    /// There is no such virtual router any more.
    pub fn forget(&self, id: usize) {
        self.tell(Command::Forget(id));
    }

    /// All virtual routers have been [`set`](Self::set): what earlier lives have left for others goes.
    pub fn all_known(&self) {
        self.tell(Command::AllKnown);
    }

    /// Announces the addresses of a virtual router again, if it has them; once a second at most.
    pub fn announce(&self, id: usize) {
        self.tell(Command::Announce(id));
    }

    /// Which addresses are here.
    #[must_use]
    pub fn held(&self) -> BTreeMap<(usize, VirtualAddress), Held> {
        self.board
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until all that was asked for is done, or has failed. What is released then is forgotten, until
    /// it is [`set`](Self::set) again: others may put it there meanwhile.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        self.tell(Command::Flush(reply));
        let _ = done.await;
    }

    fn tell(&self, command: Command) {
        // The thread lives as long as this.
        let _ = self.commands.send(command);
    }
}
