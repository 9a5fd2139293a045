//! What a packet is: addresses, and where the parts of it begin.
//!
//! By the kernel's functions for reading packets, which check all bounds, and get at what lies outside of
//! a packet's first piece of memory as well.

use aya_ebpf::programs::TcContext;
use xdp_lb_common::abi::{is_mapped, mapped};

use crate::maps::Flow;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q: a tag, and a tag around another.
const TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// Bytes of an Ethernet header without tags, and with one.
const ETHERNET: usize = 14;
const TAGGED: usize = ETHERNET + 4;

/// Bytes of an IPv4 header without options.
pub(crate) const V4: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const V6: usize = 40;

/// RFC 791: routers may not fragment it.
const DONT_FRAGMENT: u16 = 0x4000;
/// RFC 791: not the first fragment, or not the last.
const FRAGMENT: u16 = 0x3fff;

/// IP protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Types of ICMP and ICMPv6.
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// A whole packet of a protocol that is steered.
pub(crate) struct Packet {
    pub(crate) family: Family,
    /// Where the IP header begins, from the start of the frame.
    pub(crate) network: usize,
    /// Where what is behind it begins.
    pub(crate) transport: usize,
    /// Bytes of the packet, from the IP header on.
    pub(crate) length: usize,
    pub(crate) protocol: u8,
    /// IPv4 addresses in their mapped form.
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    /// IPv4's type of service, IPv6's traffic class.
    pub(crate) traffic_class: u8,
    /// IPv4's identification, where the packet may be fragmented, else 0.
    pub(crate) id: [u8; 2],
    pub(crate) is_unfragmentable: bool,
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Whether `address` is one of this family.
    #[inline(always)]
    pub(crate) fn has(self, address: &[u8; 16]) -> bool {
        (self == Self::V4) == is_mapped(address)
    }
}

/// What is no [`Packet`].
pub(crate) enum Other {
    /// Neither IPv4 nor IPv6: ARP, more than one tag in the frame, anything else.
    NotIp,
    /// Of another protocol, a fragment, cut off, or with an extension header.
    Unknown,
}

/// On which way a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Out,
    In,
}

impl Packet {
    /// Reads the headers up to the ports.
    #[inline(always)]
    pub(crate) fn read(ctx: &TcContext) -> Result<Self, Other> {
        let mut ether_type = read_u16(ctx, ETHERNET - 2).ok_or(Other::NotIp)?;
        let mut network = ETHERNET;
        if matches!(ether_type, TAG | SERVICE_TAG) {
            ether_type = read_u16(ctx, TAGGED - 2).ok_or(Other::NotIp)?;
            network = TAGGED;
        }
        let packet = match ether_type {
            IPV4 => Self::read_v4(ctx, network),
            IPV6 => Self::read_v6(ctx, network),
            _ => return Err(Other::NotIp),
        };
        packet
            .filter(|packet| packet.network + packet.length <= ctx.len() as usize)
            .ok_or(Other::Unknown)
    }

    #[inline(always)]
    fn read_v4(ctx: &TcContext, network: usize) -> Option<Self> {
        let header: [u8; V4] = read(ctx, network)?;
        let [
            version_and_words,
            traffic_class,
            a,
            b,
            id @ ..,
            c,
            d,
            _,
            protocol,
            _,
            _,
        ] = *header.first_chunk::<12>()?;
        let header_length = usize::from(version_and_words & 0x0f) * 4;
        let fragment = u16::from_be_bytes([c, d]);
        if version_and_words >> 4 != 4 || header_length < V4 || fragment & FRAGMENT != 0 {
            return None;
        }
        let is_unfragmentable = fragment & DONT_FRAGMENT != 0;
        let [.., e, f, g, h, i, j, k, l] = header;
        Some(Self {
            family: Family::V4,
            network,
            transport: network + header_length,
            length: usize::from(u16::from_be_bytes([a, b])),
            protocol,
            source: mapped([e, f, g, h]),
            destination: mapped([i, j, k, l]),
            traffic_class,
            id: if is_unfragmentable { [0; 2] } else { id },
            is_unfragmentable,
        })
    }

    #[inline(always)]
    fn read_v6(ctx: &TcContext, network: usize) -> Option<Self> {
        let [a, b, _, _, c, d, protocol, _] = read(ctx, network)?;
        let source = read(ctx, network + 8)?;
        let destination = read(ctx, network + 24)?;
        // Such addresses stand for others here.
        if a >> 4 != 6 || is_mapped(&source) || is_mapped(&destination) {
            return None;
        }
        Some(Self {
            family: Family::V6,
            network,
            transport: network + V6,
            length: V6 + usize::from(u16::from_be_bytes([c, d])),
            protocol,
            source,
            destination,
            traffic_class: a << 4 | b >> 4,
            id: [0; 2],
            is_unfragmentable: true,
        })
    }

    /// The flow that the packet belongs to, as the one who asks sees it, with the VIP that it is sent to.
    /// None where it is of another protocol, or too short for it.
    #[inline(always)]
    pub(crate) fn flow(&self, ctx: &TcContext, way: Way, vip: &[u8; 16]) -> Option<Flow> {
        let (request, reply, least) = match (self.family, self.protocol) {
            (_, TCP) => (0, 0, 20),
            (_, UDP) => (0, 0, 8),
            (Family::V4, ICMP) => (ECHO_REQUEST, ECHO_REPLY, 8),
            (Family::V6, ICMPV6) => (ECHO_REQUEST_V6, ECHO_REPLY_V6, 8),
            _ => return None,
        };
        if self.network + self.length < self.transport + least {
            return None;
        }
        let [a, b, c, d, e, f, _, _] = read(ctx, self.transport)?;
        let ((local, remote), own) = match way {
            Way::Out => (([a, b], [c, d]), self.source),
            Way::In => (([c, d], [a, b]), self.destination),
        };
        let mut flow = Flow::without_ports(own, *vip, self.protocol);
        if matches!(self.protocol, TCP | UDP) {
            (flow.source_port_be, flow.destination_port_be) = (local, remote);
            return Some(flow);
        }
        let kind = if way == Way::Out { request } else { reply };
        flow.source_port_be = [e, f];
        (a == kind && b == 0).then_some(flow)
    }

    /// Where the checksum is that the addresses are in, and whether 0 means that there is none.
    #[inline(always)]
    pub(crate) fn checksum(&self) -> Option<(usize, bool)> {
        match self.protocol {
            TCP => Some((self.transport + 16, false)),
            UDP => Some((self.transport + 6, true)),
            ICMPV6 => Some((self.transport + 2, false)),
            // ICMP has none of the addresses in its checksum.
            _ => None,
        }
    }
}

/// The `N` bytes at `offset`, or None where the frame ends before their end.
#[inline(always)]
fn read<const N: usize>(ctx: &TcContext, offset: usize) -> Option<[u8; N]> {
    ctx.load(offset).ok()
}

/// Two bytes in network order; as [`read`].
#[inline(always)]
fn read_u16(ctx: &TcContext, offset: usize) -> Option<u16> {
    read(ctx, offset).map(u16::from_be_bytes)
}
