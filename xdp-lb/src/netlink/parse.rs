//! What the kernel's messages say, in the words of [`hops`](super::hops) and [`links`](super::links).

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily,
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use xdp_lb_common::abi::BackendEntry;

use super::{
    hops::{Neighbour, Route, State, Via},
    links::{Link, LinkState, Vlan},
};

/// A device; None for a message of another kind about one, such as a bridge's about its port.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    if !is_about_a_device(message) {
        return None;
    }
    let mut link = Link {
        name: String::new(),
        mac: None,
        mtu: 0,
        state: state(message.header.flags),
        vlan: None,
        below: None,
        master: None,
    };
    let mut parent = None;
    let mut tag = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => tag = vlan_tag(infos),
            _ => {}
        }
    }
    // The index of a device of another namespace says nothing here.
    let is_elsewhere =
        |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::LinkNetNsId(_));
    if !message.attributes.iter().any(is_elsewhere) {
        link.vlan = parent.zip(tag).map(|(parent, tag)| Vlan { parent, tag });
        link.below = parent;
    }
    Some(link)
}

/// False for what a bridge or the like says about its port.
pub(super) fn is_about_a_device(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn state(flags: LinkFlags) -> LinkState {
    if !flags.contains(LinkFlags::Up) {
        LinkState::Down
    } else if !flags.contains(LinkFlags::LowerUp) {
        LinkState::NoCarrier
    } else {
        LinkState::Up
    }
}

/// The tag that a VLAN device adds; None where the device is no such.
fn vlan_tag(infos: &[LinkInfo]) -> Option<u16> {
    let is_vlan = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Vlan));
    if !infos.iter().any(is_vlan) {
        return None;
    }
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let mut id = None;
    let mut service = false;
    for item in data {
        match item {
            InfoVlan::Id(found) => id = Some(*found),
            InfoVlan::Protocol(protocol) => service = *protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
    id.map(|id| BackendEntry::tag(id, service))
}

/// The answer to a question for the route to one address.
pub(super) fn route(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Route::None("it is an address of this host".into()),
        kind => {
            let kind = format!("{kind:?}").to_lowercase();
            return Route::None(format!("the route is of the type {kind}"));
        }
    }
    let mut ifindex = None;
    let mut gateway = None;
    let mut source = None;
    let mut mtu = None;
    let mut is_learned = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::CacheInfo(info) => is_learned = info.expires != 0,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    match ifindex {
        Some(ifindex) => Route::Via(Via {
            ifindex,
            gateway,
            source,
            // What the kernel has learned from ICMP for its own packets ends without a word.
            mtu: mtu.filter(|_| !is_learned),
        }),
        None => Route::None("the route leads to no interface".into()),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// The addresses that a change of this route can matter to, the first and the last; None: all of
/// its family, or of both.
pub(super) fn destinations(message: &RouteMessage) -> Option<(IpAddr, IpAddr)> {
    let length = u32::from(message.header.destination_prefix_length);
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                let host = u32::MAX.checked_shr(length).unwrap_or(0);
                let first = address.to_bits() & !host;
                Some((
                    std::net::Ipv4Addr::from_bits(first).into(),
                    std::net::Ipv4Addr::from_bits(first | host).into(),
                ))
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                let host = u128::MAX.checked_shr(length).unwrap_or(0);
                let first = address.to_bits() & !host;
                Some((
                    std::net::Ipv6Addr::from_bits(first).into(),
                    std::net::Ipv6Addr::from_bits(first | host).into(),
                ))
            }
            _ => None,
        })
}

/// A row of the neighbour table: interface, address, and what is known.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Neighbour)> {
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
        NeighbourState::Permanent | NeighbourState::Noarp => State::Fixed,
        NeighbourState::Reachable => State::Confirmed,
        NeighbourState::Stale => State::Stale,
        NeighbourState::Delay | NeighbourState::Probe => State::Asked,
        NeighbourState::Failed => State::Failed,
        _ => State::Incomplete,
    };
    Some((message.header.ifindex, address?, Neighbour { mac, state }))
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteCacheInfo;

    use super::*;

    fn route_message(length: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = length;
        message.attributes = attributes;
        message
    }

    fn v4(text: &str) -> RouteAddress {
        RouteAddress::Inet(text.parse().unwrap())
    }

    #[test]
    fn a_route_tells_interface_gateway_source_and_mtu() {
        let metrics = RouteAttribute::Metrics(vec![RouteMetric::Lock(4), RouteMetric::Mtu(1400)]);
        let mut attributes = vec![
            RouteAttribute::Oif(7),
            RouteAttribute::Gateway(v4("10.0.0.1")),
            RouteAttribute::PrefSource(v4("10.0.0.2")),
            metrics,
        ];
        let via = Via {
            ifindex: 7,
            gateway: Some([10, 0, 0, 1].into()),
            source: Some([10, 0, 0, 2].into()),
            mtu: Some(1400),
        };
        assert_eq!(
            route(&route_message(32, attributes.clone())),
            Route::Via(via)
        );
        let mut cache = [0; 32];
        cache[8..12].copy_from_slice(&600_u32.to_ne_bytes());
        let learned = RouteCacheInfo::parse(&cache).unwrap();
        assert_eq!(learned.expires, 600);
        attributes.push(RouteAttribute::CacheInfo(learned));
        assert_eq!(
            route(&route_message(32, attributes)),
            Route::Via(Via { mtu: None, ..via }),
            "what was learned for a while does not count"
        );
    }

    #[test]
    fn a_route_that_leads_nowhere_says_so() {
        let mut message = route_message(32, vec![RouteAttribute::Oif(1)]);
        message.header.kind = RouteType::Local;
        assert_eq!(
            route(&message),
            Route::None("it is an address of this host".into())
        );
        message.header.kind = RouteType::BlackHole;
        assert!(
            matches!(route(&message), Route::None(reason) if reason == "the route is of the type blackhole")
        );
    }

    #[test]
    fn a_route_matters_to_the_addresses_of_its_prefix() {
        let of = |length, text: &str| {
            let attribute = RouteAttribute::Destination(v4(text));
            destinations(&route_message(length, vec![attribute]))
        };
        let range = |from: [u8; 4], to: [u8; 4]| Some((from.into(), to.into()));
        assert_eq!(of(8, "10.0.0.0"), range([10, 0, 0, 0], [10, 255, 255, 255]));
        assert_eq!(of(32, "10.0.0.9"), range([10, 0, 0, 9], [10, 0, 0, 9]));
        assert_eq!(of(0, "0.0.0.0"), range([0; 4], [255; 4]));
        assert_eq!(destinations(&route_message(0, Vec::new())), None);
    }

    #[test]
    fn a_vlan_device_tells_parent_and_tag() {
        let info = |protocol| {
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![
                    InfoVlan::Id(100),
                    InfoVlan::Protocol(protocol),
                ])),
            ])
        };
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![
            LinkAttribute::IfName("eth0.100".into()),
            LinkAttribute::Address(vec![2; 6]),
            LinkAttribute::Mtu(1496),
            LinkAttribute::Link(2),
            info(VlanProtocol::Ieee8021Ad),
        ];
        let found = link(&message).unwrap();
        assert_eq!(
            found,
            Link {
                name: "eth0.100".into(),
                mac: Some([2; 6]),
                mtu: 1496,
                state: LinkState::Up,
                vlan: Some(Vlan {
                    parent: 2,
                    tag: 0x8064
                }),
                below: Some(2),
                master: None,
            }
        );
        message.attributes[4] = info(VlanProtocol::Ieee8021Q);
        assert_eq!(link(&message).unwrap().vlan.unwrap().tag, 0x0064);
        message.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(link(&message).unwrap().vlan, None);
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(link(&message), None);
    }

    #[test]
    fn a_device_is_up_where_it_is_on_and_has_a_carrier() {
        assert_eq!(state(LinkFlags::empty()), LinkState::Down);
        assert_eq!(state(LinkFlags::Up), LinkState::NoCarrier);
        assert_eq!(state(LinkFlags::Up | LinkFlags::LowerUp), LinkState::Up);
    }
}
