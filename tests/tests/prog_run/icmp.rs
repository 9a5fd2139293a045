//! ICMP errors that quote a packet of a flow go to the flow's backend; other ICMP passes.

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    datagram::{ACK, CLIENT6, WEB6, tcp6},
    expect::{dropped, forwarded_to, passed},
    icmp::{LEAST, icmp_error, icmp6_error, reply_ports, reply6},
    packet::{Frame, tcp, udp_to},
    plane::{A, B, moving, on_plane, settled},
};

use crate::case::{Case, case, check};

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;

/// What a backend sent to the client.
fn reply() -> Frame {
    tcp()
        .from("192.0.2.10:80")
        .to("198.51.100.10:40000")
        .data([0; 64])
        .into()
}

fn too_big(quoted: &Frame) -> Frame {
    icmp_error(UNREACHABLE, FRAGMENTATION_NEEDED, quoted, LEAST)
}

pub(crate) fn cases() -> Vec<Case> {
    let error = || forwarded_to(A).with(Event::IcmpError);
    let pass = |reason, what: &str, frame| case(what, frame, passed(reason));
    let other = |what, frame| pass(PassReason::OtherProtocol, what, frame);
    let truncated = |what, frame| pass(PassReason::Truncated, what, frame);
    let with_options = Frame::from(
        tcp()
            .from("192.0.2.10:80")
            .to("198.51.100.10:40000")
            .ack()
            .ip_options(40),
    );
    let mut cut_short = too_big(&reply()).bytes().to_vec();
    cut_short.truncate(14 + 20 + 8 + 20 + 3);
    cut_short[17] = u8::try_from(cut_short.len() - 14).unwrap();
    vec![
        case(
            "fragmentation needed, with the least quoted",
            too_big(&reply()),
            error(),
        ),
        case("host unreachable", icmp_error(3, 1, &reply(), 60), error()),
        case("time exceeded", icmp_error(11, 0, &reply(), LEAST), error()),
        case(
            "parameter problem",
            icmp_error(12, 0, &reply(), LEAST),
            error(),
        ),
        case(
            "a quoted packet with options",
            icmp_error(3, 4, &with_options, 68),
            error(),
        ),
        other("an echo reply", icmp_error(0, 0, &reply(), LEAST)),
        other("a redirect", icmp_error(5, 1, &reply(), LEAST)),
        other("a source quench", icmp_error(4, 0, &reply(), LEAST)),
        other(
            "an error about ICMP",
            too_big(&icmp_error(0, 0, &reply(), LEAST)),
        ),
        other(
            "an error about a packet that the VIP did not send",
            too_big(
                &tcp()
                    .from("192.0.2.11:80")
                    .to("198.51.100.10:40000")
                    .ack()
                    .into(),
            ),
        ),
        other(
            "an error about a later fragment",
            too_big(
                &tcp()
                    .from("192.0.2.10:80")
                    .to("198.51.100.10:40000")
                    .data([0; 64])
                    .fragment_at(8)
                    .into(),
            ),
        ),
        pass(
            PassReason::NoService,
            "an error about a packet from another port of the VIP",
            too_big(
                &tcp()
                    .from("192.0.2.10:81")
                    .to("198.51.100.10:40000")
                    .ack()
                    .into(),
            ),
        ),
        truncated(
            "a quoted packet of another IP version",
            too_big(&reply().with_version(6)),
        ),
        truncated(
            "a quoted packet with a short header",
            too_big(&reply().with_ihl(4)),
        ),
        truncated("a quote that ends within the ports", Frame::new(cut_short)),
        truncated(
            "a quote that ends within the ports, with padding behind it",
            too_big(&reply()).with_total_length(20 + 8 + 20 + 3),
        ),
        truncated(
            "an error that ends within its own header, with padding behind it",
            too_big(&reply()).with_total_length(20 + 7),
        ),
        truncated("nothing quoted", icmp_error(3, 4, &reply(), 0)),
    ]
}

#[test]
fn icmp_errors_go_to_the_flows_backend_and_other_icmp_passes() {
    check(cases());
}

#[test]
fn errors_cut_off_anywhere_pass() {
    on_plane(|plane| {
        let whole = too_big(&reply());
        for length in 14..whole.bytes().len() {
            plane.check(whole.clone().cut_to(length), &passed(PassReason::Truncated));
        }
    });
}

#[test]
fn an_error_follows_the_flow_entry_and_leaves_it_as_it_is() {
    on_plane(|plane| {
        let ack = tcp().ack();
        plane.check(Frame::from(&ack), &forwarded_to(A).with(Event::FlowCreated));
        plane.edit_flow(&ack.flow(), |entry| {
            entry.seen_in(entry.seen().wrapping_sub(9))
        });
        let before = plane.flow(&ack.flow());
        plane.slot(settled(B));
        plane.check(too_big(&reply()), &forwarded_to(A).with(Event::IcmpError));
        assert_eq!(plane.flow(&ack.flow()), before);
    });
}

#[test]
fn an_error_makes_no_entry_and_follows_the_slot() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(too_big(&reply()), &forwarded_to(A).with(Event::IcmpError));
        assert!(plane.flows().is_empty() && plane.openings().is_empty());
    });
}

#[test]
fn an_error_about_a_connection_that_is_opening_goes_where_its_syn_went() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &forwarded_to(B).with(Event::OpeningCreated));
        plane.check(too_big(&reply()), &forwarded_to(B).with(Event::IcmpError));
    });
}

#[test]
fn an_error_about_udp_goes_to_the_flows_backend() {
    on_plane(|plane| {
        plane.listen_to("192.0.2.10:53", 17);
        plane.check(
            udp_to("192.0.2.10:53"),
            &forwarded_to(A).with(Event::FlowCreated),
        );
        let mut quoted = udp_to("198.51.100.10:40000").bytes().to_vec();
        quoted[26..30].copy_from_slice(&[192, 0, 2, 10]);
        quoted[34..36].copy_from_slice(&53u16.to_be_bytes());
        plane.slot(settled(B));
        let error = icmp_error(3, 3, &Frame::new(quoted), LEAST);
        plane.check(error, &forwarded_to(A).with(Event::IcmpError));
    });
}

#[test]
fn a_first_fragment_of_an_error_is_dropped() {
    on_plane(|plane| {
        let mut fragment = too_big(&reply()).bytes().to_vec();
        fragment[20] = 0x20;
        plane.check(Frame::new(fragment), &dropped(DropReason::FirstFragment));
    });
}

#[test]
fn icmpv6_errors_go_to_the_flows_backend() {
    on_plane(|plane| {
        plane.listen6(WEB6, 6);
        plane.check(tcp6(ACK), &forwarded_to(A).with(Event::FlowCreated));
        plane.slot(settled(B));
        let ports = reply_ports(WEB6.port(), CLIENT6.port());
        let error = forwarded_to(A).with(Event::IcmpError);
        for kind in [1, PACKET_TOO_BIG, 3, 4] {
            plane.check(icmp6_error(kind, &reply6(6, &ports)), &error);
        }
        let other = passed(PassReason::OtherProtocol);
        plane.check(icmp6_error(128, &reply6(6, &ports)), &other);
        plane.check(icmp6_error(PACKET_TOO_BIG, &reply6(58, &ports)), &other);
        let unknown = reply_ports(WEB6.port() + 1, CLIENT6.port());
        let no_service = passed(PassReason::NoService);
        plane.check(
            icmp6_error(PACKET_TOO_BIG, &reply6(6, &unknown)),
            &no_service,
        );
        let truncated = passed(PassReason::Truncated);
        plane.check(
            icmp6_error(PACKET_TOO_BIG, &reply6(6, &ports[..3])),
            &truncated,
        );
        plane.check(
            icmp6_error(PACKET_TOO_BIG, &reply6(6, &ports)[..39]),
            &truncated,
        );
        assert_eq!(plane.flows().len(), 1);
    });
}
