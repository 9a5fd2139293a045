//! Packets on their way in: answers to those that were steered, and all others.

use std::net::{IpAddr, SocketAddr};

use xdp_lb::dataplane::check::Way;
use xdp_lb_common::check::{ANSWERED_WITHIN, FlowEntry};
use xdp_lb_tests::{
    check::{
        Expected::{Changed, Kept},
        PROTOCOLS, Packet, Protocol, Steerer, answer, cut_off, mapped, on_steerer, question,
    },
    datagram::{SYN, tcp6, udp6},
    packet::{ETHERNET, Frame, arp_request, ping, tcp, udp_to},
    random::Random,
    tunnel::with_bytes,
};

use super::{FAMILIES, Family, MARK, MODES, V4, V6, check, come};

/// Has a check ask.
fn ask(steerer: &mut Steerer, family: &Family, protocol: Protocol, flags: u16) {
    steerer.set_target(MARK, &family.target(flags));
    let packet = question(protocol, family.director, family.backend);
    let _ = steerer.send(Way::Out, MARK, &packet.into());
    assert_eq!(steerer.packets(MARK), Some(1), "{family:?} {protocol:?}");
}

/// The answer as the backend sends it.
fn reply(family: &Family, protocol: Protocol) -> Packet {
    answer(protocol, family.vip, family.director)
}

fn at_port(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

fn at(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address");
    SocketAddr::new(address, port)
}

#[test]
fn the_answer_gets_the_backends_address_back_whatever_its_length() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            for protocol in PROTOCOLS {
                for flags in MODES {
                    ask(steerer, &family, protocol, flags);
                    let lengths = (0..=33).chain([1000, 1001, 1459]);
                    let cases: Vec<_> = lengths
                        .map(|length| {
                            let packet = reply(&family, protocol).payload(vec![0xa5; length]);
                            let back = packet.clone().from(family.backend);
                            let what = format!("{} {protocol:?}, {length} bytes", family.vip);
                            come(what, packet, Changed(back.into()))
                        })
                        .collect();
                    check(steerer, &cases);
                }
            }
        }
    });
}

#[test]
fn answers_may_have_a_tag_and_options() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            for protocol in PROTOCOLS {
                ask(steerer, &family, protocol, 0);
                let mut packet = reply(&family, protocol).traffic_class(0xb8);
                if family.vip.is_ipv4() {
                    packet = packet.options(40).may_fragment(99);
                }
                let back = packet.clone().from(family.backend);
                let tagged = |packet| Frame::from(packet).in_vlan(9);
                check(
                    steerer,
                    &[
                        come(
                            "tagged",
                            tagged(packet.clone()),
                            Changed(tagged(back.clone())),
                        ),
                        come("untagged", packet, Changed(back.into())),
                    ],
                );
            }
        }
    });
}

#[test]
fn what_nobody_asked_for_goes_on_as_it_is() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            for protocol in PROTOCOLS {
                ask(steerer, &family, protocol, 0);
                let reply = || reply(&family, protocol);
                let other_vip = match family.vip {
                    SocketAddr::V4(_) => at("192.0.2.11", 80),
                    SocketAddr::V6(_) => at("2001:db8:10::11", 80),
                };
                let other_director = match family.vip {
                    SocketAddr::V4(_) => at("10.0.0.3", family.director.port()),
                    SocketAddr::V6(_) => at("2001:db8:2::3", family.director.port()),
                };
                let mut cases = vec![
                    come("from another VIP", reply().from(other_vip), Kept),
                    come("from the backend", reply().from(family.backend), Kept),
                    come("to another address", reply().to(other_director), Kept),
                    come(
                        "to another port",
                        reply().to(at_port(family.director, 40_002)),
                        Kept,
                    ),
                    come(
                        "a question",
                        question(protocol, family.director, family.vip),
                        Kept,
                    ),
                ];
                if protocol == Protocol::Echo {
                    let request = question(protocol, family.vip, family.director);
                    let request = request.from(at_port(family.vip, family.director.port()));
                    cases.push(come("an echo request", request, Kept));
                } else {
                    let from = at_port(family.vip, 81);
                    cases.push(come("from another port", reply().from(from), Kept));
                }
                for other in PROTOCOLS.into_iter().filter(|&other| other != protocol) {
                    let packet = answer(other, family.vip, family.director);
                    // An echo's identifier is what the port is to others, but the protocol differs.
                    cases.push(come(format!("{other:?} for {protocol:?}"), packet, Kept));
                }
                check(steerer, &cases);
                steerer
                    .flows()
                    .remove(
                        &question(protocol, family.director, family.backend).flow(family.vip.ip()),
                    )
                    .expect("what was asked is remembered");
                check(steerer, &[come("not remembered", reply(), Kept)]);
            }
        }
    });
}

#[test]
fn what_is_no_answer_at_all_goes_on_as_it_is() {
    on_steerer(|steerer| {
        for protocol in PROTOCOLS {
            ask(steerer, &V4, protocol, 0);
        }
        let cases = [
            come("ARP", arp_request(), Kept),
            come("a ping", ping(), Kept),
            come("TCP", tcp().syn(), Kept),
            come("TCP over IPv6", tcp6(SYN), Kept),
            come("UDP", udp_to("192.0.2.10:53"), Kept),
            come("UDP over IPv6", udp6(), Kept),
            come("a fragment header", udp6().fragment(0, true), Kept),
            come("options of IPv6", tcp6(SYN).extension(60, 0), Kept),
        ];
        check(steerer, &cases);
    });
}

#[test]
fn answers_that_are_cut_off_or_fragments_go_on_as_they_are() {
    on_steerer(|steerer| {
        for family in FAMILIES {
            for protocol in PROTOCOLS {
                ask(steerer, &family, protocol, 0);
                let whole = Frame::from(reply(&family, protocol));
                let mut cases: Vec<_> = cut_off(&whole)
                    .map(|cut| come(format!("{protocol:?} cut off"), cut, Kept))
                    .collect();
                if family.vip.is_ipv4() {
                    for (offset, more) in [(0, true), (8, true), (8, false)] {
                        let fragment = reply(&family, protocol).fragment(offset, more);
                        cases.push(come(format!("a fragment at {offset}"), fragment, Kept));
                    }
                    for words in (0..5).chain([15]) {
                        let lying = whole.clone().with_ihl(words);
                        cases.push(come(format!("{words} words"), lying, Kept));
                    }
                }
                check(steerer, &cases);
            }
        }
    });
}

/// IPv4 addresses stand in the maps in a form that is an IPv6 address, too.
#[test]
fn ipv4_mapped_addresses_on_the_wire_are_nobodys() {
    on_steerer(|steerer| {
        let six = |address: SocketAddr| {
            SocketAddr::new(IpAddr::V6(mapped(address.ip()).into()), address.port())
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            ask(steerer, &V4, protocol, 0);
            let packet = answer(protocol, six(V4.vip), six(V4.director));
            check(steerer, &[come("mapped", packet, Kept)]);
            let packet = question(protocol, six(V4.director), six(V4.backend));
            let seen = steerer.send(Way::Out, MARK, &packet.into());
            assert!(seen.is_dropped());
        }
    });
}

/// `CLOCK_MONOTONIC`, as the program reads it, so long ago. Wraps where the kernel has not run so long.
fn ago(steerer: &mut Steerer, packet: &Packet, nanoseconds: u64) {
    let flow = packet.flow(V4.vip.ip());
    let entry: FlowEntry = steerer.flows().get(&flow, 0).expect("it was asked for");
    let sent = entry.sent.wrapping_sub(nanoseconds);
    let entry = FlowEntry { sent, ..entry };
    steerer.flows().insert(flow, entry, 0).expect("it is there");
}

#[test]
fn an_answer_that_comes_too_late_is_none_until_something_is_sent_again() {
    on_steerer(|steerer| {
        let packet = question(Protocol::Udp, V4.director, V4.backend);
        let within = u64::try_from(ANSWERED_WITHIN.as_nanos()).expect("a minute");
        let back = || Changed(reply(&V4, Protocol::Udp).from(V4.backend).into());
        ask(steerer, &V4, Protocol::Udp, 0);
        // Half of the time passes. The other half leaves room for what the test itself takes.
        ago(steerer, &packet, within / 2);
        check(
            steerer,
            &[come("in time", reply(&V4, Protocol::Udp), back())],
        );
        ago(steerer, &packet, within / 2);
        check(steerer, &[come("late", reply(&V4, Protocol::Udp), Kept)]);
        ask(steerer, &V4, Protocol::Udp, 0);
        check(steerer, &[come("again", reply(&V4, Protocol::Udp), back())]);
    });
}

#[test]
fn the_last_backend_asked_by_a_port_is_the_one_that_answers() {
    on_steerer(|steerer| {
        let second = at("10.0.0.12", 80);
        ask(steerer, &V4, Protocol::Tcp, 0);
        let mut target = V4.target(0);
        target.backend = mapped(second.ip());
        steerer.set_target(MARK + 1, &target);
        let packet = question(Protocol::Tcp, V4.director, second);
        let _ = steerer.send(Way::Out, MARK + 1, &packet.into());
        let back = reply(&V4, Protocol::Tcp).from(second);
        check(
            steerer,
            &[come(
                "the second",
                reply(&V4, Protocol::Tcp),
                Changed(back.into()),
            )],
        );
        // Another port to the first, at the same time.
        let director = at_port(V4.director, 40_002);
        let packet = question(Protocol::Tcp, director, V4.backend);
        let _ = steerer.send(Way::Out, MARK, &packet.into());
        let first = answer(Protocol::Tcp, V4.vip, director);
        let back = first.clone().from(V4.backend);
        check(steerer, &[come("the first", first, Changed(back.into()))]);
    });
}

#[test]
fn udp_answers_without_a_checksum_stay_so() {
    on_steerer(|steerer| {
        for family in [V4, V6] {
            ask(steerer, &family, Protocol::Udp, 0);
            let at = ETHERNET + if family.vip.is_ipv4() { 20 } else { 40 } + 6;
            let packet = reply(&family, Protocol::Udp);
            let back = with_bytes(packet.clone().from(family.backend), at, &[0, 0]);
            let case = come("none", with_bytes(packet, at, &[0, 0]), Changed(back));
            check(steerer, &[case]);
        }
    });
}

/// Whatever comes: it goes on, as long as it was, and nothing but address and checksums differ.
#[test]
fn broken_answers_lose_nothing() {
    on_steerer(|steerer| {
        let mut random = Random::new(22);
        let mut below = |bound: usize| {
            let bound = u64::try_from(bound).expect("a length");
            usize::try_from(random.number() % bound).expect("a small number")
        };
        for _ in 0..2000 {
            let family = FAMILIES[below(2)];
            let protocol = PROTOCOLS[below(3)];
            ask(steerer, &family, protocol, 0);
            let mut bytes = Frame::from(reply(&family, protocol)).bytes().to_vec();
            for _ in 0..below(4) {
                let at = 12 + below(bytes.len() - 12);
                bytes[at] = u8::try_from(below(256)).expect("a byte");
            }
            bytes.truncate(bytes.len() - below(4) / 3 * below(9));
            let frame = Frame::new(bytes);
            let seen = steerer.send(Way::In, 0, &frame);
            assert!(!seen.is_dropped(), "{frame:?}");
            let pairs = seen.output().bytes().iter().zip(frame.bytes());
            let differ = pairs.filter(|(now, before)| now != before).count();
            assert_eq!(seen.output().bytes().len(), frame.bytes().len());
            assert!(differ <= 20, "{frame:?}");
        }
    });
}
