//! Properties that hold for every table, and those that the schedulers are chosen for.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::maglev::{Permutation, populate};
use super::*;

const SIZE: u32 = 65_537;
const SCHEDULERS: [Scheduler; 3] = [Scheduler::Maglev, Scheduler::Ring, Scheduler::Modulo];

/// Backends 10.x.y.z, one for each weight.
fn candidates(weights: impl IntoIterator<Item = u32>) -> Vec<Candidate> {
    (0x0a00_0001u32..)
        .zip(weights)
        .map(|(address, weight)| Candidate {
            address: Ipv4Addr::from_bits(address).into(),
            weight,
        })
        .collect()
}

fn equal(count: usize) -> Vec<Candidate> {
    candidates(std::iter::repeat_n(100, count))
}

fn any_key() -> impl Strategy<Value = HashKey> {
    any::<[u64; 2]>().prop_map(HashKey)
}

fn counts(table: &[u16], candidates: usize) -> Vec<u32> {
    let mut counts = vec![0; candidates];
    for &owner in table {
        counts[usize::from(owner)] += 1;
    }
    counts
}

/// The table by address, which does not depend on the order of the candidates.
fn owners(scheduler: Scheduler, size: u32, key: HashKey, candidates: &[Candidate]) -> Vec<IpAddr> {
    build(scheduler, size, key, candidates)
        .into_iter()
        .map(|owner| candidates[usize::from(owner)].address)
        .collect()
}

/// The share of slots that move although their backend stays, when `leaver` leaves.
fn disruption(scheduler: Scheduler, key: HashKey, candidates: &[Candidate], leaver: usize) -> f64 {
    let mut candidates = candidates.to_vec();
    let before = owners(scheduler, SIZE, key, &candidates);
    let left = candidates.swap_remove(leaver).address;
    let after = owners(scheduler, SIZE, key, &candidates);
    let pairs = before.iter().zip(&after);
    let moved = pairs.filter(|(before, after)| **before != left && before != after);
    f64::from(u32::try_from(moved.count()).unwrap()) / f64::from(SIZE)
}

/// The table that explicit permutations and plain turns give.
fn populated(size: u32, permutations: &[(u32, u32)]) -> Vec<usize> {
    let mut table = vec![usize::MAX; index(size)];
    let mut permutations: Vec<Permutation> = permutations
        .iter()
        .map(|&(start, skip)| Permutation { start, skip })
        .collect();
    let turns = (0..permutations.len()).cycle();
    populate(size, &mut permutations, turns, |slot, who| {
        table[slot] = who;
    });
    table
}

#[test]
fn a_worked_example_of_seven_slots_gives_the_table_known_for_it() {
    assert_eq!(
        populated(7, &[(3, 4), (0, 2), (3, 1)]),
        [1, 0, 1, 0, 2, 2, 0]
    );
    // The second leaves: the third is now number 1.
    assert_eq!(populated(7, &[(3, 4), (3, 1)]), [0, 0, 0, 0, 1, 1, 1]);
}

#[test]
fn a_hundred_equal_backends_get_equal_shares_under_maglev() {
    for key in [HashKey::DEFAULT, HashKey([1, 2]), HashKey([0, 0])] {
        let counts = counts(&build(Scheduler::Maglev, SIZE, key, &equal(100)), 100);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(
            f64::from(*most) <= f64::from(*least) * 1.01,
            "{least} to {most} slots"
        );
    }
}

#[test]
fn no_weight_gets_no_slot_and_no_candidate_an_empty_table() {
    let drained = candidates([0, 0]);
    let mixed = candidates([0, 5, 0, 1]);
    for scheduler in SCHEDULERS {
        assert!(build(scheduler, SIZE, HashKey::DEFAULT, &[]).is_empty());
        assert!(build(scheduler, SIZE, HashKey::DEFAULT, &drained).is_empty());
        assert!(build(scheduler, 0, HashKey::DEFAULT, &mixed).is_empty());
        let table = build(scheduler, SIZE, HashKey::DEFAULT, &mixed);
        let counts = counts(&table, 4);
        assert_eq!((counts[0], counts[2]), (0, 0));
        assert!(counts[1] > counts[3] && counts[3] > 0, "{counts:?}");
    }
}

#[test]
fn one_candidate_gets_every_slot() {
    for scheduler in SCHEDULERS {
        for size in [1, 2, 7, 65_536, SIZE] {
            let table = build(scheduler, size, HashKey::DEFAULT, &candidates([0, 3]));
            assert_eq!(table, vec![1; index(size)]);
        }
    }
}

#[test]
fn the_smallest_weight_beside_the_largest_still_gets_a_slot() {
    let weights = [1, 65_535, 65_535, 65_535, 1];
    for scheduler in SCHEDULERS {
        let table = build(scheduler, SIZE, HashKey::DEFAULT, &candidates(weights));
        let counts = counts(&table, 5);
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    }
}

#[test]
fn more_candidates_than_slots_fill_every_slot_with_different_ones() {
    for scheduler in [Scheduler::Maglev, Scheduler::Modulo] {
        let table = build(scheduler, 251, HashKey::DEFAULT, &equal(65_534));
        assert_eq!(table.len(), 251);
        assert_eq!(counts(&table, 65_534).iter().max(), Some(&1), "{scheduler}");
    }
    let table = build(Scheduler::Ring, 251, HashKey::DEFAULT, &equal(1000));
    let owners: HashSet<u16> = table.iter().copied().collect();
    assert!(table.len() == 251 && owners.len() > 200, "{}", owners.len());
}

#[test]
fn a_size_that_is_not_prime_and_an_address_given_twice_do_no_harm() {
    let mut twice = equal(9);
    twice[4].address = twice[2].address;
    twice[5] = twice[3];
    for scheduler in SCHEDULERS {
        for size in [1, 2, 4, 6, 100, 65_536] {
            assert_eq!(
                build(scheduler, size, HashKey::DEFAULT, &twice).len(),
                index(size)
            );
        }
    }
}

#[test]
fn an_ipv4_address_and_its_mapped_form_are_the_same_backend() {
    let plain = candidates([1, 2, 3]);
    let mut mapped = plain.clone();
    for candidate in &mut mapped {
        if let IpAddr::V4(address) = candidate.address {
            candidate.address = address.to_ipv6_mapped().into();
        }
    }
    for scheduler in SCHEDULERS {
        assert_eq!(
            build(scheduler, SIZE, HashKey::DEFAULT, &plain),
            build(scheduler, SIZE, HashKey::DEFAULT, &mapped)
        );
    }
}

#[test]
fn tables_stay_what_they_were() {
    // Directors of different versions work side by side during an upgrade.
    let candidates = candidates([100, 50, 100, 1]);
    let head = |scheduler| build(scheduler, 17, HashKey::DEFAULT, &candidates);
    assert_eq!(
        head(Scheduler::Maglev),
        [0, 1, 2, 3, 1, 0, 1, 0, 0, 2, 2, 2, 0, 1, 2, 2, 0]
    );
    assert_eq!(
        head(Scheduler::Ring),
        [0, 2, 2, 0, 0, 2, 1, 2, 2, 0, 0, 0, 1, 0, 2, 1, 0]
    );
    assert_eq!(
        head(Scheduler::Modulo),
        [0, 1, 2, 3, 0, 2, 1, 0, 2, 0, 2, 1, 0, 2, 0, 2, 1]
    );
}

#[test]
fn under_five_per_cent_of_the_slots_move_between_backends_that_stay() {
    for (count, leaver) in [(10, 0), (10, 9), (30, 4), (100, 50), (300, 0), (1000, 999)] {
        let share = disruption(Scheduler::Maglev, HashKey::DEFAULT, &equal(count), leaver);
        assert!(share < 0.05, "{count} backends: {share}");
    }
}

#[test]
fn few_slots_move_with_unequal_weights_even_if_the_heaviest_leaves() {
    for count in [10, 50, 300] {
        let weights = (1..).map(|i| i * 37 % 100 + 1).take(count);
        let mut candidates = candidates(weights);
        candidates[0].weight = 200;
        for leaver in [0, 5] {
            let share = disruption(Scheduler::Maglev, HashKey::DEFAULT, &candidates, leaver);
            assert!(share < 0.05, "{count} backends without {leaver}: {share}");
        }
    }
}

#[test]
fn the_ring_moves_nothing_between_backends_that_stay_and_modulo_nearly_everything() {
    assert_eq!(
        disruption(Scheduler::Ring, HashKey::DEFAULT, &equal(50), 7),
        0.0
    );
    assert!(disruption(Scheduler::Modulo, HashKey::DEFAULT, &equal(50), 7) > 0.8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn few_slots_move_whatever_the_key_and_whoever_leaves(
        key in any_key(), count in 10..200usize, leaver in any::<prop::sample::Index>(),
    ) {
        let share = disruption(Scheduler::Maglev, key, &equal(count), leaver.index(count));
        prop_assert!(share < 0.05, "{count} backends: {share}");
    }

    /// Honoured: each backend has its fair share, which is M · weight / sum of weights, but for
    /// 2 % of it and for one slot.
    #[test]
    fn maglev_and_modulo_honour_weights(
        key in any_key(),
        weights in prop_oneof![
            prop::collection::vec(0..=100u32, 1..50),
            prop::collection::vec(prop_oneof![Just(1), Just(50), Just(100)], 1..200),
            prop::collection::vec(prop_oneof![Just(0), Just(1), Just(MAX_WEIGHT)], 1..50),
            prop::collection::vec(1..=MAX_WEIGHT, 1..100),
        ],
    ) {
        let sum = weights.iter().sum::<u32>();
        for scheduler in [Scheduler::Maglev, Scheduler::Modulo] {
            let table = build(scheduler, SIZE, key, &candidates(weights.clone()));
            for (weight, count) in weights.iter().zip(counts(&table, weights.len())) {
                let fair = f64::from(SIZE) * f64::from(*weight) / f64::from(sum.max(1));
                let error = (f64::from(count) - fair).abs();
                prop_assert!(error <= fair * 0.02 + 1.0, "{weight}: {count} of {fair}");
            }
        }
    }

    #[test]
    fn the_order_of_candidates_does_not_matter(
        key in any_key(),
        by_address in prop::collection::hash_map(
            prop_oneof![
                any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
                any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
            ],
            0..=300u32,
            1..60,
        ),
    ) {
        // A hash map's order changes from run to run; sorted is another order.
        let as_found: Vec<Candidate> = by_address
            .into_iter()
            .map(|(address, weight)| Candidate { address, weight })
            .collect();
        let mut sorted = as_found.clone();
        sorted.sort_by_key(|candidate| (candidate.weight, candidate.address));
        for scheduler in SCHEDULERS {
            prop_assert_eq!(
                owners(scheduler, 1021, key, &as_found),
                owners(scheduler, 1021, key, &sorted)
            );
        }
    }

    #[test]
    fn another_key_gives_another_table(one in any_key(), other in any_key()) {
        prop_assume!(one != other);
        for scheduler in [Scheduler::Maglev, Scheduler::Ring] {
            let table = |key| build(scheduler, 1021, key, &equal(20));
            prop_assert_ne!(table(one), table(other));
        }
    }

    #[test]
    fn every_slot_is_filled_by_a_candidate_with_weight(
        key in any_key(), size in 0..1500u32, weights in prop::collection::vec(0..5u32, 0..1500),
    ) {
        let candidates = candidates(weights);
        let alive = candidates.iter().any(|candidate| candidate.weight > 0);
        for scheduler in SCHEDULERS {
            let table = build(scheduler, size, key, &candidates);
            prop_assert_eq!(table.len(), if alive { index(size) } else { 0 });
            for owner in table.into_iter().collect::<HashSet<u16>>() {
                prop_assert!(candidates[usize::from(owner)].weight > 0);
            }
        }
    }
}
