//! ICMP errors, as a router on the way to the client sends them to the VIP: they quote the beginning
//! of the packet that they are about.

use etherparse::{EtherType, IpNumber};

use crate::{
    datagram::{CLIENT6, WEB6},
    packet::{DIRECTOR_MAC, ETHERNET, Frame, ROUTER_MAC, WEB},
};

/// Bytes that every router quotes of an IPv4 packet: its header and eight more (RFC 792).
pub const LEAST: usize = 28;

/// An ICMP message of this type and code from a router to the address of [`WEB`] that quotes so many
/// bytes of `quoted`'s IP packet.
#[must_use]
pub fn icmp_error(kind: u8, code: u8, quoted: &Frame, bytes: usize) -> Frame {
    let quoted = &quoted.bytes()[ETHERNET..][..bytes];
    let length = u16::try_from(20 + 8 + quoted.len()).expect("a total length has 16 bits");
    let mut frame = ethernet(EtherType::IPV4);
    frame.extend([0x45, 0xc0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 1, 0, 0, 63, IpNumber::ICMP.0, 0, 0]);
    frame.extend([203, 0, 113, 1]);
    frame.extend(WEB.ip().octets());
    // Type, code, checksum, unused, MTU of the next hop.
    frame.extend([kind, code, 0, 0, 0, 0, 0x05, 0x78]);
    frame.extend(quoted);
    Frame::new(frame)
}

/// The same over IPv6, to the address of [`WEB6`].
#[must_use]
pub fn icmp6_error(kind: u8, quoted: &[u8]) -> Frame {
    let length = u16::try_from(8 + quoted.len()).expect("a payload length has 16 bits");
    let mut frame = ethernet(EtherType::IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([IpNumber::IPV6_ICMP.0, 63]);
    frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend(WEB6.ip().octets());
    frame.extend([kind, 0, 0, 0, 0, 0, 0x05, 0x78]);
    frame.extend(quoted);
    Frame::new(frame)
}

/// The first bytes of what a backend sent to the client over IPv6, with these bytes behind the IP
/// header.
#[must_use]
pub fn reply6(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0x05, 0xb4, protocol, 63];
    bytes.extend(WEB6.ip().octets());
    bytes.extend(CLIENT6.ip().octets());
    bytes.extend(transport);
    bytes
}

/// Ports of a reply, and four bytes more.
#[must_use]
pub fn reply_ports(vip: u16, client: u16) -> Vec<u8> {
    [vip, client, 0x1122, 0x3344].map(u16::to_be_bytes).concat()
}

fn ethernet(kind: EtherType) -> Vec<u8> {
    let mut bytes = [DIRECTOR_MAC, ROUTER_MAC].concat();
    bytes.extend(kind.0.to_be_bytes());
    bytes
}
