//! Saying where an address is now: gratuitous ARP, and unsolicited neighbour advertisements.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, PacketBuilder,
    icmpv6::NeighborAdvertisementHeader,
};

const BROADCAST: [u8; 6] = [0xff; 6];

/// All nodes of a link, and the MAC address that they listen to.
const ALL_NODES: (Ipv6Addr, [u8; 6]) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);

/// The hop limit of neighbour discovery: what has passed a router is not believed (RFC 4861, section 7.1.2).
const HOP_LIMIT: u8 = 255;

/// The option "target link-layer address", and its length in units of eight bytes (RFC 4861, section 4.6.1).
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];

/// A frame by which the hosts of a link learn that `address` is at `mac`. With IPv6 it also says whether that
/// is a router: hosts that have it for a gateway would take another if not.
///
/// # Errors
///
/// If the frame cannot be made.
pub fn frame(address: IpAddr, mac: [u8; 6], is_router: bool) -> io::Result<Vec<u8>> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => unsolicited_advertisement(address, mac, is_router),
    }
}

/// A request for the own address, which hosts take as news about it (RFC 5944, section 4.6).
fn gratuitous_arp(address: Ipv4Addr, mac: [u8; 6]) -> io::Result<Vec<u8>> {
    let address = address.octets();
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &mac,
        &address,
        &[0; 6],
        &address,
    )
    .map_err(io::Error::other)?;
    let builder = PacketBuilder::ethernet2(mac, BROADCAST).arp(packet);
    let mut frame = Vec::with_capacity(builder.size());
    builder.write(&mut frame).map_err(io::Error::other)?;
    Ok(frame)
}

/// An advertisement that overrides what neighbours know (RFC 4861, section 7.2.6).
fn unsolicited_advertisement(
    address: Ipv6Addr,
    mac: [u8; 6],
    is_router: bool,
) -> io::Result<Vec<u8>> {
    let header = NeighborAdvertisementHeader {
        router: is_router,
        solicited: false,
        r#override: true,
    };
    let (all_nodes, their_mac) = ALL_NODES;
    let builder = PacketBuilder::ethernet2(mac, their_mac)
        .ipv6(address.octets(), all_nodes.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    let mut rest = address.octets().to_vec();
    rest.extend(TARGET_LINK_LAYER);
    rest.extend(mac);
    let mut frame = Vec::with_capacity(builder.size(rest.len()));
    builder.write(&mut frame, &rest).map_err(io::Error::other)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn a_gratuitous_arp_asks_for_the_own_address() {
        let frame = frame([192, 0, 2, 10].into(), MAC, false).unwrap();
        let mut expected = vec![0xff; 6];
        expected.extend(MAC);
        expected.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        expected.extend(MAC);
        expected.extend([192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10]);
        assert_eq!(frame, expected);
    }

    #[test]
    fn an_unsolicited_advertisement_overrides() {
        let address: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let of_router = frame(address.into(), MAC, true).unwrap();
        assert_eq!(of_router[58], 0xa0, "the flags of a router, and override");
        let frame = frame(address.into(), MAC, false).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[22..38], address.octets());
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58..62], [0x20, 0, 0, 0], "only the override flag");
        assert_eq!(frame[62..78], address.octets());
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 7]);
        let mut summed = frame[22..54].to_vec();
        summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend(&frame[54..]);
        assert_eq!(xdp_lb_common::checksum::of(&summed), [0, 0]);
    }
}
