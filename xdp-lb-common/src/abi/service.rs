//! Services: what they are found by, and where their lookup tables are.

/// An IPv4 address in its IPv4-mapped IPv6 form, `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[inline(always)]
#[must_use]
pub const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// True for an IPv4 address in that form.
#[inline(always)]
#[must_use]
pub const fn is_mapped(address: &[u8; 16]) -> bool {
    // By words: of a pattern of bytes the compiler reads each byte, and then all other uses of the address as well.
    const PREFIX: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    const MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let [a, b, c, d, e, f, g, h, rest @ ..] = *address;
    let start = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    start == 0 && u64::from_ne_bytes(rest) & MASK == PREFIX
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

impl ServiceKey {
    /// The id that the key of a mere VIP leads to: see [`of_vip`](Self::of_vip).
    pub const VIP: u32 = u32::MAX;

    /// The key that tells that `vip` is one of some service, for packets that have no ports.
    #[inline(always)]
    #[must_use]
    pub const fn of_vip(vip: [u8; 16]) -> Self {
        Self {
            vip,
            port_be: [0; 2],
            protocol: 0,
            reserved: 0,
        }
    }
}

/// What a service whose VIP is a prefix is found by, where no [`ServiceKey`] is: of several that match,
/// the longest. The trie's key has the number of bits that must match in front of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey {
    /// IP protocol number; 0 with port 0: the key tells that the prefix is one of some service, for
    /// packets that have no ports.
    pub protocol: u8,
    /// IP version, 4 or 6: a short prefix of IPv6 may cover the IPv4-mapped addresses.
    pub version: u8,
    /// Destination port in network order; 0: every port.
    pub port_be: [u8; 2],
    /// The prefix; one of IPv4 in its IPv4-mapped form.
    pub address: [u8; 16],
}

impl PrefixKey {
    /// The bits that must match where the whole address must: what packets are looked up with.
    pub const ALL_BITS: u32 = Self::bits(128);

    /// The bits that must match for a prefix of `length` bits. An IPv4 prefix has 96 more than it is
    /// written with.
    #[inline(always)]
    #[must_use]
    pub const fn bits(length: u32) -> u32 {
        32 + length
    }
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
    /// With [`FLAG_TRACK`](Self::FLAG_TRACK): flows are remembered only where their slot is not settled.
    pub const FLAG_ADAPTIVE: u32 = 4;
}

/// A region of [`map::SLOTS`](super::map::SLOTS): one lookup table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// First slot, as an index into the arena.
    pub offset: u32,
    /// Number of slots, less than 2^31; 0: the service has no backend.
    pub size: u32,
}

impl TableRef {
    /// In the word: every slot is settled, and the table stands in [`map::RESTING`](super::map::RESTING) as well.
    pub const AT_REST: u64 = 1 << 31;

    /// The word that [`ServiceEntry::table`] holds, of a table that is not at rest.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.offset as u64) << 32 | self.size as u64
    }

    /// True if the word is that of a table at rest.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_rest(word: u64) -> bool {
        word & Self::AT_REST != 0
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            offset: (word >> 32) as u32,
            size: (word & !Self::AT_REST) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_makes_another_address_of_a_mapped_one() {
        let address = mapped([192, 0, 2, 1]);
        assert!(is_mapped(&address) && is_mapped(&mapped([0; 4])));
        for bit in 0..128 {
            let mut other = address;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(is_mapped(&other), bit >= 96, "{bit}");
        }
    }
}
