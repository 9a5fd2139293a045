//! What no router would forward: packets from addresses that are nobody's, and those that have gone far enough.

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    datagram::{WEB6, udp6_carrying},
    expect::{dropped, forwarded_to, passed},
    icmp::{LEAST, icmp_error},
    packet::{ETHERNET, Frame, tcp},
    plane::{A, NOBODY, Plane, on_plane, settled},
};

use crate::case::{Case, case, check};

const UDP: u8 = 17;

fn ipv6(plane: &mut Plane) {
    plane.listen6(WEB6, UDP);
}

/// With so many hops left.
fn with_hops(frame: impl Into<Frame>, hops: u8) -> Frame {
    let mut bytes = frame.into().bytes().to_vec();
    let is_v4 = bytes[ETHERNET] >> 4 == 4;
    bytes[ETHERNET + if is_v4 { 8 } else { 7 }] = hops;
    Frame::new(bytes)
}

/// From another address, of IPv6.
fn from6(source: &str) -> Frame {
    let source: std::net::Ipv6Addr = source.parse().expect("an address");
    let mut bytes = Frame::from(udp6_carrying(b"?")).bytes().to_vec();
    bytes[ETHERNET + 8..ETHERNET + 24].copy_from_slice(&source.octets());
    Frame::new(bytes)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (source, expected) in [
        ("0.0.0.0", false),
        ("0.1.2.3", false),
        ("127.0.0.1", false),
        ("126.255.255.255", true),
        ("128.0.0.1", true),
        ("223.255.255.255", true),
        ("224.0.0.1", false),
        ("240.0.0.1", false),
        ("255.255.255.255", false),
        ("192.0.2.10", false),
        ("192.0.2.9", true),
    ] {
        let expected = if expected {
            forwarded_to(A)
        } else {
            dropped(DropReason::BadSource)
        };
        let from = format!("{source}:40000");
        cases.push(case(
            format!("a SYN from {source}"),
            tcp().from(from.as_str()).syn(),
            expected,
        ));
    }
    let vip = WEB6.ip().to_string();
    for (source, expected) in [
        ("::", false),
        ("::1", false),
        ("::2", true),
        ("::ffff:198.51.100.10", false),
        ("ff02::1", false),
        ("fe80::1", true),
        (&*vip, false),
    ] {
        let expected = if expected {
            forwarded_to(A).with(Event::FlowCreated)
        } else {
            dropped(DropReason::BadSource)
        };
        cases.push(case(format!("a datagram from {source}"), from6(source), expected).given(ipv6));
    }
    let reply = tcp()
        .from("192.0.2.10:80")
        .to("198.51.100.10:40000")
        .ack()
        .into();
    for (what, frame) in [
        ("a SYN", Frame::from(tcp().syn())),
        ("an ICMP error", icmp_error(3, 4, &reply, LEAST)),
        ("a datagram over IPv6", udp6_carrying(b"?").into()),
    ] {
        for hops in [0, 1] {
            cases.push(
                case(
                    format!("{what} with {hops} hops left"),
                    with_hops(frame.clone(), hops),
                    match what {
                        "a SYN" => dropped(DropReason::HopsExpired),
                        "an ICMP error" => dropped(DropReason::HopsExpired).with(Event::IcmpError),
                        _ => dropped(DropReason::HopsExpired).with(Event::FlowCreated),
                    },
                )
                .given(ipv6),
            );
        }
    }
    for hops in [2, 255] {
        cases.push(case(
            format!("a SYN with {hops} hops left"),
            with_hops(tcp().syn(), hops),
            forwarded_to(A),
        ));
    }
    cases.push(case(
        "a SYN to somebody else with one hop left",
        with_hops(tcp().to("192.0.2.11:80").syn(), 1),
        passed(PassReason::NoService),
    ));
    cases
}

#[test]
fn no_more_is_forwarded_than_a_router_would() {
    check(cases());
}

#[test]
fn a_packet_that_comes_back_again_and_again_ends() {
    on_plane(|plane| {
        let mut frame = Frame::from(tcp().syn());
        let mut turns = 0;
        loop {
            let seen = plane.send(frame.clone());
            if seen
                .verdicts()
                .any(|it| it as u32 == DropReason::HopsExpired as u32)
            {
                break;
            }
            turns += 1;
            frame = seen.output;
        }
        assert_eq!(turns, 63, "it began with 64");
        plane.slot(settled(NOBODY));
    });
}
