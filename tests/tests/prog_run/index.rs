//! The service index: keys that share a cache line, come and go.

use xdp_lb_common::{
    abi::{IndexKey, ServiceKey, index_bits, mapped},
    counters::PassReason,
};
use xdp_lb_tests::{
    expect::{forwarded_to, passed},
    packet::tcp,
    plane::{B, Plane, on_plane, settled},
};

/// Id of a service besides the one that is always there.
const OTHER: u32 = 2;

fn key(port: u16) -> ServiceKey {
    ServiceKey {
        vip: mapped([192, 0, 2, 10]),
        port_be: port.to_be_bytes(),
        protocol: 6,
        reserved: 0,
    }
}

/// Ports whose keys share a line with that of port 80, which is listened on already.
fn neighbours(plane: &mut Plane) -> Vec<u16> {
    let bits = index_bits(plane.dataplane().sizes().services);
    let line = |port| IndexKey::of(&key(port)).line(bits);
    let ports: Vec<u16> = (81..=u16::MAX)
        .filter(|&port| line(port) == line(80))
        .take(4)
        .collect();
    assert_eq!(ports.len(), 4, "65,000 ports on a thousand lines");
    ports
}

fn to(port: u16) -> String {
    format!("192.0.2.10:{port}")
}

fn assert_found(plane: &mut Plane, ports: &[u16]) {
    for port in ports {
        let other = forwarded_to(B).by_service(OTHER);
        plane.check(tcp().to(to(*port).as_str()).syn(), &other);
    }
}

fn assert_not_found(plane: &mut Plane, ports: &[u16]) {
    for port in ports {
        let none = passed(PassReason::NoService);
        plane.check(tcp().to(to(*port).as_str()).syn(), &none);
    }
}

#[test]
fn keys_that_have_no_room_in_their_line_are_found_all_the_same() {
    on_plane(|plane| {
        plane.table(OTHER, 8, &[settled(B)]);
        let ports = neighbours(plane);
        for listening in 1..ports.len() {
            plane.listen(to(ports[listening - 1]).as_str(), OTHER);
            assert_found(plane, &ports[..listening]);
            assert_not_found(plane, &ports[listening..]);
        }
    });
}

#[test]
fn keys_of_one_line_go_and_come_in_any_order() {
    on_plane(|plane| {
        plane.table(OTHER, 8, &[settled(B)]);
        let ports = neighbours(plane);
        for &port in &ports {
            plane.listen(to(port).as_str(), OTHER);
        }
        for first in 0..ports.len() {
            let mut left = ports.clone();
            for _ in 0..ports.len() {
                let gone = left.remove(first % left.len());
                let removed = plane.dataplane().remove_key(&key(gone));
                removed.expect("the key can be removed");
                assert_not_found(plane, &[gone]);
                assert_found(plane, &left);
            }
            for &port in ports.iter().rev() {
                plane.listen(to(port).as_str(), OTHER);
            }
            assert_found(plane, &ports);
        }
    });
}

#[test]
fn a_key_that_leads_elsewhere_leads_there_from_the_next_packet_on() {
    on_plane(|plane| {
        plane.table(OTHER, 8, &[settled(B)]);
        for port in neighbours(plane) {
            // Nobody's: the service has no table.
            plane.listen(to(port).as_str(), 3);
            plane.check(
                tcp().to(to(port).as_str()).syn(),
                &passed(PassReason::NoBackend),
            );
            plane.listen(to(port).as_str(), OTHER);
            assert_found(plane, &[port]);
        }
    });
}
