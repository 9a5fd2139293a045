//! Slots that have moved: who belongs to the previous backend, who to the current one, and what a
//! SYN finds out first.

use std::time::Duration;

use xdp_lb::timing::{CLOSING, OPENING};
use xdp_lb_common::{
    abi::Slot,
    counters::{DropReason, Event},
};
use xdp_lb_tests::{
    expect::{Expected, dropped, forwarded_to},
    packet::tcp,
    plane::{A, B, C, IDLE, Plane, mixed, moving, on_plane, settled},
};

/// Longer than the periods by which time is counted.
const BEYOND: Duration = Duration::from_secs(2);

fn created(backend: u16) -> Expected {
    forwarded_to(backend).with(Event::FlowCreated)
}

fn opened(backend: u16) -> Expected {
    forwarded_to(backend).with(Event::OpeningCreated)
}

fn followed(backend: u16) -> Expected {
    forwarded_to(backend).with(Event::FlowFollowedPrevious)
}

/// A flow with an entry for A, on a slot that is B's by now.
fn flow_of_a_on(plane: &mut Plane, slot: Slot) {
    plane.check(tcp().ack(), &created(A));
    plane.slot(slot);
}

#[test]
fn a_syn_on_a_moving_slot_is_remembered_and_its_ack_follows_it() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        assert!(plane.flows().is_empty());
        let opening = plane.openings().get(&tcp().flow());
        assert_eq!(opening.expect("an opening").backend(), B);
        plane.check(tcp().ack(), &created(B));
        plane.check(tcp().data("GET /"), &forwarded_to(B));
    });
}

#[test]
fn a_syn_opens_whatever_flags_come_with_it_but_ack_and_rst() {
    for syn in [
        tcp().syn().ece_cwr(),
        tcp().syn().fin(),
        tcp().syn().payload("fast"),
    ] {
        on_plane(|plane| {
            plane.slot(moving(A, B));
            plane.check(&syn, &opened(B));
            assert!(plane.flows().is_empty());
        });
    }
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn().rst(), &followed(A));
        plane.check(tcp().syn().ack(), &followed(A).with(Event::FlowCreated));
        assert!(plane.openings().is_empty());
    });
}

#[test]
fn an_ack_follows_its_syn_even_when_the_slot_has_moved_again() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.slot(moving(A, C));
        plane.check(tcp().ack(), &created(B));
        plane.slot(moving(C, A));
        plane.check(tcp().ack(), &forwarded_to(B));
    });
}

#[test]
fn a_reset_follows_its_syn_and_ends_the_opening() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.slot(moving(A, C));
        plane.check(tcp().rst(), &forwarded_to(B));
        assert!(plane.flow(&tcp().flow()).is_closing());
    });
}

#[test]
fn a_repeated_syn_follows_the_first() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.check(tcp().syn(), &forwarded_to(B));
        plane.slot(moving(A, C));
        plane.check(tcp().syn(), &forwarded_to(B));
        plane.check(tcp().ack(), &created(B));
        assert!(plane.openings().is_empty() && plane.flows().len() == 1);
    });
}

#[test]
fn a_syn_whose_first_went_to_a_backend_that_stopped_opens_anew() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.stop(B);
        plane.slot(moving(A, C));
        plane.check(tcp().syn(), &opened(C));
        plane.check(tcp().ack(), &created(C));
    });
}

#[test]
fn an_opening_of_a_backend_whose_index_was_given_to_another_is_not_followed() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.replace(B);
        plane.slot(moving(A, C));
        plane.check(tcp().ack(), &followed(A).with(Event::FlowCreated));
    });
}

#[test]
fn an_opening_is_forgotten_after_its_time() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        let silence = OPENING + BEYOND;
        plane.silent_for(&tcp().flow(), silence);
        plane.slot(moving(A, C));
        plane.check(tcp().syn(), &opened(C));
        plane.silent_for(&tcp().flow(), silence);
        plane.check(tcp().ack(), &followed(A).with(Event::FlowCreated));
    });
}

#[test]
fn an_unknown_flow_on_a_moving_slot_belongs_to_the_previous_backend() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().data("GET /"), &followed(A).with(Event::FlowCreated));
        plane.check(tcp().ack(), &forwarded_to(A));
        plane.slot(mixed(B));
        plane.check(tcp().ack(), &forwarded_to(A));
        assert!(plane.openings().is_empty());
    });
}

#[test]
fn the_end_of_an_unknown_flow_goes_to_the_previous_backend_and_makes_no_entry() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().fin().ack(), &followed(A));
        plane.check(tcp().rst(), &followed(A));
        assert!(plane.flows().is_empty());
    });
}

#[test]
fn where_the_previous_backend_does_not_serve_the_current_one_does() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.stop(A);
        plane.check(tcp().ack(), &created(B));
        plane.check(tcp().ack(), &forwarded_to(B));
        let other = "198.51.100.10:40001";
        plane.check(tcp().from(other).syn(), &opened(B));
        plane.check(tcp().from(other).ack(), &created(B));
    });
}

#[test]
fn where_the_current_backend_does_not_serve_only_older_flows_go_on() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.stop(B);
        plane.check(tcp().syn(), &dropped(DropReason::BackendGone));
        plane.check(tcp().ack(), &followed(A).with(Event::FlowCreated));
        plane.stop(A);
        plane.check(tcp().ack(), &dropped(DropReason::BackendGone));
    });
}

#[test]
fn a_mixed_slot_gives_unknown_flows_to_the_current_backend() {
    on_plane(|plane| {
        plane.slot(mixed(B));
        plane.check(tcp().syn(), &forwarded_to(B));
        assert!(plane.flows().is_empty() && plane.openings().is_empty());
        plane.check(tcp().ack(), &created(B));
    });
}

#[test]
fn a_syn_for_a_flow_that_is_open_follows_its_entry() {
    for slot in [mixed(B), moving(C, B), moving(A, B)] {
        on_plane(|plane| {
            flow_of_a_on(plane, slot);
            // It renews it: if it opens another connection from the same port, that has all of its time before it.
            plane.silent_for(&tcp().flow(), IDLE * 3 / 4);
            plane.check(tcp().syn(), &forwarded_to(A));
            assert_eq!(plane.flows().len(), 1);
            assert!(plane.openings().is_empty());
            plane.silent_for(&tcp().flow(), IDLE * 3 / 4);
            plane.check(tcp().ack(), &forwarded_to(A));
        });
    }
}

#[test]
fn a_syn_after_the_end_of_a_flow_follows_it_where_new_connections_go() {
    // The end may be forged, and the SYN.
    for end in [tcp().fin().ack(), tcp().rst()] {
        for slot in [mixed(B), moving(A, B), moving(C, B)] {
            let end = end.clone();
            on_plane(move |plane| {
                flow_of_a_on(plane, slot);
                plane.check(&end, &forwarded_to(A));
                plane.check(tcp().syn(), &forwarded_to(A));
                let opening = plane.openings().get(&tcp().flow());
                assert_eq!(opening.expect("an opening").backend(), A);
                plane.check(tcp().data("GET /"), &created(A));
                assert!(plane.flow(&tcp().flow()).is_proven());
            });
        }
    }
}

#[test]
fn a_syn_for_a_flow_at_a_backend_that_is_down_begins_another() {
    for slot in [mixed(B), moving(A, B), moving(C, B)] {
        let begins = if slot.moving_from().is_some() {
            opened(B)
        } else {
            forwarded_to(B)
        };
        on_plane(|plane| {
            flow_of_a_on(plane, slot);
            plane.take_down(A);
            // It goes on, unless it begins anew.
            plane.check(tcp().ack(), &forwarded_to(A));
            plane.check(tcp().syn(), &begins);
            plane.check(tcp().ack(), &created(B));
        });
    }
}

#[test]
fn an_opening_at_a_backend_that_is_down_is_void() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.take_down(B);
        plane.slot(moving(A, C));
        plane.check(tcp().syn(), &opened(C));
        plane.check(tcp().ack(), &created(C));
    });
    // One that drains goes on to answer what has begun there.
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.drain(B);
        plane.slot(moving(A, C));
        plane.check(tcp().syn(), &forwarded_to(B));
        plane.check(tcp().ack(), &created(B));
    });
}

#[test]
fn a_syn_after_the_end_of_a_flow_begins_another_where_new_connections_do_not_go() {
    let begins = |slot, expected: Expected| {
        on_plane(move |plane| {
            flow_of_a_on(plane, slot);
            plane.drain(A);
            plane.check(tcp().fin().ack(), &forwarded_to(A));
            plane.check(tcp().syn(), &expected.with(Event::FlowReopened));
            assert!(plane.flows().is_empty());
            plane.check(tcp().ack(), &created(B));
            plane.check(tcp().data("GET /"), &forwarded_to(B));
        });
    };
    begins(mixed(B), forwarded_to(B));
    begins(moving(A, B), opened(B));
    begins(moving(C, B), opened(B));
}

#[test]
fn a_syn_after_the_end_of_a_flow_does_not_follow_that_flows_opening() {
    on_plane(|plane| {
        plane.slot(moving(C, A));
        plane.check(tcp().syn(), &opened(A));
        plane.check(tcp().ack(), &created(A));
        plane.check(tcp().fin().ack(), &forwarded_to(A));
        plane.slot(moving(A, B));
        plane.drain(A);
        plane.check(tcp().syn(), &opened(B).with(Event::FlowReopened));
        // A repetition follows the first of the new connection.
        plane.check(tcp().syn(), &forwarded_to(B));
        plane.check(tcp().ack(), &created(B));
    });
}

#[test]
fn the_opening_of_a_flow_goes_with_the_flow() {
    on_plane(|plane| {
        plane.slot(moving(C, A));
        plane.check(tcp().syn(), &opened(A));
        plane.check(tcp().ack(), &created(A));
        plane.check(tcp().fin().ack(), &forwarded_to(A));
        plane.slot(mixed(B));
        plane.drain(A);
        plane.check(tcp().syn(), &forwarded_to(B).with(Event::FlowReopened));
        assert!(plane.flows().is_empty() && plane.openings().is_empty());
    });
}

#[test]
fn a_syn_for_a_flow_that_is_over_begins_another() {
    for (closing, silence) in [(false, IDLE), (true, CLOSING)] {
        on_plane(move |plane| {
            flow_of_a_on(plane, moving(A, B));
            if closing {
                plane.check(tcp().rst(), &forwarded_to(A));
            }
            let silence = silence + BEYOND;
            plane.silent_for(&tcp().flow(), silence);
            plane.check(tcp().syn(), &opened(B).with(Event::FlowReopened));
            assert!(plane.flows().is_empty());
            plane.check(tcp().ack(), &created(B));
        });
    }
}

#[test]
fn a_syn_for_a_flow_whose_backend_is_gone_begins_another() {
    let gone: [fn(&mut Plane); 2] = [|plane| plane.stop(A), |plane| plane.replace(A)];
    for leave in gone {
        on_plane(|plane| {
            flow_of_a_on(plane, moving(C, B));
            leave(plane);
            plane.check(tcp().syn(), &opened(B));
            plane.check(tcp().ack(), &created(B));
            plane.check(tcp().ack(), &forwarded_to(B));
        });
        on_plane(|plane| {
            flow_of_a_on(plane, mixed(B));
            leave(plane);
            plane.check(tcp().syn(), &forwarded_to(B));
            plane.check(tcp().ack(), &created(B));
        });
    }
}

#[test]
fn a_flow_that_was_silent_for_too_long_belongs_to_the_previous_backend() {
    on_plane(|plane| {
        flow_of_a_on(plane, moving(C, B));
        let silence = IDLE * 2 + BEYOND;
        plane.silent_for(&tcp().flow(), silence);
        let expected = followed(C)
            .with(Event::FlowExpired)
            .with(Event::FlowCreated);
        plane.check(tcp().ack(), &expected);
    });
}

#[test]
fn a_slot_that_settles_again_answers_for_itself() {
    on_plane(|plane| {
        plane.slot(moving(A, B));
        plane.check(tcp().syn(), &opened(B));
        plane.slot(settled(C));
        plane.check(tcp().from("198.51.100.10:40001").syn(), &forwarded_to(C));
        plane.check(tcp().from("198.51.100.10:40001").ack(), &created(C));
    });
}
