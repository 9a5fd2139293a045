//! The flow hash: 64 bits, keyed, the same in the program, in the daemon and on every director.
//!
//! A chain of multiply-and-xorshift rounds (the finaliser of `MurmurHash3`, with the multipliers of
//! David Stafford's variant 13), one round a 64-bit word, the key added before the first and the
//! last. It needs no 128-bit multiplication, which BPF does not have, and some thirty instructions
//! for an IPv4 flow. It is not a cryptographic hash; the key keeps a client that does not know it
//! from choosing its slot.

use crate::abi::FlowKey;

/// The key. Directors that are to agree have the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

impl HashKey {
    /// Used where the config names none, so that two directors with the same config agree.
    pub const DEFAULT: Self = Self([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]);

    /// The key that sixteen bytes spell, each half in big-endian order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let word = u128::from_be_bytes(bytes);
        Self([(word >> 64) as u64, word as u64])
    }
}

impl Default for HashKey {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A hash in the making.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    state: u64,
    key: u64,
}

impl Hasher {
    /// Starts with `key`.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: HashKey) -> Self {
        Self {
            state: key.0[0],
            key: key.0[1],
        }
    }

    /// Takes one word in.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        Self {
            state: mix(self.state ^ word),
            key: self.key,
        }
    }

    /// The hash of the words so far.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u64 {
        mix(self.state.wrapping_add(self.key))
    }
}

/// One round: a bijection of 64 bits in which every input bit changes half of the output bits.
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a slot is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// The whole 5-tuple.
    Flow,
    /// The client's address only.
    Source,
}

/// An address that can be hashed: an array of four or of sixteen bytes.
pub trait Address: Copy {
    /// Takes the address in.
    #[must_use]
    fn absorb(self, hasher: Hasher) -> Hasher;

    /// Takes two addresses in, in as few words as they fit.
    #[must_use]
    fn absorb_pair(self, other: Self, hasher: Hasher) -> Hasher;
}

impl Address for [u8; 4] {
    #[inline(always)]
    fn absorb(self, hasher: Hasher) -> Hasher {
        hasher.word(u64::from(u32::from_ne_bytes(self)))
    }

    #[inline(always)]
    fn absorb_pair(self, other: Self, hasher: Hasher) -> Hasher {
        let (low, high) = (u32::from_ne_bytes(self), u32::from_ne_bytes(other));
        hasher.word(u64::from(high) << 32 | u64::from(low))
    }
}

impl Address for [u8; 16] {
    #[inline(always)]
    fn absorb(self, hasher: Hasher) -> Hasher {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self;
        hasher
            .word(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
            .word(u64::from_ne_bytes(rest))
    }

    #[inline(always)]
    fn absorb_pair(self, other: Self, hasher: Hasher) -> Hasher {
        other.absorb(self.absorb(hasher))
    }
}

/// The hash that `flow`'s slot is chosen by.
///
/// # Example
///
/// ```
/// use xdp_lb_common::{abi::FlowKey, hash::{Affinity, HashKey, flow_hash, reduce}};
/// let flow = FlowKey { source: [198, 51, 100, 1], protocol: 6, ..Default::default() };
/// let other = FlowKey { source_port_be: [1, 2], ..flow };
/// let hash = |flow, affinity| flow_hash(HashKey::DEFAULT, affinity, flow);
/// assert_ne!(hash(&flow, Affinity::Flow), hash(&other, Affinity::Flow));
/// assert_eq!(hash(&flow, Affinity::Source), hash(&other, Affinity::Source));
/// assert!(reduce(hash(&flow, Affinity::Flow), 65537) < 65537);
/// ```
#[inline(always)]
#[must_use]
pub fn flow_hash<A: Address>(key: HashKey, affinity: Affinity, flow: &FlowKey<A>) -> u64 {
    let hasher = Hasher::new(key);
    match affinity {
        Affinity::Source => flow.source.absorb(hasher).finish(),
        Affinity::Flow => {
            let [a, b] = flow.source_port_be;
            let [c, d] = flow.destination_port_be;
            let ports = u64::from_ne_bytes([a, b, c, d, flow.protocol, 0, 0, 0]);
            let hasher = flow.source.absorb_pair(flow.destination, hasher);
            hasher.word(ports).finish()
        }
    }
}

/// Reduces a hash to `0..size` by multiply-and-shift (Lemire, 2019): no division, and slots are
/// consecutive ranges of the hash. 0 where `size` is 0.
#[inline(always)]
#[must_use]
pub const fn reduce(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    /// Real traffic: few networks, consecutive ports.
    fn flows() -> impl Iterator<Item = FlowKey<[u8; 4]>> {
        (0..200u8).flat_map(|host| {
            (32768..33768u16).map(move |port| FlowKey {
                source: [10, 0, 0, host],
                destination: [192, 0, 2, 10],
                source_port_be: port.to_be_bytes(),
                destination_port_be: [0, 80],
                protocol: 6,
                reserved: [0; 3],
            })
        })
    }

    #[test]
    fn slots_of_real_traffic_fill_evenly() {
        let mut slots = vec![0u32; 1021];
        for flow in flows() {
            let slot = reduce(flow_hash(HashKey::DEFAULT, Affinity::Flow, &flow), 1021);
            slots[usize::try_from(slot).unwrap()] += 1;
        }
        let mean = 200_000.0 / 1021.0;
        let chi_square: f64 = slots
            .iter()
            .map(|&n| (f64::from(n) - mean).powi(2) / mean)
            .sum();
        // 1020 degrees of freedom: mean 1020, standard deviation 45.
        assert!(
            (840.0..1200.0).contains(&chi_square),
            "chi square {chi_square}"
        );
    }

    #[test]
    fn each_bit_of_a_flow_changes_half_of_the_hash() {
        let flow = flows().next().unwrap();
        let hash = |flow: &FlowKey<[u8; 4]>| flow_hash(HashKey::DEFAULT, Affinity::Flow, flow);
        for bit in 0..32 {
            let mut other = flow;
            other.source[bit / 8] ^= 1 << (bit % 8);
            let changed = (hash(&flow) ^ hash(&other)).count_ones();
            assert!(
                (12..=52).contains(&changed),
                "bit {bit} changes {changed} bits"
            );
        }
    }

    #[test]
    fn another_key_gives_another_hash() {
        let flow = flows().next().unwrap();
        let other = HashKey([HashKey::DEFAULT.0[0], HashKey::DEFAULT.0[1] ^ 1]);
        let hash = |key| flow_hash(key, Affinity::Flow, &flow);
        assert_ne!(hash(HashKey::DEFAULT), hash(other));
    }

    #[test]
    fn reduce_covers_the_range_and_never_leaves_it() {
        assert_eq!(reduce(0, 7), 0);
        assert_eq!(reduce(u64::MAX, 7), 6);
        assert_eq!(reduce(u64::MAX, 1), 0);
        assert_eq!(reduce(u64::MAX, 0), 0);
        assert_eq!(reduce(u64::MAX, u32::MAX), u32::MAX - 1);
    }

    #[test]
    fn a_key_is_spelt_in_big_endian_order() {
        let bytes: [u8; 16] = core::array::from_fn(|i| i.try_into().unwrap());
        assert_eq!(
            HashKey::from_bytes(bytes),
            HashKey([0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f])
        );
    }
}
