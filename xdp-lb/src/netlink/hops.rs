//! What the kernel's routes and neighbours mean for the backends. Sans-I/O: it is told what the
//! kernel said and what time it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::links::{Exits, Link, Links};

/// How long a MAC address is used after the kernel has forgotten it (`ip neigh flush`, a full
/// neighbour table), and a way after its route has changed, while the answer to a new question is
/// awaited.
const LINGER: Duration = Duration::from_secs(1);

/// After how long without an answer nobody waits for a neighbour any more: two rounds of the kernel's questions, which are
/// three, a second apart. A host that boots, or a switch that learns, may take longer than one.
const PATIENCE: Duration = Duration::from_secs(6);

/// The way to a backend: where frames for it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The devices that frames may leave by; the one of the route is the first.
    pub exits: Exits,
    /// MAC address of the next hop: the backend, or the gateway to it.
    pub mac: [u8; 6],
    /// MAC address of the route's device.
    pub source_mac: [u8; 6],
    /// The largest IP packet that the way takes, in bytes.
    pub mtu: u16,
    /// The address that the route prefers as source.
    pub source: Option<IpAddr>,
    /// The gateway, where the backend is not on a directly connected network.
    pub gateway: Option<IpAddr>,
}

/// What is known of the way to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopState {
    /// Packets can be sent.
    Known(Hop),
    /// They cannot.
    Unknown {
        /// Why.
        reason: String,
        /// As in [`Hop::gateway`].
        gateway: Option<IpAddr>,
        /// The kernel has asked for it several times in vain, or has no route: there may be no answer for long.
        is_given_up: bool,
    },
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NoHop {
    reason: String,
    /// As in [`HopState::Unknown`].
    is_given_up: bool,
}

impl NoHop {
    /// It is being looked for.
    fn yet(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            reason,
            is_given_up: false,
        }
    }

    /// It was looked for.
    fn given_up(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            reason,
            is_given_up: true,
        }
    }
}

/// What the kernel's routes say of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Out by an interface.
    Via(Via),
    /// Nowhere, for this reason.
    None(String),
}

/// A route that leads somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Via {
    /// Index of the interface.
    pub(super) ifindex: u32,
    /// The gateway, if there is one.
    pub(super) gateway: Option<IpAddr>,
    /// The address that the route prefers as source.
    pub(super) source: Option<IpAddr>,
    /// The MTU that was set for the route, if one was.
    pub(super) mtu: Option<u32>,
}

impl Via {
    /// Whose MAC address frames for `address` get.
    fn neighbour(&self, address: IpAddr) -> (u32, IpAddr) {
        (self.ifindex, self.gateway.unwrap_or(address))
    }
}

/// A row of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) mac: Option<[u8; 6]>,
    pub(super) state: State,
}

/// The kernel's NUD states, as far as they differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Set by hand: the kernel neither asks for it nor doubts it.
    Fixed,
    /// Heard from lately.
    Confirmed,
    /// Not heard from lately.
    Stale,
    /// Being asked, with an address from before.
    Asked,
    /// Being asked for the first time.
    Incomplete,
    /// Did not answer.
    Failed,
    /// Forgotten by the kernel, at this time.
    Gone(Instant),
}

/// Everything that was heard.
#[derive(Debug, Default)]
pub(super) struct Hops {
    wanted: BTreeSet<IpAddr>,
    links: Links,
    routes: HashMap<IpAddr, Route>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    /// Those that the kernel has no room for.
    full: BTreeSet<(u32, IpAddr)>,
    /// Those that have been asked and have not answered yet, since when.
    asked: HashMap<(u32, IpAddr), Instant>,
    /// Wanted addresses that there is no way to, since when.
    lost: HashMap<IpAddr, Instant>,
    /// The ways that were resolved last.
    used: HashMap<IpAddr, Used>,
}

/// A way that packets take.
#[derive(Clone, Copy, Debug)]
struct Used {
    hop: Hop,
    /// When it was last found that another one is to be taken.
    left: Option<Instant>,
}

impl Hops {
    /// Forgets what the kernel has said.
    pub(super) fn forget(&mut self) {
        *self = Self {
            wanted: std::mem::take(&mut self.wanted),
            // They are read again one by one, and hold meanwhile.
            routes: std::mem::take(&mut self.routes),
            lost: std::mem::take(&mut self.lost),
            used: std::mem::take(&mut self.used),
            asked: std::mem::take(&mut self.asked),
            ..Self::default()
        };
    }

    pub(super) fn want(&mut self, wanted: BTreeSet<IpAddr>) {
        self.routes.retain(|address, _| wanted.contains(address));
        self.used.retain(|address, _| wanted.contains(address));
        self.lost.retain(|address, _| wanted.contains(address));
        self.wanted = wanted;
    }

    pub(super) fn wanted(&self) -> Vec<IpAddr> {
        self.wanted.iter().copied().collect()
    }

    /// The wanted addresses from `first` to `last`.
    pub(super) fn wanted_within(&self, first: IpAddr, last: IpAddr) -> Vec<IpAddr> {
        self.wanted.range(first..=last).copied().collect()
    }

    /// The kernel says how a device is. True if that is new, and may have changed routes.
    pub(super) fn link(&mut self, ifindex: u32, link: Link) -> bool {
        self.links.set(ifindex, link)
    }

    pub(super) fn link_gone(&mut self, ifindex: u32) {
        self.links.remove(ifindex);
        self.neighbours.retain(|(of, _), _| *of != ifindex);
        self.asked.retain(|(of, _), _| *of != ifindex);
    }

    pub(super) fn route(&mut self, address: IpAddr, route: Route) {
        if self.wanted.contains(&address) {
            self.routes.insert(address, route);
        }
    }

    /// The kernel says how a neighbour is.
    pub(super) fn neighbour(
        &mut self,
        ifindex: u32,
        address: IpAddr,
        heard: Neighbour,
        now: Instant,
    ) {
        if matches!(heard.state, State::Fixed | State::Confirmed) {
            self.asked.remove(&(ifindex, address));
        }
        let held = self.neighbours.entry((ifindex, address)).or_insert(heard);
        match (held.state, heard.state) {
            // One that did not answer was asked before. This one is being forgotten, of which the
            // kernel first says that it failed.
            (State::Fixed | State::Confirmed | State::Stale, State::Failed) => {
                held.state = State::Gone(now);
            }
            // It is being asked again.
            (State::Gone(_), State::Incomplete) => {}
            _ => *held = heard,
        }
    }

    /// The kernel has forgotten a neighbour, which says nothing of whether it is still there.
    pub(super) fn neighbour_gone(&mut self, ifindex: u32, address: IpAddr, now: Instant) {
        if let Some(neighbour) = self.neighbours.get_mut(&(ifindex, address)) {
            match neighbour.state {
                State::Failed | State::Incomplete => {
                    self.neighbours.remove(&(ifindex, address));
                }
                State::Gone(_) => {}
                State::Fixed | State::Confirmed | State::Stale | State::Asked => {
                    neighbour.state = State::Gone(now);
                }
            }
        }
    }

    /// The neighbours that the kernel is to be asked for, or to ask again.
    pub(super) fn next_asks(&mut self, now: Instant) -> BTreeSet<(u32, IpAddr)> {
        let needs = |neighbour: Option<&Neighbour>| match neighbour.map(|found| found.state) {
            None | Some(State::Stale | State::Failed | State::Gone(_)) => true,
            Some(State::Fixed | State::Confirmed | State::Asked | State::Incomplete) => false,
        };
        let mut to_ask = self.needed();
        // What is not needed any more is nothing to remember, lest it speak for one that comes back.
        self.asked.retain(|key, _| to_ask.contains(key));
        self.full.retain(|key| to_ask.contains(key));
        self.neighbours.retain(|key, neighbour| {
            to_ask.contains(key) || !matches!(neighbour.state, State::Gone(_))
        });
        to_ask.retain(|key| needs(self.neighbours.get(key)));
        for &neighbour in &to_ask {
            self.asked.entry(neighbour).or_insert(now);
        }
        to_ask
    }

    /// What is known of each wanted address.
    pub(super) fn resolve(&mut self, now: Instant) -> BTreeMap<IpAddr, HopState> {
        let wanted = self.wanted().into_iter();
        wanted
            .map(|address| (address, self.state(address, now)))
            .collect()
    }

    fn state(&mut self, address: IpAddr, now: Instant) -> HopState {
        let route = self.routes.get(&address);
        let gateway = match route {
            Some(Route::Via(via)) => via.gateway,
            _ => None,
        };
        match self.hop(address, route, now) {
            Ok(hop) => {
                self.lost.remove(&address);
                self.used.insert(address, Used { hop, left: None });
                HopState::Known(hop)
            }
            Err(NoHop {
                reason,
                is_given_up,
            }) => {
                let since = *self.lost.entry(address).or_insert(now);
                // Routes and devices, too, may come a little later than the first look.
                let is_late = now.saturating_duration_since(since) >= PATIENCE;
                match self.old_way(address, now) {
                    Some(hop) => HopState::Known(hop),
                    None => HopState::Unknown {
                        reason,
                        gateway,
                        is_given_up: is_given_up && is_late,
                    },
                }
            }
        }
    }

    /// The way that was taken before the route changed, while the new next hop has not answered yet:
    /// a backend without any way loses its connections.
    fn old_way(&mut self, address: IpAddr, now: Instant) -> Option<Hop> {
        let Some(Route::Via(via)) = self.routes.get(&address) else {
            return None;
        };
        let neighbour = self.neighbours.get(&via.neighbour(address));
        let is_asked = neighbour.is_none_or(|it| it.state == State::Incomplete);
        let Used { hop, left } = self.used.get_mut(&address)?;
        let ifindex = hop.exits[0]?.ifindex;
        let is_new = (via.ifindex, via.gateway) != (ifindex, hop.gateway);
        let since = *left.get_or_insert(now);
        let is_recent = now.saturating_duration_since(since) <= LINGER;
        (is_asked && is_new && is_recent && self.links.exits(ifindex).is_ok()).then_some(*hop)
    }

    fn hop(&self, address: IpAddr, route: Option<&Route>, now: Instant) -> Result<Hop, NoHop> {
        let via = match route {
            None => return Err(NoHop::yet("its route is not known yet")),
            Some(Route::None(reason)) => {
                return Err(NoHop::given_up(format!("no route: {reason}")));
            }
            Some(Route::Via(via)) => via,
        };
        let link = self.links.get(via.ifindex).map_err(NoHop::given_up)?;
        let exits = self.links.exits(via.ifindex).map_err(NoHop::given_up)?;
        let source_mac = link.mac.ok_or_else(|| {
            NoHop::given_up("reached by an interface without an Ethernet address")
        })?;
        let mac = self
            .mac(via, address, now)
            .map_err(|missing| match via.gateway {
                Some(gateway) => NoHop {
                    reason: format!("its gateway {gateway} {}", missing.reason),
                    ..missing
                },
                None => missing,
            })?;
        let mtu = via.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Ok(Hop {
            exits,
            mac,
            source_mac,
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            source: via.source,
            gateway: via.gateway,
        })
    }

    /// The neighbours that wanted addresses are behind.
    pub(super) fn needed(&self) -> BTreeSet<(u32, IpAddr)> {
        let wanted = self.wanted.iter();
        wanted
            .filter_map(|address| match self.routes.get(address)? {
                Route::Via(via) => Some(via.neighbour(*address)),
                Route::None(_) => None,
            })
            .collect()
    }

    /// Whether there is a route to each wanted address.
    pub(super) fn knows_all_routes(&self) -> bool {
        let mut wanted = self.wanted.iter();
        wanted.all(|address| matches!(self.routes.get(address), Some(Route::Via(_))))
    }

    /// The neighbour that a wanted address is behind, if it has answered before.
    pub(super) fn confirmed_neighbour(&self, address: IpAddr) -> Option<(u32, IpAddr)> {
        let Some(Route::Via(via)) = self.routes.get(&address) else {
            return None;
        };
        let neighbour = via.neighbour(address);
        let state = self.neighbours.get(&neighbour)?.state;
        matches!(state, State::Confirmed | State::Stale).then_some(neighbour)
    }

    /// Whether the kernel has no room for a neighbour.
    pub(super) fn set_full(&mut self, neighbour: (u32, IpAddr), is_full: bool) {
        if is_full {
            self.full.insert(neighbour);
        } else {
            self.full.remove(&neighbour);
        }
    }

    /// Whether a neighbour was asked for some time, and has not answered.
    pub(super) fn is_given_up(&self, neighbour: &(u32, IpAddr), now: Instant) -> bool {
        let since = self.asked.get(neighbour);
        since.is_some_and(|&since| now.saturating_duration_since(since) >= PATIENCE)
    }

    /// The MAC address of the next hop, or why there is none: what it does or does not.
    fn mac(&self, via: &Via, address: IpAddr, now: Instant) -> Result<[u8; 6], NoHop> {
        let key = via.neighbour(address);
        let unanswered = match key.1 {
            IpAddr::V4(_) => "does not answer ARP",
            IpAddr::V6(_) => "does not answer neighbour solicitations",
        };
        let neighbour = self.neighbours.get(&key);
        match neighbour.map(|neighbour| neighbour.state) {
            None if self.full.contains(&key) => Err(NoHop::given_up(
                "is not asked for its MAC address: the kernel's neighbour table is full, see \
                 net.ipv4.neigh.default.gc_thresh3",
            )),
            None | Some(State::Incomplete) => Err(NoHop {
                reason: "is being asked for its MAC address".to_owned(),
                is_given_up: self.is_given_up(&key, now),
            }),
            Some(State::Failed) => Err(NoHop {
                reason: unanswered.to_owned(),
                is_given_up: self.is_given_up(&key, now),
            }),
            Some(State::Gone(since)) if now.saturating_duration_since(since) > LINGER => {
                Err(NoHop::yet(unanswered))
            }
            Some(_) => neighbour
                .and_then(|neighbour| neighbour.mac)
                .ok_or_else(|| NoHop::given_up("has no Ethernet address")),
        }
    }
}

#[cfg(test)]
mod tests;
