//! What the kernel's routes and neighbours mean for the backends. Sans-I/O: it is told what the
//! kernel said and what time it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::Serialize;

/// How long a MAC address is used after the kernel has forgotten it (`ip neigh flush`, a full
/// neighbour table) while the answer to a new question is awaited.
const LINGER: Duration = Duration::from_secs(1);

/// The next hop of a backend: where its frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Interface that leads to it.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The interface's own MAC address.
    pub source_mac: [u8; 6],
}

/// What is known of a backend's next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HopState {
    /// Packets can be sent.
    Known(Hop),
    /// They cannot, for this reason.
    Unknown(String),
}

/// What the kernel's routes say of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Out by an interface, through a gateway or directly.
    Via {
        ifindex: u32,
        gateway: Option<IpAddr>,
    },
    /// Nowhere, for this reason.
    None(String),
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
    /// Heard from lately, or set by hand.
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
    links: HashMap<u32, [u8; 6]>,
    routes: HashMap<IpAddr, Route>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

impl Hops {
    /// Forgets everything but what is wanted.
    pub(super) fn forget(&mut self) {
        *self = Self {
            wanted: std::mem::take(&mut self.wanted),
            ..Self::default()
        };
    }

    pub(super) fn want(&mut self, wanted: BTreeSet<IpAddr>) {
        self.routes.retain(|address, _| wanted.contains(address));
        self.wanted = wanted;
    }

    pub(super) fn wanted(&self) -> Vec<IpAddr> {
        self.wanted.iter().copied().collect()
    }

    pub(super) fn link(&mut self, ifindex: u32, mac: [u8; 6]) {
        self.links.insert(ifindex, mac);
    }

    pub(super) fn link_gone(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.neighbours.retain(|(of, _), _| *of != ifindex);
    }

    pub(super) fn route(&mut self, address: IpAddr, route: Route) {
        self.routes.insert(address, route);
    }

    /// The kernel says how a neighbour is.
    pub(super) fn neighbour(
        &mut self,
        ifindex: u32,
        address: IpAddr,
        heard: Neighbour,
        now: Instant,
    ) {
        let held = self.neighbours.entry((ifindex, address)).or_insert(heard);
        match (held.state, heard.state) {
            // One that did not answer was asked before. This one is being forgotten, of which the
            // kernel first says that it failed.
            (State::Confirmed | State::Stale, State::Failed) => held.state = State::Gone(now),
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
                State::Confirmed | State::Stale | State::Asked => {
                    neighbour.state = State::Gone(now);
                }
            }
        }
    }

    /// The neighbours that the kernel is to be asked for, or to ask again.
    pub(super) fn to_ask(&self) -> Vec<(u32, IpAddr)> {
        let needs = |neighbour: Option<&Neighbour>| match neighbour.map(|found| found.state) {
            None | Some(State::Stale | State::Failed | State::Gone(_)) => true,
            Some(State::Confirmed | State::Asked | State::Incomplete) => false,
        };
        self.wanted
            .iter()
            .filter_map(|address| match self.routes.get(address)? {
                Route::Via {
                    ifindex,
                    gateway: None,
                } => Some((*ifindex, *address)),
                _ => None,
            })
            .filter(|key| needs(self.neighbours.get(key)))
            .collect()
    }

    /// What is known of each wanted address.
    pub(super) fn resolve(&self, now: Instant) -> BTreeMap<IpAddr, HopState> {
        let resolve = |address: &IpAddr| match self.hop(*address, now) {
            Ok(hop) => HopState::Known(hop),
            Err(reason) => HopState::Unknown(reason),
        };
        self.wanted
            .iter()
            .map(|address| (*address, resolve(address)))
            .collect()
    }

    fn hop(&self, address: IpAddr, now: Instant) -> Result<Hop, String> {
        let ifindex = match self.routes.get(&address) {
            None => return Err("its route is not known yet".into()),
            Some(Route::None(reason)) => return Err(format!("no route: {reason}")),
            Some(Route::Via {
                gateway: Some(gateway),
                ..
            }) => {
                return Err(format!(
                    "reached through {gateway}; forwarding `l2` needs it on a directly connected network"
                ));
            }
            Some(Route::Via {
                ifindex,
                gateway: None,
            }) => *ifindex,
        };
        let source_mac = *self
            .links
            .get(&ifindex)
            .ok_or("reached by an interface without an Ethernet address")?;
        let neighbour = self.neighbours.get(&(ifindex, address));
        let unanswered = match address {
            IpAddr::V4(_) => "does not answer ARP",
            IpAddr::V6(_) => "does not answer neighbour solicitations",
        };
        let mac = match neighbour {
            None => return Err("being asked for its MAC address".into()),
            Some(Neighbour {
                state: State::Incomplete,
                ..
            }) => {
                return Err("being asked for its MAC address".into());
            }
            Some(Neighbour {
                state: State::Failed,
                ..
            }) => return Err(unanswered.into()),
            Some(Neighbour {
                state: State::Gone(since),
                ..
            }) if now.saturating_duration_since(*since) > LINGER => {
                return Err(unanswered.into());
            }
            Some(Neighbour { mac, .. }) => mac.ok_or("has no Ethernet address")?,
        };
        Ok(Hop {
            ifindex,
            mac,
            source_mac,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IFINDEX: u32 = 2;
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 11];

    fn address() -> IpAddr {
        "10.0.0.11".parse().unwrap()
    }

    fn hops() -> Hops {
        let mut hops = Hops::default();
        hops.want([address()].into());
        hops.link(IFINDEX, OWN);
        hops.route(
            address(),
            Route::Via {
                ifindex: IFINDEX,
                gateway: None,
            },
        );
        hops
    }

    fn heard(hops: &mut Hops, state: State) {
        let mac = (!matches!(state, State::Incomplete | State::Failed)).then_some(MAC);
        hops.neighbour(IFINDEX, address(), Neighbour { mac, state }, Instant::now());
    }

    fn known(hops: &Hops, now: Instant) -> Option<Hop> {
        match hops.resolve(now).remove(&address()) {
            Some(HopState::Known(hop)) => Some(hop),
            _ => None,
        }
    }

    #[test]
    fn an_unknown_neighbour_is_asked_for_and_then_used() {
        let now = Instant::now();
        let mut hops = hops();
        assert_eq!(hops.to_ask(), [(IFINDEX, address())]);
        assert_eq!(known(&hops, now), None);
        heard(&mut hops, State::Incomplete);
        assert_eq!(hops.to_ask(), []);
        assert_eq!(known(&hops, now), None);
        heard(&mut hops, State::Confirmed);
        assert_eq!(hops.to_ask(), []);
        assert_eq!(
            known(&hops, now),
            Some(Hop {
                ifindex: IFINDEX,
                mac: MAC,
                source_mac: OWN
            })
        );
    }

    #[test]
    fn a_stale_neighbour_is_used_and_asked_again() {
        let now = Instant::now();
        let mut hops = hops();
        heard(&mut hops, State::Stale);
        assert!(known(&hops, now).is_some());
        assert_eq!(hops.to_ask(), [(IFINDEX, address())]);
        heard(&mut hops, State::Asked);
        assert!(known(&hops, now).is_some());
        assert_eq!(hops.to_ask(), []);
    }

    #[test]
    fn a_failed_neighbour_is_not_used_and_asked_again() {
        let now = Instant::now();
        let mut hops = hops();
        heard(&mut hops, State::Asked);
        heard(&mut hops, State::Failed);
        assert_eq!(known(&hops, now), None);
        assert_eq!(hops.to_ask(), [(IFINDEX, address())]);
    }

    #[test]
    fn a_forgotten_neighbour_is_used_for_a_second_only() {
        let now = Instant::now();
        let mut hops = hops();
        heard(&mut hops, State::Confirmed);
        hops.neighbour_gone(IFINDEX, address(), now);
        assert!(known(&hops, now + LINGER).is_some());
        assert_eq!(known(&hops, now + LINGER + Duration::from_millis(1)), None);
        assert_eq!(hops.to_ask(), [(IFINDEX, address())]);
        heard(&mut hops, State::Incomplete);
        assert!(known(&hops, now).is_some(), "it is being asked again");
        heard(&mut hops, State::Failed);
        assert_eq!(known(&hops, now), None, "and does not answer");
    }

    #[test]
    fn one_that_is_flushed_is_used_until_it_has_answered() {
        let now = Instant::now();
        let mut hops = hops();
        heard(&mut hops, State::Confirmed);
        // What the kernel says on `ip neigh flush`.
        heard(&mut hops, State::Failed);
        hops.neighbour_gone(IFINDEX, address(), now);
        assert!(known(&hops, now).is_some());
        assert_eq!(hops.to_ask(), [(IFINDEX, address())]);
        heard(&mut hops, State::Incomplete);
        assert!(known(&hops, now).is_some());
        heard(&mut hops, State::Confirmed);
        assert!(known(&hops, now + 2 * LINGER).is_some());
    }

    #[test]
    fn the_reason_is_told_where_there_is_no_way() {
        let now = Instant::now();
        let mut hops = hops();
        let gateway = "10.0.0.1".parse().unwrap();
        for (route, reason) in [
            (
                Route::None("Network is unreachable".into()),
                "no route: Network is unreachable",
            ),
            (
                Route::Via {
                    ifindex: IFINDEX,
                    gateway: Some(gateway),
                },
                "reached through 10.0.0.1; forwarding `l2` needs it on a directly connected network",
            ),
            (
                Route::Via {
                    ifindex: 9,
                    gateway: None,
                },
                "reached by an interface without an Ethernet address",
            ),
        ] {
            hops.route(address(), route);
            assert_eq!(
                hops.resolve(now)[&address()],
                HopState::Unknown(reason.into())
            );
        }
    }

    #[test]
    fn a_link_that_goes_takes_its_neighbours_along() {
        let now = Instant::now();
        let mut hops = hops();
        heard(&mut hops, State::Confirmed);
        hops.link_gone(IFINDEX);
        hops.link(IFINDEX, OWN);
        assert_eq!(known(&hops, now), None);
    }

    #[test]
    fn what_is_no_longer_wanted_is_forgotten() {
        let mut hops = hops();
        heard(&mut hops, State::Stale);
        hops.want(BTreeSet::new());
        assert!(hops.resolve(Instant::now()).is_empty());
        assert!(hops.to_ask().is_empty());
    }
}
