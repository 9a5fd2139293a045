//! Services whose VIP is a prefix: the longest one wins, addresses go before prefixes, and the
//! destination stays as it is.

use std::net::{IpAddr, SocketAddrV6};

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    datagram::{WEB6, udp6},
    expect::{Expected, dropped, forwarded_to, passed},
    packet::{Frame, tcp, udp_to},
    plane::{B, C, Plane, settled},
};

use crate::case::{Case, case, check};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Services besides the one that is always there.
const WIDE: u32 = 2;
const NARROW: u32 = 3;

/// 10.0.0.0/8 port 80 goes to B; 10.1.0.0/16, every port, to C; the address 10.1.2.3 port 80 to A.
fn nested(plane: &mut Plane) {
    plane.listen_prefix("10.0.0.0".parse().unwrap(), 8, 80, TCP, WIDE);
    plane.listen_prefix("10.1.0.0".parse().unwrap(), 16, 0, TCP, NARROW);
    plane.table(WIDE, 1, &[settled(B)]);
    plane.table(NARROW, 2, &[settled(C)]);
    plane.listen("10.1.2.3:80", xdp_lb_tests::plane::SERVICE);
}

/// 2001:db8::/32 port 53 over UDP goes to B.
fn ipv6(plane: &mut Plane) {
    let prefix: IpAddr = "2001:db8::".parse().unwrap();
    plane.listen_prefix(prefix, 32, WEB6.port(), UDP, WIDE);
    plane.table(WIDE, 1, &[settled(B)]);
}

/// Everything over IPv4 to port 443.
fn all(plane: &mut Plane) {
    plane.listen_prefix("0.0.0.0".parse().unwrap(), 0, 443, TCP, WIDE);
    plane.table(WIDE, 1, &[settled(B)]);
}

fn wide() -> Expected {
    forwarded_to(B).by_service(WIDE)
}

fn narrow() -> Expected {
    forwarded_to(C).by_service(NARROW)
}

pub(crate) fn cases() -> Vec<Case> {
    let syn = |to: &str| Frame::from(tcp().to(to).syn());
    let row = |what: &str, frame: Frame, expected| case(what, frame, expected).given(nested);
    let no_service = || passed(PassReason::NoService);
    let in_doc = |host| {
        SocketAddrV6::new(
            [0x2001, 0xdb8, 7, 0, 0, 0, 0, host].into(),
            WEB6.port(),
            0,
            0,
        )
    };
    let outside = SocketAddrV6::new([0x2001, 0xdb9, 0, 0, 0, 0, 0, 1].into(), WEB6.port(), 0, 0);
    let later = |to: &str| Frame::from(tcp().to(to).data([0; 64]).fragment_at(8));
    vec![
        row("within the wide prefix", syn("10.2.3.4:80"), wide()),
        row("its first address", syn("10.0.0.0:80"), wide()),
        row("its last address", syn("10.255.255.255:80"), wide()),
        row("just before it", syn("9.255.255.255:80"), no_service()),
        row("just behind it", syn("11.0.0.0:80"), no_service()),
        row("another port of it", syn("10.2.3.4:81"), no_service()),
        row("another protocol", udp_to("10.2.3.4:80"), no_service()),
        row(
            "within both, by the port of one",
            syn("10.1.0.1:80"),
            wide(),
        ),
        row(
            "within both, by every port of the other",
            syn("10.1.0.1:81"),
            narrow(),
        ),
        row(
            "the narrow prefix's first address",
            syn("10.1.0.0:9"),
            narrow(),
        ),
        row(
            "the narrow prefix's last address",
            syn("10.1.255.255:9"),
            narrow(),
        ),
        row(
            "an address goes before a prefix",
            syn("10.1.2.3:80"),
            forwarded_to(xdp_lb_tests::plane::A),
        ),
        row("but only for its port", syn("10.1.2.3:81"), narrow()),
        row(
            "a later fragment within a prefix",
            later("10.2.3.4:80"),
            dropped(DropReason::EarlyFragment),
        ),
        row(
            "a later fragment outside of it",
            later("11.2.3.4:80"),
            passed(PassReason::LaterFragment),
        ),
        case(
            "over IPv6",
            udp6().to(in_doc(1)),
            wide().with(Event::FlowCreated),
        )
        .given(|plane: &mut Plane| {
            ipv6(plane);
            plane.configure(WIDE, |service| service.flags = 1);
        }),
        case(
            "over IPv6, without tracking",
            udp6().to(in_doc(0xffff)),
            wide(),
        )
        .given(ipv6),
        case("outside of it, over IPv6", udp6().to(outside), no_service()).given(ipv6),
        case("everything over IPv4", syn("8.8.8.8:443"), wide()).given(all),
        case("a bit of everything else", syn("8.8.8.8:444"), no_service()).given(all),
        case(
            "everything of IPv6 is nothing of IPv4",
            syn("8.8.8.8:443"),
            no_service(),
        )
        .given(|plane| {
            let prefix: IpAddr = "::".parse().unwrap();
            plane.listen_prefix(prefix, 0, 443, TCP, WIDE);
        }),
        case(
            "everything of IPv4 is nothing of IPv6",
            udp6().to(SocketAddrV6::new(*WEB6.ip(), 443, 0, 0)),
            no_service(),
        )
        .given(all),
    ]
}

#[test]
fn the_longest_prefix_wins() {
    check(cases());
}
