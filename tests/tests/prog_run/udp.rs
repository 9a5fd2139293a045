//! UDP: every datagram may be a flow's first, so each that nobody remembers makes an entry.

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    datagram::{WEB6, udp_stating, udp6},
    expect::{Expected, dropped, forwarded_to, passed},
    packet::{ETHERNET, Frame, tcp, udp_to},
    plane::{A, B, moving, on_plane, settled},
    tunnel::with_bytes,
};

use crate::case::{Case, case, check};

const DNS: &str = "192.0.2.10:53";

/// A case that meets a UDP service.
fn on_dns(what: &str, frame: Frame, expected: Expected) -> Case {
    case(what, frame, expected).given(|plane| plane.listen_to(DNS, 17))
}

pub(crate) fn cases() -> Vec<Case> {
    let bad = |what, frame| on_dns(what, frame, dropped(DropReason::BadUdpHeader));
    let first = || forwarded_to(A).with(Event::FlowCreated);
    vec![
        on_dns("a datagram", udp_to(DNS), first()),
        on_dns("one without data", udp_stating(DNS, 8, b""), first()),
        on_dns(
            "one that is shorter than its packet",
            udp_stating(DNS, 9, b"abc"),
            first(),
        ),
        bad("a length of 7", udp_stating(DNS, 7, b"abc")),
        bad("a length of 0", udp_stating(DNS, 0, b"abc")),
        bad(
            "a length one beyond the packet",
            udp_stating(DNS, 12, b"abc"),
        ),
        bad(
            "a first fragment that ends within the header, with padding behind it",
            with_bytes(
                with_bytes(udp_stating(DNS, 100, b"abc"), ETHERNET + 6, &[0x20]),
                ETHERNET + 3,
                &[24],
            ),
        ),
        on_dns(
            "TCP to the UDP service",
            tcp().to(DNS).syn().into(),
            passed(PassReason::NoService),
        ),
        on_dns(
            "another port",
            udp_to("192.0.2.10:54"),
            passed(PassReason::NoService),
        ),
    ]
}

#[test]
fn udp_goes_the_same_way() {
    check(cases());
}

#[test]
fn a_header_that_is_cut_off_is_bad() {
    on_plane(|plane| {
        plane.listen_to(DNS, 17);
        let whole = udp_stating(DNS, 8, b"");
        for length in 14..whole.bytes().len() {
            plane.check(whole.clone().cut_to(length), &passed(PassReason::Truncated));
        }
        for transport in 0..8u8 {
            let mut bytes = whole.bytes().to_vec();
            bytes[17] = 20 + transport;
            let expected = match transport {
                0..4 => passed(PassReason::Truncated),
                _ => dropped(DropReason::BadUdpHeader),
            };
            plane.check(Frame::new(bytes), &expected);
        }
    });
}

#[test]
fn a_flow_keeps_its_backend_when_its_slot_moves() {
    on_plane(|plane| {
        plane.listen_to(DNS, 17);
        plane.check(udp_to(DNS), &forwarded_to(A).with(Event::FlowCreated));
        plane.slot(settled(B));
        plane.check(udp_to(DNS), &forwarded_to(A));
        assert_eq!(plane.flows().len(), 1);
    });
}

#[test]
fn on_a_moving_slot_a_datagram_that_nobody_remembers_goes_to_the_previous_backend() {
    on_plane(|plane| {
        plane.listen_to(DNS, 17);
        plane.slot(moving(A, B));
        let older = forwarded_to(A)
            .with(Event::FlowFollowedPrevious)
            .with(Event::FlowCreated);
        plane.check(udp_to(DNS), &older);
    });
}

#[test]
fn udp_over_ipv6_is_balanced_too() {
    on_plane(|plane| {
        plane.listen6(WEB6, 17);
        plane.check(udp6(), &forwarded_to(A).with(Event::FlowCreated));
        plane.check(udp6().extension(60, 0), &forwarded_to(A));
        let short = udp6().with_transport_byte(5, 7);
        plane.check(short, &dropped(DropReason::BadUdpHeader));
    });
}
