//! Maglev hashing: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, section 3.4.
//!
//! Each backend prefers the slots in an order of its own, a permutation that begins at `offset` and
//! goes on by `skip`. They take turns, and whose turn it is takes the first slot of its permutation
//! that is still free. Weights are honoured by the frequency of turns.

use xdp_lb_common::hash::{HashKey, reduce};

use super::turns::Turns;
use super::{Node, index, is_prime};

/// Domains that keep the two hashes of an address apart: "offset" and "skip" in ASCII.
const OFFSET: u64 = 0x6f66_6673_6574;
const SKIP: u64 = 0x736b_6970;

/// A backend's order of preference: `start`, `start + skip`, `start + 2 · skip`, … modulo the
/// number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permutation {
    /// The next slot to try, below the number of slots.
    pub(super) start: u32,
    /// 1..=the number of slots, and without a common divisor with it.
    pub(super) skip: u32,
}

impl Permutation {
    fn new(size: u32, key: HashKey, node: &Node) -> Self {
        Self {
            start: reduce(node.hash(key, OFFSET).finish(), size),
            skip: 1 + reduce(node.hash(key, SKIP).finish(), size - 1),
        }
    }

    /// Takes the next skip that covers all slots. Not needed where `size` is prime.
    fn cover(mut self, size: u32) -> Self {
        while gcd(self.skip, size) != 1 {
            self.skip = self.skip % size + 1;
        }
        self
    }
}

/// The table as indices into the caller's candidates.
pub(super) fn fill(size: u32, key: HashKey, nodes: &[Node]) -> Vec<u16> {
    if size == 0 {
        return Vec::new();
    }
    let mut permutations: Vec<Permutation> = nodes
        .iter()
        .map(|node| Permutation::new(size, key, node))
        .collect();
    // The configuration asks for a prime. Anything else still ends, and fills every slot.
    if !is_prime(size) {
        for permutation in &mut permutations {
            *permutation = permutation.cover(size);
        }
    }
    let turns = Turns::new(nodes.iter().map(|node| node.weight));
    let mut table = vec![0; index(size)];
    populate(size, &mut permutations, turns, |slot, who| {
        table[slot] = nodes[who].index;
    });
    table
}

/// Gives each of `size` slots to one of `permutations`, in the order of `turns`.
///
/// Each turn ends because a permutation covers all slots, and one of them is free.
pub(super) fn populate(
    size: u32,
    permutations: &mut [Permutation],
    turns: impl Iterator<Item = usize>,
    mut assign: impl FnMut(usize, usize),
) {
    // One bit a slot: what is looked at most often stays in the first-level cache.
    let mut taken = vec![0u64; index(size).div_ceil(64)];
    for who in turns.take(index(size)) {
        let Permutation { start, skip } = permutations[who];
        let mut slot = start;
        while taken[index(slot / 64)] >> (slot % 64) & 1 != 0 {
            slot = step(slot, skip, size);
        }
        taken[index(slot / 64)] |= 1 << (slot % 64);
        permutations[who].start = step(slot, skip, size);
        assign(index(slot), who);
    }
}

/// `slot + skip` modulo `size`, without a division and without overflow.
fn step(slot: u32, skip: u32, size: u32) -> u32 {
    let left = size - skip;
    if slot >= left {
        slot - left
    } else {
        slot + skip
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
