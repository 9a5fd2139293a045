//! Next hops of backends, from the kernel's routes and neighbours: looked up once, and kept fresh by
//! the kernel's notifications.
//!
//! The only module that touches netlink. What the kernel tells goes into [`hops`], which decides
//! what it means; this file does the talking.

mod hops;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, warn};

pub use self::hops::{Hop, HopState};
use self::hops::{Hops, Neighbour, Route, State};

/// How often neighbours are looked after: unknown ones are asked for, and those that the kernel has
/// not heard from lately are asked whether they are still there. XDP bypasses the kernel, which
/// therefore never learns from traffic that they are.
const TEND: Duration = Duration::from_secs(1);

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
    ];
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let (wanted, wanted_receiver) = watch::channel(BTreeSet::new());
    let (sender, hops) = watch::channel(NextHops::default());
    let follower = Follower {
        handle,
        hops: Hops::default(),
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
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = self.wanted.borrow_and_update().clone();
                    self.hops.want(wanted);
                    self.read_routes().await;
                    self.tend().await;
                }
                _ = tend.tick() => self.tend().await,
            }
            self.publish();
        }
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
                    if let Some((ifindex, address, _)) = parse_neighbour(&message) {
                        self.hops.neighbour_gone(ifindex, address, Instant::now());
                        self.tend().await;
                    }
                }
                RouteNetlinkMessage::NewLink(message) => self.link(&message),
                RouteNetlinkMessage::DelLink(message) => {
                    self.hops.link_gone(message.header.index);
                }
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => {
                    self.read_routes().await;
                    self.tend().await;
                }
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
        let mac = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
                _ => None,
            });
        if let Some(mac) = mac {
            self.hops.link(message.header.index, mac);
        }
    }

    fn neighbour(&mut self, message: &NeighbourMessage) {
        if let Some((ifindex, address, neighbour)) = parse_neighbour(message) {
            self.hops
                .neighbour(ifindex, address, neighbour, Instant::now());
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
        self.read_routes().await;
    }

    async fn read_routes(&mut self) {
        for address in self.hops.wanted() {
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
            Ok(Some(message)) => parse_route(&message),
            Ok(None) => Route::None("the kernel gave no route".into()),
            Err(rtnetlink::Error::NetlinkError(error)) => Route::None(error.to_io().to_string()),
            Err(error) => Route::None(error.to_string()),
        }
    }

    /// Asks for the neighbours that need it.
    async fn tend(&mut self) {
        for (ifindex, address) in self.hops.to_ask() {
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

fn parse_route(message: &RouteMessage) -> Route {
    if message.header.kind == RouteType::Local {
        return Route::None("it is an address of this host".into());
    }
    let mut ifindex = None;
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::V6(*address));
            }
            _ => {}
        }
    }
    match ifindex {
        Some(ifindex) => Route::Via { ifindex, gateway },
        None => Route::None("the route leads to no interface".into()),
    }
}

fn parse_neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Neighbour)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    let state = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => {
            State::Confirmed
        }
        NeighbourState::Stale => State::Stale,
        NeighbourState::Delay | NeighbourState::Probe => State::Asked,
        NeighbourState::Failed => State::Failed,
        _ => State::Incomplete,
    };
    Some((message.header.ifindex, address?, Neighbour { mac, state }))
}
