//! Packets whose headers lie or are cut off, outside or inside.

use xdp_lb::decap::Settings;
use xdp_lb_common::counters::decap::{Counter, DropReason, PassReason};
use xdp_lb_tests::{
    decapper::{Expected, decapsulated, dropped, on_decapper, passed},
    packet::{ETHERNET, Frame, tcp},
    plane::Action,
    random::Random,
    tunnel::{Tunnel, UDP, gue, link_length, with_bytes},
};

use super::{BACKEND, BACKEND6, DIRECTOR, DIRECTOR6, around, case, check, inner, tunnels};

/// Bytes of the shorter IP header, which every inner packet must have room for.
const LEAST: usize = 20;

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
