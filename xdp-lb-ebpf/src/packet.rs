//! What a packet is: the headers, as far as balancing needs them.

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr},
};
use xdp_lb_common::{
    abi::FlowKey,
    counters::{DropReason, PassReason},
};

use crate::frame::Frame;

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Frames have a fragment offset or more fragments to come where these bits are set (RFC 791).
const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;

/// A TCP packet with its flow; not yet known to be for a service.
pub(crate) struct Packet<A> {
    pub(crate) flow: FlowKey<A>,
    /// Where the TCP header begins, from the start of the frame.
    transport: usize,
    /// Bytes of the IP packet behind the IP header.
    transport_length: usize,
    has_more_fragments: bool,
}

/// What a packet does to its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// SYN without ACK: opens it.
    Opens,
    /// FIN or RST: ends it.
    Ends,
    /// Anything else.
    Continues,
}

impl Packet<[u8; 4]> {
    /// Reads the headers up to the ports.
    #[inline(always)]
    pub(crate) fn parse_ipv4(frame: &Frame) -> Result<Self, PassReason> {
        let ethernet: EthHdr = frame.read(0).ok_or(PassReason::Truncated)?;
        if ethernet.ether_type != EtherType::Ipv4 as u16 {
            return Err(PassReason::NotIp);
        }
        let ip: Ipv4Hdr = frame.read(EthHdr::LEN).ok_or(PassReason::Truncated)?;
        let header_length = usize::from(ip.vihl & 0x0f) * 4;
        let total_length = usize::from(u16::from_be_bytes(ip.tot_len));
        if ip.vihl >> 4 != 4
            || header_length < Ipv4Hdr::LEN
            || total_length < header_length
            || total_length > frame.length() - EthHdr::LEN
        {
            return Err(PassReason::Truncated);
        }
        if ip.proto != IpProto::Tcp as u8 {
            return Err(PassReason::NotTcp);
        }
        let fragment = u16::from_be_bytes(ip.frags);
        if fragment & FRAGMENT_OFFSET != 0 {
            return Err(PassReason::LaterFragment);
        }
        let transport = EthHdr::LEN + header_length;
        let transport_length = total_length - header_length;
        if transport_length < size_of::<[u8; 4]>() {
            return Err(PassReason::Truncated);
        }
        let [a, b, c, d]: [u8; 4] = frame.read(transport).ok_or(PassReason::Truncated)?;
        Ok(Self {
            flow: FlowKey {
                source: ip.src_addr,
                destination: ip.dst_addr,
                source_port_be: [a, b],
                destination_port_be: [c, d],
                protocol: ip.proto,
                reserved: [0; 3],
            },
            transport,
            transport_length,
            has_more_fragments: fragment & MORE_FRAGMENTS != 0,
        })
    }
}

impl<A> Packet<A> {
    /// Reads the TCP header of a packet that is for a service.
    #[inline(always)]
    pub(crate) fn segment(&self, frame: &Frame) -> Result<Segment, DropReason> {
        if self.has_more_fragments {
            return Err(DropReason::FirstFragment);
        }
        let header: [u8; TCP_HEADER] =
            frame.read(self.transport).ok_or(DropReason::BadTcpHeader)?;
        let header_length = usize::from(header[12] >> 4) * 4;
        if header_length < TCP_HEADER || header_length > self.transport_length {
            return Err(DropReason::BadTcpHeader);
        }
        const FIN: u8 = 0x01;
        const SYN: u8 = 0x02;
        const RST: u8 = 0x04;
        const ACK: u8 = 0x10;
        let flags = header[13];
        Ok(if flags & (SYN | ACK | RST) == SYN {
            Segment::Opens
        } else if flags & (FIN | RST) != 0 {
            Segment::Ends
        } else {
            Segment::Continues
        })
    }
}
