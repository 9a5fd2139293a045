//! How many entries the maps have: fixed when they are made, from the config's `limits`.

use xdp_lb_common::abi::{bucket_bits, index_bits, map};

use crate::config::Limits;

/// Entries of the map of fragments.
pub(super) const FRAGMENTS: u32 = 32_768;

/// How much the maps hold, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Triples of VIP, protocol and port, and so services.
    pub services: u32,
    /// Backends; index 0 is one of them and never used.
    pub backends: u32,
    /// Slots in the arena.
    pub slots: u32,
    /// Remembered flows.
    pub flows: u32,
}

impl From<&Limits> for Sizes {
    fn from(limits: &Limits) -> Self {
        Self {
            services: limits.services,
            backends: limits.backends + 1,
            slots: limits.slots.div_ceil(2) * 2,
            flows: 8 << bucket_bits(limits.flows),
        }
    }
}

impl Sizes {
    /// The maps whose sizes depend on the limits or are fixed here, with their entries, where the kernel may come to have
    /// so many `cpus`.
    pub(super) const fn entries(self, cpus: u32) -> [(&'static str, u32); 14] {
        // Every VIP has a key of its own as well.
        let keys = self.services.saturating_mul(2);
        [
            (map::SERVICES, keys),
            (map::PREFIXES, keys),
            (map::INDEX, 1 + (1 << index_bits(self.services))),
            (map::SERVICE_TABLE, self.services),
            (map::SERVICE_COUNTERS, self.services),
            (map::SLOTS, self.slots / 2),
            (map::RESTING, self.slots.div_ceil(8)),
            (map::MEMBERS, self.services),
            (map::BACKENDS, self.backends),
            (map::BACKEND_OWNERS, self.backends),
            (map::TUNNEL_ENDS, self.backends),
            (map::BACKEND_COUNTERS, self.backends.saturating_mul(cpus)),
            (map::FLOWS, self.flows / 8),
            (map::FRAGMENTS, FRAGMENTS),
        ]
    }
}
