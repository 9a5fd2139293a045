//! The layout of every BPF map: keys, values, sizes and names.
//!
//! The maps outlive the daemon: they stay pinned while it restarts or is upgraded. Any change to a
//! layout or to the meaning of a field raises [`ABI_VERSION`], so that a newer daemon never
//! misreads what an older one left behind.

mod backend;
mod flow;
mod flow_table;
mod fragment;
mod index;
#[cfg(feature = "user")]
mod pod;
mod port;
mod service;
mod slot;

pub use self::{
    backend::{BackendEntry, BackendOwner, BackendWay, NextHop, TunnelEnds, WayLink},
    flow::{BackendRef, Budget, FlowKey, Timing, TokenBucket},
    flow_table::{BUCKET, BUCKET_BITS, FlowBucket, FlowEntry, Place, bucket_bits},
    fragment::{FragmentEntry, FragmentKey},
    index::{
        INDEX_ENTRY, INDEX_HAS_ANY_PORT, INDEX_HAS_PREFIXES, INDEX_WORDS, IndexKey, IndexLine,
        SPILLED, index_bits,
    },
    port::{PORT_WORDS, PORTS, PortMacs, port_place, port_word, port_word_of},
    service::{PrefixKey, ServiceEntry, ServiceKey, TableRef, is_mapped, mapped},
    slot::{MEMBERS, RestingSlots, ServiceMembers, Slot, SlotPair},
};

/// Version of everything in this module. A daemon adopts pinned maps only where it is equal.
pub const ABI_VERSION: u32 = 8;

/// Names of the maps, as pinned below the pin directory.
pub mod map {
    /// [`Meta`](super::Meta), one entry: what the other maps were made by.
    pub const META: &str = "META";
    /// Array of programs that the program goes on with; pinned, since the kernel empties it once nobody has it open.
    pub const PROGRAMS: &str = "PROGRAMS";
    /// Hash, [`ServiceKey`](super::ServiceKey) → service id (`u32`).
    pub const SERVICES: &str = "SERVICES";
    /// Longest-prefix-match trie, [`PrefixKey`](super::PrefixKey) → service id (`u32`).
    pub const PREFIXES: &str = "PREFIXES";
    /// Array of [`IndexLine`](super::IndexLine), mmap-able: what is in [`SERVICES`], to be found at once.
    pub const INDEX: &str = "INDEX";
    /// Array by service id of [`ServiceEntry`](super::ServiceEntry), mmap-able.
    pub const SERVICE_TABLE: &str = "SERVICE_TABLE";
    /// Array of [`SlotPair`](super::SlotPair), mmap-able: the arena of all lookup tables.
    pub const SLOTS: &str = "SLOTS";
    /// Array of [`RestingSlots`](super::RestingSlots), mmap-able: the same arena, in one byte a slot, for tables at rest.
    pub const RESTING: &str = "RESTING";
    /// Array by service id of [`ServiceMembers`](super::ServiceMembers), mmap-able.
    pub const MEMBERS: &str = "MEMBERS";
    /// Array by backend index of [`BackendWay`](super::BackendWay), mmap-able.
    pub const BACKENDS: &str = "BACKENDS";
    /// Array by backend index of [`BackendOwner`](super::BackendOwner) in one word, mmap-able.
    pub const BACKEND_OWNERS: &str = "BACKEND_OWNERS";
    /// Array by backend index of [`TunnelEnds`](super::TunnelEnds), mmap-able.
    pub const TUNNEL_ENDS: &str = "TUNNEL_ENDS";
    /// Array of [`BUCKET`](super::BUCKET) [`FlowEntry`](super::FlowEntry)s each, mmap-able: the flow table.
    pub const FLOWS: &str = "FLOWS";
    /// Array of [`CLOCK_WORDS`](super::CLOCK_WORDS) words, mmap-able: the period in which the program has last looked at the flow
    /// table, and at [`LONGEST_IDLE`](super::LONGEST_IDLE) the longest time, in ticks, for which a service remembers a silent flow.
    pub const CLOCK: &str = "CLOCK";
    /// LRU hash, [`FragmentKey`](super::FragmentKey) → [`FragmentEntry`](super::FragmentEntry): where
    /// first fragments went.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Per-CPU array by [`Budget`](super::Budget) of [`TokenBucket`](super::TokenBucket).
    pub const BUDGETS: &str = "BUDGETS";
    /// Per-CPU array by [`Counter`](crate::counters::Counter) of [`Count`](super::Count); what was forwarded is counted
    /// in [`BACKEND_COUNTERS`], and here for backends of services that are gone.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array by service id of [`Count`](super::Count), mmap-able: packets forwarded to backends that the service has no
    /// more. For the daemon only.
    pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTERS";
    /// Array of [`Count`](super::Count), mmap-able: for each CPU, by backend index, packets forwarded. What was forwarded
    /// for a service, and in all, is the sum of it.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// Array by [`port_place`](super::port_place) of [`PortMacs`](super::PortMacs), mmap-able: which frames are for this host.
    pub const PORTS: &str = "PORTS";
    /// Per-CPU array with one entry: the program's notes on the packet at hand. For the program only.
    pub const SCRATCH: &str = "SCRATCH";
    /// The maps that outlive the daemon. The others begin anew with each program.
    pub const PINNED: [&str; 16] = [
        META,
        PROGRAMS,
        SERVICES,
        PREFIXES,
        SERVICE_TABLE,
        SLOTS,
        RESTING,
        MEMBERS,
        BACKENDS,
        BACKEND_OWNERS,
        TUNNEL_ENDS,
        FLOWS,
        FRAGMENTS,
        COUNTERS,
        SERVICE_COUNTERS,
        BACKEND_COUNTERS,
    ];
}

/// Words of [`map::CLOCK`].
pub const CLOCK_WORDS: u32 = 2;

/// Index into [`map::CLOCK`].
pub const LONGEST_IDLE: u32 = 1;

/// Index into [`map::PROGRAMS`]: the one that knows all packets.
pub const PROGRAM_WHOLE: u32 = 0;

/// Names of the constants that the daemon sets when it loads the program.
pub mod global {
    /// [`HashKey`](crate::hash::HashKey): the key of the flow hash.
    pub const HASH_KEY: &str = "HASH_KEY";
    /// [`Timing`](super::Timing): rates and times, in ticks of the kernel's clock.
    pub const TIMING: &str = "TIMING";
    /// `[u8; 2]`: the destination port of the forwarding mode `gue`, in network order.
    pub const GUE_PORT: &str = "GUE_PORT";
}

/// The value of [`map::META`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`ABI_VERSION`] of the daemon that made the maps; 0: not set yet.
    pub abi_version: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// The flow hash's key under which slots and flows were made.
    pub hash_key: [u64; 2],
}

/// Packets and bytes (whole frames, without the checksum at their end).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl core::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

// The kernel knows a map by the sizes of its keys and values alone, so a layout that changes
// unnoticed would be misread, not refused.
const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Meta>() == 24);
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<ServiceEntry>() == 16);
    assert!(size_of::<SlotPair>() == 8);
    assert!(size_of::<BackendWay>() == 32);
    assert!(size_of::<TunnelEnds>() == 32);
    assert!(size_of::<FlowKey<[u8; 4]>>() == 16);
    assert!(size_of::<FlowKey<[u8; 16]>>() == 40);
    assert!(size_of::<FlowEntry>() == 8);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentEntry>() == 16);
    assert!(size_of::<TokenBucket>() == 16);
    assert!(size_of::<Timing>() == 64);
    assert!(size_of::<Count>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_words_unpack_to_what_they_were() {
        let slot = Slot {
            current: 0x1234,
            previous: 0xfffe,
        };
        assert_eq!(Slot::unpack(slot.pack()), slot);
        let table = TableRef {
            offset: 0xdead_beef,
            size: 65537,
        };
        assert_eq!(TableRef::unpack(table.pack()), table);
        let hop = NextHop {
            mac: [1, 2, 3, 4, 5, 6],
            flags: NextHop::FLAG_SERVING,
        };
        assert_eq!(NextHop::unpack(hop.pack()), hop);
        assert_eq!(hop.pack().to_ne_bytes()[..6], hop.mac);
        let link = WayLink {
            ifindex: u32::MAX,
            mtu: 1500,
            outer_tag: u16::MAX,
        };
        assert_eq!(WayLink::unpack(link.pack()), link);
        let backend = BackendRef {
            index: 65534,
            generation: 7,
        };
        assert_eq!(BackendRef::unpack(backend.pack()), backend);
    }

    #[test]
    fn the_three_states_of_a_slot_are_told_apart() {
        let slot = |previous| Slot {
            current: 1,
            previous,
        };
        assert!(slot(0).is_settled() && slot(0).moving_from().is_none());
        assert!(!slot(2).is_settled() && slot(2).moving_from() == Some(2));
        assert!(!slot(Slot::MIXED).is_settled() && slot(Slot::MIXED).moving_from().is_none());
    }

    #[test]
    fn mapped_addresses_are_those_of_the_standard_library() {
        let address = core::net::Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(mapped(address.octets()), address.to_ipv6_mapped().octets());
    }
}
