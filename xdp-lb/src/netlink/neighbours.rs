//! Asking for the backends' MAC addresses, by way of the kernel, which sends the questions and hears the answers.
//!
//! The entries that it keeps for us are marked as learned from outside: the kernel neither forgets them nor
//! counts them against the limits of its table (`gc_thresh3`, 1,024 by default, for the whole host), of which
//! a load balancer with many backends would take everything.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    ops::Bound,
    time::{Duration, Instant},
};

use netlink_packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};
use tracing::{debug, warn};

use super::{Follower, connection::in_time};

/// Neighbours that have not answered for long are asked so many a second: each question is one to all hosts of the
/// link, three times over.
const SILENT_A_SECOND: usize = 200;

/// How often a neighbour is asked at the most because somebody doubts it.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(5);

/// How often a full neighbour table is told of.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// A neighbour: the index of an interface, and an address behind it.
type Key = (u32, IpAddr);

/// What was asked.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// The last of those that have not answered for long.
    last_silent: Option<Key>,
    /// When neighbours were last doubted.
    doubted: HashMap<Key, Instant>,
    /// The entries that the kernel keeps for us.
    ours: BTreeSet<Key>,
    warned: Option<Instant>,
}

impl Asking {
    /// Somebody has set an entry by hand, which is not ours to remove.
    pub(super) fn disown(&mut self, neighbour: Key) {
        self.ours.remove(&neighbour);
    }

    /// Some of those that have not answered for long, in turn.
    fn next_silent(&mut self, silent: &BTreeSet<Key>) -> Vec<Key> {
        let after = self.last_silent.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = silent.range((after, Bound::Unbounded));
        let all = behind.chain(silent).take(SILENT_A_SECOND.min(silent.len()));
        let next: Vec<_> = all.copied().collect();
        self.last_silent = next.last().copied();
        next
    }
}

impl Follower {
    /// Asks for the neighbours that need it, once a second.
    pub(super) async fn ask_all(&mut self) {
        let now = Instant::now();
        let (silent, others) = self.due(now);
        for neighbour in others.into_iter().chain(self.asking.next_silent(&silent)) {
            self.ask(neighbour, now).await;
        }
    }

    /// Asks again for those that the kernel has just given up, or forgotten: one lost answer says nothing.
    pub(super) async fn ask_lost(&mut self) {
        let now = Instant::now();
        let (_, others) = self.due(now);
        for neighbour in others {
            self.ask(neighbour, now).await;
        }
    }

    /// The neighbours to be asked: those that have not answered for long, and the others.
    fn due(&mut self, now: Instant) -> (BTreeSet<Key>, Vec<Key>) {
        let to_ask = self.hops.next_asks(now).into_iter();
        let (silent, others): (Vec<_>, Vec<_>) =
            to_ask.partition(|neighbour| self.hops.is_given_up(neighbour, now));
        (silent.into_iter().collect(), others)
    }

    /// Has the kernel ask for a neighbour.
    async fn ask(&mut self, (ifindex, address): Key, now: Instant) {
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use | NeighbourFlags::ExtLearned)
            .replace();
        match in_time(request.execute()).await {
            Ok(()) => {
                self.asking.ours.insert((ifindex, address));
                self.hops.set_full((ifindex, address), false);
            }
            Err(error) if is_full(&error) => {
                self.hops.set_full((ifindex, address), true);
                let is_soon = |at: Instant| now.duration_since(at) < BETWEEN_WARNINGS;
                if !self.asking.warned.is_some_and(is_soon) {
                    self.asking.warned = Some(now);
                    warn!(
                        %address,
                        "the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3 and \
                         net.ipv6.neigh.default.gc_thresh3"
                    );
                }
            }
            Err(error) => debug!(%address, ifindex, %error, "cannot ask for a neighbour"),
        }
    }

    /// Asks the next hop of a backend whether it is still where it was: the kernel would believe so for half a
    /// minute, since it does not see that packets are not answered.
    pub(super) async fn doubt(&mut self, backend: IpAddr) {
        let Some(neighbour) = self.hops.confirmed_neighbour(backend) else {
            return;
        };
        let now = Instant::now();
        let is_soon = |at: &Instant| now.duration_since(*at) < BETWEEN_DOUBTS;
        if self.asking.doubted.get(&neighbour).is_some_and(is_soon) {
            return;
        }
        self.asking.doubted.retain(|_, at| is_soon(at));
        self.asking.doubted.insert(neighbour, now);
        let (ifindex, address) = neighbour;
        let request = self
            .handle
            .neighbours()
            .add(ifindex, address)
            .state(NeighbourState::Probe)
            .flags(NeighbourFlags::ExtLearned)
            .replace();
        if let Err(error) = in_time(request.execute()).await {
            debug!(%address, ifindex, %error, "cannot ask whether a neighbour is there");
        }
    }

    /// Lets the kernel forget the neighbours that are not needed any more.
    pub(super) async fn forget_unneeded(&mut self) {
        if !self.hops.knows_all_routes() {
            // It is not known which are needed.
            return;
        }
        let needed = self.hops.needed();
        let unneeded: Vec<_> = self.asking.ours.difference(&needed).copied().collect();
        for neighbour in unneeded {
            self.asking.ours.remove(&neighbour);
            let (ifindex, address) = neighbour;
            let mut message = NeighbourMessage::default();
            message.header.ifindex = ifindex;
            let (family, destination) = match address {
                IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
                IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
            };
            message.header.family = family;
            message
                .attributes
                .push(NeighbourAttribute::Destination(destination));
            let request = self.handle.neighbours().del(message);
            if let Err(error) = in_time(request.execute()).await {
                debug!(%address, ifindex, %error, "cannot have a neighbour forgotten");
            }
        }
    }
}

/// Whether the kernel has no room for another neighbour.
fn is_full(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(error) = error else {
        return false;
    };
    let error: io::Error = error.to_io();
    error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_silent_for_long_are_asked_in_turn() {
        let key = |number: u32| (2, IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        let many: BTreeSet<_> = (0..500).map(key).collect();
        let mut asking = Asking::default();
        let mut asked = Vec::new();
        for _ in 0..5 {
            let next = asking.next_silent(&many);
            assert_eq!(next.len(), SILENT_A_SECOND);
            asked.extend(next);
        }
        let expected: Vec<_> = (0..1000).map(|number| key(number % 500)).collect();
        assert_eq!(asked, expected);
        let few: BTreeSet<_> = (0..3).map(key).collect();
        assert_eq!(asking.next_silent(&few).len(), 3);
        assert_eq!(asking.next_silent(&few), [key(0), key(1), key(2)]);
        assert_eq!(asking.next_silent(&BTreeSet::new()), []);
    }
}
