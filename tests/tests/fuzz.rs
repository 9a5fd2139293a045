//! The program against the reference, with a million random packets.
//!
//! `XDP_LB_FUZZ_PACKETS` sets another number, `XDP_LB_FUZZ_SEED` the seed of all of them.

use xdp_lb_tests::fuzz;

#[test]
fn a_million_random_packets_fare_as_in_the_reference() {
    fuzz::run_as_told(1_000_000);
}
