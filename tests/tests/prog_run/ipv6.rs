//! IPv6: what is for a service goes the same way as IPv4, extension headers or not; what is not
//! passes.

use std::net::{Ipv6Addr, SocketAddrV6};

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    datagram::{ACK, FIN, IPV6, SYN, V6, WEB6, icmp6, tcp6, udp6},
    expect::{dropped, forwarded_to, passed},
    packet::{ETHERNET, Frame},
    plane::{A, B, Plane, moving, on_plane, settled},
};

use crate::case::{Case, case, check};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
const NO_NEXT_HEADER: u8 = 59;

fn at(address: &str, port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(address.parse::<Ipv6Addr>().unwrap(), port, 0, 0)
}

/// A case that meets a service on the IPv6 VIP.
fn on_v6(what: &str, packet: impl Into<Frame>, expected: xdp_lb_tests::expect::Expected) -> Case {
    case(what, packet, expected).given(|plane| plane.listen6(WEB6, 6))
}

pub(crate) fn cases() -> Vec<Case> {
    let forwarded = |what, packet: V6| on_v6(what, packet, forwarded_to(A));
    let pass = |reason, what, packet: V6| on_v6(what, packet, passed(reason));
    let early = |what, packet: V6| on_v6(what, packet, dropped(DropReason::EarlyFragment));
    vec![
        forwarded("a SYN", tcp6(SYN)),
        forwarded(
            "a SYN behind hop-by-hop options",
            tcp6(SYN).extension(HOP_BY_HOP, 0),
        ),
        forwarded(
            "a SYN behind the longest header",
            tcp6(SYN).extension(DESTINATION, 127),
        ),
        forwarded(
            "a SYN behind an authentication header",
            tcp6(SYN).authentication(6),
        ),
        forwarded(
            "a SYN in a fragment that is the whole",
            tcp6(SYN).fragment(0, false),
        ),
        forwarded(
            "a SYN behind every kind of header",
            tcp6(SYN)
                .extension(HOP_BY_HOP, 1)
                .extension(DESTINATION, 0)
                .extension(ROUTING, 2)
                .fragment(0, false)
                .authentication(3)
                .extension(DESTINATION, 3),
        ),
        pass(
            PassReason::TooManyHeaders,
            "seven extension headers",
            (0..7).fold(tcp6(SYN), |packet, _| packet.extension(DESTINATION, 0)),
        ),
        pass(
            PassReason::TooManyHeaders,
            "more than 1024 bytes of extension headers",
            tcp6(SYN)
                .extension(DESTINATION, 127)
                .extension(DESTINATION, 0),
        ),
        pass(PassReason::OtherProtocol, "an echo request", icmp6(128)),
        pass(
            PassReason::OtherProtocol,
            "a neighbour solicitation",
            icmp6(135),
        ),
        pass(
            PassReason::OtherProtocol,
            "nothing behind the header",
            tcp6(SYN).extension(NO_NEXT_HEADER, 0),
        ),
        pass(
            PassReason::NoService,
            "another port",
            tcp6(SYN).to(at("2001:db8:10::10", 81)),
        ),
        pass(
            PassReason::NoService,
            "another address",
            tcp6(SYN).to(at("2001:db8:10::11", 80)),
        ),
        pass(PassReason::NoService, "UDP to the TCP service", udp6()),
        pass(
            PassReason::NoService,
            "the mapped form of an IPv4 VIP",
            tcp6(SYN).to(at("::ffff:192.0.2.10", 80)),
        ),
        pass(
            PassReason::LaterFragment,
            "a later fragment for somebody else",
            tcp6(SYN).to(at("2001:db8:10::11", 80)).fragment(8, false),
        ),
        early(
            "a later fragment without a first",
            tcp6(SYN).fragment(8, false),
        ),
        pass(
            PassReason::Truncated,
            "version 4 in a frame of IPv6",
            tcp6(SYN).with_version(4),
        ),
        pass(
            PassReason::Truncated,
            "a payload longer than the frame",
            tcp6(SYN).with_payload_length(21),
        ),
        pass(
            PassReason::Truncated,
            "no payload",
            tcp6(SYN).with_payload_length(0),
        ),
        pass(
            PassReason::Truncated,
            "a payload that ends within an extension header",
            tcp6(SYN).extension(DESTINATION, 0).with_payload_length(7),
        ),
        pass(
            PassReason::Truncated,
            "a fragment header in the padding behind the payload",
            tcp6(SYN).fragment(8, false).with_payload_length(0),
        ),
        pass(
            PassReason::Truncated,
            "a payload that ends within the fragment header",
            tcp6(SYN).fragment(8, false).with_payload_length(7),
        ),
        on_v6(
            "a payload that ends within the TCP header",
            tcp6(SYN).with_payload_length(19),
            dropped(DropReason::BadTcpHeader),
        ),
        on_v6(
            "a TCP header of 16 bytes",
            tcp6(SYN).with_transport_byte(12, 4 << 4),
            dropped(DropReason::BadTcpHeader),
        ),
    ]
}

#[test]
fn ipv6_goes_the_same_way() {
    check(cases());
}

#[test]
fn frames_cut_off_anywhere_are_passed_or_dropped() {
    on_plane(|plane| {
        plane.listen6(WEB6, 6);
        let whole = Frame::from(tcp6(SYN).extension(DESTINATION, 0).authentication(3));
        let headers = ETHERNET + IPV6;
        for length in ETHERNET..whole.bytes().len() {
            // The payload length speaks of more than there is.
            plane.check(whole.clone().cut_to(length), &passed(PassReason::Truncated));
        }
        assert!(whole.bytes().len() > headers);
        plane.check(&whole, &forwarded_to(A));
        plane.check(whole.padded_to(120), &forwarded_to(A));
    });
}

fn on_a_moving_slot(plane: &mut Plane) {
    plane.listen6(WEB6, 6);
    plane.slot(moving(A, B));
}

#[test]
fn flows_and_openings_are_remembered_for_ipv6_apart_from_ipv4() {
    on_plane(|plane| {
        on_a_moving_slot(plane);
        plane.check(tcp6(SYN), &forwarded_to(B).with(Event::OpeningCreated));
        plane.check(tcp6(ACK), &forwarded_to(B).with(Event::FlowCreated));
        assert!(plane.openings().is_empty());
        assert_eq!(plane.flows().len(), 1);
        assert!(plane.flows().contains_key(&tcp6(ACK).flow()));
        plane.slot(settled(A));
        plane.check(tcp6(ACK), &forwarded_to(B));
        plane.check(tcp6(FIN | ACK), &forwarded_to(B));
    });
}

#[test]
fn an_older_ipv6_connection_goes_to_the_previous_backend() {
    on_plane(|plane| {
        on_a_moving_slot(plane);
        let expected = forwarded_to(A)
            .with(Event::FlowFollowedPrevious)
            .with(Event::FlowCreated);
        plane.check(tcp6(ACK), &expected);
    });
}
