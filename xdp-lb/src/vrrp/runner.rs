//! The thread that VRRP runs on: nothing else keeps it from advertising in time.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    time::{sleep, sleep_until},
};
use tracing::{debug, warn};

use super::{
    Told,
    adjust::{Adjustments, Change},
    counters::Count,
    gateways::Gateways,
    listeners::{Arrived, Listeners, QUEUE},
    ownership::Ownership,
    report,
    team::{Team, World},
    view::VrrpView,
};
use crate::{
    config::VirtualRouter,
    director::ChangeError,
    netlink::{self, LinkMap},
};

/// How long the director's task may say nothing before it is taken to hang: longer than the largest tables
/// take to be built.
const HANGS: Duration = Duration::from_secs(30);

/// How often it is looked whether the director's task hangs.
const LOOK: Duration = Duration::from_secs(1);

/// Who wakes so long after the time hears what has come meanwhile, before it takes others for dead.
const OVERSLEPT: Duration = Duration::from_millis(20);

/// How long a new active router takes to have its addresses and to announce them, with room to spare.
const SETTLES: Duration = Duration::from_millis(200);

/// What the runner is told.
pub(super) enum Command {
    /// Run these from now on.
    Want(Vec<VirtualRouter>, oneshot::Sender<()>),
    /// Tell how things are.
    View(oneshot::Sender<Vec<VrrpView>>),
    /// Change an entry by hand.
    Change {
        name: String,
        change: Change,
        reply: oneshot::Sender<Result<(), ChangeError>>,
    },
    /// Take part no more. If `patiently`, tell of it once others have taken over, or should have.
    Leave {
        patiently: bool,
        reply: oneshot::Sender<()>,
    },
}

/// Somebody who waits until others have taken over.
struct Leaving {
    until: Instant,
    /// Whether they say that they have.
    has_successor: bool,
    reply: oneshot::Sender<()>,
}

pub(super) struct Runner {
    commands: mpsc::UnboundedReceiver<Command>,
    packets: mpsc::Receiver<Arrived>,
    links: watch::Receiver<LinkMap>,
    director: Told,
    ownership: Ownership,
    adjustments: Adjustments,
    gateways: Gateways,
    teams: Vec<Team>,
    listeners: Listeners,
    all_vips: BTreeSet<IpAddr>,
    /// The addresses of this host.
    own: BTreeSet<IpAddr>,
    next_id: usize,
    leaving: Option<Leaving>,
    has_left: bool,
}

impl Runner {
    /// Begins, without a virtual router, on a thread that ends with the sender of commands.
    ///
    /// # Errors
    ///
    /// If the kernel refuses something, or a file of the state directory cannot be read.
    pub(super) fn spawn(
        state: &Path,
        commands: mpsc::UnboundedReceiver<Command>,
        director: Told,
    ) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let runner = {
            let _inside = runtime.enter();
            let (arrived, packets) = mpsc::channel(QUEUE);
            let links = netlink::follow_links()?;
            Self {
                commands,
                packets,
                links: links.clone(),
                director,
                ownership: Ownership::start(state.join("vips.json"), links)?,
                adjustments: Adjustments::load(state)?,
                gateways: Gateways::default(),
                teams: Vec::new(),
                listeners: Listeners::new(arrived),
                all_vips: BTreeSet::new(),
                own: BTreeSet::new(),
                next_id: 0,
                leaving: None,
                has_left: false,
            }
        };
        let thread = thread::Builder::new().name("vrrp".into());
        thread.spawn(move || {
            hurry();
            runtime.block_on(runner.run());
        })?;
        Ok(())
    }

    async fn run(mut self) {
        let mut arrived = Vec::with_capacity(QUEUE);
        loop {
            let now = Instant::now();
            self.tick(now);
            let next = self.due(now);
            let due = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let due_at = self.teams.iter().filter_map(Team::due).min();
            tokio::select! {
                count = self.packets.recv_many(&mut arrived, QUEUE) => {
                    debug_assert!(count > 0, "the runner has a sender itself");
                    self.hear(&mut arrived);
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => {
                        self.leave("the daemon ends", Instant::now());
                        return self.ownership.flush().await;
                    }
                },
                changed = self.links.changed() => {
                    if changed.is_err() {
                        warn!("interfaces are no longer followed: the netlink task has ended");
                        sleep(LOOK).await;
                    }
                    self.consider(Instant::now());
                }
                _ = self.director.shares.changed() => self.consider(Instant::now()),
                _ = self.director.obstacle.changed() => self.consider(Instant::now()),
                () = self.gateways.changed() => self.consider(Instant::now()),
                () = due => {}
            }
            let is_late = |at: Instant| Instant::now().duration_since(at) > OVERSLEPT;
            if due_at.is_some_and(is_late) {
                // This process or the machine was halted: others may have spoken meanwhile.
                sleep(Duration::from_millis(1)).await;
                while let Ok(packet) = self.packets.try_recv() {
                    arrived.push(packet);
                    self.hear(&mut arrived);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        let look = (!self.teams.is_empty()).then(|| now + LOOK);
        let teams = self.teams.iter();
        teams
            .flat_map(|team| [team.due(), team.reconsider_at()])
            .flatten()
            .chain(look)
            .chain(self.leaving.as_ref().map(|leaving| leaving.until))
            .min()
    }

    fn tick(&mut self, now: Instant) {
        for team in &mut self.teams {
            team.tick(&self.ownership, now);
        }
        let reconsiders = |team: &Team| team.reconsider_at().is_some_and(|at| at <= now);
        if self.director.pulse.has_turned(HANGS) || self.teams.iter().any(reconsiders) {
            self.consider(now);
        }
        if let Some(leaving) = &mut self.leaving
            && !leaving.has_successor
            && self.teams.iter().all(Team::has_successor)
        {
            // It says so before it has the addresses, and before others have heard of that.
            leaving.has_successor = true;
            leaving.until = leaving.until.min(now + SETTLES);
        }
        if let Some(leaving) = self.leaving.take_if(|leaving| leaving.until <= now) {
            // Who has asked may have gone meanwhile.
            let _ = leaving.reply.send(());
        }
    }

    async fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Want(entries, reply) => {
                self.want(entries, now);
                let _ = reply.send(());
            }
            Command::View(reply) => {
                let held = self.ownership.held();
                let adjustment = |name: &str| self.adjustments.get(name);
                let _ = reply.send(report::views(&self.teams, &held, adjustment, now));
            }
            Command::Change {
                name,
                change,
                reply,
            } => {
                let changed = self.change(&name, change);
                self.consider(now);
                let _ = reply.send(changed);
            }
            Command::Leave { patiently, reply } => {
                let until = self.leave("the daemon stops", now);
                self.ownership.flush().await;
                match until.filter(|_| patiently) {
                    Some(until) => {
                        self.leaving = Some(Leaving {
                            until,
                            has_successor: false,
                            reply,
                        });
                    }
                    None => drop(reply.send(())),
                }
            }
        }
    }

    /// Runs these virtual routers. Those that are the same as before go on.
    fn want(&mut self, entries: Vec<VirtualRouter>, now: Instant) {
        self.has_left = false;
        let vips = entries.iter().flat_map(|entry| &entry.vips);
        self.all_vips = vips.map(|vip| vip.address).collect();
        if let Err(error) = self
            .gateways
            .want(entries.iter().flat_map(|entry| &entry.track.gateways))
        {
            warn!(%error, "gateways are not pinged");
        }
        let mut before = std::mem::take(&mut self.teams);
        for entries in by_group(entries) {
            let known = before.iter().position(|team| team.is_made_of(&entries));
            let team = match known.map(|at| before.swap_remove(at)) {
                Some(mut team) => {
                    team.set_entries(&entries);
                    team
                }
                None => Team::new(&entries, &mut next_ids(&mut self.next_id), now),
            };
            self.teams.push(team);
        }
        for mut team in before {
            team.leave("it is not in the config any more", &self.ownership, now);
            for router in &team.routers {
                self.ownership.forget(router.id());
            }
        }
        self.consider(now);
        self.ownership.all_known();
    }

    /// Has every virtual router look at the world again.
    fn consider(&mut self, now: Instant) {
        let links = Arc::clone(&self.links.borrow_and_update());
        let shares = Arc::clone(&self.director.shares.borrow_and_update());
        let obstacle = self.director.obstacle.borrow_and_update().clone();
        let addresses = links.values().flat_map(|link| &link.addresses);
        self.own = addresses.map(|known| known.address).collect();
        let routers = self.teams.iter().flat_map(|team| &team.routers);
        self.listeners.listen_for(routers, &links);
        if self.has_left {
            return;
        }
        let gateways = &self.gateways;
        let adjustments = &self.adjustments;
        let world = World {
            links: &links,
            all_vips: &self.all_vips,
            shares: &shares,
            answers: &|gateway| gateways.answers(gateway),
            adjustment: &|name| adjustments.get(name),
            trouble: (!self.director.pulse.beats(HANGS)).then_some("the director's task hangs"),
            obstacle: obstacle.as_deref(),
        };
        for team in &mut self.teams {
            team.consider(&world, &self.ownership, now);
        }
    }

    fn hear(&mut self, arrived: &mut Vec<Arrived>) {
        let now = Instant::now();
        for Arrived {
            interface,
            is_ipv6,
            received,
        } in arrived.drain(..)
        {
            let vrid = received.message.get(1).copied();
            let mut is_ours = false;
            for team in &mut self.teams {
                let ours = |router: &super::router::Router| {
                    Some(router.entry.vrid) == vrid
                        && router.is_ipv6 == is_ipv6
                        && *router.entry.interface == *interface
                };
                if let Some(member) = team.routers.iter().position(ours) {
                    team.hear(member, &received, &self.own, &self.ownership, now);
                    is_ours = true;
                }
            }
            if !is_ours {
                let count = if vrid.is_some() {
                    Count::OtherRouter
                } else {
                    Count::Length
                };
                let routers = self.teams.iter_mut().flat_map(|team| &mut team.routers);
                routers
                    .filter(|it| it.is_ipv6 == is_ipv6 && *it.entry.interface == *interface)
                    .for_each(|it| it.counters.count(count));
            }
        }
    }

    fn change(&mut self, name: &str, change: Change) -> Result<(), ChangeError> {
        let mut entries = self.teams.iter().flat_map(|team| &team.routers);
        if !entries.any(|router| router.entry.name == name) {
            let routers = self.teams.iter().flat_map(|team| &team.routers);
            let known: BTreeSet<&str> = routers.map(|router| &*router.entry.name).collect();
            let known: Vec<_> = known.into_iter().collect();
            return Err(ChangeError::NoVirtualRouter {
                name: name.to_owned(),
                known: if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                },
            });
        }
        self.adjustments
            .change(name, change)
            .map_err(|source| ChangeError::State {
                path: self.adjustments.path().to_owned(),
                source,
            })
    }

    /// Takes part no more. Returns until when others should have taken over, if there is anything to take.
    fn leave(&mut self, why: &str, now: Instant) -> Option<Instant> {
        self.has_left = true;
        let active = self.teams.iter().filter(|team| team.is_active());
        let patience = active.map(Team::active_down_interval).max();
        for team in &mut self.teams {
            team.leave(why, &self.ownership, now);
        }
        patience.map(|patience| now + patience + SETTLES)
    }
}

/// Entries of one group together, and each of the others alone; in the order of the file.
fn by_group(entries: Vec<VirtualRouter>) -> Vec<Vec<Arc<VirtualRouter>>> {
    let mut teams: Vec<Vec<Arc<VirtualRouter>>> = Vec::new();
    for entry in entries {
        let same = |team: &&mut Vec<Arc<VirtualRouter>>| {
            entry.group.is_some() && team[0].group == entry.group
        };
        match teams.iter_mut().find(same) {
            Some(team) => team.push(Arc::new(entry)),
            None => teams.push(vec![Arc::new(entry)]),
        }
    }
    teams
}

fn next_ids(next: &mut usize) -> impl Iterator<Item = usize> {
    std::iter::repeat_with(|| {
        *next += 1;
        *next
    })
}

/// Puts this thread before others, where that is allowed: a busy machine is not to look like a dead one. Not
/// before all of them, as a real-time thread would be, which a flood of advertisements could have keep the
/// kernel from forwarding packets.
pub(super) fn hurry() {
    const NICENESS: libc::c_int = -10;
    // SAFETY: a call without pointers; 0 is the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    if done != 0 {
        let error = io::Error::last_os_error();
        debug!(%error, "VRRP runs with the same priority as everything else");
    }
}
