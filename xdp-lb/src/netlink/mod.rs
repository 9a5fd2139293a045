//! Next hops of backends, from the kernel's routes and neighbours: looked up once, and kept fresh by
//! the kernel's notifications.
//!
//! The only module that touches netlink. What the kernel tells (`parse`) goes into [`hops`] and
//! [`links`], which decide what it means; this file does the talking. VRRP has its own: [`interfaces`]
//! follows interfaces and their addresses, and [`edit`] changes them.

mod edit;
mod hops;
mod interfaces;
mod links;
mod parse;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::LinkMessage,
    neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState},
    route::RouteMessage,
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use self::hops::{Hops, Route};
pub use self::{
    edit::Editor,
    hops::{Hop, HopState},
    interfaces::{IfAddress, Link, LinkMap, follow_links},
    links::{Exit, Exits},
};

/// How often neighbours are looked after: unknown ones are asked for, and those that the kernel has
/// not heard from lately are asked whether they are still there. XDP bypasses the kernel, which
/// therefore never learns from traffic that they are.
const TEND: Duration = Duration::from_secs(1);

/// Notifications that are heard together before anything is made of them.
const CROWD: usize = 1024;

/// Next hops by backend address.
pub type NextHops = Arc<BTreeMap<IpAddr, HopState>>;

/// What the director and this module tell each other.
pub struct Resolver {
    /// The addresses whose next hops are wanted.
    pub wanted: watch::Sender<BTreeSet<IpAddr>>,
    /// What is known of them.
    pub hops: watch::Receiver<NextHops>,
}

/// Begins to follow next hops, on a task of its own that ends with the resolver.
///
/// # Errors
///
/// If no netlink socket can be had.
pub fn follow() -> io::Result<Resolver> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        // What else may change routes, or the source that they prefer, without a word about them.
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let (wanted, wanted_receiver) = watch::channel(BTreeSet::new());
    let (sender, hops) = watch::channel(NextHops::default());
    let follower = Follower {
        handle,
        hops: Hops::default(),
        outdated: BTreeSet::new(),
        is_any_lost: false,
        wanted: wanted_receiver,
        known: sender,
    };
    tokio::spawn(follower.run(messages));
    Ok(Resolver { wanted, hops })
}

/// The task.
struct Follower {
    handle: Handle,
    hops: Hops,
    /// Addresses whose routes are to be read again.
    outdated: BTreeSet<IpAddr>,
    /// The kernel has given up on neighbours that are wanted, or forgotten them.
    is_any_lost: bool,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    known: watch::Sender<NextHops>,
}

impl Follower {
    async fn run(
        mut self,
        mut messages: impl futures_util::Stream<
            Item = (
                NetlinkMessage<RouteNetlinkMessage>,
                rtnetlink::sys::SocketAddr,
            ),
        > + Unpin,
    ) {
        let mut tend = interval(TEND);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.read_all().await;
        loop {
            tokio::select! {
                message = messages.next() => {
                    let Some((message, _)) = message else { return };
                    self.heard(message.payload).await;
                    // Those that have come meanwhile: changes of routes come in crowds.
                    for _ in 0..CROWD {
                        let Some(Some((message, _))) = messages.next().now_or_never() else {
                            break;
                        };
                        self.heard(message.payload).await;
                    }
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = self.wanted.borrow_and_update().clone();
                    self.hops.want(wanted);
                    self.all_outdated();
                }
                _ = tend.tick() => self.tend().await,
            }
            if !self.outdated.is_empty() {
                // A link that is down is told of before its routes are looked for.
                self.publish();
                self.read_routes().await;
                self.is_any_lost = true;
            }
            if std::mem::take(&mut self.is_any_lost) {
                self.tend().await;
            }
            self.publish();
        }
    }

    fn all_outdated(&mut self) {
        self.outdated.extend(self.hops.wanted());
    }

    /// Tells the director, where anything is new.
    fn publish(&mut self) {
        let known = self.hops.resolve(Instant::now());
        self.known.send_if_modified(|told| {
            let differs = **told != known;
            if differs {
                *told = Arc::new(known);
            }
            differs
        });
    }

    async fn heard(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        match payload {
            NetlinkPayload::InnerMessage(message) => match message {
                RouteNetlinkMessage::NewNeighbour(message) => self.neighbour(&message),
                RouteNetlinkMessage::DelNeighbour(message) => {
                    if let Some((ifindex, address, _)) = parse::neighbour(&message) {
                        self.hops.neighbour_gone(ifindex, address, Instant::now());
                        self.is_any_lost = true;
                    }
                }
                RouteNetlinkMessage::NewLink(message) => self.link(&message),
                RouteNetlinkMessage::DelLink(message) if parse::is_about_a_device(&message) => {
                    self.hops.link_gone(message.header.index);
                    self.all_outdated();
                }
                RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                    self.route_changed(&message);
                }
                RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::DelAddress(_)
                | RouteNetlinkMessage::NewRule(_)
                | RouteNetlinkMessage::DelRule(_) => self.all_outdated(),
                _ => {}
            },
            NetlinkPayload::Overrun(_) => {
                warn!("the kernel dropped notifications; reading everything again");
                self.read_all().await;
            }
            _ => {}
        }
    }

    fn link(&mut self, message: &LinkMessage) {
        // Routes come and go with devices, without a word about them.
        if let Some(link) = parse::link(message)
            && self.hops.link(message.header.index, link)
        {
            self.all_outdated();
        }
    }

    fn neighbour(&mut self, message: &NeighbourMessage) {
        if let Some((ifindex, address, neighbour)) = parse::neighbour(message) {
            // A round of questions without an answer is no reason not to ask again.
            self.is_any_lost |= neighbour.state == hops::State::Failed;
            self.hops
                .neighbour(ifindex, address, neighbour, Instant::now());
        }
    }

    /// A route came or went, which matters to the addresses of its prefix.
    fn route_changed(&mut self, message: &RouteMessage) {
        match parse::destinations(message) {
            Some((first, last)) => self.outdated.extend(self.hops.wanted_within(first, last)),
            None => self.all_outdated(),
        }
    }

    /// Reads links, neighbours and routes from the beginning.
    async fn read_all(&mut self) {
        self.hops.forget();
        let links: Result<Vec<_>, _> = self.handle.link().get().execute().try_collect().await;
        match links {
            Ok(links) => links.iter().for_each(|link| self.link(link)),
            Err(error) => warn!(%error, "cannot list links"),
        }
        let neighbours: Result<Vec<_>, _> =
            self.handle.neighbours().get().execute().try_collect().await;
        match neighbours {
            Ok(neighbours) => neighbours.iter().for_each(|entry| self.neighbour(entry)),
            Err(error) => warn!(%error, "cannot list neighbours"),
        }
        self.all_outdated();
    }

    /// Reads the routes that may have changed.
    async fn read_routes(&mut self) {
        for address in std::mem::take(&mut self.outdated) {
            let route = self.read_route(address).await;
            self.hops.route(address, route);
        }
    }

    /// What `ip route get ADDRESS` tells.
    async fn read_route(&self, address: IpAddr) -> Route {
        let request = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let answer = self.handle.route().get(request).execute().try_next().await;
        match answer {
            Ok(Some(message)) => parse::route(&message),
            Ok(None) => Route::None("the kernel gave no route".into()),
            Err(rtnetlink::Error::NetlinkError(error)) => Route::None(error.to_io().to_string()),
            Err(error) => Route::None(error.to_string()),
        }
    }

    /// Asks for the neighbours that need it.
    async fn tend(&mut self) {
        for (ifindex, address) in self.hops.to_ask(Instant::now()) {
            let request = self
                .handle
                .neighbours()
                .add(ifindex, address)
                .state(NeighbourState::None)
                .flags(NeighbourFlags::Use)
                .replace();
            if let Err(error) = request.execute().await {
                debug!(%address, ifindex, %error, "cannot ask for a neighbour");
            }
        }
    }
}
