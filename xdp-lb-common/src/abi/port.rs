//! Interfaces that packets come in by: which frames are for this host.

/// Words of a [`PortMacs`].
pub const PORT_WORDS: usize = 8;

/// The MAC addresses that frames for this host have, of the interface at a [`port_place`]: a cache line of [`port_word`]s, 0 where
/// there is none. Where the first is 0, frames to anybody are taken: nothing is said of the interface, or two have the
/// place in common.
pub type PortMacs = [u64; PORT_WORDS];

/// How many [`PortMacs`] there are.
pub const PORTS: u32 = 256;

/// Where the MAC addresses of an interface are.
#[inline(always)]
#[must_use]
pub const fn port_place(ifindex: u32) -> u32 {
    ifindex % PORTS
}

/// A MAC address, as it is read from a frame, and the lower half of the index of its interface.
#[inline(always)]
#[must_use]
pub const fn port_word(mac: [u8; 6], ifindex: u32) -> u64 {
    let [a, b, c, d, e, f] = mac;
    port_word_of(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]), ifindex)
}

/// The same from the first eight bytes of a frame.
#[inline(always)]
#[must_use]
pub const fn port_word_of(frame: u64, ifindex: u32) -> u64 {
    const MAC: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    frame & MAC | (ifindex as u64) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_that_of_the_frame() {
        let frame = u64::from_ne_bytes([2, 0, 0, 0, 0, 7, 0xaa, 0xbb]);
        let word = port_word([2, 0, 0, 0, 0, 7], 0x1_0003);
        assert_eq!(port_word_of(frame, 3), word);
        assert_ne!(port_word_of(frame, 4), word);
        assert_ne!(port_word([2, 0, 0, 0, 0, 8], 3), word);
    }
}
