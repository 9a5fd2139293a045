//! What a packet is: the headers, as far as balancing needs them.

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use xdp_lb_common::{
    abi::FlowKey,
    counters::{DropReason, PassReason},
};

use crate::{frame::Frame, icmp, transport};

/// RFC 791: where these bits are set a packet is not the first fragment, or not the last.
const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
/// RFC 8200, section 4.5: the same in IPv6's fragment header.
const FRAGMENT_OFFSET_V6: u16 = 0xfff8;
const MORE_FRAGMENTS_V6: u16 = 0x0001;

/// The most IPv6 extension headers that are read. RFC 8200 has six kinds, of which one may come
/// twice; real packets have one or two.
const EXTENSION_HEADERS: usize = 6;
/// The most bytes of extension headers that are read: beyond, the verifier could not follow.
const EXTENSION_BYTES: usize = 1024;

/// What was read of a packet.
pub(crate) enum Parsed<A> {
    /// It has ports.
    Packet(Packet<A>),
    /// It is a later fragment.
    Later(Fragment<A>),
}

/// What the fragments of a packet have in common.
#[derive(Clone, Copy)]
pub(crate) struct Fragment<A> {
    pub(crate) source: A,
    pub(crate) destination: A,
    /// As it stands in the header.
    pub(crate) id: u32,
    pub(crate) protocol: u8,
}

/// A packet with its flow: TCP, UDP, or an ICMP error about one of those. Not yet known to be for a
/// service.
pub(crate) struct Packet<A> {
    pub(crate) flow: FlowKey<A>,
    /// Where the transport header begins, from the start of the frame.
    transport: usize,
    /// Bytes of the IP packet from there on.
    transport_length: usize,
    /// Its identification, where it is the first fragment of several.
    pub(crate) first_of: Option<u32>,
    is_icmp_error: bool,
}

/// What a packet does to its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// SYN without ACK: opens it.
    Opens,
    /// FIN or RST: ends it.
    Ends,
    /// Anything else, UDP always.
    Continues,
    /// Nothing: it is an ICMP error about one of its packets.
    Quotes,
}

/// What the network header says of what is behind it.
#[derive(Clone, Copy)]
struct Payload {
    protocol: u8,
    offset: usize,
    length: usize,
    fragment: FragmentKind,
}

/// Which fragment a packet is, with its identification.
#[derive(Clone, Copy)]
enum FragmentKind {
    Whole,
    First(u32),
    Later(u32),
}

/// Reads an IPv4 packet that begins at `start`, up to the ports.
#[inline(always)]
pub(crate) fn ipv4(frame: &Frame<'_>, start: usize) -> Result<Parsed<[u8; 4]>, PassReason> {
    let ip: Ipv4Hdr = frame.read(start).ok_or(PassReason::Truncated)?;
    let header_length = usize::from(ip.vihl & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes(ip.tot_len));
    if ip.vihl >> 4 != 4
        || header_length < Ipv4Hdr::LEN
        || total_length < header_length
        || total_length > frame.length() - start
    {
        return Err(PassReason::Truncated);
    }
    if !transport::is_known(ip.proto) && !icmp::is_icmp(ip.proto) {
        return Err(PassReason::OtherProtocol);
    }
    let flags = u16::from_be_bytes(ip.frags);
    let id = u32::from(u16::from_ne_bytes(ip.id));
    let payload = Payload {
        protocol: ip.proto,
        offset: start + header_length,
        length: total_length - header_length,
        fragment: if flags & FRAGMENT_OFFSET != 0 {
            FragmentKind::Later(id)
        } else if flags & MORE_FRAGMENTS != 0 {
            FragmentKind::First(id)
        } else {
            FragmentKind::Whole
        },
    };
    let (source, destination) = (ip.src_addr, ip.dst_addr);
    with_payload(frame, source, destination, payload, |frame| {
        if !icmp::is_icmp(payload.protocol) {
            return None;
        }
        Some(icmp::flow_v4(frame, payload.offset, destination))
    })
}

/// Reads an IPv6 packet that begins at `start`, up to the ports.
#[inline(always)]
pub(crate) fn ipv6(frame: &Frame<'_>, start: usize) -> Result<Parsed<[u8; 16]>, PassReason> {
    let ip: Ipv6Hdr = frame.read(start).ok_or(PassReason::Truncated)?;
    let payload_length = usize::from(u16::from_be_bytes(ip.payload_len));
    if ip.vcf[0] >> 4 != 6 || payload_length > frame.length() - start - Ipv6Hdr::LEN {
        return Err(PassReason::Truncated);
    }
    // IPv4-mapped addresses stand for IPv4 ones in the maps; on the wire they mean nothing.
    if matches!(ip.dst_addr, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..]) {
        return Err(PassReason::NoService);
    }
    let start = start + Ipv6Hdr::LEN;
    let payload = behind_extensions(frame, start, ip.next_hdr, payload_length)?;
    let (source, destination) = (ip.src_addr, ip.dst_addr);
    with_payload(frame, source, destination, payload, |frame| {
        if !icmp::is_icmp_v6(payload.protocol) {
            return None;
        }
        Some(icmp::flow_v6(frame, payload.offset, destination))
    })
}

/// Goes through the extension headers (RFC 8200, section 4).
#[inline(always)]
fn behind_extensions(
    frame: &Frame<'_>,
    start: usize,
    first: u8,
    length: usize,
) -> Result<Payload, PassReason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;

    let mut protocol = first;
    let mut skipped = 0;
    let mut fragment = FragmentKind::Whole;
    for _ in 0..EXTENSION_HEADERS {
        if is_read(protocol) {
            break;
        }
        if !matches!(
            protocol,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
        ) {
            return Err(PassReason::OtherProtocol);
        }
        if skipped > EXTENSION_BYTES {
            return Err(PassReason::TooManyHeaders);
        }
        let header: [u8; 4] = frame.read(start + skipped).ok_or(PassReason::Truncated)?;
        let [next, size, high, low] = header;
        skipped += match protocol {
            FRAGMENT => {
                let flags = u16::from_be_bytes([high, low]);
                let id: [u8; 4] = frame
                    .read(start + skipped + 4)
                    .ok_or(PassReason::Truncated)?;
                let id = u32::from_ne_bytes(id);
                if flags & FRAGMENT_OFFSET_V6 != 0 {
                    return Ok(Payload {
                        protocol: next,
                        offset: start,
                        length,
                        fragment: FragmentKind::Later(id),
                    });
                }
                if flags & MORE_FRAGMENTS_V6 != 0 {
                    fragment = FragmentKind::First(id);
                }
                8
            }
            AUTHENTICATION => (usize::from(size) + 2) * 4,
            _ => (usize::from(size) + 1) * 8,
        };
        protocol = next;
    }
    if !is_read(protocol) || skipped > EXTENSION_BYTES {
        return Err(PassReason::TooManyHeaders);
    }
    if skipped > length {
        return Err(PassReason::Truncated);
    }
    Ok(Payload {
        protocol,
        offset: start + skipped,
        length: length - skipped,
        fragment,
    })
}

/// True for what may stand behind IPv6's headers and is looked at.
#[inline(always)]
fn is_read(protocol: u8) -> bool {
    transport::is_known(protocol) || icmp::is_icmp_v6(protocol)
}

/// Reads what is behind the network header: ports, or, by `icmp_error`, what an ICMP error is about.
#[inline(always)]
fn with_payload<A: Copy>(
    frame: &Frame<'_>,
    source: A,
    destination: A,
    payload: Payload,
    icmp_error: impl FnOnce(&Frame<'_>) -> Option<Result<FlowKey<A>, PassReason>>,
) -> Result<Parsed<A>, PassReason> {
    let first_of = match payload.fragment {
        FragmentKind::Later(id) => {
            let protocol = payload.protocol;
            return Ok(Parsed::Later(Fragment {
                source,
                destination,
                id,
                protocol,
            }));
        }
        FragmentKind::First(id) => Some(id),
        FragmentKind::Whole => None,
    };
    let (flow, is_icmp_error) = match icmp_error(frame) {
        Some(flow) => (flow?, true),
        None => (with_ports(frame, source, destination, payload)?, false),
    };
    Ok(Parsed::Packet(Packet {
        flow,
        transport: payload.offset,
        transport_length: payload.length,
        first_of,
        is_icmp_error,
    }))
}

#[inline(always)]
fn with_ports<A>(
    frame: &Frame<'_>,
    source: A,
    destination: A,
    payload: Payload,
) -> Result<FlowKey<A>, PassReason> {
    if payload.length < size_of::<[u8; 4]>() {
        return Err(PassReason::Truncated);
    }
    let [a, b, c, d]: [u8; 4] = frame.read(payload.offset).ok_or(PassReason::Truncated)?;
    Ok(FlowKey {
        source,
        destination,
        source_port_be: [a, b],
        destination_port_be: [c, d],
        protocol: payload.protocol,
        reserved: [0; 3],
    })
}

impl<A> Packet<A> {
    /// Reads the transport header of a packet that is for a service.
    #[inline(always)]
    pub(crate) fn segment(&self, frame: &Frame<'_>) -> Result<Segment, DropReason> {
        if self.is_icmp_error {
            // Errors are short (RFC 1812, RFC 4443); nobody fragments them.
            return if self.first_of.is_some() {
                Err(DropReason::FirstFragment)
            } else {
                Ok(Segment::Quotes)
            };
        }
        if self.flow.protocol != IpProto::Udp as u8 {
            return transport::tcp(frame, self.transport, self.transport_length);
        }
        // A first fragment states the length of the whole datagram.
        let length = if self.first_of.is_some() {
            usize::MAX
        } else {
            self.transport_length
        };
        transport::udp(frame, self.transport, length)
    }
}
