//! What is not for a service passes to the kernel as it is, counted by its reason.

use xdp_lb_common::counters::PassReason;
use xdp_lb_tests::{
    expect::{forwarded_to, passed},
    packet::{Frame, ROUTER_MAC, arp_request, ipv6_syn, ping, tcp, udp_to},
    plane::{A, INGRESS, on_plane},
};

use crate::case::{Case, case, check};

pub(crate) fn cases() -> Vec<Case> {
    let syn = || Frame::from(tcp().syn());
    let pass = |reason, what: &str, frame: Frame| case(what, frame, passed(reason));
    let not_ip = |what, frame| pass(PassReason::NotIp, what, frame);
    let other_protocol = |what, frame| pass(PassReason::OtherProtocol, what, frame);
    let no_service = |what, frame| pass(PassReason::NoService, what, frame);
    let fragment = |what, frame| pass(PassReason::LaterFragment, what, frame);
    vec![
        not_ip("an ARP request for the VIP", arp_request()),
        no_service("a SYN over IPv6 to the VIP's mapped form", ipv6_syn()),
        not_ip(
            "a SYN to the VIP within three VLANs",
            syn().in_vlan(7).in_vlan(8).in_vlan(9),
        ),
        not_ip("ARP within a VLAN", arp_request().in_vlan(7)),
        not_ip(
            "an IEEE 802.3 frame, with a length for a type",
            syn().with_ether_type(40),
        ),
        not_ip("a type nobody knows", syn().with_ether_type(0xffff)),
        not_ip(
            "the type of IPv4 with its bytes exchanged",
            syn().with_ether_type(0x0008),
        ),
        other_protocol("an echo request to the VIP", ping()),
        no_service("UDP to the VIP's port", udp_to("192.0.2.10:80")),
        no_service("UDP to somebody else", udp_to("192.0.2.1:53")),
        no_service(
            "a SYN to somebody else",
            tcp().to("192.0.2.11:80").syn().into(),
        ),
        no_service(
            "a SYN to the VIP with its bytes reversed",
            tcp().to("10.2.0.192:80").syn().into(),
        ),
        no_service(
            "a SYN to another port of the VIP",
            tcp().to("192.0.2.10:443").syn().into(),
        ),
        no_service(
            "a SYN to the service's port with its bytes exchanged",
            tcp().to("192.0.2.10:20480").syn().into(),
        ),
        no_service(
            "a SYN to port 0 of the VIP",
            tcp().to("192.0.2.10:0").syn().into(),
        ),
        no_service(
            "data for an SSH connection to the director",
            tcp().to("192.0.2.1:22").data("ls").into(),
        ),
        no_service(
            "what the VIP itself sends",
            tcp()
                .from("192.0.2.10:80")
                .to("198.51.100.10:40000")
                .ack()
                .into(),
        ),
        no_service(
            "a first fragment for somebody else",
            tcp()
                .to("192.0.2.11:80")
                .data([0; 64])
                .more_fragments()
                .into(),
        ),
        no_service(
            "a bad data offset, for somebody else",
            Frame::from(tcp().to("192.0.2.11:80").syn()).with_data_offset(2),
        ),
        fragment(
            "a later fragment for somebody else",
            tcp()
                .to("192.0.2.11:80")
                .data([0; 64])
                .fragment_at(8)
                .into(),
        ),
    ]
}

#[test]
fn what_is_not_for_a_service_passes_untouched() {
    check(cases());
}

#[test]
fn frames_of_other_types_pass_at_every_length() {
    let whole = arp_request().padded_to(60);
    let lengths = 14..=whole.bytes().len();
    check(
        lengths
            .map(|length| {
                let frame = whole.clone().cut_to(length);
                case(
                    format!("{length} bytes of ARP"),
                    frame,
                    passed(PassReason::NotIp),
                )
            })
            .collect(),
    );
}

#[test]
fn frames_to_other_hosts_pass_and_those_to_the_interfaces_addresses_do_not() {
    let (own, virtual_one, other) = (
        [2, 0, 0, 0, 0, 1],
        [0, 0, 0x5e, 0, 1, 51],
        [2, 0, 0, 0, 0, 9],
    );
    let to = |mac| Frame::from(tcp().syn()).with_macs(mac, ROUTER_MAC);
    let pass = passed(PassReason::OtherHost);
    on_plane(|plane| {
        // Where nothing is said all are taken.
        plane.check(to(other), &forwarded_to(A));
        plane.dataplane().set_port_macs(&[(INGRESS, vec![own])]);
        plane.check(to(own), &forwarded_to(A));
        // VRRP may have taken it over this very moment.
        plane.check(to(virtual_one), &forwarded_to(A));
        for mac in [
            other,
            [0xff; 6],
            [0x01, 0, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
            [0; 6],
        ] {
            plane.check(to(mac), &pass);
        }
        // What is for no service passes, too, and says so.
        let stranger = Frame::from(tcp().to("192.0.2.11:80").syn());
        plane.check(
            stranger.clone().with_macs(own, ROUTER_MAC),
            &passed(PassReason::NoService),
        );
        plane.check(stranger.with_macs(other, ROUTER_MAC), &pass);
        let ports = [(INGRESS, vec![virtual_one, own])];
        plane.dataplane().set_port_macs(&ports);
        for mac in [own, virtual_one] {
            plane.check(to(mac), &forwarded_to(A));
        }
        plane.check(to(other), &pass);
        // Another interface with the same place does not speak for this one.
        plane
            .dataplane()
            .set_port_macs(&[(INGRESS + 256, vec![own])]);
        plane.check(to(other), &forwarded_to(A));
        // Two interfaces with one place take all frames.
        let both = [(INGRESS + 256, vec![own]), (INGRESS, vec![own])];
        assert_eq!(
            plane.dataplane().set_port_macs(&both),
            [INGRESS + 256, INGRESS]
        );
        plane.check(to(other), &forwarded_to(A));
        // More than there is room for: all are taken.
        let many: Vec<_> = (0..9).map(|last| [2, 0, 0, 0, 1, last]).collect();
        assert_eq!(
            plane.dataplane().set_port_macs(&[(INGRESS, many)]),
            [INGRESS]
        );
        plane.check(to(other), &forwarded_to(A));
        assert!(plane.dataplane().set_port_macs(&[]).is_empty());
    });
}

#[test]
fn broadcast_to_somebody_else_passes() {
    let unknown = Frame::from(tcp().to("192.0.2.11:80").syn());
    check(vec![case(
        "a SYN to somebody else, as the bridge floods it",
        unknown.with_macs([0xff; 6], ROUTER_MAC),
        passed(PassReason::NoService),
    )]);
}
