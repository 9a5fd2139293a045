//! Advertisements (RFC 9568, section 5.2).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::Serialize;
use xdp_lb_common::checksum;

/// The IP protocol number.
pub const PROTOCOL: u8 = 112;

/// Time to live, or hop limit, of every advertisement: others have passed a router.
pub const HOPS: u8 = 255;

/// The version of the protocol.
const VERSION: u8 = 3;

/// The only type of packet.
const TYPE: u8 = 1;

/// Version and type, in the first byte.
pub(super) const ADVERTISEMENT: u8 = VERSION << 4 | TYPE;

/// Bytes in front of the addresses.
const HEADER: usize = 8;

/// Largest interval, in hundredths of a second: the field has twelve bits.
const MOST_CENTISECONDS: u16 = 0xfff;

/// What one router tells the others of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Virtual router identifier: 1..=255.
    pub vrid: u8,
    /// The sender's priority; 0: it leaves; 255: it owns the addresses.
    pub priority: u8,
    /// How often it advertises, in hundredths of a second: 1..=4095.
    pub interval: Interval,
    /// The addresses of the virtual router, all of the family that the packet is sent by; at most 255.
    pub addresses: Vec<IpAddr>,
}

/// The time between two advertisements, in hundredths of a second: 1..=4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    /// So many hundredths of a second; None if there is no such interval.
    #[must_use]
    pub const fn from_centiseconds(centiseconds: u16) -> Option<Self> {
        match centiseconds {
            1..=MOST_CENTISECONDS => Some(Self(centiseconds)),
            _ => None,
        }
    }

    /// As the packet has it.
    #[must_use]
    pub const fn centiseconds(self) -> u16 {
        self.0
    }

    /// How long it is.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0) * 10)
    }
}

/// What an IPv4 packet's checksum covers. With IPv6 it always covers the pseudo-header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// The VRRP message alone, as RFC 9568 has it.
    #[default]
    Plain,
    /// A pseudo-header as well, as some routers do (keepalived up to 2.2, FRR).
    PseudoHeader,
}

/// Why a packet is not an advertisement that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// It has passed a router: its time to live is not 255.
    Hops,
    /// It is cut off, or longer than its addresses say.
    Length,
    /// Another version of VRRP.
    Version,
    /// Another type of packet.
    Type,
    /// It was damaged on its way.
    Checksum,
    /// The virtual router 0, which there is not.
    Vrid,
    /// An interval of zero.
    Interval,
    /// No address at all.
    NoAddress,
}

impl Malformed {
    /// The word for it, in counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hops => "hops",
            Self::Length => "length",
            Self::Version => "version",
            Self::Type => "type",
            Self::Checksum => "checksum",
            Self::Vrid => "vrid",
            Self::Interval => "interval",
            Self::NoAddress => "no_address",
        }
    }
}

impl Advertisement {
    /// The message as it is sent from `source` to `destination`, which are of the addresses' family.
    ///
    /// Addresses of the other family are left out, and those past the 255th.
    #[must_use]
    pub fn to_bytes(&self, source: IpAddr, destination: IpAddr, checksum: Checksum) -> Vec<u8> {
        let of_its_family = |address: &&IpAddr| address.is_ipv4() == source.is_ipv4();
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .filter(of_its_family)
            .take(255)
            .collect();
        let count = u8::try_from(addresses.len()).unwrap_or(u8::MAX);
        let [high, low] = self.interval.0.to_be_bytes();
        let mut bytes = vec![
            ADVERTISEMENT,
            self.vrid,
            self.priority,
            count,
            high,
            low,
            0,
            0,
        ];
        for address in addresses {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        let sum = checksum_of(&bytes, source, destination, checksum);
        bytes[6..8].copy_from_slice(&sum);
        bytes
    }

    /// Reads the message of an IP packet from `source` to `destination`, which are of one family. Either
    /// checksum is taken.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it, in the order of RFC 9568, section 7.1.
    pub fn parse(
        bytes: &[u8],
        hops: u8,
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Self, Malformed> {
        if hops != HOPS {
            return Err(Malformed::Hops);
        }
        let Some((header, addresses)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Malformed::Length);
        };
        let [kind, vrid, priority, count, high, low, ..] = *header;
        if kind >> 4 != VERSION {
            return Err(Malformed::Version);
        }
        if kind & 0xf != TYPE {
            return Err(Malformed::Type);
        }
        let size = if source.is_ipv4() { 4 } else { 16 };
        if addresses.len() != usize::from(count) * size {
            return Err(Malformed::Length);
        }
        // A sum over all, its own field included, is zero.
        let is_whole = |kind| checksum_of(bytes, source, destination, kind) == [0; 2];
        if !is_whole(Checksum::Plain) && !is_whole(Checksum::PseudoHeader) {
            return Err(Malformed::Checksum);
        }
        if vrid == 0 {
            return Err(Malformed::Vrid);
        }
        if count == 0 {
            return Err(Malformed::NoAddress);
        }
        // Four bits are reserved, and ignored.
        let interval = u16::from_be_bytes([high, low]) & MOST_CENTISECONDS;
        let interval = Interval::from_centiseconds(interval).ok_or(Malformed::Interval)?;
        Ok(Self {
            vrid,
            priority,
            interval,
            addresses: addresses.chunks_exact(size).filter_map(address).collect(),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// The checksum of a message.
fn checksum_of(bytes: &[u8], source: IpAddr, destination: IpAddr, kind: Checksum) -> [u8; 2] {
    // At most 8 + 255 · 16.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut summed = Vec::with_capacity(bytes.len() + 40);
    match (source, destination) {
        (IpAddr::V4(_), _) if kind == Checksum::Plain => {}
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            summed.extend(source.octets());
            summed.extend(destination.octets());
            summed.extend([0, PROTOCOL, length[2], length[3]]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            summed.extend(source.octets());
            summed.extend(destination.octets());
            summed.extend(length);
            summed.extend([0, 0, 0, PROTOCOL]);
        }
        // Not one packet.
        _ => {}
    }
    summed.extend(bytes);
    checksum::of(&summed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
    ];

    fn v6() -> [IpAddr; 2] {
        ["fe80::1", "ff02::12"].map(|text| text.parse().unwrap())
    }

    /// Version 3, VRID 51, priority 150, one address, 100 ms, 192.0.2.100: as keepalived sends it, but for
    /// the checksum, which is the one without a pseudo-header.
    const CAPTURED: [u8; 12] = [
        0x31, 0x33, 0x96, 0x01, 0x00, 0x0a, 0x76, 0x5c, 0xc0, 0x00, 0x02, 0x64,
    ];

    fn captured() -> Advertisement {
        Advertisement {
            vrid: 51,
            priority: 150,
            interval: Interval::from_centiseconds(10).unwrap(),
            addresses: vec![[192, 0, 2, 100].into()],
        }
    }

    fn parse(bytes: &[u8], [source, destination]: [IpAddr; 2]) -> Result<Advertisement, Malformed> {
        Advertisement::parse(bytes, HOPS, source, destination)
    }

    #[test]
    fn an_advertisement_of_another_router_is_read_and_written() {
        assert_eq!(parse(&CAPTURED, V4), Ok(captured()));
        let [source, destination] = V4;
        let bytes = captured().to_bytes(source, destination, Checksum::Plain);
        assert_eq!(bytes, CAPTURED);
        assert_eq!(captured().interval.duration(), Duration::from_millis(100));
    }

    #[test]
    fn either_checksum_is_taken() {
        let [source, destination] = V4;
        let bytes = captured().to_bytes(source, destination, Checksum::PseudoHeader);
        assert_ne!(bytes, CAPTURED);
        assert_eq!(parse(&bytes, V4), Ok(captured()));
        // The pseudo-header has the addresses in it.
        let other = [source, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9))];
        assert_eq!(parse(&bytes, other), Err(Malformed::Checksum));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let with = |at: usize, value: u8| {
            let mut bytes = CAPTURED.to_vec();
            bytes[at] = value;
            // With the right sum all the same.
            bytes[6..8].fill(0);
            let sum = checksum::of(&bytes);
            bytes[6..8].copy_from_slice(&sum);
            parse(&bytes, V4)
        };
        assert_eq!(with(0, 0x21), Err(Malformed::Version));
        assert_eq!(with(0, 0x32), Err(Malformed::Type));
        assert_eq!(with(1, 0), Err(Malformed::Vrid));
        assert_eq!(with(3, 2), Err(Malformed::Length));
        assert_eq!(with(3, 0), Err(Malformed::Length));
        assert_eq!(with(5, 0), Err(Malformed::Interval));
        assert!(with(4, 0xf0).is_ok(), "reserved bits are ignored");
        let hops = Advertisement::parse(&CAPTURED, 254, V4[0], V4[1]);
        assert_eq!(hops, Err(Malformed::Hops));
        for length in 0..CAPTURED.len() {
            assert_eq!(parse(&CAPTURED[..length], V4), Err(Malformed::Length));
        }
        for bit in 0..CAPTURED.len() * 8 {
            let mut bytes = CAPTURED;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes, V4).is_err(), "bit {bit}");
        }
        let none = [0x31, 51, 150, 0, 0, 10, 0, 0];
        let mut bytes = none.to_vec();
        let sum = checksum::of(&none);
        bytes[6..].copy_from_slice(&sum);
        assert_eq!(parse(&bytes, V4), Err(Malformed::NoAddress));
    }

    fn advertisement(is_v4: bool) -> impl Strategy<Value = Advertisement> {
        let address = any::<u128>().prop_map(move |bits| {
            if is_v4 {
                IpAddr::V4(Ipv4Addr::from_bits((bits >> 96) as u32))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            }
        });
        let addresses = proptest::collection::vec(address, 1..=255);
        (
            1_u8..=255,
            any::<u8>(),
            1_u16..=MOST_CENTISECONDS,
            addresses,
        )
            .prop_map(|(vrid, priority, interval, addresses)| Advertisement {
                vrid,
                priority,
                interval: Interval(interval),
                addresses,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (is_v4, advertisement) in any::<bool>().prop_flat_map(|it| (Just(it), advertisement(it))),
            with_pseudo_header: bool,
        ) {
            let hosts = if is_v4 { V4 } else { v6() };
            let kind = if with_pseudo_header { Checksum::PseudoHeader } else { Checksum::Plain };
            let bytes = advertisement.to_bytes(hosts[0], hosts[1], kind);
            prop_assert_eq!(parse(&bytes, hosts), Ok(advertisement));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            is_v4: bool,
        ) {
            let hosts = if is_v4 { V4 } else { v6() };
            if let Ok(read) = parse(&bytes, hosts) {
                prop_assert!(read.vrid > 0 && !read.addresses.is_empty());
            }
        }
    }
}
