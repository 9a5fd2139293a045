//! Connection tracking `adaptive`: flows are remembered where a change puts them at risk, and nowhere else.

use xdp_lb::timing;
use xdp_lb_common::{
    abi::{ServiceEntry, Slot},
    counters::{Event, PassReason},
};
use xdp_lb_tests::{
    expect::{forwarded_to, passed},
    packet::tcp,
    plane::{A, B, C, Plane, SERVICE, mixed, moving, on_plane, settled},
};

fn on_adaptive_plane(test: impl FnOnce(&mut Plane) + Send) {
    on_plane(|plane| {
        plane.configure(SERVICE, |service| {
            service.flags |= ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_ADAPTIVE;
        });
        test(plane);
    });
}

fn nobody(previous: u16) -> Slot {
    Slot {
        current: 0,
        previous,
    }
}

fn remembers_nothing(plane: &Plane) -> bool {
    plane.flows().is_empty() && plane.openings().is_empty()
}

#[test]
fn nothing_is_remembered_on_a_settled_slot() {
    on_adaptive_plane(|plane| {
        for packet in [tcp().syn(), tcp().ack(), tcp().data("GET /"), tcp().fin()] {
            plane.check(&packet, &forwarded_to(A));
        }
        assert!(remembers_nothing(plane));
    });
}

#[test]
fn an_entry_is_not_looked_at_on_a_settled_slot() {
    on_adaptive_plane(|plane| {
        plane.slot(moving(A, B));
        let followed = forwarded_to(A).with(Event::FlowFollowedPrevious);
        plane.check(tcp().ack(), &followed.with(Event::FlowCreated));
        plane.slot(settled(C));
        plane.check(tcp().ack(), &forwarded_to(C));
    });
}

#[test]
fn a_connection_keeps_its_backend_when_its_slot_moves() {
    on_adaptive_plane(|plane| {
        plane.check(tcp().syn(), &forwarded_to(A));
        plane.check(tcp().ack(), &forwarded_to(A));
        plane.slot(moving(A, B));
        let followed = forwarded_to(A).with(Event::FlowFollowedPrevious);
        plane.check(tcp().data("1"), &followed.with(Event::FlowCreated));
        plane.check(tcp().data("2"), &forwarded_to(A));
        // Its slot moves on, and rests.
        plane.slot(moving(A, C));
        plane.check(tcp().data("3"), &forwarded_to(A));
        plane.slot(mixed(C));
        plane.check(tcp().data("4"), &forwarded_to(A));
    });
}

#[test]
fn a_new_connection_on_a_moving_slot_keeps_the_current_backend() {
    on_adaptive_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &forwarded_to(B).with(Event::OpeningCreated));
        plane.check(tcp().ack(), &forwarded_to(B).with(Event::FlowCreated));
        plane.slot(moving(A, C));
        plane.check(tcp().data("1"), &forwarded_to(B));
        plane.slot(mixed(C));
        plane.check(tcp().data("2"), &forwarded_to(B));
    });
}

#[test]
fn on_a_mixed_slot_a_flow_without_an_entry_needs_none() {
    on_adaptive_plane(|plane| {
        plane.slot(mixed(B));
        for packet in [tcp().syn(), tcp().ack(), tcp().data("GET /"), tcp().fin()] {
            plane.check(&packet, &forwarded_to(B));
        }
        assert!(remembers_nothing(plane));
    });
}

#[test]
fn flows_go_on_where_nobody_is_left_for_new_ones() {
    on_adaptive_plane(|plane| {
        plane.check(tcp().ack(), &forwarded_to(A));
        plane.slot(nobody(A));
        plane.check(tcp().syn(), &passed(PassReason::NoBackend));
        let followed = forwarded_to(A).with(Event::FlowFollowedPrevious);
        plane.check(tcp().data("1"), &followed.with(Event::FlowCreated));
        plane.slot(nobody(Slot::MIXED));
        plane.check(tcp().data("2"), &forwarded_to(A));
        let other = tcp().from("203.0.113.7:4000");
        plane.check(other.clone().ack(), &passed(PassReason::NoBackend));
        plane.check(other.syn(), &passed(PassReason::NoBackend));
    });
}

#[test]
fn a_repeated_syn_has_all_of_an_openings_time_before_it() {
    on_adaptive_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &forwarded_to(B).with(Event::OpeningCreated));
        plane.silent_for(&tcp().flow(), timing::OPENING * 3 / 4);
        plane.check(tcp().syn(), &forwarded_to(B));
        plane.silent_for(&tcp().flow(), timing::OPENING * 3 / 4);
        plane.check(tcp().ack(), &forwarded_to(B).with(Event::FlowCreated));
    });
}

/// The connection that begins then is at the current backend, and stays there when the other one is back.
#[test]
fn a_syn_of_a_flow_whose_backend_is_away_begins_another_connection() {
    on_adaptive_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &forwarded_to(B).with(Event::OpeningCreated));
        plane.slot(mixed(C));
        plane.stop(B);
        plane.check(tcp().syn(), &forwarded_to(C));
        plane.start(B);
        plane.check(tcp().ack(), &forwarded_to(C));
        assert!(remembers_nothing(plane));
    });
}

#[test]
fn a_flow_that_has_left_its_backend_does_not_go_back() {
    on_adaptive_plane(|plane| {
        plane.slot(moving(A, B));
        let followed = forwarded_to(A).with(Event::FlowFollowedPrevious);
        plane.check(tcp().ack(), &followed.with(Event::FlowCreated));
        plane.slot(mixed(B));
        plane.stop(A);
        plane.check(tcp().data("1"), &forwarded_to(B));
        plane.start(A);
        plane.check(tcp().data("2"), &forwarded_to(B));
        assert!(remembers_nothing(plane));
    });
}
