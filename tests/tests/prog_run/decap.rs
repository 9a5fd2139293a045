//! The decapsulating program: what comes out of tunnels, what stays as it is, and what is dropped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdp_lb::decap::Settings;
use xdp_lb_common::counters::decap::{Counter, DropReason, PassReason};
use xdp_lb_tests::{
    datagram::{SYN, tcp6, udp6},
    decapper::{Expected, decapsulated, dropped, on_decapper, passed},
    packet::{ETHERNET, Frame, arp_request, ping, tcp, udp_to},
    plane::Action,
    random::Random,
    tunnel::{GUE_PORT, Tunnel, UDP, gue, ipip, link_length, with_bytes},
};

const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));
const DIRECTOR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2));
const BACKEND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11));

/// Bytes of the shorter IP header, which every inner packet must have room for.
const LEAST: usize = 20;

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
fn a_frame_that_is_cut_off_anywhere_passes_as_it_is() {
    let mut cases = Vec::new();
    for tags in 0..=2 {
        for (what, tunnel, _) in tunnels() {
            let mut whole = Frame::from(tunnel.options(12));
            for tag in 0..tags {
                whole = whole.in_vlan(tag + 1);
            }
            for length in ETHERNET..whole.bytes().len() {
                let what = format!("{what} with {tags} tags, cut to {length}");
                let frame = whole.clone().cut_to(length);
                cases.push(case(what, frame, passed(PassReason::OuterTruncated)));
            }
        }
    }
    check(&Settings::default(), &cases);
}

/// What a packet comes to whose tunnel has `room` bytes for `inner`, which is longer.
fn too_little(room: usize, inner: &Frame) -> Expected {
    let is_v6 = inner.bytes()[12..14] == [0x86, 0xdd];
    if room < LEAST || is_v6 && room < 40 {
        dropped(DropReason::BadInnerHeader)
    } else {
        dropped(DropReason::BadInnerLength)
    }
}

/// The tunnel's frame with IP lengths that leave so many bytes behind the outer IP header.
fn leaving(tunnel: &Tunnel, outer_header: usize, bytes: usize) -> Frame {
    let frame = Frame::from(tunnel);
    let (at, length) = if outer_header == 40 {
        (4, bytes)
    } else {
        (2, outer_header + bytes)
    };
    let length = u16::try_from(length).expect("16 bits");
    with_bytes(frame, ETHERNET + at, &length.to_be_bytes())
}

#[test]
fn an_inner_packet_that_the_outer_one_has_no_room_for_is_dropped() {
    let mut cases = Vec::new();
    for (what, tunnel, frame) in tunnels() {
        let is_gue = what.contains("GUE");
        let header = tunnel.overhead() - if is_gue { UDP } else { 0 };
        for room in 0..frame.bytes().len() - ETHERNET {
            let tunnel = tunnel.clone();
            let short = if is_gue {
                leaving(&tunnel.stating_udp_length(UDP + room), header, UDP + room)
            } else {
                leaving(&tunnel, header, room)
            };
            let cut = short
                .clone()
                .cut_to(ETHERNET + header + room + usize::from(is_gue) * UDP);
            let what = format!("{what}, room for {room} bytes");
            // What would be the rest of it is padding.
            cases.push(case(
                format!("{what}, padded"),
                short,
                too_little(room, &frame),
            ));
            cases.push(case(what, cut, too_little(room, &frame)));
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn udp_lengths_are_checked_against_both_sides() {
    let mut cases = Vec::new();
    for (name, frame) in inner() {
        for (outer, (source, destination)) in
            [(20, (DIRECTOR, BACKEND)), (40, (DIRECTOR6, BACKEND6))]
        {
            let tunnel = || gue(source, destination, &frame);
            let whole = frame.bytes().len() - ETHERNET + UDP;
            for stated in 0..whole + 10 {
                let expected = match stated {
                    0..UDP => dropped(DropReason::BadUdpHeader),
                    _ if stated < whole => too_little(stated - UDP, &frame),
                    _ if stated == whole => decapsulated(&frame),
                    _ => dropped(DropReason::BadUdpHeader),
                };
                let what = format!("{name}, outer header {outer}, UDP length {stated}");
                let frame = Frame::from(tunnel().stating_udp_length(stated));
                let padded = whole + outer + ETHERNET + 20;
                if stated != whole {
                    let padded = frame.clone().padded_to(padded);
                    cases.push(case(format!("{what}, padded"), padded, expected.clone()));
                }
                cases.push(case(what, frame, expected));
            }
            // No ports in it: not known to be for GUE.
            for bytes in 0..UDP {
                let what = format!("{name}, outer header {outer}, {bytes} bytes of UDP");
                let frame = leaving(&tunnel(), outer, bytes);
                cases.push(case(what, frame, passed(PassReason::OuterTruncated)));
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
fn an_inner_packet_of_another_version_is_dropped() {
    let mut cases = Vec::new();
    for version in 0..16 {
        for (what, tunnel, frame) in tunnels() {
            let at = ETHERNET + tunnel.overhead();
            let whole = Frame::from(tunnel);
            let first = version << 4 | whole.bytes()[at] & 0x0f;
            let own = whole.bytes()[at] >> 4;
            let expected = if version == own {
                decapsulated(frame)
            } else if what.contains("GUE") && (version == 4 || version == 6) {
                // Then it is taken for that, which its other fields do not fit.
                continue;
            } else {
                dropped(DropReason::BadInnerVersion)
            };
            let what = format!("{what}, version {version}");
            cases.push(case(what, with_bytes(whole, at, &[first]), expected));
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn an_inner_ipv4_header_that_lies_is_dropped() {
    let frame = Frame::from(tcp().syn());
    let whole = frame.bytes().len() - ETHERNET;
    let mut cases = Vec::new();
    for (what, tunnel) in around("IPv4", &frame) {
        let (at, packet) = (ETHERNET + tunnel.overhead(), Frame::from(tunnel));
        for words in 0..16 {
            let expected = match words {
                0..5 => dropped(DropReason::BadInnerHeader),
                _ if usize::from(words) * 4 > whole => dropped(DropReason::BadInnerLength),
                // What is in it is not this program's business, but out it comes.
                _ => decapsulated(with_bytes(&frame, ETHERNET, &[0x40 | words])),
            };
            let lying = with_bytes(&packet, at, &[0x40 | words]);
            cases.push(case(
                format!("{what}, {words} words of header"),
                lying,
                expected,
            ));
        }
        for total in (0..LEAST).chain(whole + 1..whole + 9) {
            let length = u16::try_from(total).expect("16 bits").to_be_bytes();
            let lying = with_bytes(&packet, at + 2, &length);
            let expected = dropped(DropReason::BadInnerLength);
            cases.push(case(
                format!("{what}, total length {total}"),
                lying,
                expected,
            ));
        }
    }
    check(&Settings::default(), &cases);
}

#[test]
fn an_outer_header_that_lies_leaves_the_packet_to_the_kernel() {
    let mut cases = Vec::new();
    let lies = || passed(PassReason::OuterTruncated);
    for (what, tunnel, _) in tunnels() {
        let frame = Frame::from(&tunnel);
        let own = frame.bytes()[ETHERNET] >> 4;
        for version in (0..16).filter(|&version| version != own) {
            let lying = frame.clone().with_version(version);
            cases.push(case(format!("{what}, version {version}"), lying, lies()));
        }
        if own == 6 {
            continue;
        }
        for words in 0..5 {
            let lying = frame.clone().with_ihl(words);
            cases.push(case(format!("{what}, {words} words"), lying, lies()));
        }
        let whole = frame.bytes().len() - ETHERNET;
        for total in (0..LEAST).chain(whole + 1..whole + 9) {
            let lying = frame.clone().with_total_length(total);
            cases.push(case(format!("{what}, total {total}"), lying, lies()));
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

/// Whatever comes: it is counted once, and it is either as it was or lost bytes of its outer headers.
#[test]
fn broken_packets_come_out_whole_or_not_at_all() {
    on_decapper(&Settings::default(), |decapper| {
        let mut random = Random::new(21);
        let mut below = |bound: usize| {
            let bound = u64::try_from(bound).expect("a length");
            usize::try_from(random.number() % bound).expect("a small number")
        };
        let tunnels = tunnels();
        for _ in 0..3000 {
            let (_, tunnel, inner) = &tunnels[below(tunnels.len())];
            let mut bytes = Frame::from(tunnel.clone().options(below(11) * 4))
                .bytes()
                .to_vec();
            for _ in 0..=below(3) {
                let headers = ETHERNET + tunnel.overhead() + 44;
                let at = 12 + below(headers.min(bytes.len()) - 12);
                bytes[at] = u8::try_from(below(256)).expect("a byte");
            }
            bytes.truncate(bytes.len() - below(4) / 3 * below(bytes.len() - ETHERNET));
            let frame = Frame::new(bytes);
            let seen = decapper.send(&frame);
            let length = u64::try_from(frame.bytes().len()).expect("a length");
            let [(counter, 1, counted)] = seen.counted[..] else {
                panic!("counted {:?}: {frame:?}", seen.counted);
            };
            assert_eq!(counted, length, "{frame:?}");
            if counter == Counter::Decapsulated {
                let (output, link) = (seen.output.bytes(), link_length(&frame));
                assert_eq!(seen.action, Action::Pass);
                assert!(output.len() <= inner.bytes().len() + 8, "{frame:?}");
                assert!(frame.bytes().ends_with(&output[link..]), "{frame:?}");
                assert_eq!(output[..link - 2], frame.bytes()[..link - 2]);
            } else {
                assert_eq!(seen.output, frame, "{counter:?}");
                assert!(matches!(seen.action, Action::Pass | Action::Drop));
            }
        }
    });
}
