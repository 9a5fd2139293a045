//! The Internet checksum (RFC 1071), over what comes in network order.

/// The sum of 16-bit words, not folded: sums of parts of even length may be added, up to some 64 KiB
/// of them in all. A last odd byte counts as the high half of a word.
#[inline(always)]
#[must_use]
pub const fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i + 1 < bytes.len() {
        sum += u16::from_ne_bytes([bytes[i], bytes[i + 1]]) as u32;
        i += 2;
    }
    if i < bytes.len() {
        sum += u16::from_ne_bytes([bytes[i], 0]) as u32;
    }
    sum
}

/// The checksum that a sum comes to, as it goes over the wire.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> [u8; 2] {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    (!(sum as u16)).to_ne_bytes()
}

/// The checksum of `bytes`, in which the field for it is 0.
#[inline(always)]
#[must_use]
pub const fn of(bytes: &[u8]) -> [u8; 2] {
    fold(sum(bytes))
}

/// The same of words as they stand in memory.
#[inline(always)]
#[must_use]
pub const fn of_words(words: &[u32]) -> [u8; 2] {
    let mut sum = 0;
    let mut i = 0;
    while i < words.len() {
        sum += words[i] as u64;
        i += 1;
    }
    // 2^32 is 1 for this sum, as 2^16 is.
    let (carried, sum) = ((sum >> 32) as u32, sum as u32);
    fold(carried + (sum >> 16) + (sum & 0xffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&bytes), (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn a_header_with_its_checksum_comes_to_zero() {
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        let checksum = of(&header);
        assert_eq!(checksum, [0xb8, 0x61]);
        [header[10], header[11]] = checksum;
        assert_eq!(of(&header), [0, 0]);
    }

    #[test]
    fn words_come_to_what_their_bytes_come_to() {
        let words = [0x0102_0304, u32::MAX, 0, 0xffff_0000, 0x8000_ffff, 1];
        let bytes = words.map(u32::to_ne_bytes);
        for length in 0..=words.len() {
            let bytes = bytes[..length].as_flattened();
            assert_eq!(of_words(&words[..length]), of(bytes), "{length}");
        }
        assert_eq!(of_words(&[u32::MAX; 1000]), [0, 0]);
    }

    #[test]
    fn an_odd_byte_at_the_end_is_padded() {
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3, 0]));
        assert_eq!(of(&[]), [0xff, 0xff]);
    }

    #[test]
    fn carries_are_folded_twice() {
        assert_eq!(fold(0x1_ffff), 0xfffe_u16.to_ne_bytes());
        assert_eq!(fold(u32::MAX), [0, 0]);
    }
}
