//! The thread that puts addresses on interfaces, and takes them away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    time::{sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    Board, Held, Holding, Wanted,
    announcer::Announcer,
    plan::{self, Desired, Record, Spot, Step},
    settings,
};
use crate::{
    json_file,
    netlink::{Editor, LinkMap},
    vrrp::{VirtualAddress, runner::hurry},
};

/// How long after a failure the same is tried again; and how long netlink may take to tell of a change.
const RETRY: Duration = Duration::from_secs(1);

/// What the thread is told.
pub(super) enum Command {
    Set(usize, Holding, Wanted),
    Forget(usize),
    AllKnown,
    Announce(usize),
    Flush(oneshot::Sender<()>),
}

pub(super) struct Keeper {
    commands: mpsc::UnboundedReceiver<Command>,
    links: watch::Receiver<LinkMap>,
    editor: Editor,
    record: Record,
    path: PathBuf,
    desired: Desired,
    /// Addresses of which it is known whether they were there before.
    known: BTreeSet<Spot>,
    all_known: bool,
    /// Nothing has been wanted since others were to be done with: what is released is nobody's.
    is_over: bool,
    /// What went wrong lately.
    errors: BTreeMap<Step, String>,
    retry: Option<Instant>,
    announcer: Announcer,
    board: Board,
}

impl Keeper {
    /// Begins, on a thread that ends with the sender of commands.
    ///
    /// # Errors
    ///
    /// If no netlink socket or no thread can be had.
    pub(super) fn spawn(
        path: PathBuf,
        links: watch::Receiver<LinkMap>,
        commands: mpsc::UnboundedReceiver<Command>,
        board: Board,
    ) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keeper = {
            let _inside = runtime.enter();
            Self {
                commands,
                links,
                editor: Editor::new()?,
                record: load(&path),
                path,
                desired: Desired::new(),
                known: BTreeSet::new(),
                all_known: false,
                is_over: false,
                errors: BTreeMap::new(),
                retry: None,
                announcer: Announcer::default(),
                board,
            }
        };
        let thread = thread::Builder::new().name("vrrp-addresses".into());
        thread.spawn(move || {
            hurry();
            runtime.block_on(keeper.run());
        })?;
        Ok(())
    }

    async fn run(mut self) {
        // Before that, nobody knows what is there.
        let is_read = |links: &LinkMap| !links.is_empty();
        if self.links.wait_for(is_read).await.is_err() {
            return;
        }
        let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            self.reconcile().await;
            for reply in waiting.drain(..) {
                // Who has asked may have gone meanwhile.
                let _ = reply.send(());
            }
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

    fn obey(&mut self, command: Command, waiting: &mut Vec<oneshot::Sender<()>>) {
        match command {
            Command::Set(id, holding, wanted) => {
                self.is_over = false;
                let before = self.desired.insert(id, (holding, wanted));
                let was_held = matches!(before, Some((_, Wanted::Held)));
                if wanted != Wanted::Held {
                    self.announcer.end(id);
                } else if !was_held {
                    self.announcer.begin(id, Instant::now());
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
            Command::Flush(reply) => {
                self.is_over = true;
                waiting.push(reply);
            }
        }
    }

    /// Makes things as they are to be, and tells others of the link what is due.
    async fn reconcile(&mut self) {
        let mut links = Arc::clone(&self.links.borrow_and_update());
        if !self.is_over {
            self.look_for_others(&links);
        }
        let steps = plan::plan(&self.desired, &self.record, &links, self.all_known);
        self.claim(&plan::touched(&steps));
        let done = self.take_all(&steps, &mut links).await;
        self.show(&done, &links);
        self.announce(&done, &links);
        self.settle(done).await;
        self.tidy();
    }

    /// Takes what is not there for ours, before it is needed: a takeover is not to wait for the disk.
    fn look_for_others(&mut self, links: &LinkMap) {
        let desired = self.desired.values();
        let spots: BTreeSet<Spot> = desired.flat_map(|(it, _)| it.spots()).collect();
        self.known.retain(|spot| spots.contains(spot));
        let claims = plan::claims(&self.desired, &self.record, links, &self.known);
        self.known.extend(spots);
        self.claim(&claims);
    }

    /// Writes down what may be ours before it is touched.
    fn claim(&mut self, claims: &Record) {
        let Record { addresses, devices } = &mut self.record;
        let before = (addresses.len(), devices.len());
        addresses.extend(claims.addresses.iter().cloned());
        devices.extend(claims.devices.iter().cloned());
        if (addresses.len(), devices.len()) != before {
            self.save();
        }
    }

    /// Forgets what is gone and not wanted any more.
    fn tidy(&mut self) {
        let links = Arc::clone(&self.links.borrow());
        let over = plan::over(&self.desired, &self.record, &links, self.is_over);
        if over != Record::default() {
            let Record { addresses, devices } = &mut self.record;
            addresses.retain(|spot| !over.addresses.contains(spot));
            devices.retain(|device| !over.devices.contains(device));
            self.known.retain(|spot| !over.addresses.contains(spot));
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = json_file::save(&self.path, &self.record) {
            let file = self.path.display();
            warn!(%file, %error, "which addresses are ours is not kept: after a crash they would stay");
        }
    }

    /// Takes steps, tells what went wrong, and returns what did not.
    async fn take_all<'a>(&mut self, steps: &'a [Step], links: &mut LinkMap) -> Vec<&'a Step> {
        let mut done = Vec::with_capacity(steps.len());
        let mut errors = BTreeMap::new();
        for step in steps {
            if let Step::Add(Spot { device, .. }) = step
                && plan::error_of_device(&errors, device).is_some()
            {
                continue;
            }
            match self.take(step, links).await {
                Ok(()) => {
                    info!("{step}");
                    done.push(step);
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.errors.get(step) != Some(&error) {
                        warn!(error, "failed, and is tried again: {step}");
                    }
                    errors.insert(step.clone(), error);
                }
            }
            if let Step::Make(device) = step {
                // Its number is needed for what follows.
                let is_made = |links: &LinkMap| links.contains_key(&device.name);
                if done.last() == Some(&step) {
                    self.wait_for(is_made).await;
                }
                *links = Arc::clone(&self.links.borrow());
            }
        }
        self.retry = (!errors.is_empty()).then(|| Instant::now() + RETRY);
        self.errors = errors;
        done
    }

    async fn take(&self, step: &Step, links: &LinkMap) -> io::Result<()> {
        let ifindex = |name: &str| match links.get(name) {
            Some(link) => Ok(link.ifindex),
            None => Err(io::Error::other(format!("there is no interface {name}"))),
        };
        let editor = &self.editor;
        match step {
            Step::Make(device) => {
                let parent = ifindex(&device.parent)?;
                editor.add_macvlan(&device.name, parent, device.mac).await?;
                settings::tell_apart(&device.name, &device.parent, device.is_ipv6);
                editor.switch_on(&device.name).await
            }
            Step::SwitchOn(device) => editor.switch_on(device).await,
            Step::Add(Spot { device, address }) => {
                let VirtualAddress { address, prefix } = *address;
                editor.add_address(ifindex(device)?, address, prefix).await
            }
            Step::Remove(Spot { device, address }) => {
                let VirtualAddress { address, prefix } = *address;
                if address.is_ipv4() && prefix < 32 {
                    settings::keep_the_others(device);
                }
                let ifindex = ifindex(device)?;
                editor.remove_address(ifindex, address, prefix).await
            }
            Step::Unmake(device) => editor.remove_link(ifindex(device)?).await,
        }
    }

    /// Waits until netlink has told of what was done: what is decided next goes by that.
    async fn settle(&self, done: Vec<&Step>) {
        if !done.is_empty() {
            let is_told = |links: &LinkMap| done.iter().all(|step| step.is_visible(links));
            self.wait_for(is_told).await;
        }
    }

    /// Waits, but not for ever: somebody else may have undone it meanwhile.
    async fn wait_for(&self, condition: impl FnMut(&LinkMap) -> bool) {
        // Of a receiver of its own, so that this one still tells of all that has changed meanwhile.
        let mut links = self.links.clone();
        let _ = timeout(RETRY, links.wait_for(condition)).await;
    }

    /// Shows others what is where: `done` has just been done.
    fn show(&mut self, done: &[&Step], links: &LinkMap) {
        let done: BTreeSet<&Step> = done.iter().copied().collect();
        let mut board = BTreeMap::new();
        for (&id, (holding, wanted)) in &self.desired {
            for spot in holding.spots() {
                let address = spot.address;
                let (add, remove) = (Step::Add(spot.clone()), Step::Remove(spot.clone()));
                let unmake = Step::Unmake(spot.device.clone());
                let is_gone = done.contains(&remove) || done.contains(&unmake);
                let is_there = plan::is_there(links, &spot) && !is_gone;
                let is_held = is_there || done.contains(&add);
                let error = [&add, &remove]
                    .into_iter()
                    .find_map(|step| self.errors.get(step))
                    .or_else(|| plan::error_of_device(&self.errors, &spot.device))
                    .cloned();
                let stays = *wanted == Wanted::Released && is_held && !self.record.has(&spot);
                let left_alone = || "was there before, and is left alone".to_owned();
                let error = error.or_else(|| stays.then(left_alone));
                board.insert((id, address), Held { is_held, error });
            }
        }
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) = board;
    }

    /// Announces what has come or come back, what is elsewhere now, and what is due.
    fn announce(&mut self, done: &[&Step], links: &LinkMap) {
        let now = Instant::now();
        let added: BTreeSet<&Spot> = done.iter().filter_map(|step| step.added()).collect();
        for (&id, (holding, wanted)) in &self.desired {
            if *wanted != Wanted::Held {
                continue;
            }
            if !added.is_empty() && holding.spots().any(|spot| added.contains(&spot)) {
                self.announcer.begin(id, now);
            }
            if let Some(link) = links.get(&holding.interface) {
                let mac = holding.mac().unwrap_or(link.mac);
                self.announcer.is_at(id, mac, now);
            }
        }
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let is_held = |id, address| board.get(&(id, address)).is_some_and(|it| it.is_held);
        self.announcer.send_due(&self.desired, links, &is_held, now);
    }
}

fn load(path: &Path) -> Record {
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
