//! Backends: where their frames go.

use super::is_mapped;

/// A backend. Index 0 means none and is never used.
///
/// The maps have it in parts, by what has need of them: see [`BackendWay`], [`BackendOwner`] and [`TunnelEnds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// A [`NextHop`] packed into one word.
    pub next_hop: u64,
    /// Index of the interface that leads to the next hop.
    pub ifindex: u32,
    /// The most bytes that an IP packet may have on the way, outer headers included; 0: any number.
    pub mtu: u16,
    /// Counts the backends that have had this index, so that a flow of an earlier one is not taken
    /// for a flow of this one. Never 0 in an entry in use.
    pub generation: u16,
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// The outer [`tag`](Self::tag) of the frames, 0: they have none.
    pub outer_tag: u16,
    /// Id of the service that this backend belongs to. For the daemon that adopts the map.
    pub service: u32,
    /// The inner tag of the frames, 0: they have no second one. Only with an outer one.
    pub inner_tag: u16,
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

    /// Its parts.
    #[must_use]
    pub fn split(&self) -> (BackendWay, BackendOwner, TunnelEnds) {
        let [a, b, c, d, e, f] = self.source_mac;
        let [g, h] = self.inner_tag.to_ne_bytes();
        let ends = TunnelEnds {
            address: self.address,
            source: self.tunnel_source,
        };
        let way = BackendWay {
            next_hop: self.next_hop,
            link: WayLink {
                ifindex: self.ifindex,
                mtu: self.mtu,
                outer_tag: self.outer_tag,
            }
            .pack(),
            source: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ends: ends.of_v4(),
        };
        let owner = BackendOwner {
            service: self.service,
            generation: self.generation,
        };
        (way, owner, ends)
    }

    /// The opposite of [`split`](Self::split).
    #[must_use]
    pub fn join(way: &BackendWay, owner: BackendOwner, ends: &TunnelEnds) -> Self {
        let link = WayLink::unpack(way.link);
        let [a, b, c, d, e, f, g, h] = way.source.to_ne_bytes();
        Self {
            next_hop: way.next_hop,
            ifindex: link.ifindex,
            mtu: link.mtu,
            generation: owner.generation,
            source_mac: [a, b, c, d, e, f],
            outer_tag: link.outer_tag,
            service: owner.service,
            inner_tag: u16::from_ne_bytes([g, h]),
            address: ends.address,
            tunnel_source: ends.source,
        }
    }
}

/// What a packet needs of its backend, unless it goes by a tunnel of IPv6: half a cache line, since with many flows on many
/// backends this is memory that is waited for.
///
/// Made of 64-bit words, each written at once. What is not in the first word, nor the MTU, is changed, here and in the other
/// parts, by clearing the serving flag, waiting for the packets under way, writing the other words, and setting the
/// flag again: a packet that has seen the flag may read the rest after that.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendWay {
    /// A [`NextHop`] packed into one word.
    pub next_hop: u64,
    /// A [`WayLink`] packed into one word.
    pub link: u64,
    /// MAC address of the interface in the first six bytes, and behind it the inner tag.
    pub source: u64,
    /// With a tunnel of IPv4, the source of the outer header in the lower half and the backend's address in the upper one, each
    /// as it is read from a packet; else 0.
    pub ends: u64,
}

/// The interface towards a backend, as packets need it: see [`BackendWay::link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WayLink {
    /// As in [`BackendEntry`].
    pub ifindex: u32,
    /// As in [`BackendEntry`].
    pub mtu: u16,
    /// As in [`BackendEntry`].
    pub outer_tag: u16,
}

impl WayLink {
    /// The word that [`BackendWay::link`] holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.outer_tag as u64) << 48 | (self.mtu as u64) << 32 | self.ifindex as u64
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            ifindex: word as u32,
            mtu: (word >> 32) as u16,
            outer_tag: (word >> 48) as u16,
        }
    }
}

/// Whose a backend is, in one word: for packets that follow an entry of the flow table or their first fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendOwner {
    /// Id of the service that the backend belongs to.
    pub service: u32,
    /// As in [`BackendEntry`].
    pub generation: u16,
}

impl BackendOwner {
    /// The word.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.service as u64
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            service: word as u32,
            generation: (word >> 32) as u16,
        }
    }
}

/// Where a tunnel begins and ends: for tunnels of IPv6, and for the daemon that adopts the map.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelEnds {
    /// See [`BackendEntry::address`].
    pub address: [u8; 16],
    /// See [`BackendEntry::tunnel_source`].
    pub source: [u8; 16],
}

impl TunnelEnds {
    /// As [`BackendWay::ends`] has it.
    fn of_v4(&self) -> u64 {
        let last = |address: &[u8; 16]| {
            let [.., a, b, c, d] = *address;
            u64::from(u32::from_ne_bytes([a, b, c, d]))
        };
        if is_mapped(&self.address) && is_mapped(&self.source) {
            last(&self.address) << 32 | last(&self.source)
        } else {
            0
        }
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
    /// New connections may go to the backend: it has slots.
    pub const FLAG_ACCEPTS: u16 = 8;
    /// The backend cannot serve, by its health checks: a connection that has only begun there is none.
    pub const FLAG_DOWN: u16 = 16;
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

    /// True if a SYN may follow an entry that leads here: of a connection that `has_ended` only where
    /// new ones go anyway.
    #[inline(always)]
    #[must_use]
    pub const fn takes_syn(self, has_ended: bool) -> bool {
        let is_down = self.flags & Self::FLAG_DOWN != 0;
        !is_down && (!has_ended || self.flags & Self::FLAG_ACCEPTS != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::mapped;

    fn entry(address: [u8; 16], tunnel_source: [u8; 16]) -> BackendEntry {
        BackendEntry {
            next_hop: 1 << 63 | 2,
            ifindex: 0xfedc_ba98,
            mtu: 0x3210,
            generation: 0x7654,
            source_mac: [1, 2, 3, 4, 5, 6],
            outer_tag: 0x8f0f,
            service: 0xabcd_ef01,
            inner_tag: 0x0102,
            address,
            tunnel_source,
        }
    }

    #[test]
    fn the_parts_of_an_entry_make_it_whole_again() {
        let v4 = mapped([10, 0, 0, 2]);
        for entry in [
            BackendEntry::default(),
            entry([0; 16], [0; 16]),
            entry([1; 16], [2; 16]),
            entry(v4, [2; 16]),
            entry(v4, v4),
        ] {
            let (way, owner, ends) = entry.split();
            assert_eq!(BackendEntry::join(&way, owner, &ends), entry);
            assert_eq!(BackendOwner::unpack(owner.pack()), owner);
        }
    }

    #[test]
    fn the_ends_of_a_tunnel_of_ipv4_are_words_of_its_header() {
        let (from, to) = ([10, 0, 0, 2], [192, 0, 2, 77]);
        let (way, ..) = entry(mapped(to), mapped(from)).split();
        assert_eq!(way.ends as u32, u32::from_ne_bytes(from));
        assert_eq!((way.ends >> 32) as u32, u32::from_ne_bytes(to));
        // Without a tunnel there is no source.
        let (way, ..) = entry(mapped(to), [0; 16]).split();
        assert_eq!(way.ends, 0);
        let (way, ..) = entry([1; 16], [2; 16]).split();
        assert_eq!(way.ends, 0);
    }
}
