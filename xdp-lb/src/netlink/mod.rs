//! Next hops of backends, from the kernel's routes and neighbours: looked up once, and kept fresh by
//! the kernel's notifications.
//!
//! The only module that touches netlink. What the kernel tells (`parse`) goes into [`hops`] and
//! [`links`], which decide what it means; this file hears it, and [`neighbours`] asks. VRRP has its own: [`interfaces`]
//! follows interfaces and their addresses, and [`edit`] changes them.

mod connection;
mod edit;
mod hops;
mod interfaces;
mod links;
mod neighbours;
mod parse;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage, link::LinkMessage, neighbour::NeighbourMessage, route::RouteMessage,
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, info, warn};

use self::{
    connection::{Notification, in_time},
    hops::{Hops, Route},
    neighbours::Asking,
};
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
    /// The addresses of which somebody doubts that what is known is true: their neighbours are asked.
    pub doubtful: mpsc::Sender<IpAddr>,
}

/// Doubts that may wait; others are dropped, since they come again.
const DOUBTS: usize = 1024;

/// After a failure everything is read again after so long, and after twice as long each time.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

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
    let (handle, messages) = connection::open(&groups)?;
    let (doubtful, doubts) = mpsc::channel(DOUBTS);
    let (wanted, wanted_receiver) = watch::channel(BTreeSet::new());
    let (sender, hops) = watch::channel(NextHops::default());
    let follower = Follower {
        handle,
        hops: Hops::default(),
        outdated: BTreeSet::new(),
        is_any_lost: false,
        asking: Asking::default(),
        stale: Some(Stale::begin()),
        wanted: wanted_receiver,
        known: sender,
    };
    tokio::spawn(follower.run(messages, doubts));
    Ok(Resolver {
        wanted,
        hops,
        doubtful,
    })
}

/// The task.
struct Follower {
    handle: Handle,
    hops: Hops,
    /// Addresses whose routes are to be read again.
    outdated: BTreeSet<IpAddr>,
    /// The kernel has given up on neighbours that are wanted, or forgotten them.
    is_any_lost: bool,
    asking: Asking,
    /// Something has been missed, so that everything is to be read again.
    stale: Option<Stale>,
    wanted: watch::Receiver<BTreeSet<IpAddr>>,
    known: watch::Sender<NextHops>,
}

/// When everything is to be read again.
#[derive(Clone, Copy, Debug)]
struct Stale {
    at: Instant,
    /// How long to wait after the next failure.
    pause: Duration,
}

impl Stale {
    fn begin() -> Self {
        Self {
            at: Instant::now(),
            pause: RETRY,
        }
    }
}

impl Follower {
    async fn run(
        mut self,
        mut messages: impl Stream<Item = Notification> + Unpin,
        mut doubts: mpsc::Receiver<IpAddr>,
    ) {
        let mut tend = interval(TEND);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.stale.is_some_and(|stale| stale.at <= Instant::now()) {
                self.read_again().await;
            }
            let stale_at = self.stale.map(|stale| stale.at);
            let stale = async {
                match stale_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
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
                Some(address) = doubts.recv() => self.doubt(address).await,
                _ = tend.tick() => {
                    self.ask_all().await;
                    self.forget_unneeded().await;
                }
                () = stale => {}
            }
            if !self.outdated.is_empty() {
                // A link that is down is told of before its routes are looked for.
                self.publish();
                self.read_routes().await;
                self.is_any_lost = true;
            }
            if std::mem::take(&mut self.is_any_lost) {
                self.ask_lost().await;
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
                if self.stale.is_none() {
                    warn!("the kernel dropped notifications; everything is read again");
                }
                self.stale = Some(Stale::begin());
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
            if neighbour.state == hops::State::Fixed {
                self.asking.disown((ifindex, address));
            }
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

    /// Reads links, neighbours and routes from the beginning. What was known stays if that fails: to take every
    /// backend for unreachable would be worse.
    async fn read_again(&mut self) {
        let is_first = self.stale.take().map(|stale| stale.pause);
        let pause = is_first.unwrap_or(RETRY);
        match self.read_all().await {
            Ok(()) if pause > RETRY => info!("links, neighbours and routes have been read again"),
            Ok(()) => {}
            Err(error) => {
                warn!(%error, "cannot list links and neighbours; tried again in {}s", pause.as_secs());
                // The socket may be the reason.
                if let Ok(handle) = connection::ask() {
                    self.handle = handle;
                }
                self.stale = Some(Stale {
                    at: Instant::now() + pause,
                    pause: (pause * 2).min(LONGEST_RETRY),
                });
            }
        }
    }

    async fn read_all(&mut self) -> Result<(), rtnetlink::Error> {
        let links: Vec<_> = in_time(self.handle.link().get().execute().try_collect()).await?;
        let neighbours: Vec<_> =
            in_time(self.handle.neighbours().get().execute().try_collect()).await?;
        self.hops.forget();
        links.iter().for_each(|link| self.link(link));
        neighbours.iter().for_each(|entry| self.neighbour(entry));
        self.all_outdated();
        Ok(())
    }

    /// Reads the routes that may have changed.
    async fn read_routes(&mut self) {
        for address in std::mem::take(&mut self.outdated) {
            match self.read_route(address).await {
                Ok(route) => self.hops.route(address, route),
                // The kernel has not answered, which says nothing of the route.
                Err(error) => {
                    debug!(%address, %error, "cannot read a route");
                    self.stale.get_or_insert_with(|| Stale {
                        at: Instant::now() + RETRY,
                        pause: RETRY,
                    });
                }
            }
        }
    }

    /// What `ip route get ADDRESS` tells.
    async fn read_route(&self, address: IpAddr) -> Result<Route, rtnetlink::Error> {
        let request = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let answer = in_time(self.handle.route().get(request).execute().try_next()).await;
        match answer {
            Ok(Some(message)) => Ok(parse::route(&message)),
            Ok(None) => Ok(Route::None("the kernel gave no route".into())),
            Err(rtnetlink::Error::NetlinkError(error)) => {
                Ok(Route::None(error.to_io().to_string()))
            }
            Err(error) => Err(error),
        }
    }
}
