//! Transport headers of packets that are for a service.

use network_types::ip::IpProto;
use xdp_lb_common::counters::DropReason;

use crate::{
    frame::Frame,
    packet::{Fragment, Packet, Segment},
};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Bytes of a UDP header.
pub(crate) const UDP_HEADER: usize = 8;

/// True for the protocols that services can have.
#[inline(always)]
pub(crate) fn is_known(protocol: u8) -> bool {
    protocol == IpProto::Tcp as u8 || protocol == IpProto::Udp as u8
}

/// Reads the TCP header at `offset`, of a segment of `length` bytes.
#[inline(always)]
fn tcp(frame: &Frame, offset: usize, length: usize) -> Result<Segment, DropReason> {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    let header: [u8; TCP_HEADER] = frame.read(offset).ok_or(DropReason::BadTcpHeader)?;
    let header_length = usize::from(header[12] >> 4) * 4;
    if header_length < TCP_HEADER || header_length > length {
        return Err(DropReason::BadTcpHeader);
    }
    let flags = header[13];
    Ok(if flags & (SYN | ACK | RST) == SYN {
        Segment::Opens
    } else if flags & (FIN | RST) != 0 {
        Segment::Ends
    } else {
        Segment::Continues
    })
}

/// Reads the UDP header at `offset`, of a datagram of which the packet has `length` bytes. A first
/// fragment states the length of the whole datagram.
#[inline(always)]
fn udp(
    frame: &Frame,
    offset: usize,
    length: usize,
    fragment: Fragment,
) -> Result<Segment, DropReason> {
    let header: [u8; UDP_HEADER] = frame.read(offset).ok_or(DropReason::BadUdpHeader)?;
    let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let is_cut = fragment != Fragment::First && stated > length;
    if length < UDP_HEADER || stated < UDP_HEADER || is_cut {
        return Err(DropReason::BadUdpHeader);
    }
    Ok(Segment::Continues)
}

/// Reads the transport header of a packet that is for a service.
#[inline(always)]
pub(crate) fn segment(frame: &Frame, packet: &Packet, protocol: u8) -> Result<Segment, DropReason> {
    if packet.is_icmp_error {
        // Errors are short (RFC 1812, RFC 4443); nobody fragments them.
        return if packet.fragment == Fragment::First {
            Err(DropReason::FirstFragment)
        } else {
            Ok(Segment::Quotes)
        };
    }
    let length = packet.transport_length as usize;
    if protocol != IpProto::Udp as u8 {
        return tcp(frame, packet.transport(), length);
    }
    udp(frame, packet.transport(), length, packet.fragment)
}
