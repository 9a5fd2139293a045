//! One virtual router: an entry of the config, in one address family.

use std::{collections::BTreeSet, io, net::IpAddr, num::NonZero, sync::Arc, time::Instant};

use tracing::{info, warn};

use super::{
    VirtualAddress,
    counters::{Count, Counters},
    machine::{self, LEAVES, State},
    notify::{Notice, Notifier, family},
    ownership::{Holding, Ownership, Wanted},
    packet::{Advertisement, Malformed},
    receiver::Received,
    sender::{Sender, group_of},
};
use crate::{
    config::VirtualRouter,
    netlink::{Link, LinkMap},
};

/// Where a virtual router's advertisements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ifindex: NonZero<u32>,
    pub(super) source: IpAddr,
    pub(super) mac: [u8; 6],
}

/// A virtual router.
pub(super) struct Router {
    pub(super) entry: Arc<VirtualRouter>,
    pub(super) is_ipv6: bool,
    /// What it is called towards [`Ownership`]; never used again.
    id: usize,
    /// Where it sends from, and what with; None: it has no place.
    place: Option<(Place, Sender)>,
    pub(super) counters: Counters,
    state: State,
    since: Instant,
    pub(super) transitions: u64,
    /// Who is active, if it is another.
    pub(super) active: Option<IpAddr>,
    /// Whether it has taken part, and leaves the addresses to others now.
    has_left: bool,
    told: Option<(Holding, Wanted)>,
    problem: Option<String>,
    notifier: Option<Notifier>,
}

impl Router {
    pub(super) fn new(entry: &Arc<VirtualRouter>, is_ipv6: bool, id: usize, now: Instant) -> Self {
        Self {
            entry: Arc::clone(entry),
            is_ipv6,
            id,
            place: None,
            counters: Counters::default(),
            state: State::Initialize,
            since: now,
            transitions: 0,
            active: None,
            has_left: false,
            told: None,
            problem: None,
            notifier: None,
        }
    }

    /// What makes it the same virtual router for others.
    pub(super) fn identity(&self) -> (&str, u8, bool) {
        (&self.entry.interface, self.entry.vrid, self.is_ipv6)
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn source(&self) -> Option<IpAddr> {
        self.place.as_ref().map(|(place, _)| place.source)
    }

    pub(super) fn id(&self) -> usize {
        self.id
    }

    /// Its addresses.
    pub(super) fn vips(&self) -> impl Iterator<Item = VirtualAddress> {
        let is_ipv6 = self.is_ipv6;
        let vips = self.entry.vips.iter().copied();
        vips.filter(move |vip| vip.address.is_ipv6() == is_ipv6)
    }

    /// The MAC address of its VIPs, if they have one of their own (RFC 9568, section 7.3).
    pub(super) fn virtual_mac(&self) -> Option<[u8; 6]> {
        let family = if self.is_ipv6 { 2 } else { 1 };
        let entry = &self.entry;
        entry
            .virtual_mac
            .then_some([0x00, 0x00, 0x5e, 0x00, family, entry.vrid])
    }

    /// Finds its place among the links, and says why it has none.
    pub(super) fn find_place(
        &mut self,
        links: &LinkMap,
        all_vips: &BTreeSet<IpAddr>,
    ) -> Result<Place, String> {
        let found = self.place_on(links, all_vips);
        let place = match found {
            Ok(place) => place,
            Err(reason) => {
                self.place = None;
                return Err(reason);
            }
        };
        if self.place.as_ref().is_none_or(|(known, _)| *known != place) {
            let sender = self
                .open(place)
                .map_err(|error| format!("cannot send on {}: {error}", self.entry.interface))?;
            self.place = Some((place, sender));
        }
        Ok(place)
    }

    /// Opens its sockets anew, since what they are opened with may have changed.
    pub(super) fn reopen(&mut self) {
        self.place = None;
    }

    fn place_on(&self, links: &LinkMap, all_vips: &BTreeSet<IpAddr>) -> Result<Place, String> {
        let interface = &self.entry.interface;
        let link = links
            .get(interface)
            .ok_or_else(|| format!("there is no interface {interface}"))?;
        if !link.is_running {
            return Err(format!("interface {interface} is down"));
        }
        let ifindex = NonZero::new(link.ifindex)
            .ok_or_else(|| format!("interface {interface} has no number"))?;
        Ok(Place {
            ifindex,
            source: self.source_on(link, links, all_vips)?,
            mac: self.virtual_mac().unwrap_or(link.mac),
        })
    }

    /// The address that its advertisements come from: the one that is set, else the interface's own.
    fn source_on(
        &self,
        link: &Link,
        links: &LinkMap,
        all_vips: &BTreeSet<IpAddr>,
    ) -> Result<IpAddr, String> {
        let interface = &self.entry.interface;
        let of_its_family = |address: &&IpAddr| address.is_ipv6() == self.is_ipv6;
        if let Some(&source) = self.entry.source.iter().find(of_its_family) {
            let mut all = links.values().flat_map(|link| &link.addresses);
            return if all.any(|known| known.address == source && !known.is_tentative) {
                Ok(source)
            } else {
                Err(format!("{source} is no address of this host"))
            };
        }
        let mut own = link
            .addresses
            .iter()
            .filter(|known| known.address.is_ipv6() == self.is_ipv6 && !known.is_tentative)
            .map(|known| known.address)
            .filter(|address| !all_vips.contains(address));
        let is_group = self.entry.peers.is_empty();
        let fits = |address: &IpAddr| match (address, self.peer()) {
            (IpAddr::V4(_), _) => true,
            // RFC 9568, section 5.1.2.2.
            (IpAddr::V6(address), _) if is_group => address.is_unicast_link_local(),
            (IpAddr::V6(address), Some(IpAddr::V6(peer))) => {
                address.is_unicast_link_local() == peer.is_unicast_link_local()
            }
            (IpAddr::V6(_), _) => true,
        };
        own.find(fits).ok_or_else(|| {
            let kind = match (self.is_ipv6, is_group) {
                (false, _) => "IPv4",
                (true, true) => "link-local IPv6",
                (true, false) => "fitting IPv6",
            };
            format!("interface {interface} has no {kind} address of its own")
        })
    }

    /// Whom it hears; empty: anybody.
    pub(super) fn sources(&self) -> &[IpAddr] {
        let entry = &self.entry;
        if entry.allow_from.is_empty() {
            &entry.peers
        } else {
            &entry.allow_from
        }
    }

    fn peers(&self) -> impl Iterator<Item = IpAddr> {
        let peers = self.entry.peers.iter().copied();
        peers.filter(|peer| peer.is_ipv6() == self.is_ipv6)
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peers().next()
    }

    fn open(&self, place: Place) -> io::Result<Sender> {
        let Place {
            ifindex,
            source,
            mac,
        } = place;
        if self.entry.peers.is_empty() {
            return Sender::to_group(ifindex, source, mac);
        }
        Sender::to_peers(
            &self.entry.interface,
            ifindex,
            source,
            self.peers().collect(),
        )
    }

    /// Sends an advertisement.
    pub(super) fn advertise(&mut self, priority: u8) {
        let Some((place, sender)) = &self.place else {
            return;
        };
        let entry = &self.entry;
        let advertisement = Advertisement {
            vrid: entry.vrid,
            priority,
            interval: entry.advert_interval,
            addresses: self.vips().map(|vip| vip.address).collect(),
        };
        let (sent, failed) =
            sender.send(|to| advertisement.to_bytes(place.source, to, entry.checksum));
        (0..sent).for_each(|_| self.counters.count(Count::Sent));
        let problem = failed.map(|error| error.to_string());
        if let Some(error) = &problem {
            self.counters.count(Count::SendFailed);
            if self.problem != problem {
                let family = family(self.is_ipv6);
                warn!(
                    name = entry.name,
                    family, error, "an advertisement was not sent"
                );
            }
        }
        self.problem = problem;
    }

    /// Reads a packet that is for this virtual router, and counts it.
    pub(super) fn accept(
        &mut self,
        received: &Received,
        own: &BTreeSet<IpAddr>,
    ) -> Option<Advertisement> {
        match self.judge(received, own) {
            Ok(advertisement) => {
                self.note(&advertisement);
                Some(advertisement)
            }
            Err(count) => {
                self.counters.count(count);
                None
            }
        }
    }

    fn judge(&self, received: &Received, own: &BTreeSet<IpAddr>) -> Result<Advertisement, Count> {
        let Received {
            source,
            destination,
            hops,
            message,
        } = received;
        if own.contains(source) {
            return Err(Count::OwnAddress);
        }
        let advertisement = Advertisement::parse(message, *hops, *source, *destination)
            .map_err(count_of_malformed)?;
        let entry = &self.entry;
        let allowed = self.sources();
        let is_allowed = allowed.is_empty() || allowed.contains(source);
        let is_near = match source {
            IpAddr::V6(source) if entry.peers.is_empty() => source.is_unicast_link_local(),
            _ => true,
        };
        if !is_allowed || !is_near {
            return Err(Count::Source);
        }
        if (*destination == group_of(*destination)) != entry.peers.is_empty() {
            return Err(Count::Destination);
        }
        Ok(advertisement)
    }

    fn note(&mut self, advertisement: &Advertisement) {
        self.counters.count(Count::Received);
        if advertisement.priority == LEAVES {
            self.counters.count(Count::Leaves);
        }
        if advertisement.interval != self.entry.advert_interval {
            self.counters.count(Count::OtherInterval);
        }
        let mine: BTreeSet<IpAddr> = self.vips().map(|vip| vip.address).collect();
        let theirs: BTreeSet<IpAddr> = advertisement.addresses.iter().copied().collect();
        if mine != theirs {
            self.counters.count(Count::Addresses);
        }
    }

    /// Another router is active: it has the addresses.
    pub(super) fn leave_to(&mut self, other: IpAddr) {
        self.active = Some(other);
        self.has_left = true;
    }

    /// Leaves the addresses to others, whoever that is.
    pub(super) fn leave(&mut self) {
        self.has_left = true;
    }

    /// Another entry for the same virtual router.
    pub(super) fn set_entry(&mut self, entry: &Arc<VirtualRouter>) {
        if *self.entry != **entry {
            self.entry = Arc::clone(entry);
            self.reopen();
        }
    }

    /// Has the addresses held, or not, as the state asks for.
    pub(super) fn hold(&mut self, ownership: &Ownership) {
        let wanted = match self.state {
            State::Active => Wanted::Held,
            _ if self.has_left => Wanted::Released,
            State::Initialize | State::Backup => Wanted::AsFound,
        };
        let holding = Holding {
            interface: self.entry.interface.clone(),
            vrid: self.entry.vrid,
            is_ipv6: self.is_ipv6,
            addresses: self.vips().collect(),
            virtual_mac: self.entry.virtual_mac,
        };
        let wanted = (holding, wanted);
        if self.told.as_ref() != Some(&wanted) {
            self.told = Some(wanted.clone());
            ownership.set(self.id, wanted.0, wanted.1);
        }
    }

    /// Takes note of its machine's state.
    pub(super) fn follow(&mut self, state: State, why: &str, priority: u8, now: Instant) {
        if state == self.state {
            return;
        }
        let from = self.state;
        (self.state, self.since) = (state, now);
        self.transitions += 1;
        if from == State::Active || state == State::Active {
            // From now on the addresses are where the state says.
            self.has_left = true;
        }
        if state != State::Backup {
            self.active = None;
        }
        let entry = &self.entry;
        info!(
            name = entry.name,
            family = family(self.is_ipv6),
            priority,
            why,
            "{} → {}",
            from.name(),
            state.name()
        );
        if let Some(command) = &entry.notify {
            let notifier = self.notifier.get_or_insert_with(Notifier::start);
            notifier.tell(Notice {
                command: command.clone(),
                name: entry.name.clone(),
                is_ipv6: self.is_ipv6,
                state,
                priority,
            });
        }
    }

    /// What its machine is set up with, at a place.
    pub(super) fn settings(&self, priority: u8) -> machine::Settings {
        let unspecified: IpAddr = if self.is_ipv6 {
            [0_u16; 8].into()
        } else {
            [0_u8; 4].into()
        };
        machine::Settings {
            priority,
            interval: self.entry.advert_interval,
            preempt: self.entry.preempt.then_some(self.entry.preempt_delay),
            address: self.source().unwrap_or(unspecified),
        }
    }
}

fn count_of_malformed(malformed: Malformed) -> Count {
    match malformed {
        Malformed::Hops => Count::Hops,
        Malformed::Length => Count::Length,
        Malformed::Version => Count::Version,
        Malformed::Type => Count::Type,
        Malformed::Checksum => Count::Checksum,
        // There is no such router here, or anywhere.
        Malformed::Vrid => Count::OtherRouter,
        Malformed::Interval => Count::Interval,
        Malformed::NoAddress => Count::NoAddress,
    }
}
