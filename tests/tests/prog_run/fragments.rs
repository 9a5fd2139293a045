//! Fragments: the first has the ports, and the later ones follow it to its backend.

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    datagram::{ACK, WEB6, tcp6, udp_stating},
    expect::{dropped, forwarded_to, passed},
    icmp::{LEAST, icmp_error},
    packet::{Frame, Tcp, ping, tcp},
    plane::{A, B, NOBODY, moving, on_plane, settled},
};

use crate::case::{Case, case, check};

/// The first of several fragments.
fn first() -> Tcp {
    tcp().data([0x5a; 64]).more_fragments()
}

/// One further on in the same packet, whose data look like ports of a service.
fn later() -> Tcp {
    tcp().data([0; 64]).fragment_at(1480)
}

/// With another identification in the IPv4 header.
fn with_id(packet: Tcp, id: u8) -> Frame {
    let mut bytes = Frame::from(packet).bytes().to_vec();
    bytes[19] = id;
    Frame::new(bytes)
}

/// The fragment of another protocol.
fn with_protocol(packet: Tcp, protocol: u8) -> Frame {
    let mut bytes = Frame::from(packet).bytes().to_vec();
    bytes[23] = protocol;
    Frame::new(bytes)
}

pub(crate) fn cases() -> Vec<Case> {
    let early = |what: &str, frame: Frame| case(what, frame, dropped(DropReason::EarlyFragment));
    let pass = |what: &str, frame: Frame| case(what, frame, passed(PassReason::LaterFragment));
    let reply = tcp()
        .from("192.0.2.10:80")
        .to("198.51.100.10:40000")
        .ack()
        .into();
    let mut error = icmp_error(3, 4, &reply, LEAST).bytes().to_vec();
    error[20] = 0x20;
    vec![
        case(
            "a first fragment",
            first(),
            forwarded_to(A).with(Event::FlowCreated),
        ),
        case(
            "a first fragment with a SYN",
            tcp().syn().more_fragments(),
            forwarded_to(A),
        ),
        early(
            "one in the middle that is alone",
            with_id(later().more_fragments(), 1),
        ),
        early(
            "the last one that is alone",
            with_id(tcp().data([0; 64]).fragment_at(65528), 2),
        ),
        early(
            "one only eight bytes in",
            with_id(tcp().syn().fragment_at(8), 3),
        ),
        early("one of UDP", with_protocol(later(), 17)),
        pass("one of a ping to the VIP", with_protocol(later(), 1)),
        pass("one for somebody else", later().to("192.0.2.11:80").into()),
        case(
            "the first of an ICMP error",
            Frame::new(error),
            dropped(DropReason::FirstFragment),
        ),
    ]
}

#[test]
fn fragments_are_told_apart() {
    check(cases());
}

#[test]
fn later_fragments_follow_their_first_wherever_its_slot_moves() {
    on_plane(|plane| {
        plane.check(first(), &forwarded_to(A).with(Event::FlowCreated));
        plane.slot(settled(B));
        plane.check(later().more_fragments(), &forwarded_to(A));
        plane.check(later(), &forwarded_to(A));
        assert_eq!((plane.fragments().len(), plane.flows().len()), (1, 1));
    });
}

#[test]
fn a_first_fragment_that_follows_its_flow_takes_the_later_ones_along() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &forwarded_to(B).with(Event::OpeningCreated));
        plane.check(first(), &forwarded_to(B).with(Event::FlowCreated));
        plane.check(later(), &forwarded_to(B));
    });
}

#[test]
fn fragments_of_other_packets_do_not_follow() {
    on_plane(|plane| {
        plane.check(first(), &forwarded_to(A).with(Event::FlowCreated));
        let early = dropped(DropReason::EarlyFragment);
        plane.check(with_id(later(), 0x35), &early);
        plane.check(with_protocol(later(), 17), &early);
        plane.check(later().from("198.51.100.11:40000"), &early);
        plane.check(later(), &forwarded_to(A));
    });
}

#[test]
fn a_fragment_that_comes_long_after_its_first_is_early() {
    on_plane(|plane| {
        plane.check(first(), &forwarded_to(A).with(Event::FlowCreated));
        let ticks = plane.dataplane().ticks(std::time::Duration::from_secs(31));
        plane.edit_fragments(|entry| entry.seen = entry.seen.wrapping_sub(ticks));
        plane.check(later(), &dropped(DropReason::EarlyFragment));
    });
}

#[test]
fn fragments_of_a_backend_that_is_gone_are_dropped() {
    on_plane(|plane| {
        plane.check(first(), &forwarded_to(A).with(Event::FlowCreated));
        plane.replace(A);
        plane.check(later(), &dropped(DropReason::BackendGone));
        plane.stop(A);
        plane.check(later(), &dropped(DropReason::BackendGone));
        plane.slot(settled(NOBODY));
        plane.check(first(), &dropped(DropReason::BackendGone));
    });
}

#[test]
fn a_ping_to_the_vip_in_fragments_is_the_kernels() {
    on_plane(|plane| {
        let mut bytes = ping().bytes().to_vec();
        bytes[20] = 0x20;
        plane.check(Frame::new(bytes), &passed(PassReason::OtherProtocol));
        plane.check(
            with_protocol(later(), 1),
            &passed(PassReason::LaterFragment),
        );
    });
}

#[test]
fn a_first_fragment_of_udp_states_the_length_of_the_whole() {
    on_plane(|plane| {
        plane.listen_to("192.0.2.10:53", 17);
        let mut bytes = udp_stating("192.0.2.10:53", 3000, &[7; 64])
            .bytes()
            .to_vec();
        let whole = Frame::new(bytes.clone());
        plane.check(whole, &dropped(DropReason::BadUdpHeader));
        bytes[20] = 0x20;
        plane.check(Frame::new(bytes), &forwarded_to(A).with(Event::FlowCreated));
    });
}

#[test]
fn fragments_for_a_port_that_is_no_service_follow_their_first_to_the_kernel() {
    on_plane(|plane| {
        let other = "192.0.2.10:22";
        plane.check(first().to(other), &passed(PassReason::NoService));
        plane.check(later().to(other), &passed(PassReason::LaterFragment));
        assert_eq!(plane.fragments().len(), 1);
        // Nobody remembers those to addresses that are no VIPs.
        plane.check(first().to("192.0.2.11:22"), &passed(PassReason::NoService));
        assert_eq!(plane.fragments().len(), 1);
    });
    on_plane(|plane| {
        plane.listen6(WEB6, 17);
        let pass = passed(PassReason::NoService);
        plane.check(tcp6(ACK).fragment(0, true), &pass);
        let pass = passed(PassReason::LaterFragment);
        plane.check(tcp6(ACK).fragment(1448, true), &pass);
    });
}

#[test]
fn ipv6_fragments_follow_their_first_whatever_headers_are_within() {
    on_plane(|plane| {
        plane.listen6(WEB6, 6);
        let early = dropped(DropReason::EarlyFragment);
        let within = |offset, more| tcp6(ACK).fragment(offset, more).extension(60, 0);
        plane.check(within(1448, true), &early);
        let first = forwarded_to(A).with(Event::FlowCreated);
        plane.check(within(0, true), &first);
        plane.check(within(1448, true), &forwarded_to(A));
        // The next header of a later one counts for nothing.
        plane.check(tcp6(ACK).fragment(2896, false), &forwarded_to(A));
    });
}

#[test]
fn ipv6_fragments_follow_their_first() {
    on_plane(|plane| {
        plane.listen6(WEB6, 6);
        let first = forwarded_to(A).with(Event::FlowCreated);
        plane.check(tcp6(ACK).extension(60, 0).fragment(0, true), &first);
        plane.slot(settled(B));
        plane.check(tcp6(ACK).fragment(1448, true), &forwarded_to(A));
        plane.check(
            tcp6(ACK).extension(60, 0).fragment(2896, false),
            &forwarded_to(A),
        );
        assert_eq!(plane.fragments().len(), 1);
    });
}
