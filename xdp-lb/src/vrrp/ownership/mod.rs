//! Who has the addresses: they are put on the interface and announced, and taken away again.
//!
//! One task does that, so that nobody waits for it. Addresses that were there before are left alone: what
//! may be ours is written to a file before it is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};
use tracing::{info, warn};

use self::{
    announcer::Announcer,
    plan::{Desired, Record, Spot, Step},
};
use super::VirtualAddress;
use crate::{
    json_file,
    netlink::{Editor, LinkMap},
};

mod announcer;
mod plan;

/// How long after a failure the same is tried again.
const RETRY: Duration = Duration::from_secs(1);

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
    /// Why it could not be brought there, or taken away.
    pub error: Option<String>,
}

/// Of a few names, that are told apart (FNV-1a).
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

type Board = Arc<Mutex<BTreeMap<(usize, VirtualAddress), Held>>>;

enum Command {
    Set(usize, Holding, Wanted),
    Forget(usize),
    AllKnown,
    Announce(usize),
    Flush(oneshot::Sender<()>),
}

/// Has addresses on interfaces, on a task of its own that ends with this.
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
    /// If no netlink socket can be had.
    pub fn start(record: PathBuf, links: watch::Receiver<LinkMap>) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let board = Board::default();
        let keeper = Keeper {
            commands: receiver,
            links,
            editor: Editor::new()?,
            record: load(&record),
            path: record,
            desired: Desired::new(),
            known: BTreeSet::new(),
            all_known: false,
            errors: BTreeMap::new(),
            retry: None,
            announcer: Announcer::default(),
            board: Arc::clone(&board),
        };
        tokio::spawn(keeper.run());
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

    /// Waits until all that was asked for is done, or has failed.
    pub async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        self.tell(Command::Flush(reply));
        let _ = done.await;
    }

    fn tell(&self, command: Command) {
        // The task lives as long as this.
        let _ = self.commands.send(command);
    }
}

fn load(path: &PathBuf) -> Record {
    match json_file::load(path) {
        Ok(record) => record.unwrap_or_default(),
        Err(error) => {
            let aside = path.with_extension("json.bad");
            let moved = fs::rename(path, &aside);
            warn!(
                file = %path.display(), %error, kept = moved.is_ok(),
                "addresses that an earlier daemon may have left are not known; look for them with `ip addr`"
            );
            Record::default()
        }
    }
}

/// The task.
struct Keeper {
    commands: mpsc::UnboundedReceiver<Command>,
    links: watch::Receiver<LinkMap>,
    editor: Editor,
    record: Record,
    path: PathBuf,
    desired: Desired,
    /// Addresses of which it is known whether they were there before.
    known: BTreeSet<Spot>,
    all_known: bool,
    /// What went wrong lately.
    errors: BTreeMap<Spot, String>,
    retry: Option<Instant>,
    announcer: Announcer,
    board: Board,
}

impl Keeper {
    async fn run(mut self) {
        // Before that, nobody knows what is there.
        if self
            .links
            .wait_for(|links| !links.is_empty())
            .await
            .is_err()
        {
            return;
        }
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            self.reconcile().await;
            for reply in waiting.drain(..) {
                // Who has asked may have gone meanwhile.
                let _ = reply.send(());
            }
            self.announcer
                .send_due(&self.desired, &self.current(), Instant::now());
            let next = self.announcer.due().into_iter().chain(self.retry).min();
            let due = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command, &mut waiting);
                    while let Ok(command) = self.commands.try_recv() {
                        self.obey(command, &mut waiting);
                    }
                }
                changed = self.links.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = due => {}
            }
        }
    }

    fn current(&self) -> LinkMap {
        Arc::clone(&self.links.borrow())
    }

    fn obey(&mut self, command: Command, waiting: &mut Vec<oneshot::Sender<()>>) {
        match command {
            Command::Set(id, holding, wanted) => {
                let before = self.desired.insert(id, (holding, wanted));
                let was_held = matches!(before, Some((_, Wanted::Held)));
                if wanted == Wanted::Held && !was_held {
                    self.announcer.begin(id, Instant::now());
                } else if wanted != Wanted::Held {
                    self.announcer.end(id);
                }
            }
            Command::Forget(id) => {
                self.desired.remove(&id);
                self.announcer.end(id);
            }
            Command::AllKnown => self.all_known = true,
            Command::Announce(id) => {
                if matches!(self.desired.get(&id), Some((_, Wanted::Held))) {
                    self.announcer.again(id, Instant::now());
                }
            }
            Command::Flush(reply) => waiting.push(reply),
        }
    }

    /// Makes things as they are to be.
    async fn reconcile(&mut self) {
        let now = Instant::now();
        let mut links = Arc::clone(&self.links.borrow_and_update());
        self.claim(&links);
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
        }
        let steps = plan::plan(&self.desired, &self.record, &links, self.all_known);
        for step in &steps {
            let done = self.take(step, &links).await;
            if let Step::Make(id) = step
                && let Some((holding, _)) = self.desired.get(id)
            {
                // Its number is needed for what follows.
                let device = holding.device();
                let is_made = |links: &LinkMap| links.contains_key(&device);
                let _ = tokio::time::timeout(RETRY, self.links.wait_for(is_made)).await;
                links = self.current();
            }
            self.note(step, done);
        }
        self.show(&steps);
        self.tidy();
    }

    /// Writes down what may be ours before it is touched.
    fn claim(&mut self, links: &LinkMap) {
        let spots: BTreeSet<Spot> = self
            .desired
            .values()
            .flat_map(|(it, _)| it.spots())
            .collect();
        self.known.retain(|spot| spots.contains(spot));
        let claims = plan::claims(&self.desired, links, &self.known);
        self.known.extend(spots);
        let Record { addresses, devices } = &mut self.record;
        let before = (addresses.len(), devices.len());
        addresses.extend(claims.addresses);
        devices.extend(claims.devices);
        if (addresses.len(), devices.len()) != before {
            self.save();
        }
    }

    /// Forgets what is gone and not wanted any more.
    fn tidy(&mut self) {
        let over = plan::over(&self.desired, &self.record, &self.current());
        if over != Record::default() {
            let Record { addresses, devices } = &mut self.record;
            addresses.retain(|spot| !over.addresses.contains(spot));
            devices.retain(|device| !over.devices.contains(device));
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = json_file::save(&self.path, &self.record) {
            let file = self.path.display();
            warn!(%file, %error, "which addresses are ours is not kept: after a crash they would stay");
        }
    }

    async fn take(&self, step: &Step, links: &LinkMap) -> io::Result<()> {
        let ifindex = |name: &str| match links.get(name) {
            Some(link) => Ok(link.ifindex),
            None => Err(io::Error::other(format!("there is no interface {name}"))),
        };
        match step {
            Step::Make(id) => {
                let Some((holding, _)) = self.desired.get(id) else {
                    return Ok(());
                };
                let device = holding.device();
                let parent = ifindex(&holding.interface)?;
                let mac = holding.mac().unwrap_or_default();
                self.editor.add_macvlan(&device, parent, mac).await?;
                set_up(&device, &holding.interface);
                self.editor.switch_on(&device).await
            }
            Step::Add(Spot { device, address }) => {
                let VirtualAddress { address, prefix } = *address;
                let ifindex = ifindex(device)?;
                self.editor.add_address(ifindex, address, prefix).await
            }
            Step::Remove(Spot { device, address }) => {
                let VirtualAddress { address, prefix } = *address;
                let ifindex = ifindex(device)?;
                self.editor.remove_address(ifindex, address, prefix).await
            }
            Step::Unmake(device) => self.editor.remove_link(ifindex(device)?).await,
        }
    }

    /// Takes note of what has become of a step.
    fn note(&mut self, step: &Step, done: io::Result<()>) {
        let (spots, what): (Vec<Spot>, _) = match step {
            Step::Add(spot) => (vec![spot.clone()], "added"),
            Step::Remove(spot) => (vec![spot.clone()], "removed"),
            Step::Make(id) => {
                let desired = self.desired.get(id).into_iter();
                (desired.flat_map(|(it, _)| it.spots()).collect(), "made")
            }
            Step::Unmake(device) => {
                return done.unwrap_or_else(|error| {
                    warn!(device, %error, "a device of a virtual MAC address stays");
                });
            }
        };
        match done {
            Ok(()) => {
                for spot in spots {
                    self.errors.remove(&spot);
                    info!(address = %spot.address, device = spot.device, "{what}");
                    if matches!(step, Step::Add(_)) {
                        self.announce(&spot);
                    }
                }
            }
            Err(error) => {
                let error = error.to_string();
                self.retry = Some(Instant::now() + RETRY);
                for spot in spots {
                    if self.errors.get(&spot) != Some(&error) {
                        let Spot { device, address } = &spot;
                        warn!(%address, device, error, "not {what}; it is tried again");
                        self.errors.insert(spot, error.clone());
                    }
                }
            }
        }
    }

    /// An address has come, or come back.
    fn announce(&mut self, spot: &Spot) {
        let now = Instant::now();
        for (&id, (holding, wanted)) in &self.desired {
            if *wanted == Wanted::Held && holding.spots().any(|its| its == *spot) {
                self.announcer.begin(id, now);
            }
        }
    }

    /// Shows others what is where, as far as it is known: `steps` have just been taken.
    fn show(&mut self, steps: &[Step]) {
        let links = self.current();
        let mut board = BTreeMap::new();
        for (&id, (holding, _)) in &self.desired {
            for spot in holding.spots() {
                let error = self.errors.get(&spot).cloned();
                let was = |step: &Step| steps.contains(step) && error.is_none();
                let is_held = was(&Step::Add(spot.clone()))
                    || plan::is_there(&links, &spot) && !was(&Step::Remove(spot.clone()));
                board.insert((id, spot.address), Held { is_held, error });
            }
        }
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = board;
    }
}

/// Has a device with a virtual MAC address answer for its own addresses alone, and its parent for its own:
/// either would answer for the other's. What the kernel does not have is not needed.
fn set_up(device: &str, parent: &str) {
    let settings = [
        // No addresses of its own making.
        (format!("ipv6/conf/{device}/addr_gen_mode"), "1"),
        (format!("ipv6/conf/{device}/accept_ra"), "0"),
        (format!("ipv4/conf/{device}/arp_ignore"), "1"),
        // Answers leave by the parent.
        (format!("ipv4/conf/{device}/rp_filter"), "0"),
        (format!("ipv4/conf/{parent}/arp_ignore"), "1"),
    ];
    for (key, value) in settings {
        if let Err(error) = fs::write(format!("/proc/sys/net/{key}"), value) {
            tracing::debug!(key, %error, "not set");
        }
    }
}
