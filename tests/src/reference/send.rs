//! The frame that goes to a backend (RFC 2003, RFC 2473, RFC 4213; variant 1 of
//! draft-ietf-intarea-gue).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use xdp_lb_common::{
    counters::{DropReason, Event},
    hash::Affinity,
};

use super::{
    Stop,
    packet::Packet,
    state::{Backend, Flow, Kind, Mode, Reference},
};

/// A frame on its way to a backend.
pub(super) struct Sent {
    pub(super) backend: u16,
    pub(super) frame: Vec<u8>,
    pub(super) random_id_at: Option<usize>,
    /// By another interface than it came in by.
    pub(super) elsewhere: bool,
}

/// Time to live or hop limit of outer headers.
const HOPS: u8 = 64;

impl Reference {
    /// The frame that goes to the backend, if the packet fits the way.
    pub(super) fn send(
        &self,
        packet: &Packet,
        flow: &Flow,
        index: u16,
        events: &mut Vec<Event>,
    ) -> Result<Sent, Stop> {
        let backend = &self.backends[&index];
        let behind = packet.one_hop_later()?;
        let outer = match backend.mode {
            Mode::L2 => Vec::new(),
            Mode::Tunnel { kind, from, to } => self.outer(packet, flow, kind, from, to),
        };
        if let Some(mtu) = backend.mtu.map(usize::from)
            && packet.ip.len() + outer.len() > mtu
        {
            return Err(packet.too_big(mtu.saturating_sub(outer.len()), events));
        }
        let over_v4 = match backend.mode {
            Mode::L2 => packet.is_v4(),
            Mode::Tunnel { to, .. } => to.is_ipv4(),
        };
        let mut frame = link(backend, over_v4);
        let is_random = !outer.is_empty() && over_v4 && !packet.unfragmentable;
        let random_id_at = is_random.then_some(frame.len());
        frame.extend(outer);
        frame.extend(behind);
        Ok(Sent {
            backend: index,
            frame,
            random_id_at,
            elsewhere: backend.interface != self.ingress,
        })
    }

    /// The headers that a tunnel puts in front of the packet.
    fn outer(&self, packet: &Packet, flow: &Flow, kind: Kind, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let hash = flow.hash(self.hash_key, Affinity::Flow);
        let udp = match kind {
            Kind::Ipip => Vec::new(),
            Kind::Gue => {
                let dynamic = u16::try_from(hash & 0x3fff).expect("fourteen bits") | 0xc000;
                let udp = UdpHeader {
                    source_port: dynamic,
                    destination_port: self.gue_port,
                    length: length(8 + packet.ip.len()),
                    checksum: 0,
                };
                udp.to_bytes().to_vec()
            }
        };
        let next = match kind {
            Kind::Gue => IpNumber::UDP,
            Kind::Ipip if packet.is_v4() => IpNumber::IPV4,
            Kind::Ipip => IpNumber::IPV6,
        };
        let payload = udp.len() + packet.ip.len();
        let mut headers = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => outer_v4(packet, next, payload, from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => outer_v6(packet, next, payload, from, to, hash),
            _ => panic!("a tunnel between address families"),
        };
        headers.extend(udp);
        headers
    }
}

/// An IPv4 header. The identification is 0, also where it should be random.
fn outer_v4(
    packet: &Packet,
    next: IpNumber,
    payload: usize,
    from: Ipv4Addr,
    to: Ipv4Addr,
) -> Vec<u8> {
    let mut header = Ipv4Header::new(length(payload), HOPS, next, from.octets(), to.octets())
        .expect("the packet fits");
    header.dscp = IpDscp::try_new(packet.traffic_class >> 2).expect("six bits");
    header.ecn = IpEcn::try_new(packet.traffic_class & 0b11).expect("two bits");
    header.identification = 0;
    header.dont_fragment = packet.unfragmentable;
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

fn outer_v6(
    packet: &Packet,
    next: IpNumber,
    payload: usize,
    from: Ipv6Addr,
    to: Ipv6Addr,
    hash: u64,
) -> Vec<u8> {
    let label = u32::try_from(hash & 0xf_ffff).expect("twenty bits");
    let header = Ipv6Header {
        traffic_class: packet.traffic_class,
        flow_label: Ipv6FlowLabel::try_new(label).expect("twenty bits"),
        payload_length: length(payload),
        next_header: next,
        hop_limit: HOPS,
        source: from.octets(),
        destination: to.octets(),
    };
    header.to_bytes().to_vec()
}

impl Packet<'_> {
    /// What is behind the link header, after a hop more.
    fn one_hop_later(&self) -> Result<Vec<u8>, DropReason> {
        let mut bytes = self.behind_link.to_vec();
        let hops = if self.is_v4() { 8 } else { 7 };
        bytes[hops] = bytes[hops]
            .checked_sub(1)
            .filter(|&left| left > 0)
            .ok_or(DropReason::HopsExpired)?;
        if self.is_v4() {
            // RFC 1624, equation 3: the sum of the old checksum's complement, the old word's complement, and the new word.
            let word = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            let (now, was) = (word(8), word(8) + 0x100);
            let mut sum = (!word(10) & 0xffff) + (!was & 0xffff) + now;
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let [a, b] = u16::try_from(!sum & 0xffff)
                .expect("sixteen bits")
                .to_be_bytes();
            (bytes[10], bytes[11]) = (a, b);
        }
        Ok(bytes)
    }
}

/// The link header of a way.
fn link(backend: &Backend, over_v4: bool) -> Vec<u8> {
    let mut header = [backend.mac, backend.source_mac].concat();
    for tag in &backend.tags {
        let kind: u16 = if tag.is_service { 0x88a8 } else { 0x8100 };
        header.extend(kind.to_be_bytes());
        header.extend(tag.id.to_be_bytes());
    }
    let ether_type: u16 = if over_v4 { 0x0800 } else { 0x86dd };
    header.extend(ether_type.to_be_bytes());
    header
}

/// A length field.
pub(super) fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("frames are shorter than 64 KiB")
}
