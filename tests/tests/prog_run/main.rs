//! The XDP program, one packet at a time: what it does with it, every byte that leaves, and every
//! counter.
//!
//! Cases that need no more than a packet and a state are rows of tables ([`case`]); what takes
//! several packets is a test of its own.

mod adaptive;
mod budgets;
mod case;
mod check;
mod decap;
mod flows;
mod forwardable;
mod forwarding;
mod fragments;
mod hashing;
mod icmp;
mod index;
mod ipv6;
mod malformed;
mod moving;
mod not_ours;
mod prefixes;
mod quoted_tunnels;
mod services;
mod simulated;
mod too_big;
mod tunnels;
mod udp;
mod vlan;

use xdp_lb_common::counters::{Counter, Kind};
use xdp_lb_tests::fuzz;

/// A table of cases, and what it is about.
type Table = (&'static str, Vec<case::Case>);

fn tables() -> Vec<Table> {
    vec![
        ("Not for a service", not_ours::cases()),
        ("Malformed packets", malformed::cases()),
        ("Services", services::cases()),
        ("VIPs that are prefixes", prefixes::cases()),
        ("What no router would forward", forwardable::cases()),
        ("Forwarding mode l2", forwarding::cases()),
        ("Forwarding modes ipip and gue", tunnels::cases()),
        ("VLAN tags", vlan::cases()),
        ("Packets that are too big", too_big::cases()),
        ("Fragments", fragments::cases()),
        ("ICMP", icmp::cases()),
        ("ICMP about packets in tunnels", quoted_tunnels::cases()),
        ("IPv6", ipv6::cases()),
        ("UDP", udp::cases()),
    ]
}

#[test]
fn every_verdict_has_a_case() {
    let covered: Vec<_> = tables()
        .iter()
        .flat_map(|(_, cases)| cases)
        .map(|case| case.expected.verdict())
        .collect();
    // Take several packets: `tunnels` and `not_ours` have them.
    let elsewhere = [Counter::NoRoom, Counter::OtherHost];
    let missing: Vec<_> = Counter::ALL
        .iter()
        .filter(|counter| counter.kind() != Kind::Event && !covered.contains(counter))
        .filter(|counter| !elsewhere.contains(counter))
        .map(|counter| counter.name())
        .collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}

/// Set, it makes the test below write the table instead of comparing it.
const WRITE: &str = "XDP_LB_WRITE_CASES";

#[test]
fn the_table_of_cases_is_up_to_date() {
    let mut text = String::from(
        "# Cases of the data plane\n\n\
         Each line is a packet that the tests send through the loaded program, on every kernel that they\n\
         run on: every byte that leaves it, its action and all counters are compared. Written by the\n\
         tests themselves; `XDP_LB_WRITE_CASES=1 cargo xtask test the_table_of_cases` writes it anew.\n",
    );
    let mut count = 0;
    for (title, cases) in tables() {
        text += &format!("\n## {title}\n\n| packet | verdict | on its way |\n|---|---|---|\n");
        for case in &cases {
            text += &case.row();
        }
        count += cases.len();
    }
    assert!(count >= 250, "only {count} cases");
    text += &format!("\n{count} cases.\n");
    if std::env::var_os(WRITE).is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cases.md");
        std::fs::write(path, text).expect("docs/cases.md can be written");
        return;
    }
    let written = include_str!("../../../docs/cases.md");
    assert!(
        written == text,
        "docs/cases.md is not up to date; set {WRITE}=1 to write it"
    );
}

/// Few, since other kernels run these tests under emulation; `tests/fuzz.rs` has the million.
#[test]
fn some_random_packets_fare_as_in_the_reference() {
    fuzz::run(2000, None);
}
