//! The service index: the keys of [`map::SERVICES`](super::map::SERVICES) once more, where one cache line tells what
//! service a packet is for, or that it is for none.
//!
//! Line 0 is the head. Each of the others has two entries of three words each, and a word for each entry that is
//! [`SPILLED`] or 0. A key for which its line has no room is in the map alone; the line says so.

use super::ServiceKey;

/// Words of a line.
pub const INDEX_WORDS: usize = 8;

/// A line: the head, or two entries.
pub type IndexLine = [u64; INDEX_WORDS];

/// Words from one entry of a line to the next.
pub const INDEX_ENTRY: usize = 4;

/// In the head's first word: there are services for every port of a VIP.
pub const INDEX_HAS_ANY_PORT: u64 = 1;
/// In the head's first word: there are VIPs that are prefixes.
pub const INDEX_HAS_PREFIXES: u64 = 2;

/// In the last word of a line: the map has a key that would be in this line.
pub const SPILLED: u64 = 1;

/// A key as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexKey {
    /// The VIP, as two words.
    pub vip: [u64; 2],
    /// Port, protocol, and that there is an entry: never 0.
    tail: u32,
}

impl IndexKey {
    /// The key of a service.
    #[inline(always)]
    #[must_use]
    pub const fn of(key: &ServiceKey) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.vip;
        let [q, r] = key.port_be;
        Self {
            vip: [
                u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
            ],
            tail: u32::from_ne_bytes([q, r, key.protocol, 1]),
        }
    }

    /// Index of its line, in an index of 2^`bits` of them besides the head.
    #[inline(always)]
    #[must_use]
    pub const fn line(self, bits: u32) -> u32 {
        // A sum of products with odd numbers, of which the upper bits are the good ones: who sends packets
        // does not choose what services there are.
        let sum = self.vip[0]
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(self.vip[1].wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
            .wrapping_add((self.tail as u64).wrapping_mul(0xff51_afd7_ed55_8ccd));
        1 + ((sum >> 32) as u32 >> (32 - bits))
    }

    /// The third word of its entry: the rest of the key, and the id of the service.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, id: u32) -> u64 {
        (id as u64) << 32 | self.tail as u64
    }

    /// The service's id, if this is the third word of an entry of the same port and protocol.
    #[inline(always)]
    #[must_use]
    pub const fn id(self, word: u64) -> Option<u32> {
        if word as u32 == self.tail {
            Some((word >> 32) as u32)
        } else {
            None
        }
    }
}

/// How many lines, as a power of two, for so many services.
#[must_use]
pub const fn index_bits(services: u32) -> u32 {
    let lines = services.saturating_mul(4);
    let bits = u32::BITS - lines.leading_zeros();
    if bits < 10 {
        10
    } else if bits > 24 {
        24
    } else {
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8, port: u16) -> ServiceKey {
        ServiceKey {
            vip: crate::abi::mapped([192, 0, 2, last]),
            port_be: port.to_be_bytes(),
            protocol: 6,
            reserved: 0,
        }
    }

    #[test]
    fn an_entry_is_of_one_port_and_protocol() {
        let word = IndexKey::of(&key(1, 80)).word(7);
        assert_eq!(IndexKey::of(&key(1, 80)).id(word), Some(7));
        assert_eq!(IndexKey::of(&key(1, 81)).id(word), None);
        let udp = ServiceKey {
            protocol: 17,
            ..key(1, 80)
        };
        assert_eq!(IndexKey::of(&udp).id(word), None);
        assert_eq!(IndexKey::of(&ServiceKey::default()).id(0), None);
    }

    #[test]
    fn neighbours_are_spread_over_the_lines() {
        let bits = index_bits(1000);
        let mut lines = [0_u8; (1 << 12) + 1];
        for last in 0..=249 {
            for port in [80, 443, 8080, 8443] {
                let line = IndexKey::of(&key(last, port)).line(bits);
                lines[usize::try_from(line).unwrap()] += 1;
            }
        }
        assert_eq!(bits, 12);
        assert_eq!(lines[0], 0, "the head");
        let spilled = lines.iter().filter(|&&keys| keys > 2).count();
        assert!(spilled < 30, "{spilled} lines have more than two keys");
    }

    #[test]
    fn the_number_of_lines_is_bounded() {
        assert_eq!(index_bits(0), 10);
        assert_eq!(index_bits(4096), 15);
        assert_eq!(index_bits(u32::MAX), 24);
    }
}
