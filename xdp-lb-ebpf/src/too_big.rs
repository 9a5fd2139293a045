//! Packets that do not fit the way to their backend: the client is told the size that does, from the
//! VIP (RFC 1191, RFC 8201), as a router on the way would.

use aya_ebpf::bindings::xdp_md;
use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use xdp_lb_common::{
    abi::Budget,
    checksum,
    counters::{DropReason, Event},
};

use crate::{
    budget, counters,
    frame::Frame,
    link::{MACS, TAG},
    network::DONT_FRAGMENT,
    outcome::Outcome,
    packet::{Family, Fragment, Packet},
    time,
};

/// Bytes of the packet that are quoted. RFC 1812 wants as many as keep the message within 576 bytes,
/// RFC 4443 within 1280; the kernel sums up 512 at once.
const QUOTED: usize = 512;
/// Bytes of an ICMP header, in both versions.
const ICMP: usize = 8;
/// Time to live, or hop limit.
const HOPS: u8 = 64;

/// Makes of the packet a message to its sender that `mtu` bytes would fit.
#[inline(never)]
pub(crate) fn answer(ctx: *mut xdp_md, packet: &Packet, mtu: u32) -> Outcome {
    let frame = Frame::new(ctx);
    // No message about a message, nor about a later fragment (RFC 1122, section 3.2.2); and one that
    // cannot be quoted in full is of a way with an MTU that nobody has.
    let can_be = !packet.is_icmp_error
        && packet.fragment != Fragment::Later
        && packet.ip_length as usize >= QUOTED;
    if !can_be || !budget::take(&frame, Budget::Answers, time::now()) {
        counters::event(Event::TooBigNotSent);
        return DropReason::TooBig.into();
    }
    let written = match packet.family {
        Family::V4 => v4(frame, packet, mtu),
        Family::V6 => v6(frame, packet, mtu),
    };
    if written.is_none() {
        counters::event(Event::TooBigNotSent);
        return DropReason::TooBig.into();
    }
    counters::event(Event::TooBigSent);
    Outcome::answer(DropReason::TooBig)
}

/// Destination unreachable, fragmentation needed (RFC 792, RFC 1191).
#[inline(always)]
fn v4(frame: Frame, packet: &Packet, mtu: u32) -> Option<()> {
    let packet_header: Ipv4Hdr = frame.read(packet.network())?;
    let (frame, at) = turn::<{ Ipv4Hdr::LEN + ICMP }>(frame, packet)?;
    let quoted = at + Ipv4Hdr::LEN + ICMP;

    let mut header = [0; Ipv4Hdr::LEN];
    header[0] = 0x45;
    [header[2], header[3]] = ((Ipv4Hdr::LEN + ICMP + QUOTED) as u16).to_be_bytes();
    // Nobody needs to fragment it, so it needs no identification (RFC 6864).
    [header[6], header[7]] = DONT_FRAGMENT.to_be_bytes();
    header[8] = HOPS;
    header[9] = IpProto::Icmp as u8;
    [header[12], header[13], header[14], header[15]] = packet_header.dst_addr;
    [header[16], header[17], header[18], header[19]] = packet_header.src_addr;
    [header[10], header[11]] = checksum::of(&header);
    frame.write(at, header)?;

    let [_, _, a, b] = mtu.to_be_bytes();
    let mut icmp = [3, 4, 0, 0, 0, 0, a, b];
    let sum = frame.sum::<QUOTED>(quoted, checksum::sum(&icmp))?;
    [icmp[2], icmp[3]] = checksum::fold(sum);
    frame.write(at + Ipv4Hdr::LEN, icmp)
}

/// Packet too big (RFC 4443, section 3.2).
#[inline(always)]
fn v6(frame: Frame, packet: &Packet, mtu: u32) -> Option<()> {
    let packet_header: Ipv6Hdr = frame.read(packet.network())?;
    let (frame, at) = turn::<{ Ipv6Hdr::LEN + ICMP }>(frame, packet)?;
    let quoted = at + Ipv6Hdr::LEN + ICMP;

    let [a, b] = ((ICMP + QUOTED) as u16).to_be_bytes();
    frame.write(at, [0x60, 0, 0, 0, a, b, IpProto::Ipv6Icmp as u8, HOPS])?;
    frame.write(at + 8, packet_header.dst_addr)?;
    frame.write(at + 24, packet_header.src_addr)?;

    let [c, d, e, f] = mtu.to_be_bytes();
    let mut icmp = [2, 0, 0, 0, c, d, e, f];
    // The pseudo header: addresses, length, next header (RFC 8200, section 8.1).
    let sum = checksum::sum(&icmp)
        + checksum::sum(&[a, b, 0, IpProto::Ipv6Icmp as u8])
        + checksum::sum(&packet_header.dst_addr)
        + checksum::sum(&packet_header.src_addr);
    let sum = frame.sum::<QUOTED>(quoted, sum)?;
    [icmp[2], icmp[3]] = checksum::fold(sum);
    frame.write(at + Ipv6Hdr::LEN, icmp)
}

/// Makes the frame one to its sender, with `N` free bytes between its link header and what is quoted
/// of the packet; returns where they begin.
#[inline(always)]
fn turn<const N: usize>(frame: Frame, packet: &Packet) -> Option<(Frame, usize)> {
    let network = packet.network();
    let superfluous = packet.length.wrapping_sub((network + QUOTED) as u32);
    let frame = frame.cut_tail(superfluous)?;
    let frame = frame.resize_head(0, N)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; MACS] = frame.read(N)?;
    frame.write(0, [g, h, i, j, k, l, a, b, c, d, e, f])?;
    // Tags and ether type stay as they are.
    let mut offset = MACS;
    for _ in 0..2 {
        if offset + 2 >= network {
            break;
        }
        let tag: [u8; TAG] = frame.read(N + offset)?;
        frame.write(offset, tag)?;
        offset += TAG;
    }
    let ether_type: [u8; 2] = frame.read(N + offset)?;
    frame.write(offset, ether_type)?;
    Some((frame, network))
}
