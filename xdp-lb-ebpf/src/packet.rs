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

/// A packet with its flow: TCP, UDP, or an ICMP error about one of those. Not yet known to be for a
/// service.
pub(crate) struct Packet<A> {
    pub(crate) flow: FlowKey<A>,
    /// Where the transport header begins, from the start of the frame.
    transport: usize,
    /// Bytes of the IP packet from there on.
    transport_length: usize,
    has_more_fragments: bool,
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
    has_more_fragments: bool,
}

/// Reads an IPv4 packet that begins at `start`, up to the ports.
#[inline(always)]
pub(crate) fn ipv4(frame: &Frame<'_>, start: usize) -> Result<Packet<[u8; 4]>, PassReason> {
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
    let fragment = u16::from_be_bytes(ip.frags);
    if !transport::is_known(ip.proto) && !icmp::is_icmp(ip.proto) {
        return Err(PassReason::OtherProtocol);
    }
    if fragment & FRAGMENT_OFFSET != 0 {
        return Err(PassReason::LaterFragment);
    }
    let payload = Payload {
        protocol: ip.proto,
        offset: start + header_length,
        length: total_length - header_length,
        has_more_fragments: fragment & MORE_FRAGMENTS != 0,
    };
    if icmp::is_icmp(payload.protocol) {
        let flow = icmp::flow_v4(frame, payload.offset, ip.dst_addr)?;
        return Ok(Packet::icmp_error(flow, payload));
    }
    with_ports(frame, ip.src_addr, ip.dst_addr, payload)
}

/// Reads an IPv6 packet that begins at `start`, up to the ports.
#[inline(always)]
pub(crate) fn ipv6(frame: &Frame<'_>, start: usize) -> Result<Packet<[u8; 16]>, PassReason> {
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
    if icmp::is_icmp_v6(payload.protocol) {
        let flow = icmp::flow_v6(frame, payload.offset, ip.dst_addr)?;
        return Ok(Packet::icmp_error(flow, payload));
    }
    with_ports(frame, ip.src_addr, ip.dst_addr, payload)
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
    let mut has_more_fragments = false;
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
                let fragment = u16::from_be_bytes([high, low]);
                if fragment & FRAGMENT_OFFSET_V6 != 0 {
                    return Err(PassReason::LaterFragment);
                }
                has_more_fragments |= fragment & MORE_FRAGMENTS_V6 != 0;
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
        has_more_fragments,
    })
}

/// True for what may stand behind IPv6's headers and is looked at.
#[inline(always)]
fn is_read(protocol: u8) -> bool {
    transport::is_known(protocol) || icmp::is_icmp_v6(protocol)
}

#[inline(always)]
fn with_ports<A>(
    frame: &Frame<'_>,
    source: A,
    destination: A,
    payload: Payload,
) -> Result<Packet<A>, PassReason> {
    if payload.length < size_of::<[u8; 4]>() {
        return Err(PassReason::Truncated);
    }
    let [a, b, c, d]: [u8; 4] = frame.read(payload.offset).ok_or(PassReason::Truncated)?;
    Ok(Packet {
        flow: FlowKey {
            source,
            destination,
            source_port_be: [a, b],
            destination_port_be: [c, d],
            protocol: payload.protocol,
            reserved: [0; 3],
        },
        transport: payload.offset,
        transport_length: payload.length,
        has_more_fragments: payload.has_more_fragments,
        is_icmp_error: false,
    })
}

impl<A> Packet<A> {
    #[inline(always)]
    fn icmp_error(flow: FlowKey<A>, payload: Payload) -> Self {
        Self {
            flow,
            transport: payload.offset,
            transport_length: payload.length,
            has_more_fragments: payload.has_more_fragments,
            is_icmp_error: true,
        }
    }

    /// Reads the transport header of a packet that is for a service.
    #[inline(always)]
    pub(crate) fn segment(&self, frame: &Frame<'_>) -> Result<Segment, DropReason> {
        if self.has_more_fragments {
            return Err(DropReason::FirstFragment);
        }
        if self.is_icmp_error {
            return Ok(Segment::Quotes);
        }
        if self.flow.protocol == IpProto::Udp as u8 {
            transport::udp(frame, self.transport, self.transport_length)
        } else {
            transport::tcp(frame, self.transport, self.transport_length)
        }
    }
}
