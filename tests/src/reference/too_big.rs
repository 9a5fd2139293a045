//! The answer to a packet that does not fit its way (RFC 1191, RFC 4443 section 3.2).

use std::net::IpAddr;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header,
    icmpv4::DestUnreachableHeader,
};
use xdp_lb_common::counters::{DropReason, Event};

use super::{
    Stop,
    packet::{ICMP, ICMP_V6, Packet, Part},
    send::length,
};

/// Bytes of the packet that are quoted: always so many.
const QUOTED: usize = 512;

impl Packet<'_> {
    /// What becomes of the packet where `mtu` bytes of it would fit.
    pub(super) fn too_big(&self, mtu: usize, events: &mut Vec<Event>) -> Stop {
        let is_icmp = [ICMP, ICMP_V6].contains(&self.protocol);
        // RFC 1122, section 3.2.2: not about ICMP errors, not about later fragments.
        let may_answer = !is_icmp && !matches!(self.part, Part::Later { .. });
        let Some(quote) = self.ip.get(..QUOTED).filter(|_| may_answer) else {
            events.push(Event::TooBigNotSent);
            return Stop::Drop(DropReason::TooBig);
        };
        events.push(Event::TooBigSent);
        let mut frame = [&self.link[6..12], &self.link[..6], &self.link[12..]].concat();
        frame.extend(self.message(mtu, quote));
        frame.extend(quote);
        Stop::Answer(DropReason::TooBig, frame)
    }

    /// IP and ICMP header from the VIP to the client.
    fn message(&self, mtu: usize, quote: &[u8]) -> Vec<u8> {
        let payload = length(8 + quote.len());
        match (self.destination, self.source) {
            (IpAddr::V4(vip), IpAddr::V4(client)) => {
                let header =
                    Ipv4Header::new(payload, 64, IpNumber::ICMP, vip.octets(), client.octets());
                let mut header = header.expect("the message fits");
                header.header_checksum = header.calc_header_checksum();
                let kind = DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: length(mtu),
                };
                let kind = Icmpv4Type::DestinationUnreachable(kind);
                let icmp = Icmpv4Header::with_checksum(kind, quote);
                [&header.to_bytes()[..], &icmp.to_bytes()[..]].concat()
            }
            (IpAddr::V6(vip), IpAddr::V6(client)) => {
                let header = Ipv6Header {
                    payload_length: payload,
                    next_header: IpNumber::IPV6_ICMP,
                    hop_limit: 64,
                    source: vip.octets(),
                    destination: client.octets(),
                    ..Ipv6Header::default()
                };
                let kind = Icmpv6Type::PacketTooBig {
                    mtu: u32::from(length(mtu)),
                };
                let icmp = Icmpv6Header::with_checksum(kind, vip.octets(), client.octets(), quote);
                let icmp = icmp.expect("the message fits");
                [&header.to_bytes()[..], &icmp.to_bytes()[..]].concat()
            }
            _ => unreachable!("a packet has addresses of one family"),
        }
    }
}
