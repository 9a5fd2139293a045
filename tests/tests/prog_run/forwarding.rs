//! The packet on its way: new MAC addresses, nothing else, and out by the right interface.

use xdp_lb::config::AttachMode;
use xdp_lb_tests::{
    expect::forwarded_to,
    packet::{Frame, tcp},
    plane::{A, B, on_plane, settled},
};

use crate::case::{Case, case, check};

pub(crate) fn cases() -> Vec<Case> {
    [0, 1, 5, 6, 7, 536, 1460, 3000]
        .map(|length| {
            case(
                format!("a SYN with {length} bytes of data"),
                tcp().syn().payload(vec![0xa5; length]),
                forwarded_to(A),
            )
        })
        .into()
}

#[test]
fn only_mac_addresses_change() {
    check(cases());
}

#[test]
fn every_byte_behind_the_mac_addresses_stays() {
    on_plane(|plane| {
        let mut syn = Frame::from(tcp().syn().tcp_options(8)).bytes().to_vec();
        // Bytes that name neither service, protocol nor length: they may be anything.
        let free = (15..=15)
            .chain(18..=19)
            .chain([22])
            .chain(24..30)
            .chain(38..46)
            .chain(48..syn.len());
        for (value, at) in (1..).zip(free) {
            syn[at] = value;
        }
        plane.check(Frame::new(syn), &forwarded_to(A));
    });
}

#[test]
fn a_backend_behind_another_interface_is_reached_by_redirection() {
    on_plane(|plane| {
        let port = plane.add_port();
        plane.start_behind(B, port);
        plane.check(tcp().syn(), &forwarded_to(A));
        plane.slot(settled(B));
        plane.check(tcp().syn(), &forwarded_to(B).redirected());
    });
}

/// Old kernels take programs with some kinds of maps in one mode only.
#[test]
fn the_program_attaches_in_both_modes() {
    on_plane(|plane| {
        for mode in [AttachMode::Native, AttachMode::Generic] {
            plane.add_port_with(mode);
        }
    });
}
