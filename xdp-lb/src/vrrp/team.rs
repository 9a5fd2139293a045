//! Virtual routers that fail over together, at work: the machine's decisions, carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use super::{
    adjust::Adjustment,
    group::{Group, Task},
    machine::{Action, Heard, LEAVES, Settings, State},
    ownership::Ownership,
    packet::Advertisement,
    priority::{Lowered, Share, Shortage, in_force},
    receiver::Received,
    router::Router,
};
use crate::{
    config::{TrackedGateway, VirtualRouter},
    netlink::LinkMap,
};

/// What virtual routers go by besides what they hear.
pub(super) struct World<'a> {
    pub(super) links: &'a LinkMap,
    /// The VIPs of all entries.
    pub(super) all_vips: &'a BTreeSet<IpAddr>,
    /// By service.
    pub(super) shares: &'a BTreeMap<String, Share>,
    /// Whether a gateway answers.
    pub(super) answers: &'a dyn Fn(&TrackedGateway) -> bool,
    pub(super) adjustment: &'a dyn Fn(&str) -> Adjustment,
    /// Why the whole daemon is not to be relied on, if it is not.
    pub(super) trouble: Option<&'a str>,
    /// Why this host cannot forward packets, if it cannot.
    pub(super) obstacle: Option<&'a str>,
}

/// Virtual routers that fail over together.
pub(super) struct Team {
    pub(super) routers: Vec<Router>,
    entries: Vec<(Arc<VirtualRouter>, Shortage)>,
    group: Group,
    /// Why it takes no part, if it does not.
    pub(super) reason: Option<String>,
    /// The priority in force, and why.
    pub(super) priority: u8,
    pub(super) lowered: Vec<Lowered>,
}

impl Team {
    /// One that takes no part yet. `ids` are what its virtual routers are called.
    pub(super) fn new(
        entries: &[Arc<VirtualRouter>],
        ids: &mut impl Iterator<Item = usize>,
        now: Instant,
    ) -> Self {
        let routers: Vec<Router> = entries
            .iter()
            .flat_map(|entry| families(entry).map(move |is_ipv6| (entry, is_ipv6)))
            .zip(ids)
            .map(|((entry, is_ipv6), id)| Router::new(entry, is_ipv6, id, now))
            .collect();
        let priority = entries.first().map_or(1, |entry| entry.priority);
        let settings: Vec<Settings> = routers.iter().map(|it| it.settings(priority)).collect();
        Self {
            routers,
            entries: entries
                .iter()
                .map(|it| (Arc::clone(it), Shortage::default()))
                .collect(),
            group: Group::new(settings),
            reason: None,
            priority,
            lowered: Vec::new(),
        }
    }

    /// Whether these entries make the same virtual routers.
    pub(super) fn is_made_of(&self, entries: &[Arc<VirtualRouter>]) -> bool {
        let made = entries.iter().flat_map(|entry| {
            families(entry).map(|is_ipv6| (&*entry.interface, entry.vrid, is_ipv6))
        });
        self.routers.iter().map(Router::identity).eq(made)
    }

    /// Other settings for the same virtual routers, which go on.
    pub(super) fn set_entries(&mut self, entries: &[Arc<VirtualRouter>]) {
        let routers = entries
            .iter()
            .flat_map(|entry| families(entry).map(move |_| entry));
        for (router, entry) in self.routers.iter_mut().zip(routers) {
            router.set_entry(entry);
        }
        for ((known, _), entry) in self.entries.iter_mut().zip(entries) {
            *known = Arc::clone(entry);
        }
    }

    /// When to call [`Team::tick`]; None: never.
    pub(super) fn due(&self) -> Option<Instant> {
        self.group.due()
    }

    /// When to call [`Team::consider`] again, though nothing may have changed.
    pub(super) fn reconsider_at(&self) -> Option<Instant> {
        let tracked = self.entries.iter().filter_map(|(entry, shortage)| {
            let health = entry.track.health.as_ref()?;
            shortage.due(health.delay)
        });
        tracked.min()
    }

    /// Takes part or not, and with which priority, as the world is.
    pub(super) fn consider(&mut self, world: &World<'_>, ownership: &Ownership, now: Instant) {
        self.lowered = self.lowered(world, now);
        let configured = self.entries.first().map_or(1, |(entry, _)| entry.priority);
        self.priority = in_force(configured, &self.lowered);
        let ready = self.ready(world);
        for (member, router) in self.routers.iter().enumerate() {
            self.group.set(member, router.settings(self.priority));
        }
        let tasks = match ready {
            Ok(()) => {
                self.reason = None;
                let mut tasks = self.group.set_priority(self.priority, now);
                tasks.extend(self.group.start(now));
                tasks
            }
            Err(reason) => {
                let tasks = self.group.stop();
                self.reason = Some(reason);
                tasks
            }
        };
        let why = self.reason.clone().unwrap_or_else(|| "takes part".into());
        self.perform(tasks, &why, ownership, now);
    }

    /// Each virtual router has its place, nobody has paused any, and packets would be forwarded.
    fn ready(&mut self, world: &World<'_>) -> Result<(), String> {
        let mut ready = Ok(());
        for router in &mut self.routers {
            let place = router.find_place(world.links, world.all_vips);
            ready = ready.and(place.map(drop));
        }
        let paused = |(entry, _): &&(Arc<VirtualRouter>, Shortage)| {
            (world.adjustment)(&entry.name).is_paused
        };
        if let Some((entry, _)) = self.entries.iter().find(paused) {
            // Nor do leftovers of an earlier life stay.
            self.routers.iter_mut().for_each(Router::leave);
            return Err(format!("`{}` was paused by hand", entry.name));
        }
        match world.obstacle {
            Some(obstacle) => ready.and(Err(obstacle.to_owned())),
            None => ready,
        }
    }

    /// What is wrong, of all entries together: they fail over as one.
    fn lowered(&mut self, world: &World<'_>, now: Instant) -> Vec<Lowered> {
        let mut all: Vec<Lowered> = Vec::new();
        let mut add = |lowered: Lowered| {
            // Two entries that track the same count it once.
            if !all.contains(&lowered) {
                all.push(lowered);
            }
        };
        for (entry, shortage) in &mut self.entries {
            let track = &entry.track;
            for interface in &track.interfaces {
                let name = &interface.name;
                if !world.links.get(name).is_some_and(|link| link.is_running) {
                    add(Lowered {
                        what: format!("interface {name} is down"),
                        weight: interface.weight,
                    });
                }
            }
            if let Some(health) = &track.health {
                let is_meant =
                    |name: &String| health.services.is_empty() || health.services.contains(name);
                let shares = world.shares.iter().filter(|(name, _)| is_meant(name));
                let share = shares.fold(Share::default(), |sum, (_, share)| sum.and(*share));
                if let Some(lowered) = shortage.observe(health, share, now) {
                    add(lowered);
                }
            }
            for gateway in &track.gateways {
                if !(world.answers)(gateway) {
                    add(Lowered {
                        what: format!("gateway {} does not answer", gateway.address),
                        weight: gateway.weight,
                    });
                }
            }
            if let Some(lowered) = (world.adjustment)(&entry.name).lowered() {
                add(lowered);
            }
        }
        if let Some(trouble) = world.trouble {
            add(Lowered {
                what: trouble.to_owned(),
                weight: u8::MAX,
            });
        }
        all
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, ownership: &Ownership, now: Instant) {
        let tasks = self.group.tick(now);
        if !tasks.is_empty() {
            self.perform(tasks, "no other is heard", ownership, now);
        }
    }

    /// A packet for one of its virtual routers has come.
    pub(super) fn hear(
        &mut self,
        member: usize,
        received: &Received,
        own: &BTreeSet<IpAddr>,
        ownership: &Ownership,
        now: Instant,
    ) {
        let Some(advertisement) = self.routers[member].accept(received, own) else {
            return;
        };
        let Advertisement {
            priority, interval, ..
        } = advertisement;
        let from = received.source;
        let heard = Heard {
            priority,
            interval,
            from,
        };
        let tasks = self.group.hear(member, heard, now);
        if self.group.state() != State::Active {
            if priority == LEAVES {
                self.routers[member].active = None;
            } else {
                self.routers[member].leave_to(from);
            }
        }
        let why = format!("{from} advertises priority {priority}");
        self.perform(tasks, &why, ownership, now);
    }

    /// Takes part no more.
    pub(super) fn leave(&mut self, why: &str, ownership: &Ownership, now: Instant) {
        self.reason = Some(why.to_owned());
        let tasks = self.group.stop();
        self.routers.iter_mut().for_each(Router::leave);
        self.perform(tasks, why, ownership, now);
    }

    /// Whether another has been heard to be active for each of its virtual routers.
    pub(super) fn has_successor(&self) -> bool {
        self.routers.iter().all(|router| router.active.is_some())
    }

    pub(super) fn is_active(&self) -> bool {
        self.group.state() == State::Active
    }

    /// How long others wait for a word of it, at the most.
    pub(super) fn active_down_interval(&self) -> std::time::Duration {
        self.group.active_down_interval()
    }

    fn perform(&mut self, tasks: Vec<Task>, why: &str, ownership: &Ownership, now: Instant) {
        for (member, action) in tasks {
            let router = &mut self.routers[member];
            match action {
                Action::Advertise { priority } => router.advertise(priority),
                Action::Announce => ownership.announce(router.id()),
                // Below, for all of them: what is held goes by the state.
                Action::Take | Action::Release => {}
            }
        }
        let state = self.group.state();
        for router in &mut self.routers {
            router.follow(state, why, self.priority, now);
            router.hold(ownership);
        }
    }
}

/// The address families of an entry's VIPs, IPv4 first.
fn families(entry: &VirtualRouter) -> impl Iterator<Item = bool> {
    let has = |is_ipv6| {
        entry
            .vips
            .iter()
            .any(|vip| vip.address.is_ipv6() == is_ipv6)
    };
    let found: Vec<bool> = [false, true].into_iter().filter(|&it| has(it)).collect();
    found.into_iter()
}
