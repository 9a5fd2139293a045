//! Forwarding modes `ipip` and `gue`: every byte of the outer headers, for the four pairings of
//! families, and tags around it all.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use xdp_lb_common::{
    abi::{BackendEntry, NextHop},
    counters::{Counter, DropReason, Event},
    hash::{Affinity, HashKey, flow_hash},
};
use xdp_lb_tests::{
    datagram::{WEB6, udp6_carrying},
    expect::{Counts, Expected, dropped, forwarded_to},
    icmp::{LEAST, icmp_error},
    packet::{ETHERNET, Frame, WEB, tcp, udp_to},
    plane::{A, GUE_PORT, OUTWARD_MAC, Plane, backend_mac, on_plane},
    tunnel::{Tunnel, gue, ipip},
};

use crate::case::{Case, case, check};

/// IP protocol number of UDP.
const UDP: u8 = 17;

/// A tunnel to backend A.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    flag: u16,
    source: IpAddr,
    backend: IpAddr,
}

fn ways() -> [Way; 4] {
    let v4 = |host| IpAddr::from([203, 0, 113, host]);
    let v6 = |host| IpAddr::from([0x2001, 0xdb8, 0, 0x70, 0, 0, 0, host]);
    let way = |name, flag, source, backend| Way {
        name,
        flag,
        source,
        backend,
    };
    [
        way("ipip over IPv4", NextHop::FLAG_IPIP, v4(1), v4(11)),
        way("ipip over IPv6", NextHop::FLAG_IPIP, v6(1), v6(11)),
        way("gue over IPv4", NextHop::FLAG_GUE, v4(1), v4(11)),
        way("gue over IPv6", NextHop::FLAG_GUE, v6(1), v6(11)),
    ]
}

impl Way {
    fn open(self, plane: &mut Plane) {
        plane.tunnel(A, self.flag, self.source, self.backend);
    }

    /// What `inner` becomes, for a flow with this hash.
    fn around(self, inner: impl Into<Frame>, hash: u64) -> Tunnel {
        let inner = inner.into().one_hop_later();
        let inner = inner.with_macs(backend_mac(A), OUTWARD_MAC);
        let label = u32::try_from(hash & 0xf_ffff).expect("20 bits");
        let source = 0xc000 | u16::try_from(hash & 0x3fff).expect("14 bits");
        let tunnel = if self.flag == NextHop::FLAG_GUE {
            gue(self.source, self.backend, inner).ports(source, GUE_PORT)
        } else {
            ipip(self.source, self.backend, inner)
        };
        tunnel.flow_label(label)
    }

    /// Bytes that it adds.
    fn overhead(self) -> usize {
        self.around(tcp().syn(), 0).overhead()
    }
}

fn hash4() -> u64 {
    flow_hash(HashKey::DEFAULT, Affinity::Flow, &tcp().flow())
}

fn hash6() -> u64 {
    flow_hash(HashKey::DEFAULT, Affinity::Flow, &udp6_carrying(b"").flow())
}

/// A SYN with so many bytes of data.
fn syn(bytes: usize) -> Frame {
    tcp().syn().payload(vec![0xa5; bytes]).into()
}

/// A UDP packet over IPv6 with so many bytes of data.
fn datagram6(bytes: usize) -> Frame {
    udp6_carrying(&vec![0x5a; bytes]).into()
}

/// With another traffic class.
fn with_class(frame: &Frame, class: u8) -> Frame {
    let mut bytes = frame.bytes().to_vec();
    if bytes[ETHERNET] >> 4 == 4 {
        bytes[ETHERNET + 1] = class;
    } else {
        bytes[ETHERNET] = 0x60 | class >> 4;
        bytes[ETHERNET + 1] = class << 4;
    }
    Frame::new(bytes)
}

/// With the bit that forbids fragmentation, by which the outer header has no identification.
fn unfragmentable(frame: &Frame) -> Frame {
    let mut bytes = frame.bytes().to_vec();
    bytes[ETHERNET + 6] = 0x40;
    Frame::new(bytes)
}

pub(crate) fn cases() -> Vec<Case> {
    ways()
        .into_iter()
        .flat_map(|way| {
            [
                over_ipv4(way),
                over_ipv6(way),
                with_tags(way),
                at_the_mtu(way),
            ]
        })
        .flatten()
        .collect()
}

/// Packets of IPv4 in a tunnel.
fn over_ipv4(way: Way) -> Vec<Case> {
    let hash = hash4();
    let row = |what: &str, frame: Frame, expected: Expected| {
        case(format!("{}: {what}", way.name), frame, expected).given(move |plane| way.open(plane))
    };
    let plain = |what: &str, frame: Frame| {
        let becomes = way.around(frame.clone(), hash);
        row(what, frame, forwarded_to(A).becoming(becomes))
    };
    let classed = with_class(&syn(0), 0xb9);
    let error = unfragmentable(&icmp_error(
        3,
        4,
        &tcp()
            .from("192.0.2.10:80")
            .to("198.51.100.10:40000")
            .ack()
            .into(),
        LEAST,
    ));
    vec![
        plain("a SYN", syn(0)),
        plain("a SYN with a byte of data", syn(1)),
        plain("a SYN with 1,400 bytes of data", syn(1400)),
        plain("a SYN with IP options", tcp().syn().ip_options(40).into()),
        row(
            "DSCP and ECN are copied",
            classed.clone(),
            forwarded_to(A).becoming(way.around(classed, hash).traffic_class(0xb9)),
        ),
        row(
            "data makes a flow entry",
            tcp().data("GET /").into(),
            forwarded_to(A)
                .with(Event::FlowCreated)
                .becoming(way.around(tcp().data("GET /"), hash)),
        ),
        row(
            "padding stays behind the packet and is not counted",
            syn(0).padded_to(60),
            forwarded_to(A).becoming(padded(&way.around(syn(0), hash), 6)),
        ),
        row(
            "an ICMP error about a packet of the flow",
            error.clone(),
            forwarded_to(A)
                .with(Event::IcmpError)
                .becoming(way.around(error, hash).traffic_class(0xc0)),
        ),
    ]
}

/// Packets of IPv6 in a tunnel.
fn over_ipv6(way: Way) -> Vec<Case> {
    let hash = hash6();
    let row = |what: &str, frame: Frame, class: u8| {
        let becomes = way.around(frame.clone(), hash).traffic_class(class);
        let expected = forwarded_to(A).with(Event::FlowCreated).becoming(becomes);
        case(format!("{}: {what}", way.name), frame, expected).given(move |plane: &mut Plane| {
            plane.listen6(WEB6, UDP);
            way.open(plane);
        })
    };
    vec![
        row("a datagram over IPv6", datagram6(32), 0),
        row("an empty datagram over IPv6", datagram6(0), 0),
        row("an odd datagram over IPv6", datagram6(1233), 0),
        row(
            "a datagram over IPv6, behind extension headers",
            udp6_carrying(b"question")
                .extension(0, 0)
                .extension(60, 2)
                .into(),
            0,
        ),
        row(
            "the traffic class of IPv6 is copied",
            with_class(&datagram6(9), 0x2e),
            0x2e,
        ),
    ]
}

/// Tags on both sides of a tunnel.
fn with_tags(way: Way) -> Vec<Case> {
    let hash = hash4();
    let row = |what: &str, frame: Frame, tags: (u16, u16), becomes: Frame| {
        let expected = forwarded_to(A).becoming(becomes);
        case(format!("{}: {what}", way.name), frame, expected).given(move |plane: &mut Plane| {
            way.open(plane);
            plane.tag(A, tags.0, tags.1);
        })
    };
    let sent = || Frame::from(way.around(syn(3), hash));
    let provider = BackendEntry::tag(100, true);
    vec![
        row("from a VLAN to none", syn(3).in_vlan(7), (0, 0), sent()),
        row("from none to a VLAN", syn(3), (100, 0), sent().in_vlan(100)),
        row(
            "from one VLAN to another",
            syn(3).in_vlan(7),
            (100, 0),
            sent().in_vlan(100),
        ),
        row(
            "from two VLANs to none",
            syn(3).in_vlan(7).in_vlan(8),
            (0, 0),
            sent(),
        ),
        row(
            "from none to a provider's VLAN and a customer's",
            syn(3),
            (provider, 7),
            sent().in_vlan(7).in_vlan(100).with_ether_type(0x88a8),
        ),
    ]
}

/// Packets that just fit, and that just do not.
fn at_the_mtu(way: Way) -> Vec<Case> {
    let hash = hash4();
    let fits = 1500 - way.overhead();
    let row = |what: &str, frame: Frame, expected: Expected| {
        case(format!("{}: {what}", way.name), frame, expected).given(move |plane: &mut Plane| {
            way.open(plane);
            plane.narrow(A, 1500);
        })
    };
    let large = syn(fits - 40);
    let larger = syn(fits - 39);
    let told = u16::try_from(fits).expect("an MTU has 16 bits");
    vec![
        row(
            "as large as fits within",
            large.clone(),
            forwarded_to(A).becoming(way.around(large, hash)),
        ),
        row(
            "a byte more than fits within",
            larger.clone(),
            dropped(DropReason::TooBig)
                .answered(crate::too_big::fragmentation_needed(&larger, told))
                .with(Event::TooBigSent),
        ),
    ]
}

/// Bytes of padding behind it.
fn padded(tunnel: &Tunnel, bytes: usize) -> Frame {
    let frame = Frame::from(tunnel);
    let length = frame.bytes().len() + bytes;
    frame.padded_to(length)
}

#[test]
fn packets_go_to_the_backend_within_another() {
    check(cases());
}

/// A packet that routers may fragment becomes one that they may fragment, with an identification
/// that differs from packet to packet.
#[test]
fn what_may_be_fragmented_may_be_so_in_the_tunnel() {
    for way in ways() {
        on_plane(move |plane| {
            way.open(plane);
            let inner = tcp().data("GET /").may_fragment();
            let mut ids = std::collections::BTreeSet::new();
            for _ in 0..20 {
                let (_, output) = plane.run(&Frame::from(&inner));
                if way.source.is_ipv6() {
                    assert_eq!(output, way.around(&inner, hash4()).into());
                    return;
                }
                let id = [output.bytes()[ETHERNET + 4], output.bytes()[ETHERNET + 5]];
                let id = u16::from_be_bytes(id);
                ids.insert(id);
                let expected = way.around(&inner, hash4()).id(id).may_fragment();
                assert_eq!(output, expected.into());
            }
            // Two of twenty random ones may be equal.
            assert!(ids.len() > 15, "{ids:?}");
        });
    }
}

/// A backend that is a VIP of its own service gets packets that are packets for itself again: each
/// run adds headers, until there is no room in front of the frame.
#[test]
fn where_there_is_no_room_for_another_header_the_packet_is_dropped() {
    on_plane(|plane| {
        let [source, vip] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 99)];
        plane.listen_to(SocketAddrV4::new(vip, GUE_PORT), UDP);
        plane.listen_to(WEB, UDP);
        plane.tunnel(A, NextHop::FLAG_GUE, source.into(), vip.into());
        let before = Counts::read(plane);
        plane.run_on_own_output(&udp_to("192.0.2.10:80"), 20);
        let counts = Counts::read(plane).since(&before);
        let (sent, no_room) = (
            counts.packets(Counter::Forwarded),
            counts.packets(Counter::NoRoom),
        );
        assert!(sent >= 4 && no_room >= 1, "{sent} sent, {no_room} not");
        assert_eq!(sent + no_room, 20);
    });
}
