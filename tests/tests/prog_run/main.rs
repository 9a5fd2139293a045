//! The XDP program, one packet at a time: what it does with it, every byte that leaves, and every
//! counter.
//!
//! Cases that need no more than a packet and a state are rows of tables ([`case`]); what takes
//! several packets is a test of its own.

mod budgets;
mod case;
mod flows;
mod forwarding;
mod fragments;
mod hashing;
mod icmp;
mod ipv6;
mod malformed;
mod moving;
mod not_ours;
mod services;
mod too_big;
mod tunnels;
mod udp;
mod vlan;

use xdp_lb_common::counters::{Counter, Kind};

#[test]
fn every_verdict_has_a_case() {
    let tables = [
        not_ours::cases(),
        malformed::cases(),
        services::cases(),
        forwarding::cases(),
        fragments::cases(),
        icmp::cases(),
        ipv6::cases(),
        too_big::cases(),
        udp::cases(),
        vlan::cases(),
    ];
    let covered: Vec<_> = tables
        .iter()
        .flatten()
        .map(|case| case.expected.verdict())
        .collect();
    // Takes several packets: `tunnels` has it.
    let elsewhere = [Counter::NoRoom];
    let missing: Vec<_> = Counter::ALL
        .iter()
        .filter(|counter| counter.kind() != Kind::Event && !covered.contains(counter))
        .filter(|counter| !elsewhere.contains(counter))
        .map(|counter| counter.name())
        .collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}
