//! ICMP errors: they quote the packet that they are about, and belong to its flow. Path-MTU discovery
//! depends on them.
//!
//! A backend's packets go from the VIP to the client, so the quoted addresses and ports are those of
//! the flow the other way round. Routers quote as little as eight bytes behind the IP header
//! (RFC 792), which hold the ports. An error may be forged, so it makes no flow entry and renews none.

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use xdp_lb_common::{abi::FlowKey, counters::PassReason};

use crate::{frame::Frame, transport};

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

/// The flow that the ICMP error at `offset` is about; `to` is whom the error was sent to.
#[inline(always)]
pub(crate) fn flow_v4(
    frame: &Frame<'_>,
    offset: usize,
    to: [u8; 4],
) -> Result<FlowKey<[u8; 4]>, PassReason> {
    const UNREACHABLE: u8 = 3;
    const TIME_EXCEEDED: u8 = 11;
    const PARAMETER_PROBLEM: u8 = 12;

    let [kind, ..]: [u8; HEADER] = frame.read(offset).ok_or(PassReason::Truncated)?;
    if !matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) {
        return Err(PassReason::OtherProtocol);
    }
    let start = offset + HEADER;
    let quoted: Ipv4Hdr = frame.read(start).ok_or(PassReason::Truncated)?;
    let length = usize::from(quoted.vihl & 0x0f) * 4;
    if quoted.vihl >> 4 != 4 || length < Ipv4Hdr::LEN {
        return Err(PassReason::Truncated);
    }
    // A later fragment has no ports.
    if u16::from_be_bytes(quoted.frags) & 0x1fff != 0 {
        return Err(PassReason::OtherProtocol);
    }
    reversed(
        frame,
        start + length,
        quoted.proto,
        quoted.dst_addr,
        quoted.src_addr,
        &to,
    )
}

/// The same for ICMPv6 (RFC 4443): errors are the types below 128.
#[inline(always)]
pub(crate) fn flow_v6(
    frame: &Frame<'_>,
    offset: usize,
    to: [u8; 16],
) -> Result<FlowKey<[u8; 16]>, PassReason> {
    const FIRST_THAT_INFORMS: u8 = 128;

    let [kind, ..]: [u8; HEADER] = frame.read(offset).ok_or(PassReason::Truncated)?;
    if kind >= FIRST_THAT_INFORMS {
        return Err(PassReason::OtherProtocol);
    }
    let start = offset + HEADER;
    let quoted: Ipv6Hdr = frame.read(start).ok_or(PassReason::Truncated)?;
    if quoted.vcf[0] >> 4 != 6 {
        return Err(PassReason::Truncated);
    }
    let ports = start + Ipv6Hdr::LEN;
    reversed(
        frame,
        ports,
        quoted.next_hdr,
        quoted.dst_addr,
        quoted.src_addr,
        &to,
    )
}

/// The flow of the client's packets, from what was quoted of a backend's.
#[inline(always)]
fn reversed<A: PartialEq>(
    frame: &Frame<'_>,
    ports: usize,
    protocol: u8,
    client: A,
    vip: A,
    to: &A,
) -> Result<FlowKey<A>, PassReason> {
    // An error goes to the one whose packet it is about.
    if !transport::is_known(protocol) || vip != *to {
        return Err(PassReason::OtherProtocol);
    }
    let [a, b, c, d]: [u8; 4] = frame.read(ports).ok_or(PassReason::Truncated)?;
    Ok(FlowKey {
        source: client,
        destination: vip,
        source_port_be: [c, d],
        destination_port_be: [a, b],
        protocol,
        reserved: [0; 3],
    })
}
