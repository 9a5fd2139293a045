//! Forwarding modes `ipip` and `gue`.

use std::net::{Ipv4Addr, SocketAddrV4};

use xdp_lb_common::{abi::NextHop, counters::Counter};
use xdp_lb_tests::{
    expect::Counts,
    packet::{WEB, udp_to},
    plane::{A, GUE_PORT, on_plane},
};

/// IP protocol number of UDP.
const UDP: u8 = 17;

/// A backend that is a VIP of its own service gets packets that are packets for itself again: each
/// run adds headers, until there is no room in front of the frame.
#[test]
fn where_there_is_no_room_for_another_header_the_packet_is_dropped() {
    on_plane(|plane| {
        let [source, vip] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 99)];
        plane.listen_to(SocketAddrV4::new(vip, GUE_PORT), UDP);
        plane.listen_to(WEB, UDP);
        plane.tunnel(A, NextHop::FLAG_GUE, source.into(), vip.into());
        let before = Counts::read(plane);
        plane.run_on_own_output(&udp_to("192.0.2.10:80"), 20);
        let counts = Counts::read(plane).since(&before);
        let (sent, no_room) = (
            counts.packets(Counter::Forwarded),
            counts.packets(Counter::NoRoom),
        );
        assert!(sent >= 4 && no_room >= 1, "{sent} sent, {no_room} not");
        assert_eq!(sent + no_room, 20);
    });
}
