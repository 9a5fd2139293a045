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
    transport::UDP_HEADER,
};

/// Time to live, or hop limit, of the outer header (RFC 1700's recommendation).
const HOPS: u8 = 64;

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
    source: [u8; 4],
    destination: [u8; 4],
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
    let mut header = [0; Ipv4Hdr::LEN];
    header[0] = 0x45;
    header[1] = packet.traffic_class;
    [header[2], header[3]] = (length as u16).to_be_bytes();
    [header[4], header[5]] = id.to_be_bytes();
    [header[6], header[7]] = flags.to_be_bytes();
    header[8] = HOPS;
    header[9] = protocol(packet, kind);
    [header[12], header[13], header[14], header[15]] = source;
    [header[16], header[17], header[18], header[19]] = destination;
    [header[10], header[11]] = checksum::of(&header);
    frame.write(at, header).ok_or(DropReason::NoRoom)?;
    udp(&frame, packet, kind, at + Ipv4Hdr::LEN)
}

/// Puts the packet into one of IPv6.
#[inline(always)]
pub(crate) fn v6(
    frame: Frame,
    packet: &Packet,
    kind: Kind,
    source: &[u8; 16],
    destination: &[u8; 16],
) -> Result<(), Outcome> {
    let (frame, at) = open(frame, packet, Family::V6, kind)?;
    let length = packet.ip_length + overhead(Family::V6, kind) - Ipv6Hdr::LEN as u32;
    let [_, label, b, c] = packet.entropy.to_be_bytes();
    let [d, e] = (length as u16).to_be_bytes();
    let start = [
        0x60 | packet.traffic_class >> 4,
        packet.traffic_class << 4 | label & 0x0f,
        b,
        c,
        d,
        e,
        protocol(packet, kind),
        HOPS,
    ];
    frame.write(at, start).ok_or(DropReason::NoRoom)?;
    frame.write(at + 8, *source).ok_or(DropReason::NoRoom)?;
    frame
        .write(at + 24, *destination)
        .ok_or(DropReason::NoRoom)?;
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
fn protocol(packet: &Packet, kind: Kind) -> u8 {
    match (kind, packet.family) {
        (Kind::Gue, _) => IpProto::Udp as u8,
        (Kind::Ipip, Family::V4) => IpProto::Ipv4 as u8,
        (Kind::Ipip, Family::V6) => IpProto::Ipv6 as u8,
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
    let [a, b] = (0xc000 | packet.entropy as u16 & 0x3fff).to_be_bytes();
    let [c, d] = GUE_PORT.load();
    let [e, f] = ((packet.ip_length + UDP_HEADER as u32) as u16).to_be_bytes();
    frame
        .write(at, [a, b, c, d, e, f, 0, 0])
        .ok_or(DropReason::NoRoom)?;
    Ok(())
}
