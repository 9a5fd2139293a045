//! Lookup tables: which backend owns each slot of a service.
//!
//! A table is a pure function of the scheduler, the number of slots, the hash key and the *set* of
//! candidates: what is hashed is a backend's address, never its index or its place in a file, so
//! that directors with the same backends fill the same table. Nothing here knows of BPF maps, of
//! health or of YAML.

mod maglev;
mod modulo;
mod prime;
mod ring;
#[cfg(test)]
mod tests;
mod turns;

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use xdp_lb_common::hash::{HashKey, Hasher};

pub use prime::{is_prime, next_prime};

/// The largest weight that counts; one above it is taken for it.
pub const MAX_WEIGHT: u32 = 65_535;

/// How the slots of a lookup table are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): even, and few slots move when a
    /// backend comes or goes. The number of slots is to be prime.
    #[default]
    Maglev,
    /// Ring hashing with virtual nodes (Karger et al., STOC 1997): no slot moves between backends
    /// that stay, at the price of uneven shares.
    Ring,
    /// Weighted round robin over the slots: even, but nearly every slot moves when a backend comes
    /// or goes. A baseline to compare the others with.
    Modulo,
}

impl Scheduler {
    /// Lower-case name, as in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Ring => "ring",
            Self::Modulo => "modulo",
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A backend that may be given slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The backend's address. An IPv4 address and its IPv4-mapped form are the same.
    pub address: IpAddr,
    /// Its share, relative to the other candidates' weights; 0: no slot. At most [`MAX_WEIGHT`].
    pub weight: u32,
}

/// Fills `size` slots: each is the index, in `candidates`, of the backend that owns the slot.
///
/// Returns an empty `Vec` where no candidate has a weight above 0. The owners are the same
/// addresses whatever the order of `candidates`. With [`Scheduler::Maglev`] and
/// [`Scheduler::Modulo`], each candidate of a weight above 0 gets one slot at least while there are
/// as many slots as candidates; past that, shares follow the weights.
///
/// Addresses are to be different from each other: two candidates with one address share its slots
/// in a way that is not specified. Candidates past the first 65,535 are left out.
#[must_use]
pub fn build(scheduler: Scheduler, size: u32, key: HashKey, candidates: &[Candidate]) -> Vec<u16> {
    let nodes = nodes(candidates);
    if nodes.is_empty() {
        return Vec::new();
    }
    match scheduler {
        Scheduler::Maglev => maglev::fill(size, key, &nodes),
        Scheduler::Ring => ring::fill(size, key, &nodes),
        Scheduler::Modulo => modulo::fill(size, &nodes),
    }
}

/// A candidate with a weight above 0, as the schedulers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    /// The address in its IPv4-mapped form, as one number.
    address: u128,
    /// 1..=[`MAX_WEIGHT`].
    weight: u32,
    /// Index into the caller's candidates.
    index: u16,
}

impl Node {
    /// The keyed hash of the address, in the domain `domain`.
    fn hash(&self, key: HashKey, domain: u64) -> Hasher {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.address.to_be_bytes();
        Hasher::new(key)
            .word(domain)
            .word(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            .word(u64::from_be_bytes(rest))
    }
}

/// The candidates that get slots, sorted by address, so that their order is forgotten.
fn nodes(candidates: &[Candidate]) -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..u16::MAX)
        .zip(candidates)
        .filter(|(_, candidate)| candidate.weight > 0)
        .map(|(index, candidate)| Node {
            address: match candidate.address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            }
            .to_bits(),
            weight: candidate.weight.min(MAX_WEIGHT),
            index,
        })
        .collect();
    nodes.sort_unstable();
    nodes
}

/// A count of slots or nodes as an index: both fit 32 bits, and so does a pointer here.
fn index(number: u32) -> usize {
    number as usize
}
