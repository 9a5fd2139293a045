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
mod udp;

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
        udp::cases(),
    ];
    let covered: Vec<_> = tables
        .iter()
        .flatten()
        .map(|case| case.expected.verdict())
        .collect();
    let missing: Vec<_> = Counter::ALL
        .iter()
        .filter(|counter| counter.kind() != Kind::Event && !covered.contains(counter))
        .map(|counter| counter.name())
        .collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}
