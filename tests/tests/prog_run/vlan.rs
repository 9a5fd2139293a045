//! VLAN tags: read up to two, and written as the way to the backend needs them.

use xdp_lb_common::abi::BackendEntry;
use xdp_lb_tests::{
    expect::forwarded_to,
    packet::{Frame, tcp},
    plane::{A, OUTWARD_MAC, Plane, backend_mac},
};

use crate::case::{Case, case, check};

/// Numbers of tags that frames come with, and the frames.
fn arriving() -> [(&'static str, Frame); 5] {
    let syn = || Frame::from(tcp().syn().payload("odd"));
    [
        ("untagged", syn()),
        ("of a VLAN", syn().in_vlan(7)),
        ("with priority but no VLAN", syn().in_vlan(0)),
        ("of two VLANs", syn().in_vlan(7).in_vlan(8)),
        (
            "of a provider's VLAN",
            syn().in_vlan(7).in_vlan(8).with_ether_type(0x88a8),
        ),
    ]
}

/// A way with tags: its name, how it is made, and what a SYN becomes on it.
type Way = (&'static str, fn(&mut Plane), Frame);

pub(crate) fn cases() -> Vec<Case> {
    let sent = || {
        let frame = Frame::from(tcp().syn().payload("odd")).one_hop_later();
        frame.with_macs(backend_mac(A), OUTWARD_MAC)
    };
    let ways: [Way; 4] = [
        ("no tag", |_| {}, sent()),
        (
            "a tag",
            |plane| plane.tag(A, BackendEntry::tag(100, false), 0),
            sent().in_vlan(100),
        ),
        (
            "two tags",
            |plane| plane.tag(A, BackendEntry::tag(4094, false), 1),
            sent().in_vlan(1).in_vlan(4094),
        ),
        (
            "a provider's tag and a customer's",
            |plane| plane.tag(A, BackendEntry::tag(100, true), BackendEntry::tag(7, false)),
            sent().in_vlan(7).in_vlan(100).with_ether_type(0x88a8),
        ),
    ];
    let mut cases = Vec::new();
    for (how, given, becomes) in ways {
        for (what, frame) in arriving() {
            let what = format!("a SYN {what}, to a way with {how}");
            cases.push(case(what, frame, forwarded_to(A).becoming(becomes.clone())).given(given));
        }
    }
    cases
}

#[test]
fn tags_are_written_as_the_way_needs_them() {
    check(cases());
}
