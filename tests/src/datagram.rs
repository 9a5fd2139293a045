//! IPv6 packets and UDP of both families, header by header, so that tests can leave any of them out
//! or add some. [`packet`](crate::packet) has IPv4 TCP, by far the most of the tests.

use std::net::{Ipv6Addr, SocketAddrV6};

use etherparse::{EtherType, IpNumber, TcpHeader};
use xdp_lb_common::abi::FlowKey;

use crate::packet::{CLIENT, DIRECTOR_MAC, Endpoint, Frame, ROUTER_MAC};

/// Where IPv6 packets come from.
pub const CLIENT6: SocketAddrV6 = SocketAddrV6::new(
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10),
    40000,
    0,
    0,
);
/// Where IPv6 packets go to unless a test says otherwise.
pub const WEB6: SocketAddrV6 = SocketAddrV6::new(
    Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10),
    80,
    0,
    0,
);

/// Bytes of an IPv6 header.
pub const IPV6: usize = 40;

/// An IPv6 packet in the making.
#[derive(Clone, Debug)]
pub struct V6 {
    to: SocketAddrV6,
    version: u8,
    /// Kinds and bytes of extension headers; the first byte of each is filled in.
    extensions: Vec<(u8, Vec<u8>)>,
    protocol: u8,
    transport: Vec<u8>,
    payload_length: Option<u16>,
}

fn v6(protocol: IpNumber, transport: Vec<u8>) -> V6 {
    V6 {
        to: WEB6,
        version: 6,
        extensions: Vec::new(),
        protocol: protocol.0,
        transport,
        payload_length: None,
    }
}

/// A TCP packet over IPv6 from [`CLIENT6`] to [`WEB6`], with these flags (RFC 9293's bits).
#[must_use]
pub fn tcp6(flags: u8) -> V6 {
    let tcp = TcpHeader::new(CLIENT6.port(), WEB6.port(), 1, 64240);
    let mut bytes = tcp.to_bytes().to_vec();
    bytes[13] = flags;
    v6(IpNumber::TCP, bytes)
}

/// A UDP packet over IPv6 from [`CLIENT6`] to [`WEB6`].
#[must_use]
pub fn udp6() -> V6 {
    udp6_carrying(b"question")
}

/// The same with another payload.
#[must_use]
pub fn udp6_carrying(payload: &[u8]) -> V6 {
    let bytes = udp_bytes(CLIENT6.port(), WEB6.port(), payload);
    v6(IpNumber::UDP, bytes)
}

/// An ICMPv6 message of this type from [`CLIENT6`] to [`WEB6`].
#[must_use]
pub fn icmp6(kind: u8) -> V6 {
    v6(IpNumber::IPV6_ICMP, vec![kind, 0, 0, 0, 0, 0, 0, 0])
}

/// Flags of [`tcp6`].
pub const SYN: u8 = 0x02;
/// Flags of [`tcp6`].
pub const ACK: u8 = 0x10;
/// Flags of [`tcp6`].
pub const FIN: u8 = 0x01;

impl V6 {
    /// Goes to this address and port.
    #[must_use]
    pub fn to(mut self, service: SocketAddrV6) -> Self {
        self.transport[2..4].copy_from_slice(&service.port().to_be_bytes());
        self.to = service;
        self
    }

    /// Has one more extension header of this kind, with a length field for `words` words of eight
    /// bytes beyond the first.
    #[must_use]
    pub fn extension(mut self, kind: u8, words: u8) -> Self {
        let mut bytes = vec![0; (usize::from(words) + 1) * 8];
        bytes[1] = words;
        self.extensions.push((kind, bytes));
        self
    }

    /// Has an authentication header (RFC 4302) of `words` words of four bytes.
    #[must_use]
    pub fn authentication(mut self, words: u8) -> Self {
        let mut bytes = vec![0; usize::from(words) * 4];
        bytes[1] = words - 2;
        self.extensions.push((51, bytes));
        self
    }

    /// Has a fragment header (RFC 8200, section 4.5); `offset` in bytes.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        let [high, low] = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
        self.extensions
            .push((44, vec![0, 0, high, low, 1, 2, 3, 4]));
        self
    }

    /// States another payload length.
    #[must_use]
    pub fn with_payload_length(mut self, length: u16) -> Self {
        self.payload_length = Some(length);
        self
    }

    /// States another IP version.
    #[must_use]
    pub fn with_version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// Sets a byte of the transport header.
    #[must_use]
    pub fn with_transport_byte(mut self, at: usize, value: u8) -> Self {
        self.transport[at] = value;
        self
    }

    /// The flow that it belongs to.
    #[must_use]
    pub fn flow(&self) -> FlowKey<[u8; 16]> {
        FlowKey {
            source: CLIENT6.ip().octets(),
            destination: self.to.ip().octets(),
            source_port_be: CLIENT6.port().to_be_bytes(),
            destination_port_be: self.to.port().to_be_bytes(),
            protocol: self.protocol,
            reserved: [0; 3],
        }
    }
}

impl From<V6> for Frame {
    fn from(packet: V6) -> Self {
        let mut behind = Vec::new();
        let kinds = packet.extensions.iter().map(|(kind, _)| *kind);
        let mut next = kinds.skip(1).chain([packet.protocol]);
        for (_, bytes) in &packet.extensions {
            let start = behind.len();
            behind.extend(bytes);
            behind[start] = next.next().expect("one more than there are extensions");
        }
        let first = packet
            .extensions
            .first()
            .map_or(packet.protocol, |(kind, _)| *kind);
        behind.extend(&packet.transport);
        let length = u16::try_from(behind.len()).expect("a payload length has 16 bits");
        let mut bytes = ethernet(EtherType::IPV6);
        bytes.extend([packet.version << 4, 0, 0, 0]);
        bytes.extend(packet.payload_length.unwrap_or(length).to_be_bytes());
        bytes.extend([first, 64]);
        bytes.extend(CLIENT6.ip().octets());
        bytes.extend(packet.to.ip().octets());
        bytes.extend(behind);
        Self::new(bytes)
    }
}

/// A UDP packet over IPv4 from [`CLIENT`] to `service` that states a UDP length of `stated` bytes.
#[must_use]
pub fn udp_stating(service: impl Endpoint, stated: u16, payload: &[u8]) -> Frame {
    let service = service.socket();
    let mut udp = udp_bytes(CLIENT.port(), service.port(), payload);
    udp[4..6].copy_from_slice(&stated.to_be_bytes());
    let total = u16::try_from(20 + udp.len()).expect("a total length has 16 bits");
    let mut bytes = ethernet(EtherType::IPV4);
    bytes.extend([0x45, 0]);
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, IpNumber::UDP.0, 0, 0]);
    bytes.extend(CLIENT.ip().octets());
    bytes.extend(service.ip().octets());
    bytes.extend(udp);
    Frame::new(bytes)
}

fn ethernet(kind: EtherType) -> Vec<u8> {
    let mut bytes = [DIRECTOR_MAC, ROUTER_MAC].concat();
    bytes.extend(kind.0.to_be_bytes());
    bytes
}

fn udp_bytes(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a UDP length has 16 bits");
    let mut bytes = [from, to, length, 0].map(u16::to_be_bytes).concat();
    bytes.extend(payload);
    bytes
}
