//! The decapsulating program: what comes out of tunnels, what stays as it is, and what is dropped.

mod malformed;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdp_lb::decap::Settings;
use xdp_lb_common::counters::decap::{DropReason, PassReason};
use xdp_lb_tests::{
    datagram::{SYN, tcp6, udp6},
    decapper::{Expected, decapsulated, dropped, on_decapper, passed},
    packet::{ETHERNET, Frame, arp_request, ping, tcp, udp_to},
    tunnel::{GUE_PORT, Tunnel, gue, ipip, with_bytes},
};

const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
const DIRECTOR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2));
const BACKEND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11));

struct Case {
    what: String,
    frame: Frame,
    expected: Expected,
}

fn case(what: impl Into<String>, frame: impl Into<Frame>, expected: Expected) -> Case {
    Case {
        what: what.into(),
        frame: frame.into(),
        expected,
    }
}

/// Runs all of them and names those that came out otherwise.
fn check(settings: &Settings, cases: &[Case]) {
    assert!(!cases.is_empty());
    on_decapper(settings, |decapper| {
        let failed = cases.iter().filter_map(|case| {
            let differences = decapper.differences(&case.frame, &case.expected);
            (!differences.is_empty()).then(|| format!("\n{}: {differences}", case.what))
        });
        let failed: Vec<_> = failed.collect();
        assert!(failed.is_empty(), "{}", failed.concat());
    });
}

/// A packet of each family.
fn inner() -> [(&'static str, Frame); 2] {
    [
        ("IPv4", tcp().data([7; 33]).into()),
        ("IPv6", tcp6(SYN).into()),
    ]
}

/// The four pairings in both kinds of tunnels around `frame`, by name.
fn around(name: &str, frame: &Frame) -> Vec<(String, Tunnel)> {
    vec![
        (format!("{name} in IPv4"), ipip(DIRECTOR, BACKEND, frame)),
        (format!("{name} in IPv6"), ipip(DIRECTOR6, BACKEND6, frame)),
        (
            format!("{name} in GUE over IPv4"),
            gue(DIRECTOR, BACKEND, frame),
        ),
        (
            format!("{name} in GUE over IPv6"),
            gue(DIRECTOR6, BACKEND6, frame),
        ),
    ]
}

/// All pairings in both kinds of tunnels, with the frame that is in them.
fn tunnels() -> Vec<(String, Tunnel, Frame)> {
    let all = inner().into_iter().flat_map(|(name, frame)| {
        let with_inner = |(what, tunnel)| (what, tunnel, frame.clone());
        around(name, &frame)
            .into_iter()
            .map(with_inner)
            .collect::<Vec<_>>()
    });
    all.collect()
}

#[test]
fn every_pairing_comes_out_of_its_tunnel_with_its_tags() {
    let mut cases = Vec::new();
    for (name, frame) in inner() {
        let service_tagged = with_bytes(frame.clone().in_vlan(5).in_vlan(7), 12, &[0x88, 0xa8]);
        for (tags, frame) in [
            ("no tag", frame.clone()),
            ("a tag", frame.clone().in_vlan(7)),
            ("two tags", frame.in_vlan(5).in_vlan(7)),
            ("a service tag around a tag", service_tagged),
        ] {
            for (what, tunnel) in around(name, &frame) {
                let out = decapsulated(&frame);
                cases.push(case(format!("{what}, {tags}"), tunnel, out));
            }
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn more_than_two_tags_are_left_to_the_kernel() {
    let cases: Vec<_> = tunnels()
        .into_iter()
        .map(|(what, tunnel, _)| {
            let frame = Frame::from(tunnel).in_vlan(1).in_vlan(2).in_vlan(3);
            case(what, frame, passed(PassReason::NotIp))
        })
        .collect();
    check(&Settings::default(), &cases);
}

#[test]
fn options_in_either_header_are_no_obstacle() {
    let mut cases = Vec::new();
    for options in (0..=40).step_by(4) {
        for (what, tunnel, frame) in tunnels() {
            let what = format!("{what}, {options} bytes of options outside");
            cases.push(case(what, tunnel.options(options), decapsulated(frame)));
        }
        let frame = Frame::from(tcp().syn().ip_options(options)).in_vlan(7);
        for (what, tunnel) in around("IPv4", &frame) {
            let what = format!("{what}, {options} bytes of options inside");
            let tunnel = tunnel.options(40);
            cases.push(case(what, tunnel, decapsulated(&frame)));
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn what_else_the_outer_header_says_does_not_matter() {
    let mut cases = Vec::new();
    for (what, tunnel, frame) in tunnels() {
        let is_gue = what.contains("GUE");
        let mut other = tunnel
            .ttl(1)
            .traffic_class(0xff)
            .flow_label(0xf_ffff)
            .id(0xffff)
            .may_fragment();
        if is_gue {
            other = other.ports(1, GUE_PORT).checksum(0x1234);
        }
        cases.push(case(what, other, decapsulated(frame)));
    }
    check(&Settings::default(), &cases);
}

#[test]
fn inner_packets_of_every_length_come_out_with_their_padding() {
    let mut cases = Vec::new();
    for bytes in (0..70).chain([1000, 1399]) {
        let v4 = Frame::from(tcp().syn().payload(vec![9; bytes]));
        let mut v6 = Frame::from(udp6()).bytes().to_vec();
        v6.extend(vec![9; bytes]);
        let length = u16::try_from(v6.len() - ETHERNET - 40).expect("16 bits");
        let v6 = with_bytes(Frame::new(v6), ETHERNET + 4, &length.to_be_bytes());
        for (name, frame) in [("IPv4", v4), ("IPv6", v6)] {
            for (what, tunnel) in around(name, &frame) {
                let overhead = tunnel.overhead();
                for padding in [0, 1, 6, 46] {
                    let total = frame.bytes().len() + padding;
                    let padded = Frame::from(&tunnel).padded_to(total + overhead);
                    let out = decapsulated(frame.clone().padded_to(total));
                    let what = format!("{what}, {bytes} bytes, {padding} bytes of padding");
                    cases.push(case(what, padded, out));
                }
            }
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn an_inner_packet_may_be_shorter_than_its_room() {
    let mut cases = Vec::new();
    for (name, frame) in inner() {
        for more in 1..9 {
            let longer = frame.clone().padded_to(frame.bytes().len() + more);
            for (what, tunnel) in around(name, &longer) {
                let what = format!("{what}, {more} bytes more");
                cases.push(case(what, tunnel, decapsulated(&longer)));
            }
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn fragments_of_outer_packets_pass_as_they_are() {
    let mut cases = Vec::new();
    let fragment = || passed(PassReason::OuterFragment);
    for (what, tunnel, _) in tunnels() {
        if Frame::from(&tunnel).bytes()[ETHERNET] >> 4 == 6 {
            let tunnel = tunnel.protocol(44);
            cases.push(case(format!("{what}, fragment header"), tunnel, fragment()));
            continue;
        }
        let first = tunnel.clone().more_fragments();
        cases.push(case(format!("{what}, first"), first, fragment()));
        for offset in [8, 16, 1480, 65_528] {
            let what = format!("{what}, at {offset}");
            let later = tunnel.clone().fragment_at(offset);
            cases.push(case(format!("{what}, last"), &later, fragment()));
            cases.push(case(what, later.more_fragments(), fragment()));
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn what_is_in_no_tunnel_passes_as_it_is() {
    let not_tunnel = || passed(PassReason::NotTunnel);
    let mut cases = vec![
        case("ARP", arp_request(), passed(PassReason::NotIp)),
        case("a ping", ping(), not_tunnel()),
        case("TCP", tcp().syn(), not_tunnel()),
        case(
            "a fragment of TCP",
            tcp().syn().fragment_at(8),
            not_tunnel(),
        ),
        case("TCP over IPv6", tcp6(SYN), not_tunnel()),
        case("UDP", udp_to("192.0.2.10:53"), not_tunnel()),
        case("UDP over IPv6", udp6(), not_tunnel()),
        case(
            "IPv6 with options",
            tcp6(SYN).extension(60, 0),
            not_tunnel(),
        ),
        case(
            "a frame of nothing",
            Frame::new([0; ETHERNET]),
            passed(PassReason::NotIp),
        ),
    ];
    for (what, tunnel, _) in tunnels() {
        for protocol in (0..=255).filter(|protocol| ![4, 17, 41, 44].contains(protocol)) {
            let what = format!("{what}, protocol {protocol}");
            cases.push(case(what, tunnel.clone().protocol(protocol), not_tunnel()));
        }
        if what.contains("GUE") {
            for port in [0, 53, GUE_PORT - 1, GUE_PORT + 1, GUE_PORT.swap_bytes()] {
                let what = format!("{what}, port {port}");
                let other = tunnel.clone().ports(GUE_PORT, port);
                cases.push(case(what, other, not_tunnel()));
            }
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn gue_comes_in_by_the_port_that_is_set() {
    let settings = Settings {
        gue_port: 7000,
        ..Settings::default()
    };
    let mut cases = Vec::new();
    for (what, tunnel, frame) in tunnels() {
        if what.contains("GUE") {
            let usual = case(&*what, &tunnel, passed(PassReason::NotTunnel));
            let set = tunnel.ports(50_000, 7000);
            cases.extend([usual, case(what, set, decapsulated(frame))]);
        } else {
            cases.push(case(what, tunnel, decapsulated(frame)));
        }
    }
    check(&settings, &cases);
}

fn from(prefixes: &[&str]) -> Settings {
    let prefix = |text: &&str| text.parse().expect("a prefix");
    Settings {
        from: prefixes.iter().map(prefix).collect(),
        ..Settings::default()
    }
}

#[test]
fn only_listed_sources_are_decapsulated() {
    let frame = Frame::from(tcp().syn());
    let v4 = |a, b, c, d| IpAddr::from([a, b, c, d]);
    let v6 = |text: &str| IpAddr::V6(text.parse().expect("an address"));
    let mut cases = Vec::new();
    for (source, is_listed) in [
        (v4(10, 0, 0, 2), true),
        (v4(10, 0, 0, 3), false),
        (v4(10, 0, 1, 2), false),
        (v4(172, 16, 0, 0), true),
        (v4(172, 31, 255, 255), true),
        (v4(172, 32, 0, 0), false),
        (v4(0, 0, 0, 0), false),
        (v6("2001:db8:2::2"), true),
        (v6("2001:db8:2:ffff::"), true),
        (v6("2001:db8:3::2"), false),
        (v6("fe80::1"), true),
        (v6("fe80::2"), false),
        // Not what it stands for.
        (v6("::ffff:10.0.0.2"), false),
        (v6("::a00:2"), false),
    ] {
        let to = if source.is_ipv4() { BACKEND } else { BACKEND6 };
        for tunnel in [ipip(source, to, &frame), gue(source, to, &frame)] {
            let broken = with_bytes(&tunnel, ETHERNET + tunnel.overhead(), &[0x10]);
            let (good, bad) = if is_listed {
                (decapsulated(&frame), dropped(DropReason::BadInnerVersion))
            } else {
                let unknown = dropped(DropReason::UnknownSource);
                (unknown.clone(), unknown)
            };
            cases.push(case(format!("from {source}"), tunnel, good));
            cases.push(case(format!("from {source}, broken"), broken, bad));
        }
    }
    // From nobody on the list, but in no tunnel.
    cases.push(case("TCP", tcp().syn(), passed(PassReason::NotTunnel)));
    cases.push(case("UDP over IPv6", udp6(), passed(PassReason::NotTunnel)));
    let listed = ["10.0.0.2", "172.16.0.0/12", "2001:db8:2::/48", "fe80::1"];
    check(&from(&listed), &cases);
}

#[test]
fn a_list_of_one_family_lists_nobody_of_the_other() {
    let cases = |v4: bool| -> Vec<_> {
        let of_tunnel = |(what, tunnel, frame): (String, Tunnel, Frame)| {
            let is_v4 = Frame::from(&tunnel).bytes()[ETHERNET] >> 4 == 4;
            let expected = if is_v4 == v4 {
                decapsulated(frame)
            } else {
                dropped(DropReason::UnknownSource)
            };
            case(what, tunnel, expected)
        };
        tunnels().into_iter().map(of_tunnel).collect()
    };
    check(&from(&["0.0.0.0/0"]), &cases(true));
    check(&from(&["::/0"]), &cases(false));
}
