//! Packets in tunnels, as directors send them: IP in IP, and GUE variant 1 (the IP packet directly
//! behind a UDP header), outer and inner packet of either family.
//!
//! [`ipip`] and [`gue`] put an outer header around the packet of a frame; what is in front of it, MAC
//! addresses and tags, stays. Frames made so come out of the decapsulating program as the frame that
//! they were made of.

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};

use crate::packet::{ETHERNET, Frame};

/// Where GUE goes to unless a test says otherwise.
pub const GUE_PORT: u16 = 6080;
/// Where GUE comes from unless a test says otherwise.
pub const GUE_SOURCE_PORT: u16 = 50000;
/// Bytes of a UDP header.
pub const UDP: usize = 8;

/// IP protocol numbers of an IP packet in an IP packet, IPv4 and IPv6.
const INNER: [IpNumber; 2] = [IpNumber::IPV4, IpNumber::IPV6];

/// A packet in a tunnel, in the making.
#[derive(Clone, Debug)]
pub struct Tunnel {
    source: IpAddr,
    destination: IpAddr,
    /// Source and destination port of GUE.
    ports: Option<(u16, u16)>,
    checksum: u16,
    udp_length: Option<u16>,
    ttl: u8,
    traffic_class: u8,
    flow_label: u32,
    id: u16,
    dont_fragment: bool,
    more_fragments: bool,
    fragment_offset: u16,
    options: usize,
    protocol: Option<u8>,
    inner: Frame,
}

/// The packet of `inner` in an IP packet from `source` to `destination`: TTL 64, traffic class 0, id 0,
/// not to be fragmented.
///
/// # Panics
///
/// When it is made a frame: if the addresses are of two families.
#[must_use]
pub fn ipip(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    inner: impl Into<Frame>,
) -> Tunnel {
    Tunnel {
        source: source.into(),
        destination: destination.into(),
        ports: None,
        checksum: 0,
        udp_length: None,
        ttl: 64,
        traffic_class: 0,
        flow_label: 0,
        id: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        options: 0,
        protocol: None,
        inner: inner.into(),
    }
}

/// As [`ipip`], in a UDP packet from [`GUE_SOURCE_PORT`] to [`GUE_PORT`] without a checksum.
#[must_use]
pub fn gue(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    inner: impl Into<Frame>,
) -> Tunnel {
    Tunnel {
        ports: Some((GUE_SOURCE_PORT, GUE_PORT)),
        ..ipip(source, destination, inner)
    }
}

impl Tunnel {
    /// Comes from this UDP port, and goes to that one. For GUE.
    #[must_use]
    pub fn ports(mut self, source: u16, destination: u16) -> Self {
        self.ports = Some((source, destination));
        self
    }

    /// Has this UDP checksum. For GUE.
    #[must_use]
    pub fn checksum(mut self, checksum: u16) -> Self {
        self.checksum = checksum;
        self
    }

    /// States a UDP length of `bytes`. For GUE.
    #[must_use]
    pub fn stating_udp_length(mut self, bytes: usize) -> Self {
        self.udp_length = Some(u16::try_from(bytes).expect("a UDP length has 16 bits"));
        self
    }

    /// The outer header's TTL, or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The outer header's traffic class: DSCP and ECN.
    #[must_use]
    pub fn traffic_class(mut self, bits: u8) -> Self {
        self.traffic_class = bits;
        self
    }

    /// The outer IPv6 header's flow label.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// The outer IPv4 header's identification.
    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// The outer IPv4 packet may be fragmented on its way.
    #[must_use]
    pub fn may_fragment(mut self) -> Self {
        self.dont_fragment = false;
        self
    }

    /// More fragments of the outer IPv4 packet follow.
    #[must_use]
    pub fn more_fragments(mut self) -> Self {
        self.more_fragments = true;
        self.may_fragment()
    }

    /// The outer IPv4 packet is a fragment that begins so many bytes into its packet.
    #[must_use]
    pub fn fragment_at(mut self, bytes: u16) -> Self {
        self.fragment_offset = bytes / 8;
        self.may_fragment()
    }

    /// The outer IPv4 header has options of so many bytes, all of them "no operation".
    #[must_use]
    pub fn options(mut self, bytes: usize) -> Self {
        self.options = bytes;
        self
    }

    /// The outer header names another protocol for what is behind it.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.protocol = Some(number);
        self
    }

    /// Bytes of the outer headers.
    #[must_use]
    pub fn overhead(&self) -> usize {
        let udp = if self.ports.is_some() { UDP } else { 0 };
        match self.source {
            IpAddr::V4(_) => 20 + self.options + udp,
            IpAddr::V6(_) => 40 + udp,
        }
    }

    /// UDP header and inner packet.
    fn payload(&self, packet: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        if let Some((source, destination)) = self.ports {
            let length = u16::try_from(UDP + packet.len()).expect("a UDP length has 16 bits");
            let length = self.udp_length.unwrap_or(length);
            let fields = [source, destination, length, self.checksum];
            payload.extend(fields.map(u16::to_be_bytes).concat());
        }
        payload.extend(packet);
        payload
    }

    /// The outer IP header, for a payload of `length` bytes that is named by `protocol`.
    fn header(&self, length: usize, protocol: IpNumber) -> Vec<u8> {
        let length = u16::try_from(length).expect("a length has 16 bits");
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let mut header = Ipv4Header::new(length, self.ttl, protocol, source, destination)
                    .expect("a packet that fits its length field");
                header.dscp = (self.traffic_class >> 2).try_into().expect("six bits");
                header.ecn = (self.traffic_class & 3).try_into().expect("two bits");
                header.identification = self.id;
                header.dont_fragment = self.dont_fragment;
                header.more_fragments = self.more_fragments;
                header.fragment_offset =
                    IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
                let options = vec![1; self.options];
                header.options = options.as_slice().try_into().expect("words of four bytes");
                // The length is that of the whole packet, header and all.
                header.set_payload_len(length.into()).expect("it fits");
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
                traffic_class: self.traffic_class,
                flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
                payload_length: length,
                next_header: protocol,
                hop_limit: self.ttl,
                source: source.octets(),
                destination: destination.octets(),
            }
            .to_bytes()
            .to_vec(),
            (source, destination) => panic!("from {source} to {destination}: two families"),
        }
    }
}

impl From<Tunnel> for Frame {
    fn from(tunnel: Tunnel) -> Self {
        let bytes = tunnel.inner.bytes();
        let (link, packet) = bytes.split_at(link_length(&tunnel.inner));
        let is_v6 = link.ends_with(&[0x86, 0xdd]);
        let protocol = match (tunnel.protocol, tunnel.ports) {
            (Some(number), _) => IpNumber(number),
            (None, Some(_)) => IpNumber::UDP,
            (None, None) => INNER[usize::from(is_v6)],
        };
        let payload = tunnel.payload(packet);
        let ether_type = if tunnel.source.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let mut frame = link[..link.len() - 2].to_vec();
        frame.extend(ether_type);
        frame.extend(tunnel.header(payload.len(), protocol));
        frame.extend(payload);
        Self::new(frame)
    }
}

impl From<&Tunnel> for Frame {
    fn from(tunnel: &Tunnel) -> Self {
        tunnel.clone().into()
    }
}

/// Bytes in front of a frame's packet: Ethernet header and tags.
#[must_use]
pub fn link_length(frame: &Frame) -> usize {
    let mut length = ETHERNET;
    while matches!(
        frame.bytes()[length - 2..length],
        [0x81, 0x00] | [0x88, 0xa8]
    ) {
        length += 4;
    }
    length
}

/// The frame with these bytes at `at` in place of those that were there.
#[must_use]
pub fn with_bytes(frame: impl Into<Frame>, at: usize, bytes: &[u8]) -> Frame {
    let mut all = frame.into().bytes().to_vec();
    all[at..][..bytes.len()].copy_from_slice(bytes);
    Frame::new(all)
}
