//! Backends: where their frames go.

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
