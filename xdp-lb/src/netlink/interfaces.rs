//! The interfaces of this host with their addresses, kept fresh by the kernel's notifications.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use super::{
    CROWD,
    connection::{self, Notification, in_time},
    links::{self, LinkState},
    parse,
};

/// How long after a failure all is read again.
const RETRY: Duration = Duration::from_secs(1);

/// The interfaces of this host, by name. Empty until they have been read for the first time.
pub type LinkMap = Arc<BTreeMap<String, Link>>;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub ifindex: u32,
    /// Whether it is up, and its cable has something at the other end.
    pub is_running: bool,
    /// Its MAC address; zero where it has none.
    pub mac: [u8; 6],
    /// Index of the interface that it is on top of, as a macvlan is, if it is.
    pub below: Option<u32>,
    /// Index of the bridge or the like that it is a port of, if it is.
    pub master: Option<u32>,
    /// Its addresses, in the order that the kernel lists them in.
    pub addresses: Vec<IfAddress>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix: u8,
    /// Whether it is not known yet that nobody else has it.
    pub is_tentative: bool,
}

/// Begins to follow interfaces and their addresses, on a task that ends with the receivers.
///
/// # Errors
///
/// If no netlink socket can be had.
pub fn follow_links() -> io::Result<watch::Receiver<LinkMap>> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (handle, messages) = connection::open(&groups)?;
    let (sender, receiver) = watch::channel(LinkMap::default());
    let follower = Follower {
        handle,
        interfaces: Interfaces::default(),
        is_stale: true,
        known: sender,
    };
    tokio::spawn(follower.run(messages));
    Ok(receiver)
}

struct Follower {
    handle: Handle,
    interfaces: Interfaces,
    /// Something has been missed, so that all is to be read again.
    is_stale: bool,
    known: watch::Sender<LinkMap>,
}

impl Follower {
    async fn run(mut self, mut messages: impl Stream<Item = Notification> + Unpin) {
        loop {
            if self.is_stale {
                self.read_again().await;
            }
            self.publish();
            tokio::select! {
                message = messages.next() => {
                    let Some((message, _)) = message else { return };
                    self.heard(message.payload);
                    // Those that have come meanwhile.
                    for _ in 0..CROWD {
                        let Some(Some((message, _))) = messages.next().now_or_never() else {
                            break;
                        };
                        self.heard(message.payload);
                    }
                }
                () = sleep(RETRY), if self.is_stale => {}
                () = self.known.closed() => return,
            }
        }
    }

    fn publish(&self) {
        let links = self.interfaces.map();
        self.known.send_if_modified(|told| {
            let differs = **told != links;
            if differs {
                *told = Arc::new(links);
            }
            differs
        });
    }

    fn heard(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        match payload {
            NetlinkPayload::InnerMessage(message) => self.interfaces.heard(&message),
            NetlinkPayload::Overrun(_) => {
                warn!("the kernel dropped notifications; reading interfaces again");
                self.is_stale = true;
            }
            _ => {}
        }
    }

    /// What was known stays if that fails: to take all addresses for gone would be worse.
    async fn read_again(&mut self) {
        match self.read_all().await {
            Ok(fresh) => {
                self.interfaces = fresh;
                self.is_stale = false;
            }
            Err(error) => warn!(%error, "cannot list interfaces and their addresses"),
        }
    }

    async fn read_all(&self) -> Result<Interfaces, rtnetlink::Error> {
        let mut fresh = Interfaces::default();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = in_time(links.try_next()).await? {
            fresh.heard(&RouteNetlinkMessage::NewLink(link));
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(address) = in_time(addresses.try_next()).await? {
            fresh.heard(&RouteNetlinkMessage::NewAddress(address));
        }
        Ok(fresh)
    }
}

/// What the kernel has said of interfaces.
#[derive(Debug, Default)]
struct Interfaces {
    links: BTreeMap<u32, links::Link>,
    addresses: HashMap<u32, Vec<IfAddress>>,
}

impl Interfaces {
    fn heard(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                if let Some(link) = parse::link(message) {
                    self.links.insert(message.header.index, link);
                }
            }
            RouteNetlinkMessage::DelLink(message) if parse::is_about_a_device(message) => {
                self.links.remove(&message.header.index);
                self.addresses.remove(&message.header.index);
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(address) = address(message) {
                    let all = self.addresses.entry(message.header.index).or_default();
                    let same = |known: &&mut IfAddress| {
                        (known.address, known.prefix) == (address.address, address.prefix)
                    };
                    match all.iter_mut().find(same) {
                        Some(known) => *known = address,
                        None => all.push(address),
                    }
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(gone) = address(message)
                    && let Some(all) = self.addresses.get_mut(&message.header.index)
                {
                    all.retain(|known| {
                        (known.address, known.prefix) != (gone.address, gone.prefix)
                    });
                }
            }
            _ => {}
        }
    }

    fn map(&self) -> BTreeMap<String, Link> {
        let links = self.links.iter().map(|(&ifindex, heard)| {
            let link = Link {
                ifindex,
                is_running: heard.state == LinkState::Up,
                mac: heard.mac.unwrap_or_default(),
                below: heard.below,
                master: heard.master,
                addresses: self.addresses.get(&ifindex).cloned().unwrap_or_default(),
            };
            (heard.name.clone(), link)
        });
        links.collect()
    }
}

fn address(message: &AddressMessage) -> Option<IfAddress> {
    let (mut local, mut other) = (None, None);
    let mut is_tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
    for attribute in &message.attributes {
        match attribute {
            // Of a cable with two ends it is this host's end; otherwise both are the same.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(flags) => {
                is_tentative |= flags.contains(AddressFlags::Tentative);
            }
            _ => {}
        }
    }
    Some(IfAddress {
        address: local.or(other)?,
        prefix: message.header.prefix_len,
        is_tentative,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

    use super::*;

    fn link(ifindex: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = flags;
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
        ];
        message
    }

    fn address_message(ifindex: u32, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        message.header.prefix_len = 24;
        message.attributes = attributes;
        message
    }

    #[test]
    fn interfaces_and_addresses_come_and_go() {
        let mut interfaces = Interfaces::default();
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        interfaces.heard(&RouteNetlinkMessage::NewLink(link(3, "eth0", up)));
        let ours: IpAddr = [10, 0, 0, 2].into();
        let theirs: IpAddr = [10, 0, 0, 1].into();
        let both = vec![
            AddressAttribute::Address(theirs),
            AddressAttribute::Local(ours),
        ];
        let message = address_message(3, both);
        interfaces.heard(&RouteNetlinkMessage::NewAddress(message.clone()));
        // Twice is once.
        interfaces.heard(&RouteNetlinkMessage::NewAddress(message.clone()));
        let known = IfAddress {
            address: ours,
            prefix: 24,
            is_tentative: false,
        };
        let link_up = Link {
            ifindex: 3,
            is_running: true,
            mac: [2, 0, 0, 0, 0, 7],
            below: None,
            master: None,
            addresses: vec![known],
        };
        assert_eq!(interfaces.map()["eth0"], link_up);
        // It gets another name, and loses its cable.
        interfaces.heard(&RouteNetlinkMessage::NewLink(link(3, "wan", LinkFlags::Up)));
        let map = interfaces.map();
        assert!(!map.contains_key("eth0") && !map["wan"].is_running);
        interfaces.heard(&RouteNetlinkMessage::DelAddress(message.clone()));
        interfaces.heard(&RouteNetlinkMessage::DelAddress(message));
        assert_eq!(interfaces.map()["wan"].addresses, []);
        interfaces.heard(&RouteNetlinkMessage::DelLink(link(3, "wan", up)));
        assert!(interfaces.map().is_empty());
    }

    #[test]
    fn an_address_that_is_still_asked_about_is_tentative() {
        let ours: IpAddr = "2001:db8::1".parse().unwrap();
        let flags = AddressAttribute::Flags(AddressFlags::Tentative);
        let message = address_message(3, vec![AddressAttribute::Address(ours), flags]);
        let found = address(&message).unwrap();
        assert!(found.is_tentative && found.address == ours);
        assert_eq!(address(&address_message(3, Vec::new())), None);
    }
}
