//! Backends: where their frames go.

/// A backend, as the program needs it. Index 0 means none and is never used.
///
/// Made of 64-bit words, each written at once: `next_hop` with the flags that allow and govern its
/// use, `link` with the generation, and so on. What is not in the first word is changed by clearing
/// the serving flag, waiting for the packets under way, writing the other words, and setting the
/// flag again: a packet that has seen the flag may read the rest when it likes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// A [`NextHop`] packed into one word.
    pub next_hop: u64,
    /// A [`BackendLink`] packed into one word.
    pub link: u64,
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// The outer [`tag`](Self::tag) of the frames, 0: they have none.
    pub outer_tag: u16,
    /// Id of the service that this backend belongs to. For the daemon that adopts the map.
    pub service: u32,
    /// The inner tag of the frames, 0: they have no second one. Only with an outer one.
    pub inner_tag: u16,
    /// Always 0.
    pub reserved: u16,
    /// The backend's address; an IPv4 address in its IPv4-mapped form.
    pub address: [u8; 16],
    /// With a tunnel, the source of the outer header, of the family of `address` and written like it.
    pub tunnel_source: [u8; 16],
}

impl BackendEntry {
    /// In a tag: the tag is one of IEEE 802.1ad (type 0x88a8), not of 802.1Q (0x8100).
    pub const TAG_SERVICE: u16 = 0x8000;
    /// In a tag: the VLAN's id.
    pub const TAG_ID: u16 = 0x0fff;

    /// A tag for the VLAN `id`.
    #[must_use]
    pub const fn tag(id: u16, service: bool) -> u16 {
        id & Self::TAG_ID | if service { Self::TAG_SERVICE } else { 0 }
    }
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
    /// Packets go to the backend inside an IP packet (forwarding mode `ipip`).
    pub const FLAG_IPIP: u16 = 2;
    /// Packets go to the backend inside a UDP datagram (forwarding mode `gue`).
    pub const FLAG_GUE: u16 = 4;
    /// Neither: the frame goes to the backend as it is (forwarding mode `l2`).
    pub const TUNNEL_FLAGS: u16 = Self::FLAG_IPIP | Self::FLAG_GUE;

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
    /// The most bytes that an IP packet may have on the way, outer headers included; 0: any number.
    pub mtu: u16,
}

impl BackendLink {
    /// The word that [`BackendEntry::link`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.mtu as u64) << 48 | (self.generation as u64) << 32 | self.ifindex as u64
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            ifindex: word as u32,
            generation: (word >> 32) as u16,
            mtu: (word >> 48) as u16,
        }
    }
}
