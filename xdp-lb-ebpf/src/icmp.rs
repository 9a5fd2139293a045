//! ICMP errors: they quote the packet that they are about, and belong to its flow. Path-MTU discovery
//! depends on them.
//!
//! A backend's packets go from the VIP to the client, so the quoted addresses and ports are those of
//! the flow the other way round. Routers quote as little as eight bytes behind the IP header
//! (RFC 792), which hold the ports. A router on the way to a backend quotes what this director has
//! sent, a packet in a tunnel: that is for the director itself. An error may be forged, so it makes no
//! flow entry and renews none.

use core::mem::size_of;

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use xdp_lb_common::{abi::FlowKey, counters::PassReason};

use crate::{
    flows::Tracked,
    frame::{Frame, Plain},
    maps::GUE_PORT,
    network::FRAGMENT_OFFSET,
    outcome::Status,
    packet::Packet,
    services::Vip,
    transport::{self, UDP_HEADER},
};

/// Bytes of an ICMP header, in both versions.
const HEADER: usize = 8;

/// True for ICMP over IPv4.
#[inline(always)]
pub(crate) fn is_icmp(protocol: u8) -> bool {
    protocol == IpProto::Icmp as u8
}

/// True for ICMPv6.
#[inline(always)]
pub(crate) fn is_icmp_v6(protocol: u8) -> bool {
    protocol == IpProto::Ipv6Icmp as u8
}

/// Notes the flow that the ICMP error at `offset` is about.
#[inline(always)]
pub(crate) fn read_v4(frame: &Frame, packet: &mut Packet, offset: usize) -> Status {
    const UNREACHABLE: u8 = 3;
    const TIME_EXCEEDED: u8 = 11;
    const PARAMETER_PROBLEM: u8 = 12;

    let message = Message::of(frame, packet);
    let [kind, ..]: [u8; HEADER] = message.read(offset).ok_or(PassReason::Truncated)?;
    if !matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) {
        return Err(PassReason::OtherProtocol.into());
    }
    let quoted = quoted_v4(&message, offset + HEADER)?;
    note(&message, packet, quoted)
}

/// The same for ICMPv6 (RFC 4443): errors are the types below 128.
#[inline(always)]
pub(crate) fn read_v6(frame: &Frame, packet: &mut Packet, offset: usize) -> Status {
    const FIRST_THAT_INFORMS: u8 = 128;

    let message = Message::of(frame, packet);
    let [kind, ..]: [u8; HEADER] = message.read(offset).ok_or(PassReason::Truncated)?;
    if kind >= FIRST_THAT_INFORMS {
        return Err(PassReason::OtherProtocol.into());
    }
    let quoted = quoted_v6(&message, offset + HEADER)?;
    note(&message, packet, quoted)
}

/// Notes the flow of a quoted packet, which is a backend's. One of this director's own, in a tunnel, is about the way to
/// the backend, and the kernel's, and the daemon's, business.
#[inline(always)]
fn note<A: Tracked + Vip + PartialEq>(
    message: &Message,
    packet: &mut Packet,
    quoted: Quoted<A>,
) -> Status {
    if is_tunnel(message, quoted.flow.protocol, quoted.ports) {
        return Err(PassReason::TunnelError.into());
    }
    // An error goes to the one whose packet it is about.
    let flow = A::flow(packet);
    if quoted.flow.source != flow.destination || A::is_nobodys(flow) {
        return Err(PassReason::OtherProtocol.into());
    }
    *A::flow_mut(packet) = reversed(of_service(message, quoted)?);
    Ok(())
}

/// The packet that holds the message. What is behind it in the frame, such as padding, is not read.
struct Message<'a> {
    frame: &'a Frame,
    /// Where the packet ends, from the start of the frame.
    end: usize,
}

impl<'a> Message<'a> {
    #[inline(always)]
    fn of(frame: &'a Frame, packet: &Packet) -> Self {
        Self {
            frame,
            end: packet.network() + packet.ip_length as usize,
        }
    }

    /// The `T` at `offset`, as [`Frame::read`]; None where the packet ends before its end.
    #[inline(always)]
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        if offset + size_of::<T>() > self.end {
            return None;
        }
        self.frame.read(offset)
    }
}

/// A quoted packet: its flow but for the ports, and where they are.
struct Quoted<A> {
    flow: FlowKey<A>,
    ports: usize,
}

#[inline(always)]
fn quoted_v4(message: &Message, start: usize) -> Result<Quoted<[u8; 4]>, PassReason> {
    let ip: Ipv4Hdr = message.read(start).ok_or(PassReason::Truncated)?;
    let length = usize::from(ip.vihl & 0x0f) * 4;
    if ip.vihl >> 4 != 4 || length < Ipv4Hdr::LEN {
        return Err(PassReason::Truncated);
    }
    // A later fragment has no ports.
    if u16::from_be_bytes(ip.frags) & FRAGMENT_OFFSET != 0 {
        return Err(PassReason::OtherProtocol);
    }
    Ok(Quoted {
        flow: FlowKey::without_ports(ip.src_addr, ip.dst_addr, ip.proto),
        ports: start + length,
    })
}

#[inline(always)]
fn quoted_v6(message: &Message, start: usize) -> Result<Quoted<[u8; 16]>, PassReason> {
    let ip: Ipv6Hdr = message.read(start).ok_or(PassReason::Truncated)?;
    if ip.vcf[0] >> 4 != 6 {
        return Err(PassReason::Truncated);
    }
    Ok(Quoted {
        flow: FlowKey::without_ports(ip.src_addr, ip.dst_addr, ip.next_hdr),
        ports: start + Ipv6Hdr::LEN,
    })
}

/// True if a quoted packet is one in a tunnel. `offset` is behind its IP header.
#[inline(always)]
fn is_tunnel(message: &Message, protocol: u8, offset: usize) -> bool {
    if protocol == IpProto::Ipv4 as u8 || protocol == IpProto::Ipv6 as u8 {
        return true;
    }
    if protocol != IpProto::Udp as u8 {
        return false;
    }
    let Some([_, _, port @ ..]) = message.read::<[u8; 4]>(offset) else {
        return false;
    };
    let Some([first]) = message.read::<[u8; 1]>(offset + UDP_HEADER) else {
        return false;
    };
    port == GUE_PORT.load() && matches!(first >> 4, 4 | 6)
}

/// The flow of a quoted packet, if it is of a protocol that services have.
#[inline(always)]
fn of_service<A>(message: &Message, quoted: Quoted<A>) -> Result<FlowKey<A>, PassReason> {
    if !transport::is_known(quoted.flow.protocol) {
        return Err(PassReason::OtherProtocol);
    }
    let [a, b, c, d]: [u8; 4] = message.read(quoted.ports).ok_or(PassReason::Truncated)?;
    Ok(FlowKey {
        source_port_be: [a, b],
        destination_port_be: [c, d],
        ..quoted.flow
    })
}

/// The flow of the client's packets, from that of a backend's.
#[inline(always)]
fn reversed<A>(flow: FlowKey<A>) -> FlowKey<A> {
    FlowKey {
        source: flow.destination,
        destination: flow.source,
        source_port_be: flow.destination_port_be,
        destination_port_be: flow.source_port_be,
        protocol: flow.protocol,
        reserved: [0; 3],
    }
}
