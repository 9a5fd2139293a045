//! Services: by port or for every port, with and without tracking, with and without backends.

use xdp_lb_common::{
    abi::{ServiceEntry, TableRef},
    counters::{DropReason, Event, PassReason},
};
use xdp_lb_tests::{
    expect::{Counts, Name, dropped, forwarded_to, passed},
    packet::{Frame, tcp, udp_to},
    plane::{A, B, C, NOBODY, Plane, SERVICE, mixed, moving, on_plane, settled},
};

use crate::case::{Case, case, check};

/// Id of a service besides the one that is always there.
const OTHER: u32 = 2;

fn untracked(plane: &mut Plane) {
    plane.configure(SERVICE, |service| service.flags = 0);
}

pub(crate) fn cases() -> Vec<Case> {
    let no_backend = |what: &str, frame: Frame| {
        case(what, frame, passed(PassReason::NoBackend)).given(Plane::empty_table)
    };
    let gone = |what: &str, frame: Frame, given: fn(&mut Plane)| {
        case(what, frame, dropped(DropReason::BackendGone)).given(given)
    };
    let stopped: fn(&mut Plane) = |plane| plane.stop(A);
    vec![
        no_backend("a SYN to an empty table", tcp().syn().into()),
        no_backend("data to an empty table", tcp().data("GET /").into()),
        no_backend("a RST to an empty table", tcp().rst().into()),
        no_backend("a FIN to an empty table", tcp().fin().ack().into()),
        case(
            "data to an empty table, without tracking",
            tcp().data("GET /"),
            passed(PassReason::NoBackend),
        )
        .given(|plane| {
            plane.empty_table();
            untracked(plane);
        }),
        gone("a SYN to a stopped backend", tcp().syn().into(), stopped),
        gone("an ACK to a stopped backend", tcp().ack().into(), stopped),
        gone("a RST to a stopped backend", tcp().rst().into(), stopped),
        gone(
            "an ACK to a stopped backend, without tracking",
            tcp().ack().into(),
            |plane| {
                plane.stop(A);
                untracked(plane);
            },
        ),
        case(
            "a SYN on a slot of nobody",
            tcp().syn(),
            passed(PassReason::NoBackend),
        )
        .given(|plane| plane.slot(settled(0))),
        gone(
            "a SYN on a slot of a backend that has never been",
            tcp().syn().into(),
            |plane| plane.slot(settled(NOBODY)),
        ),
        gone(
            "a SYN on a slot of a backend beyond the map",
            tcp().syn().into(),
            |plane| plane.slot(settled(60_000)),
        ),
        case(
            "a SYN to a table beyond the arena",
            tcp().syn(),
            passed(PassReason::NoBackend),
        )
        .given(|plane| {
            let (offset, size) = (1 << 30, 7);
            let table = TableRef { offset, size }.pack();
            plane.configure(SERVICE, |service| service.table = table);
        }),
        case(
            "a SYN to a key that leads beyond the services",
            tcp().syn(),
            passed(PassReason::NoService),
        )
        .given(|plane| plane.listen("192.0.2.10:80", 9999)),
    ]
}

#[test]
fn a_service_without_a_usable_backend_forwards_nothing() {
    check(cases());
}

/// A second service, for every port of the first one's VIP.
fn every_port(plane: &mut Plane) {
    plane.listen("192.0.2.10:0", OTHER);
    plane.table(OTHER, 8, &[settled(B)]);
}

#[test]
fn the_service_of_a_port_wins_over_that_of_every_port() {
    on_plane(|plane| {
        every_port(plane);
        plane.check(tcp().to("192.0.2.10:80").syn(), &forwarded_to(A));
        let other = forwarded_to(B).by_service(OTHER);
        plane.check(tcp().to("192.0.2.10:81").syn(), &other);
    });
}

#[test]
fn a_service_of_every_port_takes_any_port_of_its_vip_and_nothing_else() {
    on_plane(|plane| {
        every_port(plane);
        let other = forwarded_to(B).by_service(OTHER);
        for port in [0, 1, 79, 443, 20480, 65535] {
            let to = format!("192.0.2.10:{port}");
            plane.check(tcp().to(to.as_str()).syn(), &other);
        }
        let no_service = passed(PassReason::NoService);
        plane.check(tcp().to("192.0.2.11:81").syn(), &no_service);
        plane.check(udp_to("192.0.2.10:81"), &no_service);
    });
}

#[test]
fn flows_of_a_service_of_every_port_are_told_apart_by_port() {
    on_plane(|plane| {
        every_port(plane);
        plane.configure(OTHER, |service| service.flags = ServiceEntry::FLAG_TRACK);
        let created = forwarded_to(B).by_service(OTHER).with(Event::FlowCreated);
        plane.check(tcp().to("192.0.2.10:81").ack(), &created);
        plane.check(tcp().to("192.0.2.10:82").ack(), &created);
        assert_eq!(plane.flows().len(), 2);
    });
}

#[test]
fn a_service_that_is_taken_away_passes_to_the_kernel() {
    on_plane(|plane| {
        plane.check(tcp().syn(), &forwarded_to(A));
        let found = plane.dataplane().found().expect("the maps can be read");
        for (key, _) in found.keys {
            plane.dataplane().remove_key(&key).expect("a key removed");
        }
        plane.check(tcp().ack(), &passed(PassReason::NoService));
    });
}

#[test]
fn without_tracking_packets_go_to_the_current_backend_and_leave_no_trace() {
    on_plane(|plane| {
        // An entry from the time when the service was tracked.
        plane.slot(settled(C));
        plane.check(tcp().ack(), &forwarded_to(C).with(Event::FlowCreated));
        untracked(plane);
        let flows = plane.flows();
        for slot in [settled(B), moving(A, B), mixed(B)] {
            plane.slot(slot);
            for packet in [
                tcp().syn(),
                tcp().syn().ack(),
                tcp().ack(),
                tcp().data("GET /"),
                tcp().fin().ack(),
                tcp().rst(),
            ] {
                plane.check(packet, &forwarded_to(B));
            }
        }
        assert_eq!(plane.flows(), flows);
        assert!(plane.openings().is_empty());
    });
}

#[test]
fn a_flow_goes_on_to_its_draining_backend_when_the_table_is_empty() {
    on_plane(|plane| {
        plane.check(tcp().ack(), &forwarded_to(A).with(Event::FlowCreated));
        plane.empty_table();
        plane.check(tcp().data("GET /"), &forwarded_to(A));
        plane.check(tcp().fin().ack(), &forwarded_to(A));
        plane.check(tcp().ack(), &forwarded_to(A));
        // Not so a new connection.
        plane.check(tcp().syn(), &passed(PassReason::NoBackend));
        plane.stop(A);
        plane.check(tcp().ack(), &passed(PassReason::NoBackend));
    });
}

#[test]
fn services_and_backends_count_their_own_packets_and_bytes() {
    on_plane(|plane| {
        every_port(plane);
        let before = Counts::read(plane);
        let (mut to_a, mut to_b) = (0, 0);
        for length in [0, 1, 100, 1460] {
            let frame = Frame::from(tcp().syn().payload(vec![5; length]));
            to_a += frame.bytes().len();
            plane.check(frame, &forwarded_to(A));
            let frame = Frame::from(tcp().to("192.0.2.10:81").syn().payload(vec![5; 2 * length]));
            to_b += frame.bytes().len();
            plane.check(frame, &forwarded_to(B).by_service(OTHER));
        }
        let counts = Counts::read(plane).since(&before);
        for (name, bytes) in [
            (Name::Service(SERVICE), to_a),
            (Name::Backend(A), to_a),
            (Name::Service(OTHER), to_b),
            (Name::Backend(B), to_b),
            (Name::Backend(C), 0),
        ] {
            let traffic = counts.get(name);
            assert_eq!(usize::try_from(traffic.bytes), Ok(bytes), "{name:?}");
            assert_eq!(traffic.packets, if bytes == 0 { 0 } else { 4 }, "{name:?}");
        }
    });
}
