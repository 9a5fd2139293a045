//! Packets by name: what a client's router might put on the wire towards a VIP, and what it should
//! not.
//!
//! [`tcp`] and the other functions build well-formed frames; the methods of [`Frame`] then break
//! them. What is not named is that of a client at [`CLIENT`] talking to [`WEB`]. Knows nothing of
//! the program under test.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, IpFragOffset, IpHeaders, IpNumber, Ipv4Header,
    PacketBuilder, SingleVlanHeader, TcpHeader, VlanId,
};
use xdp_lb_common::abi::FlowKey;

/// Where packets come from unless a test says otherwise.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 40000);
/// Where packets go to unless a test says otherwise.
pub const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80);
/// MAC address of the router, which all packets come from.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// MAC address of the director, which all packets come to.
pub const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Bytes of a TCP header without options.
pub const TCP: usize = 20;

/// An IPv4 address with a port, written as one likes.
pub trait Endpoint {
    /// The address meant.
    fn socket(self) -> SocketAddrV4;
}

impl Endpoint for SocketAddrV4 {
    fn socket(self) -> SocketAddrV4 {
        self
    }
}

impl Endpoint for &str {
    /// # Panics
    ///
    /// If it is not written like `192.0.2.10:80`.
    fn socket(self) -> SocketAddrV4 {
        self.parse()
            .unwrap_or_else(|_| panic!("`{self}` is not an IPv4 address with a port"))
    }
}

/// A whole Ethernet frame, without the checksum at its end.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// The frame that consists of `bytes`.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The frame as it looks once it has been sent on: these MAC addresses, all else the same.
    #[must_use]
    pub fn with_macs(mut self, destination: [u8; 6], source: [u8; 6]) -> Self {
        self.0[..6].copy_from_slice(&destination);
        self.0[6..12].copy_from_slice(&source);
        self
    }

    /// Only the first `length` bytes arrive; the headers speak of all of them.
    #[must_use]
    pub fn cut_to(mut self, length: usize) -> Self {
        assert!(length <= self.0.len(), "cannot cut to more than there is");
        self.0.truncate(length);
        self
    }

    /// Filled up to `length` bytes, as Ethernet does with short frames. The filling is not zeros,
    /// so that one who takes it for headers is found out.
    #[must_use]
    pub fn padded_to(mut self, length: usize) -> Self {
        assert!(length >= self.0.len(), "cannot pad to less than there is");
        self.0.resize(length, 0xee);
        self
    }

    /// Another IP version.
    #[must_use]
    pub fn with_version(mut self, version: u8) -> Self {
        self.0[ETHERNET] = version << 4 | self.0[ETHERNET] & 0x0f;
        self
    }

    /// Another IPv4 header length, in words of four bytes.
    #[must_use]
    pub fn with_ihl(mut self, words: u8) -> Self {
        self.0[ETHERNET] = self.0[ETHERNET] & 0xf0 | words;
        self
    }

    /// Another total length in the IPv4 header, in bytes.
    #[must_use]
    pub fn with_total_length(mut self, bytes: usize) -> Self {
        let bytes = u16::try_from(bytes).expect("a total length has 16 bits");
        self.0[ETHERNET + 2..][..2].copy_from_slice(&bytes.to_be_bytes());
        self
    }

    /// Another data offset in the TCP header, in words of four bytes. For packets without IP options.
    #[must_use]
    pub fn with_data_offset(mut self, words: u8) -> Self {
        let at = ETHERNET + IPV4 + 12;
        self.0[at] = words << 4 | self.0[at] & 0x0f;
        self
    }

    /// Another type in the Ethernet header.
    #[must_use]
    pub fn with_ether_type(mut self, ether_type: u16) -> Self {
        self.0[12..ETHERNET].copy_from_slice(&ether_type.to_be_bytes());
        self
    }

    /// The same within a VLAN (IEEE 802.1Q).
    #[must_use]
    pub fn in_vlan(mut self, id: u16) -> Self {
        let tag = SingleVlanHeader {
            vlan_id: VlanId::try_new(id).expect("a VLAN's id has 12 bits"),
            ether_type: EtherType(u16::from_be_bytes([self.0[12], self.0[13]])),
            ..Default::default()
        };
        self.0.splice(12..ETHERNET, tag.to_bytes());
        self.0.splice(12..12, [0x81, 0x00]);
        self
    }
}

impl Frame {
    /// The same, without tags, after a router: with a hop less, and the checksum that fits it if it fitted before.
    #[must_use]
    pub fn one_hop_later(self) -> Self {
        let Self(mut bytes) = self.without_tags();
        let ip = &mut bytes[ETHERNET..];
        if ip[0] >> 4 == 4 {
            ip[8] -= 1;
            // The sum of all words is one of ones, of which the hop was the upper half of one.
            let sum = u32::from(u16::from_be_bytes([ip[10], ip[11]])) + 0x100;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = if sum == 0xffff { 0 } else { sum };
            [_, _, ip[10], ip[11]] = sum.to_be_bytes();
        } else {
            ip[7] -= 1;
        }
        Self(bytes)
    }

    /// The same without its tags.
    #[must_use]
    pub fn without_tags(mut self) -> Self {
        while matches!(self.0[12..ETHERNET], [0x81, 0x00] | [0x88, 0xa8]) {
            self.0.drain(12..16);
        }
        self
    }
}

impl fmt::Debug for Frame {
    /// Hexadecimal, sixteen bytes a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())?;
        for (line, bytes) in self.0.chunks(16).enumerate() {
            write!(f, "\n  {:04x} ", line * 16)?;
            for byte in bytes {
                write!(f, " {byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A TCP packet in the making.
#[derive(Clone, Debug)]
pub struct Tcp {
    ip: Ipv4Header,
    tcp: TcpHeader,
    payload: Vec<u8>,
}

/// A TCP packet without flags, options or data, from [`CLIENT`] to [`WEB`].
#[must_use]
pub fn tcp() -> Tcp {
    let ip = Ipv4Header {
        identification: 0x1234,
        ..ipv4(IpNumber::TCP)
    };
    Tcp {
        ip,
        tcp: TcpHeader::new(CLIENT.port(), WEB.port(), 0x0102_0304, 64240),
        payload: Vec::new(),
    }
}

impl Tcp {
    /// Comes from this client.
    #[must_use]
    pub fn from(mut self, client: impl Endpoint) -> Self {
        let client = client.socket();
        self.ip.source = client.ip().octets();
        self.tcp.source_port = client.port();
        self
    }

    /// Goes to this VIP and port.
    #[must_use]
    pub fn to(mut self, service: impl Endpoint) -> Self {
        let service = service.socket();
        self.ip.destination = service.ip().octets();
        self.tcp.destination_port = service.port();
        self
    }

    /// Opens a connection, or answers that.
    #[must_use]
    pub fn syn(mut self) -> Self {
        self.tcp.syn = true;
        self
    }

    /// Acknowledges something.
    #[must_use]
    pub fn ack(mut self) -> Self {
        (self.tcp.ack, self.tcp.acknowledgment_number) = (true, 0x0506_0708);
        self
    }

    /// No more data from the sender.
    #[must_use]
    pub fn fin(mut self) -> Self {
        self.tcp.fin = true;
        self
    }

    /// Resets the connection.
    #[must_use]
    pub fn rst(mut self) -> Self {
        self.tcp.rst = true;
        self
    }

    /// Asks for explicit congestion notification (RFC 3168), or speaks of it.
    #[must_use]
    pub fn ece_cwr(mut self) -> Self {
        (self.tcp.ece, self.tcp.cwr) = (true, true);
        self
    }

    /// Carries data, which is pushed and acknowledges what came before.
    #[must_use]
    pub fn data(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.tcp.psh = true;
        self.payload(payload).ack()
    }

    /// Carries this, whatever the flags.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Carries TCP options of so many bytes, all of them "no operation".
    #[must_use]
    pub fn tcp_options(mut self, bytes: usize) -> Self {
        self.tcp
            .set_options_raw(&vec![1; bytes])
            .expect("TCP options have at most 40 bytes");
        self
    }

    /// Carries IPv4 options of so many bytes, all of them "no operation".
    #[must_use]
    pub fn ip_options(mut self, bytes: usize) -> Self {
        self.ip.options = vec![1; bytes]
            .as_slice()
            .try_into()
            .expect("IPv4 options have at most 40 bytes, in words of four");
        self
    }

    /// May be fragmented on its way.
    #[must_use]
    pub fn may_fragment(mut self) -> Self {
        self.ip.dont_fragment = false;
        self
    }

    /// More fragments of this packet follow.
    #[must_use]
    pub fn more_fragments(mut self) -> Self {
        self.ip.more_fragments = true;
        self.may_fragment()
    }

    /// A fragment that begins so many bytes into its packet. What it carries are ports only for
    /// who takes it for the first.
    #[must_use]
    pub fn fragment_at(mut self, bytes: u16) -> Self {
        self.ip.fragment_offset =
            IpFragOffset::try_new(bytes / 8).expect("an offset of at most 65528 bytes");
        self.may_fragment()
    }

    /// The flow that it belongs to.
    #[must_use]
    pub fn flow(&self) -> FlowKey<[u8; 4]> {
        FlowKey {
            source: self.ip.source,
            destination: self.ip.destination,
            source_port_be: self.tcp.source_port.to_be_bytes(),
            destination_port_be: self.tcp.destination_port.to_be_bytes(),
            protocol: IpNumber::TCP.0,
            reserved: [0; 3],
        }
    }
}

impl From<Tcp> for Frame {
    fn from(packet: Tcp) -> Self {
        let builder = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC)
            .ip(IpHeaders::Ipv4(packet.ip, Default::default()))
            .tcp_header(packet.tcp);
        let mut bytes = Vec::with_capacity(builder.size(packet.payload.len()));
        builder
            .write(&mut bytes, &packet.payload)
            .expect("a packet that fits its length fields");
        Self(bytes)
    }
}

impl From<&Tcp> for Frame {
    fn from(packet: &Tcp) -> Self {
        packet.clone().into()
    }
}

impl From<&Frame> for Frame {
    fn from(frame: &Frame) -> Self {
        frame.clone()
    }
}

/// A UDP packet from [`CLIENT`] to `service`.
#[must_use]
pub fn udp_to(service: impl Endpoint) -> Frame {
    let service = service.socket();
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC)
        .ipv4(CLIENT.ip().octets(), service.ip().octets(), 64)
        .udp(CLIENT.port(), service.port());
    let mut bytes = Vec::new();
    builder
        .write(&mut bytes, b"question")
        .expect("a packet that fits its length fields");
    Frame(bytes)
}

/// An ICMP echo request from [`CLIENT`] to the address of [`WEB`].
#[must_use]
pub fn ping() -> Frame {
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC)
        .ipv4(CLIENT.ip().octets(), WEB.ip().octets(), 64)
        .icmpv4_echo_request(1, 1);
    let mut bytes = Vec::new();
    builder
        .write(&mut bytes, b"ping")
        .expect("a packet that fits its length fields");
    Frame(bytes)
}

/// A router's ARP request for the address of [`WEB`].
#[must_use]
pub fn arp_request() -> Frame {
    let request = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: ROUTER_MAC,
        sender_ipv4: [192, 0, 2, 254],
        target_mac: [0; 6],
        target_ipv4: WEB.ip().octets(),
    };
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, [0xff; 6]).arp(request.to_arp_packet());
    let mut bytes = Vec::new();
    builder.write(&mut bytes).expect("a vector takes all");
    Frame(bytes)
}

/// A SYN over IPv6 to the IPv4-mapped address of [`WEB`].
#[must_use]
pub fn ipv6_syn() -> Frame {
    let mapped = |address: &SocketAddrV4| address.ip().to_ipv6_mapped().octets();
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC)
        .ipv6(mapped(&CLIENT), mapped(&WEB), 64)
        .tcp(CLIENT.port(), WEB.port(), 1, 64240)
        .syn();
    let mut bytes = Vec::new();
    builder
        .write(&mut bytes, &[])
        .expect("a packet that fits its length fields");
    Frame(bytes)
}

fn ipv4(protocol: IpNumber) -> Ipv4Header {
    Ipv4Header::new(0, 64, protocol, CLIENT.ip().octets(), WEB.ip().octets())
        .expect("no payload fits")
}
