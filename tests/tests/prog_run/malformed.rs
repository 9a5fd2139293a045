//! Packets whose headers lie or are cut off, and those that only look like it.

use std::net::SocketAddrV4;

use xdp_lb_common::counters::{DropReason, Event, PassReason};
use xdp_lb_tests::{
    expect::{Expected, dropped, forwarded_to, passed},
    packet::{ETHERNET, Frame, IPV4, TCP, tcp},
    plane::{A, on_plane},
};

use crate::case::{Case, case, check};

/// What a packet for a service comes to whose IP packet ends after so many bytes of TCP, with a TCP
/// header of `header` bytes.
fn with_tcp_bytes(bytes: usize, header: usize) -> Expected {
    match bytes {
        0..4 => passed(PassReason::Truncated),
        _ if bytes < header => dropped(DropReason::BadTcpHeader),
        _ => forwarded_to(A),
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let syn = || Frame::from(tcp().syn());
    let truncated = |what: &str, frame| case(what, frame, passed(PassReason::Truncated));
    let bad_tcp = |what: &str, frame| case(what, frame, dropped(DropReason::BadTcpHeader));
    vec![
        truncated("IP version 6 in a frame of IPv4", syn().with_version(6)),
        truncated("IP version 0", syn().with_version(0)),
        truncated("an IP header of 16 bytes", syn().with_ihl(4)),
        truncated("an IP header of no bytes", syn().with_ihl(0)),
        truncated("an IP header longer than the packet", syn().with_ihl(15)),
        truncated("an IP header that fills the packet", syn().with_ihl(10)),
        truncated("a total length of 0", syn().with_total_length(0)),
        truncated("a total length of 19", syn().with_total_length(19)),
        truncated(
            "a total length that ends within the IP options",
            Frame::from(tcp().syn().ip_options(40)).with_total_length(59),
        ),
        truncated(
            "a total length one longer than the frame",
            syn().with_total_length(IPV4 + TCP + 1),
        ),
        truncated(
            "the longest total length",
            syn().with_total_length(usize::from(u16::MAX)),
        ),
        bad_tcp("a data offset of 16 bytes", syn().with_data_offset(4)),
        bad_tcp("a data offset of 0", syn().with_data_offset(0)),
        bad_tcp("a data offset beyond the packet", syn().with_data_offset(6)),
        bad_tcp("the longest data offset", syn().with_data_offset(15)),
        bad_tcp(
            "a data offset that reaches into the padding",
            syn().padded_to(60).with_data_offset(6),
        ),
        bad_tcp(
            "a total length that cuts the TCP header off, in a frame that does not",
            syn().with_total_length(IPV4 + TCP - 1),
        ),
        bad_tcp(
            "a tiny first fragment, without flags (RFC 1858)",
            Frame::from(tcp().syn().more_fragments())
                .with_total_length(IPV4 + 8)
                .padded_to(60),
        ),
        case(
            "a SYN that Ethernet padded to 60 bytes goes out with its padding",
            syn().padded_to(60),
            forwarded_to(A),
        ),
        case(
            "padding that looks like a longer packet is no part of it",
            syn().padded_to(1514),
            forwarded_to(A),
        ),
        case(
            "a SYN that may be fragmented",
            tcp().syn().may_fragment(),
            forwarded_to(A),
        ),
        case(
            "a SYN with the most TCP options",
            tcp().syn().tcp_options(40),
            forwarded_to(A),
        ),
        case(
            "a SYN with the most IP options and the most TCP options",
            tcp().syn().ip_options(40).tcp_options(40),
            forwarded_to(A),
        ),
    ]
}

#[test]
fn lengths_that_lie_do_no_harm() {
    check(cases());
}

#[test]
fn a_frame_cut_off_anywhere_passes_as_truncated() {
    let mut cases = Vec::new();
    for options in (0..=40).step_by(4) {
        let whole = Frame::from(
            tcp()
                .syn()
                .ip_options(options)
                .tcp_options(20)
                .payload([7; 8]),
        );
        for length in ETHERNET..whole.bytes().len() {
            cases.push(case(
                format!("{length} bytes of a SYN with {options} bytes of IP options"),
                whole.clone().cut_to(length),
                passed(PassReason::Truncated),
            ));
        }
    }
    check(cases);
}

#[test]
fn a_packet_that_ends_within_its_tcp_header_is_not_sent_on() {
    let mut cases = Vec::new();
    for options in [0, 4, 20, 40] {
        for tcp_options in [0, 12, 40] {
            let whole = Frame::from(tcp().syn().ip_options(options).tcp_options(tcp_options));
            for bytes in 0..=TCP + tcp_options {
                let total = IPV4 + options + bytes;
                let short = whole.clone().with_total_length(total);
                let expected = with_tcp_bytes(bytes, TCP + tcp_options);
                let what = format!("{bytes} bytes of TCP after {options} bytes of IP options");
                let cut = short.clone().cut_to(ETHERNET + total);
                cases.push(case(what.clone(), cut, expected.clone()));
                cases.push(case(what + ", padded", short.padded_to(200), expected));
            }
        }
    }
    check(cases);
}

#[test]
fn ip_options_of_every_length_are_no_obstacle() {
    on_plane(|plane| {
        for options in (0..=40).step_by(4) {
            let port = 40_000 + u16::try_from(options).expect("at most 40");
            let client = SocketAddrV4::new([203, 0, 113, 5].into(), port);
            let packet = tcp().from(client).ip_options(options);
            plane.check(packet.clone().syn(), &forwarded_to(A));
            plane.check(packet.clone().syn().payload([9; 100]), &forwarded_to(A));
            let created = forwarded_to(A).with(Event::FlowCreated);
            plane.check(packet.clone().data([9; 100]), &created);
            // By the right ports, or the flow would have another name.
            assert!(!plane.flow(&packet.flow()).is_closing(), "{options} bytes");
            plane.check(packet.fin().ack(), &forwarded_to(A));
        }
        assert_eq!(plane.flows().len(), 11);
    });
}
