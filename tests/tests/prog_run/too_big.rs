//! Packets that do not fit the way to their backend.

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4::DestUnreachableHeader};
use xdp_lb_common::counters::{DropReason, Event};
use xdp_lb_tests::{
    datagram::{CLIENT6, WEB6, udp6_carrying},
    expect::{Expected, dropped, forwarded_to},
    packet::{DIRECTOR_MAC, ETHERNET, Frame, ROUTER_MAC, tcp},
    plane::{A, Plane},
};

use crate::case::{Case, case, check};

/// Bytes of the packet that are quoted.
const QUOTED: usize = 512;

fn narrow(plane: &mut Plane) {
    plane.narrow(A, 1400);
}

/// The message that the sender of `frame`, which has no tags, gets.
pub(crate) fn fragmentation_needed(frame: &Frame, mtu: u16) -> Frame {
    let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
        next_hop_mtu: mtu,
    });
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(DIRECTOR_MAC, ROUTER_MAC)
        .ipv4([192, 0, 2, 10], [198, 51, 100, 10], 64)
        .icmpv4(kind)
        .write(&mut bytes, &frame.bytes()[ETHERNET..ETHERNET + QUOTED])
        .expect("a message can be built");
    Frame::new(bytes)
}

/// The same over IPv6.
fn packet_too_big(frame: &Frame, mtu: u32) -> Frame {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(DIRECTOR_MAC, ROUTER_MAC)
        .ipv6(WEB6.ip().octets(), CLIENT6.ip().octets(), 64)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu })
        .write(&mut bytes, &frame.bytes()[ETHERNET..ETHERNET + QUOTED])
        .expect("a message can be built");
    Frame::new(bytes)
}

fn refused(frame: &Frame, mtu: u16) -> Expected {
    dropped(DropReason::TooBig)
        .answered(fragmentation_needed(frame, mtu))
        .with(Event::TooBigSent)
}

pub(crate) fn cases() -> Vec<Case> {
    let sized6 = |total: usize| Frame::from(udp6_carrying(&vec![0xa5; total - 48]));
    let ipv6 = |plane: &mut Plane| {
        plane.listen6(WEB6, 17);
        narrow(plane);
    };
    let sized = |total: usize| Frame::from(tcp().syn().payload(vec![0xa5; total - 40]));
    vec![
        case("as large as fits", sized(1400), forwarded_to(A)).given(narrow),
        case("a byte more", sized(1401), refused(&sized(1401), 1400)).given(narrow),
        case("far more", sized(3000), refused(&sized(3000), 1400)).given(narrow),
        case(
            "too large for a way that nobody has",
            sized(400),
            dropped(DropReason::TooBig).with(Event::TooBigNotSent),
        )
        .given(|plane| plane.narrow(A, 300)),
        case(
            "padding does not count",
            sized(1400).padded_to(1500),
            forwarded_to(A),
        )
        .given(narrow),
        case(
            "nor is it quoted",
            sized(1401).padded_to(1500),
            refused(&sized(1401), 1400),
        )
        .given(narrow),
        case(
            "as large as fits, over IPv6",
            sized6(1400),
            forwarded_to(A).with(Event::FlowCreated),
        )
        .given(ipv6),
        case(
            "a byte more, over IPv6",
            sized6(1401),
            dropped(DropReason::TooBig)
                .answered(packet_too_big(&sized6(1401), 1400))
                .with(Event::FlowCreated)
                .with(Event::TooBigSent),
        )
        .given(ipv6),
        case(
            "within two VLANs",
            sized(1401).in_vlan(7).in_vlan(8),
            dropped(DropReason::TooBig)
                .answered(
                    fragmentation_needed(&sized(1401), 1400)
                        .in_vlan(7)
                        .in_vlan(8),
                )
                .with(Event::TooBigSent),
        )
        .given(narrow),
    ]
}

#[test]
fn the_client_is_told_what_fits() {
    check(cases());
}
