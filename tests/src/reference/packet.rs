//! What a frame is: Ethernet with up to two tags, IPv4 (RFC 791) or IPv6 with extension headers
//! (RFC 8200), and what is behind them.

use std::net::IpAddr;

use xdp_lb_common::counters::PassReason;

/// IP protocol number.
pub(super) const ICMP: u8 = 1;
/// IP protocol number.
pub(super) const TCP: u8 = 6;
/// IP protocol number.
pub(super) const UDP: u8 = 17;
/// IP protocol number.
pub(super) const ICMP_V6: u8 = 58;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
const ETHER_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// A packet, taken apart.
pub(super) struct Packet<'a> {
    /// The link header: addresses, tags, type.
    pub(super) link: &'a [u8],
    /// All that is behind the link header, padding included.
    pub(super) behind_link: &'a [u8],
    /// The IP packet, and nothing else.
    pub(super) ip: &'a [u8],
    pub(super) traffic_class: u8,
    /// Routers must not fragment it.
    pub(super) unfragmentable: bool,
    pub(super) part: Part,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// What the IP packet has behind its headers. Empty in a later fragment.
    pub(super) payload: &'a [u8],
}

/// Which part of a packet a packet is.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Whole,
    /// The first fragment, of the packet with this identification.
    First {
        id: u32,
    },
    /// Another.
    Later {
        id: u32,
    },
}

/// The number in the two bytes at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The IP address of so many bytes at `at`.
pub(super) fn address<const N: usize>(bytes: &[u8], at: usize) -> IpAddr
where
    IpAddr: From<[u8; N]>,
{
    let bytes: [u8; N] = bytes[at..at + N]
        .try_into()
        .expect("a slice of this length");
    bytes.into()
}

impl<'a> Packet<'a> {
    /// Takes a frame apart, as far as the IP headers go.
    pub(super) fn parse(frame: &'a [u8]) -> Result<Self, PassReason> {
        let mut link = 14;
        let mut ether_type = u16_at(frame, 12).ok_or(PassReason::Truncated)?;
        for _ in 0..2 {
            if ETHER_TAGS.contains(&ether_type) {
                ether_type = u16_at(frame, link + 2).ok_or(PassReason::Truncated)?;
                link += 4;
            }
        }
        let (link, behind) = frame.split_at(link);
        match ether_type {
            ETHER_IPV4 => Self::parse_v4(link, behind),
            ETHER_IPV6 => Self::parse_v6(link, behind),
            _ => Err(PassReason::NotIp),
        }
    }

    fn parse_v4(link: &'a [u8], behind: &'a [u8]) -> Result<Self, PassReason> {
        if behind.len() < 20 || behind[0] >> 4 != 4 {
            return Err(PassReason::Truncated);
        }
        let header = usize::from(behind[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([behind[2], behind[3]]));
        if header < 20 || total < header || total > behind.len() {
            return Err(PassReason::Truncated);
        }
        let protocol = behind[9];
        if ![ICMP, TCP, UDP].contains(&protocol) {
            return Err(PassReason::OtherProtocol);
        }
        let ip = &behind[..total];
        let id = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
        let (offset, more) = (
            u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff,
            ip[6] & 0x20 != 0,
        );
        let part = match (offset, more) {
            (0, false) => Part::Whole,
            (0, true) => Part::First { id },
            _ => Part::Later { id },
        };
        Ok(Self {
            link,
            behind_link: behind,
            ip,
            traffic_class: ip[1],
            unfragmentable: ip[6] & 0x40 != 0,
            part,
            source: address::<4>(ip, 12),
            destination: address::<4>(ip, 16),
            protocol,
            payload: &ip[header..],
        })
    }

    fn parse_v6(link: &'a [u8], behind: &'a [u8]) -> Result<Self, PassReason> {
        if behind.len() < 40 || behind[0] >> 4 != 6 {
            return Err(PassReason::Truncated);
        }
        let payload = usize::from(u16::from_be_bytes([behind[4], behind[5]]));
        let ip = behind.get(..40 + payload).ok_or(PassReason::Truncated)?;
        let destination = address::<16>(ip, 24);
        if is_mapped(destination) {
            return Err(PassReason::NoService);
        }
        let headers = Extensions::read(ip[6], &ip[40..])?;
        Ok(Self {
            link,
            behind_link: behind,
            ip,
            traffic_class: ip[0] << 4 | ip[1] >> 4,
            unfragmentable: true,
            part: headers.part,
            source: address::<16>(ip, 8),
            destination,
            protocol: headers.protocol,
            payload: headers.behind,
        })
    }

    /// True where the packet is one of IPv4.
    pub(super) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }
}

/// True for an IPv4-mapped IPv6 address, which on the wire is nobody's.
pub(super) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// What IPv6's extension headers say.
struct Extensions<'a> {
    part: Part,
    /// What is behind the last, or behind the header of a later fragment.
    protocol: u8,
    behind: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// How many are read.
    const MOST: usize = 6;
    /// Bytes of them that are read.
    const MOST_BYTES: usize = 1024;

    fn read(first: u8, payload: &'a [u8]) -> Result<Self, PassReason> {
        let (mut kind, mut skipped, mut part) = (first, 0, Part::Whole);
        for _ in 0..Self::MOST {
            if [TCP, UDP, ICMP_V6].contains(&kind) {
                break;
            }
            if ![0, 43, 44, 51, 60].contains(&kind) {
                return Err(PassReason::OtherProtocol);
            }
            if skipped > Self::MOST_BYTES {
                return Err(PassReason::TooManyHeaders);
            }
            // No extension header is shorter than eight bytes.
            let start = payload.get(skipped..).ok_or(PassReason::Truncated)?;
            let header = start.get(..8).ok_or(PassReason::Truncated)?;
            let words = usize::from(header[1]);
            skipped += match kind {
                44 => 8,
                51 => (words + 2) * 4,
                _ => (words + 1) * 8,
            };
            if kind == 44 {
                let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let flags = u16::from_be_bytes([header[2], header[3]]);
                if flags & 0xfff8 != 0 {
                    return Ok(Self {
                        part: Part::Later { id },
                        protocol: header[0],
                        behind: &[],
                    });
                }
                part = match part {
                    // A second fragment header that says nothing does not unsay the first.
                    Part::First { .. } => Part::First { id },
                    _ if flags & 1 != 0 => Part::First { id },
                    _ => Part::Whole,
                };
            }
            kind = header[0];
        }
        if ![TCP, UDP, ICMP_V6].contains(&kind) || skipped > Self::MOST_BYTES {
            return Err(PassReason::TooManyHeaders);
        }
        Ok(Self {
            part,
            protocol: kind,
            behind: payload.get(skipped..).ok_or(PassReason::Truncated)?,
        })
    }
}
