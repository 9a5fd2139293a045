//! Floods, and more new flows than are allowed: packets still go out, only memory is spared.

use std::{net::SocketAddrV4, time::Duration};

use xdp_lb_common::{abi::FlowKey, counters::Counter};
use xdp_lb_tests::{
    expect::{Counts, Name},
    packet::{Frame, Tcp, tcp},
    plane::{
        A, Action, B, IDLE, Plane, SERVICE, Setup, mixed, moving, on_plane, on_plane_with, settled,
    },
    random::Random,
};

/// A flow, and the backend that its packet went to.
type Went = (FlowKey<[u8; 4]>, u16);

/// Packets in a flood.
const FLOOD: u64 = 200_000;
/// Entries that the map of openings has.
const OPENINGS: u64 = 65_536;
/// New flows that come faster than one a tick.
const RUSH: u16 = 2000;

/// A plane where a CPU may remember one flow a tick.
fn on_plane_with_small_budget(test: impl FnOnce(&mut Plane) + Send) {
    let mut setup = Setup::default();
    setup.limits.new_flows_per_second = 1;
    on_plane_with(setup, test);
}

/// Sends packets of `count` flows that nobody has seen; each with the backend that it went to.
fn rush(plane: &mut Plane, count: u16, packet: fn(Tcp) -> Tcp) -> (Vec<Went>, Counts) {
    let before = Counts::read(plane);
    let went = (1..=count).map(|port| {
        let client = SocketAddrV4::new([203, 0, 113, 9].into(), port);
        let packet = packet(tcp().from(client));
        let (action, output) = plane.run(&Frame::from(&packet));
        assert_eq!(action, Action::Tx);
        (packet.flow(), backend_of(&output))
    });
    let went = went.collect();
    (went, Counts::read(plane).since(&before))
}

/// The backend whose MAC address a frame goes to.
fn backend_of(frame: &Frame) -> u16 {
    let [.., high, low] = frame.bytes()[..6] else {
        unreachable!("six bytes were asked for");
    };
    u16::from_be_bytes([high, low])
}

/// Sends a flood of SYNs from random clients.
fn flood(plane: &mut Plane) -> Counts {
    flood_of(plane, tcp().syn())
}

/// Sends a flood of such packets from random clients.
fn flood_of(plane: &mut Plane, packet: Tcp) -> Counts {
    let mut random = Random::new(1);
    let mut bytes = Frame::from(packet).bytes().to_vec();
    let before = Counts::read(plane);
    for _ in 0..FLOOD {
        let [a, b, c, d, e, f, ..] = random.number().to_be_bytes();
        // From an address that hosts may have.
        bytes[26..30].copy_from_slice(&[1 + a % 126, b, c, d]);
        bytes[34..36].copy_from_slice(&[e, f]);
        let (action, _) = plane.run(&Frame::new(bytes.as_slice()));
        assert_eq!(action, Action::Tx);
    }
    Counts::read(plane).since(&before)
}

/// Makes entries for a few flows to A.
fn established(plane: &mut Plane) -> Vec<FlowKey<[u8; 4]>> {
    let (went, counts) = rush(plane, 100, Tcp::ack);
    assert_eq!(counts.packets(Counter::FlowCreated), 100);
    went.into_iter().map(|(flow, _)| flow).collect()
}

#[test]
fn a_syn_flood_on_settled_slots_leaves_no_trace() {
    on_plane(|plane| {
        let counts = flood(plane);
        assert_eq!(counts.packets(Counter::Forwarded), FLOOD);
        assert_eq!(counts.get(Name::Backend(A)).packets, FLOOD);
        let others = Counter::ALL.iter().map(|&counter| counts.packets(counter));
        assert_eq!(others.sum::<u64>(), FLOOD);
        assert!(plane.flows().is_empty() && plane.openings().is_empty());
    });
}

#[test]
fn a_syn_flood_on_moving_slots_evicts_no_flow() {
    on_plane(|plane| {
        let flows = established(plane);
        let before = plane.flows();
        assert_eq!(before.len(), flows.len());
        plane.slot(moving(A, B));
        let counts = flood(plane);
        assert_eq!(counts.packets(Counter::Forwarded), FLOOD);
        let opened = counts.packets(Counter::OpeningCreated);
        let not_opened = counts.packets(Counter::OpeningNotCreated);
        assert_eq!(opened + not_opened, FLOOD);
        // On a slow machine, an emulated one say, the budget may do for all of them.
        assert!(opened > 0);
        assert_eq!(counts.get(Name::Backend(B)).packets, opened);
        assert_eq!(counts.get(Name::Backend(A)).packets, not_opened);
        let openings = u64::try_from(plane.openings().len()).expect("few");
        assert!(
            openings > 0 && openings <= opened.min(OPENINGS),
            "{openings}"
        );
        assert_eq!(plane.flows(), before);
        // And they go on where they were.
        let (went, counts) = rush(plane, 100, |packet| packet.data("GET /"));
        assert!(went.iter().all(|&(_, backend)| backend == A));
        assert_eq!(counts.packets(Counter::FlowCreated), 0);
    });
}

#[test]
fn a_flood_of_forged_packets_evicts_nothing_but_itself() {
    let mut setup = Setup::default();
    // Much less than the flood has flows.
    setup.limits.flows = 4096;
    setup.limits.new_flows_per_second = 100_000_000;
    on_plane_with(setup, |plane| {
        // Ten that were there before, and have sent packets for some time.
        let (older, _) = rush(plane, 10, Tcp::ack);
        for (flow, _) in &older {
            plane.silent_for(flow, Duration::from_secs(2));
        }
        rush(plane, 10, Tcp::ack);
        plane.slot(moving(A, B));
        // Of a hundred that open on the slot that moves, half have answered.
        let (opened, _) = rush(plane, 100, Tcp::syn);
        assert!(opened[10..].iter().all(|&(_, backend)| backend == B));
        rush(plane, 50, Tcp::ack);
        for packet in [
            tcp().ack(),
            tcp().ack().payload("x"),
            tcp().syn().ack(),
            tcp().fin().ack(),
        ] {
            let counts = flood_of(plane, packet);
            assert_eq!(counts.packets(Counter::Forwarded), FLOOD);
        }
        assert!(plane.flows().len() > 2000, "the flood has filled the table");
        // A slot that is mixed gives unknown ones to B, and one that is moving to A.
        for slot in [moving(A, B), mixed(B)] {
            plane.slot(slot);
            let (went, counts) = rush(plane, 100, |packet| packet.data("GET /"));
            for (port, (_, backend)) in (1..).zip(went) {
                let expected = if port <= 10 { A } else { B };
                assert_eq!(backend, expected, "{port} on {slot:?}");
            }
            assert_eq!(counts.packets(Counter::FlowFollowedPrevious), 0);
        }
        // Each flow that was made for the flood has made room for another.
        flood_of(plane, tcp().ack());
        plane.slot(mixed(A));
        let (went, _) = rush(plane, 100, |packet| packet.data("GET /"));
        assert!(went[10..].iter().all(|&(_, backend)| backend == B));
    });
}

#[test]
fn a_flood_for_a_service_that_forgets_soon_evicts_no_flow_of_one_that_does_not() {
    let mut setup = Setup::default();
    setup.limits.flows = 4096;
    setup.limits.new_flows_per_second = 100_000_000;
    on_plane_with(setup, |plane| {
        let (older, _) = rush(plane, 10, Tcp::ack);
        // They are proven, and silent for longer than the flood's service remembers.
        for (flow, _) in &older {
            plane.silent_for(flow, Duration::from_secs(2));
        }
        rush(plane, 10, Tcp::ack);
        for (flow, _) in &older {
            plane.silent_for(flow, IDLE / 2);
        }
        let longest = plane.dataplane().ticks(IDLE);
        plane.dataplane().set_longest_idle(longest);
        plane.configure(SERVICE, |service| service.idle_ticks = 1);
        flood_of(plane, tcp().ack());
        plane.configure(SERVICE, |service| service.idle_ticks = longest);
        plane.slot(settled(B));
        let (went, _) = rush(plane, 10, |packet| packet.data("GET /"));
        plane.dataplane().set_longest_idle(0);
        assert!(went.iter().all(|&(_, backend)| backend == A));
    });
}

#[test]
fn past_the_budget_flows_go_by_their_slot_without_an_entry() {
    on_plane_with_small_budget(|plane| {
        let (went, counts) = rush(plane, RUSH, Tcp::ack);
        assert!(went.iter().all(|&(_, backend)| backend == A));
        let created = counts.packets(Counter::FlowCreated);
        let not_created = counts.packets(Counter::FlowNotCreated);
        assert_eq!(created + not_created, u64::from(RUSH));
        assert!(created > 0 && not_created > 0, "{created} of {RUSH}");
        assert_eq!(counts.packets(Counter::Forwarded), u64::from(RUSH));
        let flows = plane.flows();
        assert_eq!(u64::try_from(flows.len()).expect("few"), created);
        // Those that have an entry need no budget.
        plane.slot(settled(B));
        let known = flows.len();
        let (went, _) = rush(plane, RUSH, Tcp::ack);
        let to_a = went.iter().filter(|&&(_, backend)| backend == A).count();
        assert_eq!(to_a, known);
        let misled = went
            .iter()
            .find(|(flow, backend)| (*backend == A) != flows.contains_key(flow));
        assert_eq!(misled, None);
    });
}

#[test]
fn past_the_budget_flows_on_moving_slots_go_to_the_previous_backend() {
    on_plane_with_small_budget(|plane| {
        plane.slot(moving(A, B));
        let (went, counts) = rush(plane, RUSH, Tcp::ack);
        assert!(went.iter().all(|&(_, backend)| backend == A));
        assert!(counts.packets(Counter::FlowNotCreated) > 0);
        let followed = counts.packets(Counter::FlowFollowedPrevious);
        assert_eq!(followed, u64::from(RUSH));
    });
}

#[test]
fn past_the_budget_syns_on_moving_slots_go_where_their_acks_will() {
    on_plane_with_small_budget(|plane| {
        plane.slot(moving(A, B));
        let (syns, counts) = rush(plane, RUSH, Tcp::syn);
        let opened = counts.packets(Counter::OpeningCreated);
        let not_opened = counts.packets(Counter::OpeningNotCreated);
        assert_eq!(opened + not_opened, u64::from(RUSH));
        assert!(opened > 0 && not_opened > 0, "{opened} of {RUSH}");
        let openings = plane.openings();
        assert_eq!(u64::try_from(openings.len()).expect("few"), opened);
        for (flow, backend) in &syns {
            let expected = if openings.contains_key(flow) { B } else { A };
            assert_eq!(*backend, expected, "{flow:?}");
        }
        assert!(plane.flows().is_empty());
        let (acks, _) = rush(plane, RUSH, Tcp::ack);
        assert_eq!(acks, syns);
    });
}

#[test]
fn past_the_budget_syns_go_to_the_current_backend_where_the_previous_one_does_not_serve() {
    on_plane_with_small_budget(|plane| {
        plane.slot(moving(A, B));
        plane.stop(A);
        let (syns, counts) = rush(plane, RUSH, Tcp::syn);
        assert!(syns.iter().all(|&(_, backend)| backend == B));
        assert!(counts.packets(Counter::OpeningNotCreated) > 0);
        let (acks, _) = rush(plane, RUSH, Tcp::ack);
        assert_eq!(acks, syns);
    });
}

#[test]
fn openings_do_not_use_up_the_budget_of_flows() {
    on_plane_with_small_budget(|plane| {
        plane.slot(moving(A, B));
        let (_, counts) = rush(plane, RUSH, Tcp::syn);
        assert!(counts.packets(Counter::OpeningNotCreated) > 0);
        let client = "198.51.100.77:50000";
        let seen = plane.send(tcp().from(client).ack());
        assert_eq!(seen.counts.packets(Counter::FlowCreated), 1);
    });
}
