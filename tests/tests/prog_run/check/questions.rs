//! Marked packets on their way out.

use xdp_lb_common::check::Target;
use xdp_lb_tests::{
    check::{
        Expected::{Changed, Dropped, Kept},
        PROTOCOLS, Protocol, answer, cut_off, entropy, mapped, on_steerer, question,
    },
    datagram::{SYN, tcp6},
    packet::{ETHERNET, Frame, arp_request, tcp},
    tunnel::{GUE_PORT, gue, ipip, with_bytes},
};

use super::{Case, FAMILIES, Family, MARK, MODES, V4, V6, check, out};

/// Every protocol in every mode of every family, by name, to the backend's own address.
fn each(mut run: impl FnMut(&str, Family, Protocol, u16)) {
    for family in FAMILIES {
        for protocol in PROTOCOLS {
            for flags in MODES {
                let what = format!("{protocol:?} to {}, flags {flags}", family.vip);
                run(&what, family, protocol, flags);
            }
        }
    }
}

#[test]
fn every_protocol_is_steered_in_every_mode_whatever_its_length() {
    on_steerer(|steerer| {
        each(|what, family, protocol, flags| {
            steerer.set_target(MARK, &family.target(flags));
            let packet = question(protocol, family.director, family.backend);
            let lengths = (0..=33).chain([1000, 1001, 1459]);
            let cases: Vec<_> = lengths
                .map(|length| {
                    let payload = (0..=250).cycle().take(length).collect::<Vec<u8>>();
                    let packet = packet.clone().payload(payload);
                    let steered = Changed(family.steered(&packet, flags));
                    out(format!("{what}, {length} bytes"), packet, steered)
                })
                .collect();
            check(steerer, &cases);
            let sent = u64::try_from(cases.len()).expect("a small number");
            assert_eq!(steerer.packets(MARK), Some(sent), "{what}");
        });
    });
}

#[test]
fn what_has_no_mark_or_one_without_a_target_is_none_of_ours() {
    on_steerer(|steerer| {
        each(|what, family, protocol, flags| {
            steerer.set_target(MARK, &family.target(flags));
            let packet = question(protocol, family.director, family.backend);
            let with_mark = |mark: u32| Case {
                mark,
                ..out(format!("{what}, mark {mark:x}"), &packet, Kept)
            };
            // A mark is known as a whole.
            let others = [0, 1, MARK & 0xffff, MARK | 1 << 31, !MARK, u32::MAX];
            check(steerer, &others.map(with_mark));
        });
        steerer.remove_target(MARK);
        steerer.remove_target(MARK);
        let packet = question(Protocol::Tcp, V4.director, V4.backend);
        check(steerer, &[out("no target any more", packet, Kept)]);
        assert_eq!(steerer.packets(MARK), None);
    });
}

#[test]
fn what_is_not_ip_goes_on_whatever_its_mark() {
    on_steerer(|steerer| {
        steerer.set_target(MARK, &V4.target(0));
        let nested = Frame::from(question(Protocol::Tcp, V4.director, V4.backend));
        let cases = [
            out("ARP", arp_request(), Kept),
            out("two tags", nested.in_vlan(1).in_vlan(2), Kept),
        ];
        check(steerer, &cases);
    });
}

#[test]
fn a_marked_packet_that_cannot_be_steered_is_dropped() {
    on_steerer(|steerer| {
        each(|what, family, protocol, flags| {
            steerer.set_target(MARK, &family.target(flags));
            let packet = question(protocol, family.director, family.backend);
            let whole = Frame::from(&packet);
            let mut cases: Vec<_> = cut_off(&whole)
                .map(|cut| out(format!("{what}, cut off"), cut, Dropped))
                .collect();
            let elsewhere = packet.clone().to(family.vip);
            cases.push(out(
                format!("{what}, not to the backend"),
                elsewhere,
                Dropped,
            ));
            let version = whole.bytes()[ETHERNET] ^ 0x20;
            let lying = with_bytes(&whole, ETHERNET, &[version]);
            cases.push(out(format!("{what}, another version"), lying, Dropped));
            let at = if family.vip.is_ipv4() { 9 } else { 6 };
            for protocol in (0..=255).filter(|number| ![1, 6, 17, 58].contains(number)) {
                let other = with_bytes(&whole, ETHERNET + at, &[protocol]);
                cases.push(out(format!("{what}, protocol {protocol}"), other, Dropped));
            }
            check(steerer, &cases);
        });
        steerer.set_target(MARK, &V4.target(0));
        let other_family = question(Protocol::Tcp, V6.director, V6.backend);
        let reply = answer(Protocol::Echo, V4.director, V4.backend);
        check(
            steerer,
            &[
                out("of the other family", other_family, Dropped),
                out("an echo reply", reply, Dropped),
                out("of nobody", tcp().syn(), Dropped),
                out("of nobody, over IPv6", tcp6(SYN), Dropped),
            ],
        );
        assert_eq!(steerer.packets(MARK), Some(0));
    });
}

#[test]
fn fragments_and_lying_ipv4_headers_are_dropped() {
    on_steerer(|steerer| {
        steerer.set_target(MARK, &V4.target(0));
        for protocol in PROTOCOLS {
            let packet = || question(protocol, V4.director, V4.backend);
            let whole = Frame::from(packet());
            let length = whole.bytes().len() - ETHERNET;
            let mut cases = vec![
                out("a first fragment", packet().fragment(0, true), Dropped),
                out("a later fragment", packet().fragment(64, true), Dropped),
                out("a last fragment", packet().fragment(64, false), Dropped),
            ];
            for words in 0..5 {
                let lying = whole.clone().with_ihl(words);
                cases.push(out(format!("{words} words of header"), lying, Dropped));
            }
            let least = if protocol == Protocol::Tcp { 40 } else { 28 };
            for total in (0..least).chain(length + 1..length + 9) {
                let lying = whole.clone().with_total_length(total);
                cases.push(out(format!("total length {total}"), lying, Dropped));
            }
            check(steerer, &cases);
        }
    });
}

#[test]
fn targets_of_mixed_families_steer_nothing() {
    on_steerer(|steerer| {
        for (own, other) in [(V4, V6), (V6, V4)] {
            let packet = question(Protocol::Tcp, own.director, own.backend);
            for flags in MODES {
                let mixed = Target {
                    vip: mapped(other.vip.ip()),
                    ..own.target(flags)
                };
                steerer.set_target(MARK, &mixed);
                check(steerer, &[out("another VIP", &packet, Dropped)]);
            }
        }
    });
}

#[test]
fn options_are_kept() {
    on_steerer(|steerer| {
        for protocol in PROTOCOLS {
            for flags in MODES {
                steerer.set_target(MARK, &V4.target(flags));
                let packet = question(protocol, V4.director, V4.backend).options(12);
                let steered = Changed(V4.steered(&packet, flags));
                check(steerer, &[out(format!("{protocol:?}"), packet, steered)]);
            }
        }
    });
}

#[test]
fn an_outer_header_is_like_the_inner_one() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            let source = family.tunnel_source;
            for class in [1, 0xb8, 0xff] {
                let packet = question(Protocol::Tcp, family.director, family.backend);
                let packet = packet.traffic_class(class).may_fragment(0x1234);
                let inner = Frame::from(packet.clone().to(family.vip));
                let (port, label) = entropy(&packet.flow(family.vip.ip()));
                let backend = family.backend.ip();
                let tunnels = [
                    (Target::FLAG_IPIP, ipip(source, backend, &inner)),
                    (
                        Target::FLAG_GUE,
                        gue(source, backend, &inner).ports(port, GUE_PORT),
                    ),
                ];
                for (flags, tunnel) in tunnels {
                    steerer.set_target(MARK, &family.target(flags));
                    let tunnel = tunnel.traffic_class(class).flow_label(label);
                    let tunnel = tunnel.id(0x1234).may_fragment();
                    let what = format!("{} {flags}, class {class}", family.vip);
                    check(steerer, &[out(what, &packet, Changed(tunnel.into()))]);
                }
            }
        }
    });
}

#[test]
fn gue_goes_to_the_port_that_is_set_and_flows_come_from_different_ones() {
    on_steerer(|steerer| {
        let target = Target {
            gue_port_be: 7000_u16.to_be_bytes(),
            ..V4.target(Target::FLAG_GUE)
        };
        steerer.set_target(MARK, &target);
        let mut ports = Vec::new();
        for port in 0..20 {
            let mut director = V4.director;
            director.set_port(50_000 + port);
            let packet = question(Protocol::Udp, director, V4.backend);
            let (source, _) = entropy(&packet.flow(V4.vip.ip()));
            let inner = packet.clone().to(V4.vip);
            let tunnel = gue(V4.tunnel_source, V4.backend.ip(), inner).ports(source, 7000);
            check(steerer, &[out("to 7000", packet, Changed(tunnel.into()))]);
            ports.push(source);
        }
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 15, "{ports:?}");
    });
}

#[test]
fn a_tag_in_the_frame_stays_where_no_header_is_added() {
    on_steerer(|steerer| {
        each(|what, family, protocol, flags| {
            steerer.set_target(MARK, &family.target(flags));
            let packet = question(protocol, family.director, family.backend);
            // The kernel puts no headers behind tags that it does not know of.
            let expected = match flags {
                0 => Changed(family.steered(&packet, 0).in_vlan(7)),
                _ => Dropped,
            };
            let case = out(what, Frame::from(packet).in_vlan(7), expected);
            if flags == 0 {
                check(steerer, &[case]);
            } else {
                // Its inner address has been changed by then.
                let seen = steerer.send(case.way, case.mark, &case.frame);
                assert!(seen.is_dropped(), "{what}");
            }
        });
    });
}

#[test]
fn udp_without_a_checksum_stays_so() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            let at = ETHERNET + if family.vip.is_ipv4() { 20 } else { 40 } + 6;
            for flags in MODES {
                steerer.set_target(MARK, &family.target(flags));
                let packet = question(Protocol::Udp, family.director, family.backend);
                let inner = with_bytes(packet.clone().to(family.vip), at, &[0, 0]);
                let steered = family.wrapped(&packet, inner, flags);
                let case = out(
                    "no checksum",
                    with_bytes(packet, at, &[0, 0]),
                    Changed(steered),
                );
                check(steerer, &[case]);
            }
        }
    });
}

#[test]
fn a_udp_checksum_that_comes_to_zero_is_written_as_its_complement() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            let at = ETHERNET + if family.vip.is_ipv4() { 20 } else { 40 } + 6;
            steerer.set_target(MARK, &family.target(0));
            let packet = question(Protocol::Udp, family.director, family.backend);
            // With its own complement in it, the sum is what zero is the complement of.
            let plain = family.steered(&packet.clone().payload([0; 2]), 0);
            let packet = packet.payload([plain.bytes()[at], plain.bytes()[at + 1]]);
            let steered = family.steered(&packet, 0);
            assert_eq!(steered.bytes()[at..at + 2], [0xff, 0xff]);
            check(steerer, &[out("zero", packet, Changed(steered))]);
        }
    });
}
