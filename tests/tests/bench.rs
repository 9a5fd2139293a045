//! What the benchmark measures with: the wrapper gives the program a fresh packet each time, and the
//! program does with it what it would do anyway.

use std::collections::BTreeSet;

use xdp_lb_bench::{
    abi,
    cases::{Case, Tracking, Traffic},
    measure::{Plan, check, measure},
    packets::{self, Family, Packets, Segment, connection, vip},
    plane::{Mode, Plane, Scale},
    wrapper::{OBJECT, Order, Own, PASS, TX, Wrapper, backend_of, once},
};
use xdp_lb_common::counters::Counter;
use xtask::{lab::Namespace, root, test::libtest::SKIPPED};

/// Connections; not the packets' number, so that they come again.
const CONNECTIONS: u32 = 100;
/// Packets in a run: far more than a frame's headroom has bytes.
const PACKETS: u32 = 1010;

/// The order in which they come.
const ORDER: Order = Order::Scattered;

const SCALE: Scale = Scale {
    services: 3,
    backends: 5,
    table_size: 251,
    // Sparse, so that no flow displaces another.
    flows: 1 << 18,
    listed: 0,
};

fn in_namespace(test: impl FnOnce() + Send) {
    if !root::is_root() {
        println!("{SKIPPED}loading the programs takes root");
        return;
    }
    if OBJECT.is_empty() || xdp_lb::dataplane::OBJECT.is_empty() {
        println!("{SKIPPED}built without the XDP programs; `cargo xtask build` builds them");
        return;
    }
    Namespace::new("bench").expect("a namespace").run(test);
}

fn packets_of(family: Family) -> Packets {
    Packets::to_services(family, Segment::Ack, SCALE, CONNECTIONS)
}

/// The frame of the last packet of a run.
fn last(packets: &Packets, order: Order) -> Vec<u8> {
    let packet = packets.get(order.last_of(PACKETS, packets.connections));
    packets::bytes(packets.family, &packet)
}

#[test]
fn the_wrapper_writes_the_packet_of_any_connection() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        for family in [Family::V4, Family::V6] {
            // All bits that a packet has for its connection are in use.
            let packets = Packets {
                connections: abi::CONNECTIONS,
                ..packets_of(family)
            };
            wrapper.set_packets(&packets).expect("not too many");
            for order in [Order::Scattered, Order::Drawn] {
                for count in 1..200 {
                    let run = wrapper.run(count, order).expect("they could be written");
                    let number = order.last_of(count, packets.connections);
                    let service = u8::try_from(number % packets.services).expect("few");
                    let packet = connection(number, vip(family, service)).packet(Segment::Ack);
                    assert_eq!(run.frame, packets::bytes(family, &packet), "{number}");
                }
            }
        }
    });
}

#[test]
fn packets_from_the_list_are_those_that_would_be_computed() {
    in_namespace(|| {
        let scale = Scale {
            listed: 70,
            ..SCALE
        };
        let mut wrapper = Wrapper::open(scale).expect("the wrapper loads");
        // Fewer than there is room for, more, others, and less of what was there before.
        for (family, segment, connections) in [
            (Family::V4, Segment::Ack, 50),
            (Family::V4, Segment::Ack, 100),
            (Family::V4, Segment::Syn, 1),
            (Family::V4, Segment::Syn, 100),
            (Family::V6, Segment::Syn, 100),
            (Family::V6, Segment::Ack, 70),
            (Family::V4, Segment::Ack, 20),
        ] {
            let packets = Packets::to_services(family, segment, SCALE, connections);
            wrapper.set_packets(&packets).expect("not too many");
            for count in 1..=connections {
                let run = wrapper.run(count, ORDER).expect("they could be written");
                let packet = packets.get(ORDER.last_of(count, connections));
                assert_eq!(
                    run.frame,
                    packets::bytes(family, &packet),
                    "{segment:?}, packet {count} of {connections}"
                );
            }
        }
    });
}

#[test]
fn packets_of_no_connection_or_too_many_are_refused() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        for connections in [0, abi::CONNECTIONS + 1] {
            let packets = Packets {
                connections,
                ..packets_of(Family::V4)
            };
            let error = wrapper.set_packets(&packets).expect_err("not so many");
            assert!(error.to_string().contains("where there may be"), "{error}");
        }
    });
}

#[test]
fn the_wrapper_undoes_what_a_program_does_to_the_head_of_the_frame() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        let packets = packets_of(Family::V6);
        wrapper.set_packets(&packets).expect("few packets");
        wrapper.select_own(Own::Grow).expect("the program fits");
        let frame = last(&packets, ORDER);
        let whole = frame.len();
        for growth in [0, 20, 48, 4, -4, -8, 40] {
            wrapper.set_growth(growth).expect("the map can be written");
            let run = wrapper
                .run(PACKETS, ORDER)
                .expect("every packet could be written");
            assert_eq!(run.action, TX);
            let length = i32::try_from(whole).expect("short") + growth;
            assert_eq!(run.frame.len(), usize::try_from(length).expect("positive"));
            // What the program added is not the wrapper's; the rest is the last packet, to its end.
            let common = run.frame.len().min(whole);
            assert!(
                run.frame.ends_with(&frame[whole - common..]),
                "growth {growth}: {:02x?}",
                run.frame
            );
        }
    });
}

#[test]
fn a_frame_that_cannot_be_restored_fails_the_run() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        wrapper
            .set_packets(&packets_of(Family::V4))
            .expect("few packets");
        wrapper.select_own(Own::Grow).expect("the program fits");
        // More than the headroom.
        wrapper.set_growth(2000).expect("the map can be written");
        let error = wrapper
            .run(PACKETS, ORDER)
            .expect_err("no frame can grow so much");
        assert!(
            error.to_string().contains("could not be written"),
            "{error}"
        );
    });
}

#[test]
fn the_floors_send_frames_back_with_and_without_other_macs() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        for family in [Family::V4, Family::V6] {
            let packets = packets_of(family);
            wrapper.set_packets(&packets).expect("few packets");
            let mut frame = last(&packets, ORDER);
            for turn in [None, Some(Own::FloorTx), Some(Own::FloorParse)] {
                match turn {
                    None => wrapper.select(None).expect("the slot can be emptied"),
                    Some(own) => wrapper.select_own(own).expect("the program fits"),
                }
                if turn == Some(Own::FloorParse) {
                    let (destination, source) = frame[..12].split_at_mut(6);
                    destination.swap_with_slice(source);
                }
                let run = wrapper
                    .run(PACKETS, ORDER)
                    .expect("every packet could be written");
                assert_eq!(run.action, TX, "{turn:?}");
                assert_eq!(run.frame, frame, "{turn:?}");
            }
        }
    });
}

#[test]
fn the_floor_that_balances_gives_flows_to_all_backends_of_their_service() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        wrapper
            .select_own(Own::FloorStateless)
            .expect("the program fits");
        for family in [Family::V4, Family::V6] {
            for service in 0..SCALE.services {
                let backends: BTreeSet<u32> = (0..100)
                    .map(|number| balanced(&mut wrapper, family, service, number))
                    .collect();
                let first = u32::from(service) * u32::from(SCALE.backends);
                let all = first..first + u32::from(SCALE.backends);
                assert_eq!(backends, all.collect());
            }
        }
    });
}

/// The backend that a flow is given to.
fn balanced(wrapper: &mut Wrapper, family: Family, service: u8, number: u32) -> u32 {
    let connection = connection(number, vip(family, service));
    let packets = Packets::to(connection, Segment::Ack, 1);
    wrapper.set_packets(&packets).expect("one packet");
    let run = wrapper.run(2, ORDER).expect("it could be written");
    assert_eq!(run.action, TX);
    assert_eq!(run.frame[12..], last(&packets, ORDER)[12..]);
    backend_of(&run.frame).expect("a backend's addresses")
}

/// The frame that leaves is that of a run without the wrapper, and every packet is counted.
#[test]
fn the_program_treats_packets_from_the_wrapper_as_any_others() {
    for (mode, family) in planes() {
        in_namespace(|| {
            let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
            let mut plane = Plane::open(mode, family, SCALE).expect("a data plane");
            for case in Case::all(mode, family) {
                same_frame(&mut plane, &mut wrapper, case);
            }
        });
    }
}

fn planes() -> impl Iterator<Item = (Mode, Family)> {
    let modes = Mode::ALL.into_iter();
    modes.flat_map(|mode| [(mode, Family::V4), (mode, Family::V6)])
}

fn same_frame(plane: &mut Plane, wrapper: &mut Wrapper, case: Case) {
    let packets = case.packets(SCALE, CONNECTIONS);
    wrapper.set_packets(&packets).expect("few packets");
    plane.forget();
    plane.track(case.tracking);
    let program = plane.program().expect("the program").fd();
    let program = program.expect("it is loaded").try_clone();
    let program = program.expect("a descriptor");
    wrapper.select(Some(&program)).expect("the program fits");

    let before = plane.counters().expect("counters");
    let run = wrapper
        .run(PACKETS, ORDER)
        .expect("every packet could be written");
    let after = plane.counters().expect("counters");
    let forwarded = (Counter::Forwarded, PACKETS.into());
    let expected = match (case.traffic, case.tracking) {
        (Traffic::NoService, _) => case.expected(PACKETS.into()),
        (Traffic::Syns, _) | (_, Tracking::Adaptive) => vec![forwarded],
        (_, Tracking::Full) => {
            vec![
                forwarded,
                (Counter::FlowCreated, packets.connections.into()),
            ]
        }
    };
    check(&before, &after, &expected).unwrap_or_else(|error| panic!("{}: {error}", case.name()));

    let packet = packets.get(ORDER.last_of(PACKETS, packets.connections));
    let program = plane.program().expect("the program");
    let (_, frame) = once(program, case.family, &packet).expect("the kernel runs it");
    assert_eq!(run.frame, frame, "{}", case.name());
    assert_eq!(frame.len(), case.frame_out(), "{}", case.name());
    let passes = case.traffic == Traffic::NoService;
    assert_eq!(run.action, if passes { PASS } else { TX });
    assert_eq!(
        frame == packets::bytes(case.family, &packet),
        passes,
        "{}",
        case.name()
    );
}

#[test]
fn every_case_can_be_measured() {
    let plan = Plan {
        scale: SCALE,
        rounds: 2,
        connections: CONNECTIONS,
        packets: PACKETS,
        singles: 10,
    };
    for (mode, family) in planes() {
        in_namespace(move || {
            let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
            let mut plane = Plane::open(mode, family, SCALE).expect("a data plane");
            for case in Case::all(mode, family) {
                let measured = measure(&mut plane, &mut wrapper, case, plan);
                let measured = measured.unwrap_or_else(|error| panic!("{error:#}"));
                assert_eq!(measured.rounds.len(), 2, "{}", case.name());
            }
        });
    }
}

#[test]
fn a_packet_that_is_treated_otherwise_than_the_case_says_fails_the_case() {
    in_namespace(|| {
        let mut wrapper = Wrapper::open(SCALE).expect("the wrapper loads");
        // Without services, everything passes.
        let scale = Scale {
            services: 1,
            ..SCALE
        };
        let mut plane = Plane::open(Mode::L2, Family::V4, scale).expect("a data plane");
        let plan = Plan {
            // Two of three services are not there.
            scale: SCALE,
            rounds: 1,
            connections: CONNECTIONS,
            packets: CONNECTIONS,
            singles: 1,
        };
        let case = Case {
            mode: Mode::L2,
            family: Family::V4,
            tracking: Tracking::Adaptive,
            traffic: Traffic::Syns,
        };
        let error = measure(&mut plane, &mut wrapper, case, plan).expect_err("packets passed");
        assert!(
            format!("{error:#}").contains("34 packets as forwarded"),
            "{error:#}"
        );
    });
}
