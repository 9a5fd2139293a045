//! The packets that are measured: TCP over IPv4 or IPv6, each of one length, well-formed.
//!
//! Addresses are those set aside for benchmarks (RFC 2544, RFC 5180) and for documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

use crate::{
    abi::{Difference, FRAME, SHORT_FRAME, Template},
    plane::Scale,
};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Where the TCP checksum stands in its frames.
    const fn checksum_at(self) -> usize {
        match self {
            Self::V4 => 50,
            Self::V6 => 70,
        }
    }

    /// Bytes of its frames.
    #[must_use]
    pub const fn frame(self) -> usize {
        match self {
            Self::V4 => SHORT_FRAME,
            Self::V6 => FRAME,
        }
    }
}

/// What a packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens it.
    Syn,
    /// Goes on with it.
    Ack,
}

/// A connection: who talks to whom. Both addresses are of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The service's address and port.
    pub service: SocketAddr,
}

/// The TCP checksum of all packets.
const CHECKSUM: u16 = 0x1234;
/// The port of all services.
pub const PORT: u16 = 80;
/// MAC address of the router, which all packets come from.
const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// MAC address of the director, which all packets come to.
const DIRECTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// Address of the service with this number: 0..=249.
#[must_use]
pub fn vip(family: Family, service: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 1 + service).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, service.into()).into(),
    }
}

/// An address that no service has.
#[must_use]
pub fn no_vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 2, 0).into(),
    }
}

/// A connection to `service`, of its own for each `number` below [`CONNECTIONS`](crate::abi::CONNECTIONS).
#[must_use]
pub fn connection(number: u32, service: IpAddr) -> Connection {
    // Some connections of each of many clients, as a director sees them. `Difference` has them in memory so.
    let [first, second, third, _] = number.to_le_bytes();
    let port = u16::from_be_bytes([0x80, third]);
    let host = [first, second];
    let client = match service {
        IpAddr::V4(_) => Ipv4Addr::new(198, 18, host[0], host[1]).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, u16::from_be_bytes(host)).into(),
    };
    Connection {
        client: SocketAddr::new(client, port),
        service: SocketAddr::new(service, PORT),
    }
}

/// The packets of a run: one of each connection.
#[derive(Clone, Copy, Debug)]
pub struct Packets {
    /// Their family.
    pub family: Family,
    /// How many there are: 1..=[`CONNECTIONS`](crate::abi::CONNECTIONS).
    pub connections: u32,
    /// Services that they are to, in turn: 1..=250.
    pub services: u32,
    /// The packet of connection 0.
    pub base: Template,
}

impl Packets {
    /// Packets to services, in turn.
    #[must_use]
    pub fn to_services(family: Family, segment: Segment, scale: Scale, connections: u32) -> Self {
        Self {
            services: scale.services.into(),
            ..Self::to(connection(0, vip(family, 0)), segment, connections)
        }
    }

    /// Packets of a connection, and of others to the same service.
    #[must_use]
    pub fn to(first: Connection, segment: Segment, connections: u32) -> Self {
        Self {
            family: first.family(),
            connections,
            services: 1,
            base: first.packet(segment),
        }
    }

    /// The packet of a connection, as the wrapper writes it.
    #[must_use]
    pub fn get(&self, connection: u32) -> Template {
        let own = Difference::new(connection, self.services);
        std::array::from_fn(|index| match self.family {
            Family::V4 => own.apply_v4(index, self.base[index]),
            Family::V6 => own.apply_v6(index, self.base[index]),
        })
    }
}

impl Connection {
    /// A packet from the client. Those of one family and kind differ in nothing but addresses, ports and what stands between
    /// them: half of the sequence number makes up for them, so that all have the same TCP checksum.
    ///
    /// # Panics
    ///
    /// If the addresses are of different families.
    #[must_use]
    pub fn packet(&self, segment: Segment) -> Template {
        let family = self.family();
        let packet = bytes(family, &self.with_sequence(segment, 0));
        let at = family.checksum_at();
        let checksum = u16::from_be_bytes([packet[at], packet[at + 1]]);
        // The sum of all others in one's complement, and what is lacking to the one that all packets have.
        let (upper, carry) = checksum.overflowing_add(!CHECKSUM);
        self.with_sequence(segment, upper + u16::from(carry))
    }

    /// A packet with this upper half of its sequence number.
    fn with_sequence(&self, segment: Segment, upper: u16) -> Template {
        let ethernet = PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC);
        let network = match (self.client.ip(), self.service.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
            _ => panic!(
                "{} and {} are of different families",
                self.client, self.service
            ),
        };
        frame(
            self.family(),
            network.tcp_header(self.header(segment, upper)),
        )
    }

    fn family(&self) -> Family {
        if self.service.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    fn header(&self, segment: Segment, upper: u16) -> TcpHeader {
        let ports = (self.client.port(), self.service.port());
        let sequence = u32::from(upper) << 16 | 0x0304;
        let mut header = TcpHeader::new(ports.0, ports.1, sequence, 64_240);
        match segment {
            Segment::Syn => header.syn = true,
            Segment::Ack => {
                header.ack = true;
                header.acknowledgment_number = 0x0506_0708;
            }
        }
        header
    }
}

/// The frame, filled up with data to the length of its family's.
fn frame(family: Family, packet: PacketBuilderStep<TcpHeader>) -> Template {
    let data = family.frame().saturating_sub(packet.size(0));
    let mut bytes = Vec::with_capacity(FRAME);
    packet
        .write(&mut bytes, &[0; FRAME][..data])
        .expect("a packet that fits its length fields");
    bytes.resize(FRAME, 0);
    let (words, rest) = bytes.as_chunks();
    assert!(rest.is_empty() && words.len() == FRAME / 8);
    std::array::from_fn(|index| u64::from_ne_bytes(words[index]))
}

/// The bytes of a frame of this family.
#[must_use]
pub fn bytes(family: Family, packet: &Template) -> Vec<u8> {
    let words = packet.iter().flat_map(|word| word.to_ne_bytes());
    words.take(family.frame()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::abi::CONNECTIONS;

    /// Numbers at the edges of what a packet has room for, and some between them.
    fn numbers() -> impl Iterator<Item = u32> {
        let edges = [
            0,
            1,
            99,
            100,
            0xff,
            0xffff,
            0x1_0000,
            999_999,
            CONNECTIONS - 1,
        ];
        edges.into_iter().chain((0..CONNECTIONS).step_by(65_521))
    }

    #[test]
    fn connections_are_all_different() {
        for family in [Family::V4, Family::V6] {
            let all: HashSet<_> = (0..250_000)
                .map(|number| connection(number, vip(family, 0)))
                .collect();
            assert_eq!(all.len(), 250_000);
        }
    }

    /// What the wrapper makes of the first packet is what a library makes from nothing.
    #[test]
    fn packets_are_those_of_their_connections() {
        for family in [Family::V4, Family::V6] {
            for segment in [Segment::Syn, Segment::Ack] {
                for services in [1, 3, 100, 250] {
                    let scale = Scale {
                        services,
                        ..Scale::default()
                    };
                    let packets = Packets::to_services(family, segment, scale, CONNECTIONS);
                    for number in numbers() {
                        let service = u8::try_from(number % u32::from(services)).unwrap();
                        let connection = connection(number, vip(family, service));
                        assert_eq!(packets.get(number), connection.packet(segment), "{number}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_packet_is_one_whole_ip_packet_of_its_connection() {
        for family in [Family::V4, Family::V6] {
            let connection = connection(70_000, vip(family, 3));
            let frame = bytes(family, &connection.packet(Segment::Syn));
            let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let etherparse::TransportSlice::Tcp(tcp) = packet.transport.unwrap() else {
                panic!("not TCP");
            };
            assert!(tcp.syn() && !tcp.ack());
            let sum = match packet.net.unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    let ip = ip.header();
                    tcp.calc_checksum_ipv4(ip.source(), ip.destination())
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    let ip = ip.header();
                    tcp.calc_checksum_ipv6(ip.source(), ip.destination())
                }
                etherparse::NetSlice::Arp(_) => panic!("ARP"),
            };
            assert_eq!((sum.unwrap(), tcp.checksum()), (CHECKSUM, CHECKSUM));
            assert_eq!(tcp.source_port(), connection.client.port());
            assert_eq!(tcp.destination_port(), PORT);
            let headers = family.frame() - tcp.payload().len();
            assert_eq!(headers, if family == Family::V4 { 54 } else { 74 });
        }
    }
}
