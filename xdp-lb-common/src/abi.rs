//! The layout of every BPF map: keys, values, sizes and names.
//!
//! The maps outlive the daemon: they stay pinned while it restarts or is upgraded. Any change to a
//! layout or to the meaning of a field raises [`ABI_VERSION`], so that a newer daemon never
//! misreads what an older one left behind.

/// Version of everything in this module. A daemon adopts pinned maps only where it is equal.
pub const ABI_VERSION: u32 = 1;

/// Names of the maps, as pinned below the pin directory.
pub mod map {
    /// [`Meta`](super::Meta), one entry: what the other maps were made by.
    pub const META: &str = "META";
    /// Hash, [`ServiceKey`](super::ServiceKey) → service id (`u32`).
    pub const SERVICES: &str = "SERVICES";
    /// Array by service id of [`ServiceEntry`](super::ServiceEntry), mmap-able.
    pub const SERVICE_TABLE: &str = "SERVICE_TABLE";
    /// Array of [`SlotPair`](super::SlotPair), mmap-able: the arena of all lookup tables.
    pub const SLOTS: &str = "SLOTS";
    /// Array by backend index of [`BackendEntry`](super::BackendEntry), mmap-able.
    pub const BACKENDS: &str = "BACKENDS";
    /// LRU hash, [`FlowKey`](super::FlowKey) → [`FlowEntry`](super::FlowEntry): connection tracking.
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// LRU hash like the one above: connections that began on a slot while it was moving and have
    /// sent nothing but their SYN yet. Apart from the flows, so that a SYN flood cannot evict one.
    pub const OPENINGS_V4: &str = "OPENINGS_V4";
    /// Per-CPU array by [`Budget`](super::Budget) of [`TokenBucket`](super::TokenBucket).
    pub const BUDGETS: &str = "BUDGETS";
    /// Per-CPU array by [`Counter`](crate::counters::Counter) of [`Count`](super::Count).
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array by service id of [`Count`](super::Count): packets forwarded.
    pub const SERVICE_COUNTERS: &str = "SERVICE_COUNTERS";
    /// Per-CPU array by backend index of [`Count`](super::Count): packets forwarded.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// Devmap by interface index: where frames may be redirected to.
    pub const PORTS: &str = "PORTS";
    /// The maps that outlive the daemon. The others begin anew with each program.
    pub const PINNED: [&str; 10] = [
        META,
        SERVICES,
        SERVICE_TABLE,
        SLOTS,
        BACKENDS,
        FLOWS_V4,
        OPENINGS_V4,
        COUNTERS,
        SERVICE_COUNTERS,
        BACKEND_COUNTERS,
    ];
}

/// Names of the constants that the daemon sets when it loads the program.
pub mod global {
    /// [`HashKey`](crate::hash::HashKey): the key of the flow hash.
    pub const HASH_KEY: &str = "HASH_KEY";
    /// [`Timing`](super::Timing): rates and times, in ticks of the kernel's clock.
    pub const TIMING: &str = "TIMING";
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

/// What a service is found by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The VIP; an IPv4 address in its IPv4-mapped form (see [`mapped`]).
    pub vip: [u8; 16],
    /// Destination port in network order; 0: every port.
    pub port_be: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0: the kernel compares keys byte by byte.
    pub reserved: u8,
}

/// How a service is balanced.
///
/// Each field is read and written as one aligned word. `table` alone says where the lookup table
/// is, so that packets see an old table or a new one and never a mixture.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// A [`TableRef`] packed into one word.
    pub table: u64,
    /// `ServiceEntry::FLAG_*`.
    pub flags: u32,
    /// How long a silent flow is remembered, in ticks of the kernel's clock.
    pub idle_ticks: u32,
}

impl ServiceEntry {
    /// Flows are remembered; without it, every packet goes by its slot.
    pub const FLAG_TRACK: u32 = 1;
    /// The flow hash covers the client's address only (`affinity: source`).
    pub const FLAG_SOURCE_AFFINITY: u32 = 2;
}

/// A region of [`map::SLOTS`]: one lookup table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// First slot, as an index into the arena.
    pub offset: u32,
    /// Number of slots; 0: the service has no backend.
    pub size: u32,
}

impl TableRef {
    /// The word that [`ServiceEntry::table`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.offset as u64) << 32 | self.size as u64
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            offset: (word >> 32) as u32,
            size: word as u32,
        }
    }
}

/// One entry of a lookup table: a backend, and what is known of the one before it.
///
/// A slot is in one of three states, told apart by `previous`:
///
/// | state | `previous` | meaning |
/// |---|---|---|
/// | settled | 0 | never moved: every flow of this slot belongs to `current` |
/// | moving | a backend | moved lately: flows that nobody remembers belong to `previous` |
/// | mixed | [`Slot::MIXED`] | moved once: remembered flows may disagree with `current` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Index of the backend that gets new connections.
    pub current: u16,
    /// See the table above.
    pub previous: u16,
}

impl Slot {
    /// The value of `previous` in a mixed slot. Backend indices end below it.
    pub const MIXED: u16 = u16::MAX;

    /// The word that the arena holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u32 {
        (self.previous as u32) << 16 | self.current as u32
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        Self {
            current: word as u16,
            previous: (word >> 16) as u16,
        }
    }

    /// True where no remembered flow can disagree with `current`.
    #[inline(always)]
    #[must_use]
    pub const fn is_settled(self) -> bool {
        self.previous == 0
    }

    /// The backend before the current one, while it is remembered.
    #[inline(always)]
    #[must_use]
    pub const fn moving_from(self) -> Option<u16> {
        match self.previous {
            0 | Self::MIXED => None,
            index => Some(index),
        }
    }
}

/// Two neighbouring slots, as [`Slot::pack`]s them: the kernel rounds array elements up to eight
/// bytes, so one slot an element would waste half of the arena.
pub type SlotPair = [u32; 2];

/// A backend, as the program needs it. Index 0 means none and is never used.
///
/// Made of 64-bit words, each written at once: `next_hop` with the flag that allows its use, and
/// `link` with the generation. A next hop is changed by clearing the flag, writing the other words,
/// and setting the flag again.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// A [`NextHop`] packed into one word.
    pub next_hop: u64,
    /// A [`BackendLink`] packed into one word.
    pub link: u64,
    /// MAC address of the interface, in the first six bytes.
    pub source_mac: [u8; 8],
    /// Id of the service that this backend belongs to. For the daemon that adopts the map.
    pub service: u32,
    /// Keeps the next field aligned.
    pub reserved: u32,
    /// The backend's address; an IPv4 address in its IPv4-mapped form.
    pub address: [u8; 16],
    /// Fills the cache line.
    pub reserved_tail: [u64; 2],
}

/// Where a backend's frames go, and whether they may: see [`BackendEntry::next_hop`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Destination MAC address.
    pub mac: [u8; 6],
    /// `NextHop::FLAG_*`.
    pub flags: u16,
}

impl NextHop {
    /// The backend may be sent packets: it is healthy and its next hop is known.
    pub const FLAG_SERVING: u16 = 1;

    /// The word that [`BackendEntry::next_hop`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        let [a, b, c, d, e, f] = self.mac;
        let [g, h] = self.flags.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self {
            mac: [a, b, c, d, e, f],
            flags: u16::from_ne_bytes([g, h]),
        }
    }

    /// True if [`FLAG_SERVING`](Self::FLAG_SERVING) is set.
    #[inline(always)]
    #[must_use]
    pub const fn is_serving(self) -> bool {
        self.flags & Self::FLAG_SERVING != 0
    }
}

/// The interface towards a backend, and which backend this is: see [`BackendEntry::link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendLink {
    /// Index of the interface that leads to the next hop.
    pub ifindex: u32,
    /// Counts the backends that have had this index, so that a flow of an earlier one is not taken
    /// for a flow of this one. Never 0 in an entry in use.
    pub generation: u16,
}

impl BackendLink {
    /// The word that [`BackendEntry::link`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.ifindex as u64
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            ifindex: word as u32,
            generation: (word >> 32) as u16,
        }
    }
}

/// A flow: the 5-tuple, with addresses of one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// The client.
    pub source: A,
    /// The VIP.
    pub destination: A,
    /// The client's port in network order.
    pub source_port_be: [u8; 2],
    /// The service's port in network order.
    pub destination_port_be: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0: the kernel compares keys byte by byte.
    pub reserved: [u8; 3],
}

/// A remembered flow.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// A [`BackendRef`] packed into one word.
    pub backend: u32,
    /// When the last packet passed: the low 32 bits of the kernel's tick count.
    pub last_seen: u32,
    /// `FlowEntry::FLAG_*`.
    pub flags: u32,
    /// Fills the entry up to a multiple of eight bytes.
    pub reserved: u32,
}

impl FlowEntry {
    /// A FIN or RST has passed: the entry's life ends after [`Timing::closing_ticks`] of silence.
    pub const FLAG_CLOSING: u32 = 1;
}

/// One particular backend: index and generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendRef {
    /// Index into [`map::BACKENDS`].
    pub index: u16,
    /// [`BackendLink::generation`] at the time the reference was made.
    pub generation: u16,
}

impl BackendRef {
    /// The word that [`FlowEntry::backend`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u32 {
        (self.generation as u32) << 16 | self.index as u32
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        Self {
            index: word as u16,
            generation: (word >> 16) as u16,
        }
    }
}

/// What is limited per CPU: an index into [`map::BUDGETS`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// New entries in the flow map.
    Flows = 0,
    /// New entries in the map of openings.
    Openings = 1,
}

impl Budget {
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// The state of one [`Budget`] on one CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    /// When tokens were last added: the low 32 bits of the kernel's tick count.
    pub filled_at: u32,
    /// Entries that may still be made.
    pub tokens: u32,
    /// When it was last logged that the bucket is empty, in the same ticks.
    pub warned_at: u32,
    /// Fills the entry up to a multiple of eight bytes.
    pub reserved: u32,
}

/// Rates and times that hold for the whole program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Entries that may be made per tick and CPU, for each [`Budget`].
    pub tokens_per_tick: [u32; Budget::COUNT as usize],
    /// The most tokens that a bucket holds, for each [`Budget`].
    pub burst: [u32; Budget::COUNT as usize],
    /// How long a silent flow is remembered after a FIN or RST, in ticks.
    pub closing_ticks: u32,
    /// How long an opening is remembered, in ticks.
    pub opening_ticks: u32,
    /// The shortest time between two log lines of the same kind on one CPU, in ticks.
    pub warning_ticks: u32,
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

/// An IPv4 address in its IPv4-mapped IPv6 form, `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

// The kernel knows a map by the sizes of its keys and values alone, so a layout that changes
// unnoticed would be misread, not refused.
const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Meta>() == 24);
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<ServiceEntry>() == 16);
    assert!(size_of::<SlotPair>() == 8);
    assert!(size_of::<BackendEntry>() == 64);
    assert!(size_of::<FlowKey<[u8; 4]>>() == 16);
    assert!(size_of::<FlowKey<[u8; 16]>>() == 40);
    assert!(size_of::<FlowEntry>() == 16);
    assert!(size_of::<TokenBucket>() == 16);
    assert!(size_of::<Timing>() == 28);
    assert!(size_of::<Count>() == 16);
};

#[cfg(feature = "user")]
mod pod {
    use super::{
        BackendEntry, Count, FlowEntry, FlowKey, Meta, ServiceEntry, ServiceKey, Timing,
        TokenBucket,
    };
    use crate::hash::HashKey;

    /// Asserts that a type may be copied to and from kernel memory byte by byte.
    macro_rules! pod {
        ($($type:ty),* $(,)?) => {
            // SAFETY: each is `repr(C)`, made of integers and arrays of integers, for which every
            // bit pattern is valid, and has no padding (the size asserts above add up).
            $(unsafe impl aya::Pod for $type {})*
        };
    }

    pod!(
        BackendEntry,
        Count,
        FlowEntry,
        FlowKey<[u8; 4]>,
        FlowKey<[u8; 16]>,
        HashKey,
        Meta,
        ServiceEntry,
        ServiceKey,
        Timing,
        TokenBucket,
    );
}

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
        let link = BackendLink {
            ifindex: u32::MAX,
            generation: u16::MAX,
        };
        assert_eq!(BackendLink::unpack(link.pack()), link);
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
