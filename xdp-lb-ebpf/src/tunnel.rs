//! Tunnels: the packet as it is, behind another IP header (RFC 2003, RFC 2473, RFC 4213), and with
//! `gue` a UDP header between them (variant 1 of draft-ietf-intarea-gue).

use aya_ebpf::helpers::bpf_get_prandom_u32;
use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use xdp_lb_common::{checksum, counters::DropReason};

use crate::{
    frame::Frame,
    link,
    maps::GUE_PORT,
    network::DONT_FRAGMENT,
    outcome::Outcome,
    packet::{Family, Packet},
    send::Words,
    transport::UDP_HEADER,
};

/// Time to live, or hop limit, of the outer header (RFC 1700's recommendation).
const HOPS: u32 = 64;

/// What stands between the outer IP header and the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Ipip,
    /// A UDP header.
    Gue,
}

/// Bytes that a tunnel adds in front of the packet; `family` is that of the outer header.
#[inline(always)]
pub(crate) const fn overhead(family: Family, kind: Kind) -> u32 {
    let ip = match family {
        Family::V4 => Ipv4Hdr::LEN,
        Family::V6 => Ipv6Hdr::LEN,
    };
    match kind {
        Kind::Ipip => ip as u32,
        Kind::Gue => (ip + UDP_HEADER) as u32,
    }
}

/// Puts the packet into one of IPv4.
#[inline(always)]
pub(crate) fn v4(
    frame: Frame,
    packet: &Packet,
    kind: Kind,
    source: u32,
    destination: u32,
) -> Result<(), Outcome> {
    let (frame, at) = open(frame, packet, Family::V4, kind)?;
    let length = packet.ip_length + overhead(Family::V4, kind);
    // Routers on the way fragment what they may fragment; to put that together takes an
    // identification (RFC 6864).
    let (id, flags) = if packet.is_unfragmentable {
        (0, DONT_FRAGMENT)
    } else {
        // SAFETY: takes no argument and has no precondition.
        (unsafe { bpf_get_prandom_u32() } as u16, 0)
    };
    let mut header = [
        (0x45 << 24 | u32::from(packet.traffic_class) << 16 | length & 0xffff).to_be(),
        (u32::from(id) << 16 | u32::from(flags)).to_be(),
        (HOPS << 24 | protocol(packet, kind) << 16).to_be(),
        source,
        destination,
    ];
    let [a, b] = checksum::of_words(&header);
    header[2] |= u32::from_ne_bytes([0, 0, a, b]);
    frame.write(at, header).ok_or(DropReason::NoRoom)?;
    udp(&frame, packet, kind, at + Ipv4Hdr::LEN)
}

/// Puts the packet into one of IPv6.
#[inline(always)]
pub(crate) fn v6(
    frame: Frame,
    packet: &Packet,
    kind: Kind,
    source: Words,
    destination: Words,
) -> Result<(), Outcome> {
    let (frame, at) = open(frame, packet, Family::V6, kind)?;
    let length = packet.ip_length + overhead(Family::V6, kind) - Ipv6Hdr::LEN as u32;
    let label = packet.entropy & 0xf_ffff;
    let [a, b, c, d] = source;
    let [e, f, g, h] = destination;
    let header = [
        (6 << 28 | u32::from(packet.traffic_class) << 20 | label).to_be(),
        (length << 16 | protocol(packet, kind) << 8 | HOPS).to_be(),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ];
    frame.write(at, header).ok_or(DropReason::NoRoom)?;
    udp(&frame, packet, kind, at + Ipv6Hdr::LEN)
}

/// Makes room for the outer headers and writes the link header; returns where the outer IP header is
/// to be.
#[inline(always)]
fn open(
    frame: Frame,
    packet: &Packet,
    family: Family,
    kind: Kind,
) -> Result<(Frame, usize), Outcome> {
    let link = link::length(&packet.way);
    let frame = frame
        .resize_head(packet.network(), link + overhead(family, kind) as usize)
        .ok_or(DropReason::NoRoom)?;
    let ether_type = match family {
        Family::V4 => link::IPV4,
        Family::V6 => link::IPV6,
    };
    link::write(&frame, &packet.way, ether_type).ok_or(DropReason::NoRoom)?;
    Ok((frame, link))
}

/// IP protocol number of what is behind the outer IP header.
#[inline(always)]
fn protocol(packet: &Packet, kind: Kind) -> u32 {
    match (kind, packet.family) {
        (Kind::Gue, _) => IpProto::Udp as u32,
        (Kind::Ipip, Family::V4) => IpProto::Ipv4 as u32,
        (Kind::Ipip, Family::V6) => IpProto::Ipv6 as u32,
    }
}

/// Writes the UDP header, where there is one. Its source port is one of the dynamic ports (RFC 6335),
/// by the flow, so that routers spread flows. It has no checksum, which RFC 6935 allows over IPv6 too:
/// the packet within has its own.
#[inline(always)]
fn udp(frame: &Frame, packet: &Packet, kind: Kind, at: usize) -> Result<(), Outcome> {
    if kind == Kind::Ipip {
        return Ok(());
    }
    let header = [
        (0xc000 | packet.entropy as u16 & 0x3fff).to_be(),
        u16::from_ne_bytes(GUE_PORT.load()),
        ((packet.ip_length + UDP_HEADER as u32) as u16).to_be(),
        0,
    ];
    frame.write(at, header).ok_or(DropReason::NoRoom)?;
    Ok(())
}
