//! ICMP errors from routers on the way to a backend: they quote a packet in a tunnel, and are for the director's kernel,
//! whoever is said to have sent what.

use xdp_lb_common::counters::PassReason;
use xdp_lb_tests::{
    datagram::{WEB6, udp6},
    expect::{Expected, passed},
    icmp::{icmp_error, icmp6_error},
    packet::{ETHERNET, Frame, tcp},
    plane::{GUE_PORT, Plane},
    tunnel::{Tunnel, gue, ipip},
};

use crate::case::{Case, case, check};

const UDP: u8 = 17;
/// Types of "fragmentation needed" (with code 4) and of "packet too big".
const UNREACHABLE: u8 = 3;
const TOO_BIG: u8 = 2;

fn ipv6(plane: &mut Plane) {
    plane.listen6(WEB6, UDP);
}

/// Over IPv4 and over IPv6.
fn around(kind: fn([u8; 4], [u8; 4], Frame) -> Tunnel, inner: &Frame) -> Frame {
    kind([203, 0, 113, 1], [203, 0, 113, 11], inner.clone()).into()
}

fn ipip4(from: [u8; 4], to: [u8; 4], inner: Frame) -> Tunnel {
    ipip(from, to, inner)
}

fn gue4(from: [u8; 4], to: [u8; 4], inner: Frame) -> Tunnel {
    gue(from, to, inner).ports(50000, GUE_PORT)
}

fn other_port(from: [u8; 4], to: [u8; 4], inner: Frame) -> Tunnel {
    gue(from, to, inner).ports(50000, 4789)
}

/// The same over IPv6.
fn ipip6(inner: &Frame) -> Frame {
    let [from, to] =
        [1, 11].map(|host| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0x70, 0, 0, 0, host));
    ipip(from, to, inner.clone()).into()
}

fn gue6(inner: &Frame) -> Frame {
    let [from, to] =
        [1, 11].map(|host| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0x70, 0, 0, 0, host));
    gue(from, to, inner.clone()).ports(50000, GUE_PORT).into()
}

pub(crate) fn cases() -> Vec<Case> {
    let ack = Frame::from(tcp().data("GET / HTTP/1.1"));
    let question = Frame::from(udp6());
    let quoted = |frame: &Frame, bytes| icmp_error(UNREACHABLE, 4, frame, bytes);
    let quoted6 = |frame: &Frame| icmp6_error(TOO_BIG, &frame.bytes()[ETHERNET..]);
    let error = || passed(PassReason::TunnelError);
    let row =
        |what: &str, frame: Frame, expected: Expected| case(what, frame, expected).given(ipv6);
    let stranger = Frame::from(tcp().to("192.0.2.11:80").ack());
    vec![
        row("ipip over IPv4", quoted(&around(ipip4, &ack), 60), error()),
        row(
            "ipip over IPv4, the outer header alone",
            quoted(&around(ipip4, &ack), 20),
            error(),
        ),
        row("gue over IPv4", quoted(&around(gue4, &ack), 68), error()),
        row(
            "gue over IPv4, no more than the inner version",
            quoted(&around(gue4, &ack), 29),
            error(),
        ),
        row(
            "gue over IPv4, a byte less",
            quoted(&around(gue4, &ack), 28),
            passed(PassReason::OtherProtocol),
        ),
        row(
            "UDP to another port than gue's",
            quoted(&around(other_port, &ack), 68),
            passed(PassReason::OtherProtocol),
        ),
        row(
            "IPv6 in ipip over IPv4",
            quoted(&around(ipip4, &question), 68),
            error(),
        ),
        row(
            "IPv6 in gue over IPv4",
            quoted(&around(gue4, &question), 76),
            error(),
        ),
        row("ipip over IPv6", quoted6(&ipip6(&question)), error()),
        row("gue over IPv6", quoted6(&gue6(&question)), error()),
        row("IPv4 in ipip over IPv6", quoted6(&ipip6(&ack)), error()),
        row("IPv4 in gue over IPv6", quoted6(&gue6(&ack)), error()),
        row(
            "an inner packet for no service",
            quoted(&around(ipip4, &stranger), 60),
            error(),
        ),
    ]
}

#[test]
fn they_are_left_to_the_kernel() {
    check(cases());
}
