//! Advertisements made by hand, with whatever source they are to have.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use xdp_lb::vrrp::packet::{Advertisement, Checksum, Interval, PROTOCOL};
use xtask::lab::Host;

/// Where all virtual routers of a link listen.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Sends IPv4 packets of VRRP by a host's `eth0`.
#[derive(Debug)]
pub struct Forger(Socket);

impl Forger {
    /// On a host of the lab.
    pub fn new(host: &Arc<Host>) -> Result<Self> {
        let socket = host.run(|| {
            let protocol = Protocol::from(i32::from(PROTOCOL));
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
            socket.set_header_included_v4(true)?;
            socket.bind_device(Some(b"eth0"))?;
            socket.set_multicast_loop_v4(false)?;
            Ok::<_, std::io::Error>(socket)
        });
        Ok(Self(socket.context("a raw socket")?))
    }

    /// Sends a message to the group.
    pub fn send(&self, source: Ipv4Addr, hops: u8, message: &[u8]) -> Result<()> {
        let packet = packet(source, GROUP, hops, message);
        let to = SockAddr::from(std::net::SocketAddr::from((GROUP, 0)));
        self.0.send_to(&packet, &to)?;
        Ok(())
    }
}

/// An IPv4 packet; the kernel fills in length and checksum of its header.
fn packet(source: Ipv4Addr, destination: Ipv4Addr, hops: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, hops, PROTOCOL, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(message);
    packet
}

/// What a router of VRID 51 says of the lab's VIP every 100 ms.
#[must_use]
pub fn advertisement(source: Ipv4Addr, priority: u8) -> Vec<u8> {
    let advertisement = Advertisement {
        vrid: 51,
        priority,
        interval: Interval::from_centiseconds(10).unwrap_or_else(|| unreachable!("ten")),
        addresses: vec![[192, 0, 2, 10].into()],
    };
    advertisement.to_bytes(source.into(), GROUP.into(), Checksum::Plain)
}

/// Gives a message that was changed the right sum again.
pub fn sign(message: &mut [u8]) {
    message[6..8].fill(0);
    let sum = xdp_lb_common::checksum::of(message);
    message[6..8].copy_from_slice(&sum);
}
