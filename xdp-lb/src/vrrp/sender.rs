//! Where advertisements go out.
//!
//! To the group they go as whole frames, since they are to bear the virtual MAC address where there is one
//! (RFC 9568, section 7.3); to single peers as IP packets, whose way the kernel finds.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    num::NonZero,
};

use etherparse::{
    IpDscp, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header,
    PacketBuilder,
};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{
    link_socket::LinkSocket,
    packet::{HOPS, PROTOCOL},
    receiver::{GROUP_V4, GROUP_V6},
};

/// Network control (DSCP CS6), as RFC 9568 asks for by way of RFC 2474's classes and others send it.
const TRAFFIC_CLASS: u8 = 0xc0;

/// Sends the advertisements of a virtual router.
#[derive(Debug)]
pub(super) enum Sender {
    /// To all routers of the link.
    Group {
        socket: LinkSocket,
        source: IpAddr,
        mac: [u8; 6],
    },
    /// To each of these.
    Peers { socket: Socket, peers: Vec<IpAddr> },
}

impl Sender {
    /// For the group, by an interface, from its own address and from a MAC address.
    pub(super) fn to_group(
        ifindex: NonZero<u32>,
        source: IpAddr,
        mac: [u8; 6],
    ) -> io::Result<Self> {
        Ok(Self::Group {
            socket: LinkSocket::open(ifindex)?,
            source,
            mac,
        })
    }

    /// For peers, all of which are of the source's family.
    pub(super) fn to_peers(
        interface: &str,
        ifindex: NonZero<u32>,
        source: IpAddr,
        peers: Vec<IpAddr>,
    ) -> io::Result<Self> {
        let domain = Domain::for_address((source, 0).into());
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        // What comes in is for the receiver: this one takes no byte of any packet.
        let nothing = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        socket.attach_filter(&[nothing])?;
        if source.is_ipv4() {
            socket.set_ttl_v4(u32::from(HOPS))?;
            socket.set_tos_v4(u32::from(TRAFFIC_CLASS))?;
        } else {
            socket.set_unicast_hops_v6(u32::from(HOPS))?;
            socket.set_tclass_v6(u32::from(TRAFFIC_CLASS))?;
        }
        socket.bind(&scoped(source, ifindex))?;
        Ok(Self::Peers { socket, peers })
    }

    /// Sends what `message` makes for a destination. Returns how many were sent, and the last failure.
    pub(super) fn send(&self, message: impl Fn(IpAddr) -> Vec<u8>) -> (u64, Option<io::Error>) {
        match self {
            Self::Group {
                socket,
                source,
                mac,
            } => {
                let group = group_of(*source);
                let sent = frame(*source, group, *mac, &message(group))
                    .and_then(|frame| socket.send(&frame));
                (u64::from(sent.is_ok()), sent.err())
            }
            Self::Peers { socket, peers } => {
                let (mut count, mut failed) = (0, None);
                for &peer in peers {
                    let to = SockAddr::from(SocketAddr::new(peer, 0));
                    match socket.send_to(&message(peer), &to) {
                        Ok(_) => count += 1,
                        Err(error) => failed = Some(error),
                    }
                }
                (count, failed)
            }
        }
    }
}

/// Where all routers of the link hear it.
pub(super) fn group_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => GROUP_V4.into(),
        IpAddr::V6(_) => GROUP_V6.into(),
    }
}

/// An address to bind to: one of the link alone goes with the link.
fn scoped(source: IpAddr, ifindex: NonZero<u32>) -> SockAddr {
    match source {
        IpAddr::V6(source) if source.is_unicast_link_local() => {
            SocketAddrV6::new(source, 0, 0, ifindex.get()).into()
        }
        _ => SocketAddr::new(source, 0).into(),
    }
}

/// An Ethernet frame with an IP packet of VRRP to a group.
fn frame(source: IpAddr, group: IpAddr, mac: [u8; 6], message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let dscp = IpDscp::try_new(TRAFFIC_CLASS >> 2).map_err(io::Error::other)?;
    let (headers, to) = match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => {
            let (from, to) = (source.octets(), group.octets());
            let mut header = Ipv4Header::new(length, HOPS, IpNumber(PROTOCOL), from, to)
                .map_err(io::Error::other)?;
            header.dscp = dscp;
            let [_, second, third, fourth] = to;
            // RFC 1112, section 6.4.
            let mac = [0x01, 0x00, 0x5e, second & 0x7f, third, fourth];
            (IpHeaders::Ipv4(header, Ipv4Extensions::default()), mac)
        }
        (IpAddr::V6(source), IpAddr::V6(group)) => {
            let header = Ipv6Header {
                traffic_class: TRAFFIC_CLASS,
                payload_length: length,
                next_header: IpNumber(PROTOCOL),
                hop_limit: HOPS,
                source: source.octets(),
                destination: group.octets(),
                ..Ipv6Header::default()
            };
            let [.., first, second, third, fourth] = group.octets();
            // RFC 2464, section 7.
            let mac = [0x33, 0x33, first, second, third, fourth];
            (IpHeaders::Ipv6(header, Ipv6Extensions::default()), mac)
        }
        _ => return Err(io::Error::other("addresses of two families in one packet")),
    };
    let mut frame = Vec::with_capacity(14 + 40 + message.len());
    PacketBuilder::ethernet2(mac, to)
        .ip(headers)
        .write(&mut frame, IpNumber(PROTOCOL), message)
        .map_err(io::Error::other)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];

    #[test]
    fn a_frame_to_the_ipv4_group_is_as_others_send_it() {
        let source = IpAddr::from([10, 0, 0, 2]);
        let frame = frame(source, group_of(source), MAC, &[0x31, 51]).unwrap();
        assert_eq!(frame[..6], [0x01, 0, 0x5e, 0, 0, 18]);
        assert_eq!(frame[6..14], [0, 0, 0x5e, 0, 1, 51, 0x08, 0]);
        assert_eq!(frame[14..18], [0x45, 0xc0, 0, 22]);
        assert_eq!((frame[22], frame[23]), (255, 112));
        assert_eq!(frame[26..], [10, 0, 0, 2, 224, 0, 0, 18, 0x31, 51]);
        assert_eq!(xdp_lb_common::checksum::of(&frame[14..34]), [0, 0]);
    }

    #[test]
    fn a_frame_to_the_ipv6_group_is_as_others_send_it() {
        let source: IpAddr = "fe80::1".parse().unwrap();
        let frame = frame(source, group_of(source), MAC, &[0x31, 51, 7]).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x6c, 0, 0, 0, 0, 3, 112, 255]);
        assert_eq!(frame[38..40], [0xff, 0x02]);
        assert_eq!(frame[53..], [0x12, 0x31, 51, 7]);
    }

    #[test]
    fn one_packet_has_one_family() {
        let source = IpAddr::from([10, 0, 0, 2]);
        assert!(frame(source, GROUP_V6.into(), MAC, &[]).is_err());
    }
}
