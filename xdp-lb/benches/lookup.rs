//! How long a lookup table takes to build: `cargo xtask bench`.

use std::net::{IpAddr, Ipv4Addr};

use divan::{Bencher, black_box};
use xdp_lb::lookup::{Candidate, Scheduler, build};
use xdp_lb_common::hash::HashKey;

fn main() {
    divan::main();
}

fn candidates(count: u32) -> Vec<Candidate> {
    let address = |index: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + index));
    (0..count)
        .map(|index| Candidate {
            address: address(index),
            weight: 100,
        })
        .collect()
}

fn bench(bencher: Bencher<'_, '_>, scheduler: Scheduler, backends: u32) {
    let candidates = candidates(backends);
    bencher.bench_local(|| build(scheduler, 65537, HashKey::DEFAULT, black_box(&candidates)));
}

#[divan::bench(args = [10, 100, 1_000, 10_000])]
fn maglev(bencher: Bencher<'_, '_>, backends: u32) {
    bench(bencher, Scheduler::Maglev, backends);
}

#[divan::bench(args = [10, 100, 1_000])]
fn ring(bencher: Bencher<'_, '_>, backends: u32) {
    bench(bencher, Scheduler::Ring, backends);
}

#[divan::bench(args = [10, 100, 1_000])]
fn modulo(bencher: Bencher<'_, '_>, backends: u32) {
    bench(bencher, Scheduler::Modulo, backends);
}
