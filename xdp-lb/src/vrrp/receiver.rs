//! Where advertisements come in: a raw socket.

use std::{
    io::{self, IoSliceMut, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZero,
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::{
    filter::{Choice, filter},
    packet::PROTOCOL,
};

/// The group that IPv4 advertisements are sent to.
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// The group that IPv6 advertisements are sent to.
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// More than the longest advertisement: 8 bytes, 255 addresses of 16, and an IPv4 header.
const ROOM: usize = 60 + 8 + 255 * 16 + 1;

/// Bytes that may wait in the kernel: a few thousand packets.
const BUFFER: usize = 1 << 20;

/// A packet of VRRP as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Time to live, or hop limit.
    pub(super) hops: u8,
    /// What is behind the IP header. An overlong one is cut off, but is then still too long.
    pub(super) message: Vec<u8>,
}

/// Hears what comes in by one interface.
pub(super) struct Receiver {
    socket: AsyncFd<Socket>,
    is_ipv6: bool,
}

impl Receiver {
    /// Joins the group of a family on an interface, and takes what is sent to this host alone, too.
    pub(super) fn open(
        interface: &str,
        ifindex: NonZero<u32>,
        is_ipv6: bool,
        choice: Choice<'_>,
    ) -> io::Result<Self> {
        let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(domain, kind, Some(protocol))?;
        // Before it is bound, so that nothing else gets in.
        socket.attach_filter(&filter(is_ipv6, choice))?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        if is_ipv6 {
            socket.set_recv_hoplimit_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            socket.join_multicast_v6(&GROUP_V6, ifindex.get())?;
        } else {
            socket.set_multicast_all_v4(false)?;
            let by = InterfaceIndexOrAddress::Index(ifindex.get());
            socket.join_multicast_v4_n(&GROUP_V4, &by)?;
        }
        // SAFETY: the socket's descriptor stays its own, and the same, for as long as it lives.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)?;
        Ok(Self { socket, is_ipv6 })
    }

    /// The next packet.
    pub(super) async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|socket| {
                if self.is_ipv6 {
                    receive_v6(socket.get_ref())
                } else {
                    receive_v4(socket.get_ref())
                }
            });
            match received {
                // Of neither of which there is any, if the kernel does as it says.
                Ok(Ok(None)) | Err(_) => {}
                Ok(Ok(Some(received))) => return Ok(received),
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// A raw socket of IPv4 gives the header as well.
fn receive_v4(mut socket: &Socket) -> io::Result<Option<Received>> {
    let mut buffer = [0; ROOM];
    let length = socket.read(&mut buffer)?;
    Ok(split_v4(&buffer[..length]))
}

fn split_v4(packet: &[u8]) -> Option<Received> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xf) * 4;
    let address = |at: usize| Some(IpAddr::from(*header[at..].first_chunk::<4>()?));
    Some(Received {
        source: address(12)?,
        destination: address(16)?,
        hops: header[8],
        message: packet.get(length..)?.to_vec(),
    })
}

fn receive_v6(socket: &Socket) -> io::Result<Option<Received>> {
    let mut buffer = [0; ROOM];
    let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let (length, source) = (message.bytes, message.address);
    let (mut destination, mut hops) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                destination = Some(IpAddr::from(info.ipi6_addr.s6_addr));
            }
            ControlMessageOwned::Ipv6HopLimit(limit) => hops = u8::try_from(limit).ok(),
            _ => {}
        }
    }
    let (Some(source), Some(destination), Some(hops)) = (source, destination, hops) else {
        return Ok(None);
    };
    Ok(Some(Received {
        source: source.ip().into(),
        destination,
        hops,
        message: buffer[..length].to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ipv4_are_no_part_of_the_message() {
        let mut packet = vec![0x46, 0xc0, 0, 26, 0, 0, 0, 0, 255, PROTOCOL, 0, 0];
        packet.extend([10, 0, 0, 1, 224, 0, 0, 18]);
        packet.extend([0x94, 4, 0, 0, 0x31, 51]);
        let received = split_v4(&packet).unwrap();
        assert_eq!(received.source, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(received.destination, IpAddr::from(GROUP_V4));
        assert_eq!(
            (received.hops, &received.message[..]),
            (255, &[0x31, 51][..])
        );
        // A header that is said to be longer than the packet.
        packet[0] = 0x4f;
        assert_eq!(split_v4(&packet), None);
        assert_eq!(split_v4(&packet[..19]), None);
        assert_eq!(split_v4(&[]), None);
    }
}
