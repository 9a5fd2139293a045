//! Connection tracking on slots that have never moved: who gets an entry, who follows it, and when
//! it is over.

use std::{net::SocketAddrV4, time::Duration};

use xdp_lb::timing::CLOSING;
use xdp_lb_common::{abi::ServiceEntry, counters::Event};
use xdp_lb_tests::{
    expect::{Expected, forwarded_to},
    packet::{Tcp, tcp},
    plane::{A, B, C, IDLE, Plane, SERVICE, mixed, moving, on_plane, settled},
};

/// Longer than the periods by which time is counted.
const BEYOND: Duration = Duration::from_secs(2);
/// Enough for the slowest machine between two lines of a test.
const MARGIN: Duration = Duration::from_secs(20);

fn created(backend: u16) -> Expected {
    forwarded_to(backend).with(Event::FlowCreated)
}

/// Lets the flow of [`tcp`] have been silent for `time`.
fn silent_for(plane: &mut Plane, time: Duration) {
    plane.silent_for(&tcp().flow(), time);
}

/// Tells whether the entry of [`tcp`]'s flow leads to `backend`, and whether it is closing.
fn entry(plane: &Plane, backend: u16) -> (bool, bool) {
    let entry = plane.flow(&tcp().flow());
    (entry.backend() == backend, entry.is_closing())
}

const OPEN: (bool, bool) = (true, false);
const CLOSED: (bool, bool) = (true, true);

#[test]
fn a_syn_goes_to_the_current_backend_and_makes_no_entry() {
    on_plane(|plane| {
        for syn in [
            tcp().syn(),
            tcp().syn().ece_cwr(),
            tcp().syn().fin(),
            tcp().syn().payload("TCP fast open"),
            tcp().syn().tcp_options(40),
        ] {
            plane.check(&syn, &forwarded_to(A));
        }
        assert!(plane.flows().is_empty());
        plane.slot(settled(B));
        plane.check(tcp().syn(), &forwarded_to(B));
        assert!(plane.flows().is_empty() && plane.openings().is_empty());
    });
}

#[test]
fn a_packet_without_syn_makes_an_entry() {
    on_plane(|plane| {
        let kinds: [fn(Tcp) -> Tcp; 5] = [
            Tcp::ack,
            |packet| packet.data("GET /"),
            |packet| packet,
            |packet| packet.payload("no flags at all"),
            // No opening: it answers one.
            |packet| packet.syn().ack(),
        ];
        for (port, kind) in (50_000..).zip(kinds) {
            let client = SocketAddrV4::new([203, 0, 113, 7].into(), port);
            let packet = kind(tcp().from(client));
            plane.check(&packet, &created(A));
            assert_eq!(plane.flow(&packet.flow()).backend(), A);
            plane.check(&packet, &forwarded_to(A));
        }
        assert_eq!(plane.flows().len(), 5);
        assert!(plane.openings().is_empty());
    });
}

#[test]
fn a_flow_follows_its_entry_whatever_has_become_of_its_slot() {
    on_plane(|plane| {
        plane.check(tcp().syn(), &forwarded_to(A));
        plane.check(tcp().ack(), &created(A));
        for slot in [settled(B), moving(A, B), moving(C, B), mixed(B), settled(0)] {
            plane.slot(slot);
            plane.check(tcp().data("GET /"), &forwarded_to(A));
            plane.check(tcp().ack(), &forwarded_to(A));
        }
        assert_eq!(entry(plane, A), OPEN);
    });
}

#[test]
fn other_flows_do_not_follow_an_entry() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        plane.check(tcp().from("198.51.100.10:40001").ack(), &created(B));
        plane.check(tcp().from("198.51.100.11:40000").ack(), &created(B));
        plane.check(tcp().ack(), &forwarded_to(A));
        assert_eq!(plane.flows().len(), 3);
    });
}

#[test]
fn each_packet_renews_the_time_of_its_flow() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        let first = plane.flow(&tcp().flow());
        silent_for(plane, IDLE / 2);
        plane.check(tcp().ack(), &forwarded_to(A));
        let renewed = plane.flow(&tcp().flow());
        let later = first.silence(renewed.seen());
        // A period is no shorter than 100 ms: as many are in MARGIN.
        assert!(later <= 200, "{later} periods");
    });
}

#[test]
fn fin_and_rst_mark_the_entry_and_later_packets_still_follow_it() {
    for end in [tcp().fin().ack(), tcp().rst(), tcp().rst().ack()] {
        on_plane(|plane| {
            plane.check(tcp().ack(), &created(A));
            plane.slot(settled(B));
            plane.check(&end, &forwarded_to(A));
            assert_eq!(entry(plane, A), CLOSED);
            plane.check(tcp().data("last words"), &forwarded_to(A));
            plane.check(&end, &forwarded_to(A));
            plane.check(tcp().ack(), &forwarded_to(A));
            assert_eq!(entry(plane, A), CLOSED);
        });
    }
}

#[test]
fn a_flow_that_begins_with_its_end_gets_no_entry() {
    on_plane(|plane| {
        for end in [
            tcp().fin().ack(),
            tcp().fin(),
            tcp().rst(),
            tcp().rst().ack(),
            tcp().syn().rst(),
            tcp().syn().ack().fin(),
        ] {
            plane.check(end, &forwarded_to(A));
        }
        assert!(plane.flows().is_empty() && plane.openings().is_empty());
    });
}

#[test]
fn a_syn_on_a_settled_slot_neither_reads_nor_changes_entries() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.check(tcp().fin().ack(), &forwarded_to(A));
        let before = plane.flows();
        plane.slot(settled(B));
        plane.check(tcp().syn(), &forwarded_to(B));
        assert_eq!(plane.flows(), before);
    });
}

#[test]
fn a_flow_that_was_silent_for_too_long_goes_by_its_slot_and_gets_a_new_entry() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        silent_for(plane, IDLE + BEYOND);
        let expired = created(B).with(Event::FlowExpired);
        plane.check(tcp().ack(), &expired);
        assert_eq!(entry(plane, B), OPEN);
        plane.check(tcp().ack(), &forwarded_to(B));
    });
}

#[test]
fn a_flow_that_was_silent_for_almost_too_long_follows_its_entry() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        silent_for(plane, IDLE.checked_sub(MARGIN).expect("a short margin"));
        plane.check(tcp().ack(), &forwarded_to(A));
    });
}

#[test]
fn the_end_of_a_flow_that_is_over_makes_no_entry() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        silent_for(plane, IDLE * 2);
        let expired = forwarded_to(B).with(Event::FlowExpired);
        plane.check(tcp().rst(), &expired);
    });
}

#[test]
fn idle_timeouts_are_those_of_the_service() {
    on_plane(|plane| {
        let short = Duration::from_secs(60);
        let idle_ticks = plane.dataplane().ticks(short);
        plane.check(tcp().ack(), &created(A));
        silent_for(plane, short * 2);
        plane.check(tcp().ack(), &forwarded_to(A));
        plane.configure(SERVICE, |service| service.idle_ticks = idle_ticks);
        silent_for(plane, short * 2);
        plane.check(tcp().ack(), &created(A).with(Event::FlowExpired));
    });
}

#[test]
fn an_entry_that_is_closing_lives_shorter() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        plane.check(tcp().fin().ack(), &forwarded_to(A));
        silent_for(plane, CLOSING.checked_sub(MARGIN).expect("a short margin"));
        plane.check(tcp().ack(), &forwarded_to(A));
        silent_for(plane, CLOSING + BEYOND);
        plane.check(tcp().ack(), &created(B).with(Event::FlowExpired));
        assert_eq!(entry(plane, B), OPEN);
    });
}

#[test]
fn the_tick_count_may_wrap_during_a_silence() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        // Before the count last wrapped, on a machine that has not been up for days.
        plane.edit_flow(&tcp().flow(), |entry| {
            entry.seen_in(entry.seen().wrapping_sub(1 << 18))
        });
        plane.check(tcp().ack(), &created(B).with(Event::FlowExpired));
    });
}

/// Two CPUs may work on one flow: one has read the clock when the other, a tick later, renews the
/// entry that the first one reads next.
#[test]
fn an_entry_that_another_cpu_has_just_renewed_is_followed() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        plane.edit_flow(&tcp().flow(), |entry| {
            entry.seen_in(entry.seen().wrapping_add(2))
        });
        plane.check(tcp().ack(), &forwarded_to(A));
    });
}

#[test]
fn an_entry_of_a_backend_whose_index_was_given_to_another_is_not_followed() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        plane.replace(A);
        plane.check(tcp().ack(), &created(B));
        assert_eq!(entry(plane, B), OPEN);
        plane.check(tcp().ack(), &forwarded_to(B));
    });
}

#[test]
fn a_flow_on_the_slot_of_the_new_owner_of_its_index_gets_a_new_entry() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.replace(A);
        plane.check(tcp().ack(), &created(A));
        assert_eq!(entry(plane, A), OPEN);
        plane.check(tcp().ack(), &forwarded_to(A));
    });
}

#[test]
fn a_flow_whose_backend_stopped_goes_by_its_slot_and_stays_there() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &created(A));
        plane.slot(settled(B));
        plane.stop(A);
        plane.check(tcp().ack(), &created(B));
        assert_eq!(entry(plane, B), OPEN);
        plane.start(A);
        plane.check(tcp().ack(), &forwarded_to(B));
    });
}

#[test]
fn tracking_that_is_switched_on_begins_with_the_next_packet() {
    on_plane(|plane| {
        plane.configure(SERVICE, |service| service.flags = 0);
        plane.check(tcp().ack(), &forwarded_to(A));
        plane.configure(SERVICE, |service| service.flags = ServiceEntry::FLAG_TRACK);
        plane.check(tcp().ack(), &created(A));
    });
}
