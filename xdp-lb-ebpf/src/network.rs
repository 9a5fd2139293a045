//! IPv4 and IPv6: what a packet is, as far as balancing needs it.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use xdp_lb_common::{
    abi::{FlowKey, is_mapped},
    counters::PassReason,
};

use crate::{
    frame::Frame,
    icmp,
    outcome::{Outcome, Status},
    packet::{Family, Fragment, Packet},
    path::Path,
    transport,
};

/// IPv4's first byte, where no options follow.
const WITHOUT_OPTIONS: u8 = 0x45;
/// RFC 791: where these bits are set a packet is not the first fragment, or not the last.
pub(crate) const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
/// RFC 791: routers may not fragment the packet.
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
/// RFC 8200, section 4.5: the same in IPv6's fragment header.
const FRAGMENT_OFFSET_V6: u16 = 0xfff8;
const MORE_FRAGMENTS_V6: u16 = 0x0001;

/// IPv6 extension headers, by the numbers in front of them.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The most IPv6 extension headers that are read. RFC 8200 has six kinds, of which one may come
/// twice; real packets have one or two.
const EXTENSION_HEADERS: usize = 6;
/// The most bytes of extension headers that are read: beyond, the verifier could not follow.
const EXTENSION_BYTES: usize = 1024;

/// Reads the IPv4 packet behind the link header, up to the ports.
#[inline(always)]
pub(crate) fn ipv4<P: Path>(frame: &Frame, packet: &mut Packet) -> Status {
    let start = packet.network();
    let ip: Ipv4Hdr = frame.read(start).ok_or(PassReason::Truncated)?;
    if ip.vihl != WITHOUT_OPTIONS {
        P::rare()?;
    }
    let header_length = usize::from(ip.vihl & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes(ip.tot_len));
    if ip.vihl >> 4 != 4
        || header_length < Ipv4Hdr::LEN
        || total_length < header_length
        || total_length > left(packet, start)
    {
        return Err(PassReason::Truncated.into());
    }
    let is_icmp = icmp::is_icmp(ip.proto);
    if !transport::is_known(ip.proto) && !is_icmp {
        return Err(PassReason::OtherProtocol.into());
    }
    let flags = u16::from_be_bytes(ip.frags);
    if is_icmp || flags & (FRAGMENT_OFFSET | MORE_FRAGMENTS) != 0 {
        P::rare()?;
    }
    packet.family = Family::V4;
    packet.flow_family = Family::V4;
    packet.ip_length = total_length as u32;
    packet.traffic_class = ip.tos;
    packet.is_unfragmentable = flags & DONT_FRAGMENT != 0;
    packet.is_icmp_error = is_icmp;
    packet.fragment_id = u32::from(u16::from_ne_bytes(ip.id));
    packet.fragment = if flags & FRAGMENT_OFFSET != 0 {
        Fragment::Later
    } else if flags & MORE_FRAGMENTS != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
    let transport = start + header_length;
    packet.set_transport(transport);
    packet.transport_length = (total_length - header_length) as u32;
    packet.flow_v4 = FlowKey::without_ports(ip.src_addr, ip.dst_addr, ip.proto);
    if packet.fragment == Fragment::Later {
        return Ok(());
    }
    if is_icmp {
        return icmp::read_v4(frame, packet, transport);
    }
    let (source_port_be, destination_port_be) = ports(frame, packet, transport)?;
    packet.flow_v4.source_port_be = source_port_be;
    packet.flow_v4.destination_port_be = destination_port_be;
    Ok(())
}

/// Reads the IPv6 packet behind the link header, up to the ports.
#[inline(always)]
pub(crate) fn ipv6<P: Path>(frame: &Frame, packet: &mut Packet) -> Status {
    let start = packet.network();
    let ip: Ipv6Hdr = frame.read(start).ok_or(PassReason::Truncated)?;
    let payload_length = usize::from(u16::from_be_bytes(ip.payload_len));
    if ip.vcf[0] >> 4 != 6 || payload_length > left(packet, start + Ipv6Hdr::LEN) {
        return Err(PassReason::Truncated.into());
    }
    // They stand for IPv4 ones in the maps, and on the wire they mean nothing.
    if is_mapped(&ip.dst_addr) {
        return Err(PassReason::NoService.into());
    }
    packet.family = Family::V6;
    packet.flow_family = Family::V6;
    packet.ip_length = (Ipv6Hdr::LEN + payload_length) as u32;
    packet.traffic_class = ip.vcf[0] << 4 | ip.vcf[1] >> 4;
    packet.is_unfragmentable = true;
    packet.flow_v6 = FlowKey::without_ports(ip.src_addr, ip.dst_addr, 0);
    let start = start + Ipv6Hdr::LEN;
    if !transport::is_known(ip.next_hdr) {
        P::rare()?;
    }
    let transport = start + skip_extensions(frame, packet, start, ip.next_hdr, payload_length)?;
    packet.set_transport(transport);
    if packet.fragment == Fragment::Later {
        return Ok(());
    }
    packet.is_icmp_error = icmp::is_icmp_v6(packet.flow_v6.protocol);
    if packet.is_icmp_error {
        return icmp::read_v6(frame, packet, transport);
    }
    let (source_port_be, destination_port_be) = ports(frame, packet, transport)?;
    packet.flow_v6.source_port_be = source_port_be;
    packet.flow_v6.destination_port_be = destination_port_be;
    Ok(())
}

/// Bytes of the frame from `offset` on, where at least that many have been read.
#[inline(always)]
fn left(packet: &Packet, offset: usize) -> usize {
    packet.length.wrapping_sub(offset as u32) as usize
}

/// Goes through the extension headers (RFC 8200, section 4); returns their bytes. Notes the protocol
/// behind them, the length of what is behind them, and what a fragment header says.
#[inline(always)]
fn skip_extensions(
    frame: &Frame,
    packet: &mut Packet,
    start: usize,
    first: u8,
    length: usize,
) -> Result<usize, Outcome> {
    /// Bytes (RFC 8200, section 4; RFC 4302 has the same for IPv6).
    const SHORTEST_EXTENSION: usize = 8;

    let mut protocol = first;
    let mut skipped = 0;
    packet.fragment = Fragment::Whole;
    for _ in 0..EXTENSION_HEADERS {
        if is_read(protocol) {
            break;
        }
        if !is_extension(protocol) {
            return Err(PassReason::OtherProtocol.into());
        }
        if skipped > EXTENSION_BYTES {
            return Err(PassReason::TooManyHeaders.into());
        }
        // None is shorter. What is behind the packet in the frame is not read.
        if skipped + SHORTEST_EXTENSION > length {
            return Err(PassReason::Truncated.into());
        }
        let header: [u8; 4] = frame.read(start + skipped).ok_or(PassReason::Truncated)?;
        let [next, size, high, low] = header;
        skipped += match protocol {
            FRAGMENT => {
                let flags = u16::from_be_bytes([high, low]);
                let id: [u8; 4] = frame
                    .read(start + skipped + 4)
                    .ok_or(PassReason::Truncated)?;
                packet.fragment_id = u32::from_ne_bytes(id);
                if flags & FRAGMENT_OFFSET_V6 != 0 {
                    packet.fragment = Fragment::Later;
                    packet.flow_v6.protocol = next;
                    packet.is_icmp_error = false;
                    return Ok(skipped);
                }
                if flags & MORE_FRAGMENTS_V6 != 0 {
                    packet.fragment = Fragment::First;
                }
                8
            }
            AUTHENTICATION => (usize::from(size) + 2) * 4,
            _ => (usize::from(size) + 1) * 8,
        };
        protocol = next;
    }
    if !is_read(protocol) || skipped > EXTENSION_BYTES {
        return Err(PassReason::TooManyHeaders.into());
    }
    if skipped > length {
        return Err(PassReason::Truncated.into());
    }
    packet.flow_v6.protocol = protocol;
    packet.transport_length = (length - skipped) as u32;
    Ok(skipped)
}

/// True for the IPv6 extension headers that are read.
#[inline(always)]
pub(crate) fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
    )
}

/// True for what may stand behind IPv6's headers and is looked at.
#[inline(always)]
fn is_read(protocol: u8) -> bool {
    transport::is_known(protocol) || icmp::is_icmp_v6(protocol)
}

/// Source and destination port.
#[inline(always)]
fn ports(frame: &Frame, packet: &Packet, at: usize) -> Result<([u8; 2], [u8; 2]), Outcome> {
    if packet.transport_length < 4 {
        return Err(PassReason::Truncated.into());
    }
    let [a, b, c, d]: [u8; 4] = frame.read(at).ok_or(PassReason::Truncated)?;
    Ok(([a, b], [c, d]))
}
