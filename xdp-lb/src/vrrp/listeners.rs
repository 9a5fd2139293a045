//! Who listens for advertisements: by each interface that a virtual router is on, and no other.
//!
//! Each interface and family has two sockets, and filters in the kernel see to it that each packet gets to one
//! of them: those that may be of a router that is heard, and all others. So a flood of what nobody should
//! believe, which is counted, does not push out what is waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    num::NonZero,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tracing::{debug, warn};

use super::{
    filter::Choice,
    receiver::{Received, Receiver},
    router::Router,
};
use crate::netlink::LinkMap;

/// Packets that may wait to be looked at; more wait in the kernel, which drops those it has no room for.
pub(super) const QUEUE: usize = 64;

/// How long it takes breath after an error, which may come again at once.
const BREATH: Duration = Duration::from_millis(10);

/// An interface, and whether it is about IPv6.
type Place = (Arc<str>, bool);

/// A packet, and where it came in.
pub(super) struct Arrived {
    pub(super) interface: Arc<str>,
    pub(super) is_ipv6: bool,
    pub(super) received: Received,
}

/// What is listened for at one place.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    ifindex: NonZero<u32>,
    /// Whom virtual routers hear; None: anybody.
    sources: Option<BTreeSet<IpAddr>>,
}

impl Wanted {
    /// One more virtual router hears these; anybody, if there are none.
    fn allow(&mut self, sources: &[IpAddr]) {
        match &mut self.sources {
            Some(all) if !sources.is_empty() => all.extend(sources),
            all => *all = None,
        }
    }
}

/// Tasks that receive at one place. They end with this.
struct Listener {
    wanted: Wanted,
    tasks: [JoinHandle<()>; 2],
}

impl Listener {
    fn start(place: &Place, wanted: Wanted, to: &mpsc::Sender<Arrived>) -> io::Result<Self> {
        let (interface, is_ipv6) = place;
        let open = |choice| Receiver::open(interface, wanted.ifindex, *is_ipv6, choice);
        let sources = wanted.sources.as_ref();
        let receivers = [
            open(Choice::Plausible(sources))?,
            open(Choice::Odd(sources))?,
        ];
        let tasks =
            receivers.map(|receiver| tokio::spawn(forward(receiver, place.clone(), to.clone())));
        Ok(Self { wanted, tasks })
    }

    /// Whether it does what is wanted, and goes on with it.
    fn does(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted && !self.tasks.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// All who listen.
pub(super) struct Listeners {
    by_place: BTreeMap<Place, Listener>,
    to: mpsc::Sender<Arrived>,
}

impl Listeners {
    /// Nobody yet. What is heard goes to `to`.
    pub(super) fn new(to: mpsc::Sender<Arrived>) -> Self {
        Self {
            by_place: BTreeMap::new(),
            to,
        }
    }

    /// Listens for these routers from now on.
    pub(super) fn listen_for<'a>(
        &mut self,
        routers: impl Iterator<Item = &'a Router>,
        links: &LinkMap,
    ) {
        let mut wanted: BTreeMap<Place, Wanted> = BTreeMap::new();
        for router in routers {
            let interface = &router.entry.interface;
            let ifindex = links.get(interface).map(|link| link.ifindex);
            if let Some(ifindex) = ifindex.and_then(NonZero::new) {
                let place = (Arc::from(&**interface), router.is_ipv6);
                let wanted = wanted.entry(place).or_insert(Wanted {
                    ifindex,
                    sources: Some(BTreeSet::new()),
                });
                wanted.allow(router.sources());
            }
        }
        self.by_place.retain(|place, listener| {
            wanted
                .get(place)
                .is_some_and(|wanted| listener.does(wanted))
        });
        for (place, wanted) in wanted {
            if self.by_place.contains_key(&place) {
                continue;
            }
            match Listener::start(&place, wanted, &self.to) {
                Ok(listener) => drop(self.by_place.insert(place, listener)),
                // An interface that goes away meanwhile is told of by netlink.
                Err(error) => warn!(interface = %place.0, %error, "cannot hear advertisements"),
            }
        }
    }
}

/// Hands on what comes in, until it is aborted.
async fn forward(receiver: Receiver, (interface, is_ipv6): Place, to: mpsc::Sender<Arrived>) {
    loop {
        match receiver.receive().await {
            Ok(received) => {
                let arrived = Arrived {
                    interface: Arc::clone(&interface),
                    is_ipv6,
                    received,
                };
                if to.send(arrived).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // "Network is down" is said once, when the interface goes down.
                debug!(%interface, %error, "receiving advertisements");
                sleep(BREATH).await;
            }
        }
    }
}
