//! The outer headers of the forwarding modes `ipip` and `gue`, as the data plane writes them.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    programs::TcContext,
};
use xdp_lb_common::{
    check::{Target, unmapped},
    checksum,
    hash::{Affinity, HashKey, flow_hash},
};

use crate::{
    maps::Flow,
    packet::{Family, Packet, UDP, V4, V6},
};

/// Time to live, or hop limit, of the outer header (RFC 1700's recommendation).
const HOPS: u8 = 64;
/// RFC 791: routers may not fragment it.
const DONT_FRAGMENT: u8 = 0x40;
/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;
/// IP protocol numbers.
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

/// Puts the packet behind another IP header, and a UDP header where the target has one. None where the
/// kernel refuses, or the target has addresses of another family.
///
/// The daemon sees to it that segments fit with the outer headers; what the kernel will cut into segments
/// later is cut as if they were not there.
#[inline(always)]
pub(crate) fn open(ctx: &TcContext, packet: &Packet, target: &Target, flow: &Flow) -> Option<()> {
    if !packet.family.has(&target.tunnel_source) {
        return None;
    }
    let is_gue = target.flags & Target::FLAG_GUE != 0;
    let udp = if is_gue { UDP_HEADER } else { 0 };
    let (ip, encapsulation) = match packet.family {
        Family::V4 => (V4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4),
        Family::V6 => (V6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6),
    };
    let mut flags = encapsulation | BPF_F_ADJ_ROOM_FIXED_GSO;
    if is_gue {
        flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
    }
    let grown = i32::try_from(ip + udp).ok()?;
    ctx.adjust_room(grown, BPF_ADJ_ROOM_MAC, u64::from(flags))
        .ok()?;
    let entropy = flow_hash(HashKey::DEFAULT, Affinity::Flow, flow) as u32;
    let length = packet.length + udp;
    match packet.family {
        Family::V4 => v4(ctx, packet, target, length)?,
        Family::V6 => v6(ctx, packet, target, length, entropy)?,
    }
    if !is_gue {
        return Some(());
    }
    // The source port is one of the dynamic ports (RFC 6335). No checksum, as RFC 6935 allows over IPv6
    // too: the packet within has its own.
    let [a, b] = (0xc000 | entropy as u16 & 0x3fff).to_be_bytes();
    let [c, d] = target.gue_port_be;
    let [e, f] = (length as u16).to_be_bytes();
    ctx.store(packet.network + ip, &[a, b, c, d, e, f, 0, 0], 0)
        .ok()
}

/// Writes the outer IPv4 header, in front of `length` bytes. One host's packets to one other have
/// identifications of their own, so the inner one's will do.
#[inline(always)]
fn v4(ctx: &TcContext, packet: &Packet, target: &Target, length: usize) -> Option<()> {
    let mut header = [0; V4];
    header[0] = 0x45;
    header[1] = packet.traffic_class;
    [header[2], header[3]] = ((length + V4) as u16).to_be_bytes();
    [header[4], header[5]] = packet.id;
    if packet.is_unfragmentable {
        header[6] = DONT_FRAGMENT;
    }
    header[8] = HOPS;
    header[9] = protocol(target, IPV4_IN_IP);
    [header[12], header[13], header[14], header[15]] = unmapped(&target.tunnel_source);
    [header[16], header[17], header[18], header[19]] = unmapped(&target.backend);
    [header[10], header[11]] = checksum::of(&header);
    ctx.store(packet.network, &header, 0).ok()
}

/// Writes the outer IPv6 header, in front of `length` bytes.
#[inline(always)]
fn v6(
    ctx: &TcContext,
    packet: &Packet,
    target: &Target,
    length: usize,
    entropy: u32,
) -> Option<()> {
    let [_, label, b, c] = entropy.to_be_bytes();
    let [d, e] = (length as u16).to_be_bytes();
    let start = [
        0x60 | packet.traffic_class >> 4,
        packet.traffic_class << 4 | label & 0x0f,
        b,
        c,
        d,
        e,
        protocol(target, IPV6_IN_IP),
        HOPS,
    ];
    let at = packet.network;
    ctx.store(at, &start, 0).ok()?;
    ctx.store(at + 8, &target.tunnel_source, 0).ok()?;
    ctx.store(at + 24, &target.backend, 0).ok()
}

/// IP protocol number of what is behind the outer IP header.
#[inline(always)]
fn protocol(target: &Target, plain: u8) -> u8 {
    if target.flags & Target::FLAG_GUE == 0 {
        plain
    } else {
        UDP
    }
}
