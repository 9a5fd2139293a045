//! Sockets of checks: marked, bound, and closed without a trace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::Target;

/// Bytes that the kernel may hold of what a backend sends: more than any answer that is looked at, and
/// little enough for thousands of backends that never stop sending.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Bytes that the kernel may hold of what is sent by TCP: two requests. A backend that makes us answer, and
/// does not read, is not to fill megabytes.
const SEND_BUFFER: usize = 16 * 1024;

/// Bytes of a TCP header without options.
const TCP_HEADER: u16 = 20;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// It is enough that there is one.
    Nothing,
    /// Requests and answers.
    Data,
}

/// Connects to the target.
///
/// The connection is closed by RST: an orderly end would leave an entry in TIME-WAIT for a minute, of
/// which thousands of checks a second would make more than a host has ports.
///
/// # Errors
///
/// If the kernel refuses a setting, or the connection is not made.
pub(super) async fn connect_tcp(target: &Target, exchange: Exchange) -> io::Result<TcpStream> {
    let socket = new(target, Type::STREAM, Protocol::TCP)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if exchange == Exchange::Data {
        // Before it is connected, which fixes the window that is offered.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(segment) = segment(target) {
            socket.set_tcp_mss(u32::from(segment))?;
        }
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(target.address).await
}

/// A UDP socket that takes datagrams from the target alone.
///
/// # Errors
///
/// If the kernel refuses a setting, or knows no way to the target.
pub(super) fn connect_udp(target: &Target) -> io::Result<UdpSocket> {
    let socket = new(target, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(&SockAddr::from(target.address))?;
    UdpSocket::from_std(socket.into())
}

/// A socket with the mark and the source address of the target; it does not block.
///
/// # Errors
///
/// If the kernel refuses a setting.
pub(super) fn new(target: &Target, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = Domain::for_address(target.address);
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
    if let Some(mark) = target.mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    let any: IpAddr = match target.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    match (target.mark, target.source) {
        // All backends that are asked for a VIP answer from it: their answers are told apart by a local
        // port, which must be this socket's alone.
        (Some(_), source) => socket.bind(&SocketAddr::new(source.unwrap_or(any), 0).into())?,
        (None, Some(source)) => {
            if kind == Type::STREAM {
                without_port(&socket)?;
            }
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        (None, None) => {}
    }
    Ok(socket)
}

/// Has `bind` leave the port open until the socket is connected, so that one may serve for many backends.
fn without_port(socket: &Socket) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};

    setsockopt(socket, IpBindAddressNoPort, &true).map_err(io::Error::from)
}

/// The size of a TCP segment, options included, that fits the way to the target.
pub(super) fn segment(target: &Target) -> Option<u16> {
    /// The smallest that Linux takes.
    const LEAST: u16 = 88;
    /// The largest that it takes. Ways over a loopback have room for more.
    const MOST: u16 = 32_767;
    let segment = target
        .mtu?
        .checked_sub(ip_header(target.address.ip()) + TCP_HEADER)?;
    (segment >= LEAST).then_some(segment.min(MOST))
}

/// Bytes of an IP header without options.
pub(super) const fn ip_header(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}
