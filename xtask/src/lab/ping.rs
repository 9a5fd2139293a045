//! An echo request and its answer, over the kernel's ping sockets (`ping(8)` may be missing).

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Whether `address` answers an echo request from the calling thread's namespace in time.
///
/// The group of this process must be within `net.ipv4.ping_group_range`.
pub(super) fn answers(address: IpAddr, patience: Duration) -> Result<bool> {
    let (domain, protocol, request, reply) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket =
        Socket::new(domain, Type::DGRAM, Some(protocol)).context("cannot open a ping socket")?;
    socket
        .set_read_timeout(Some(patience))
        .context("cannot limit the wait for a reply")?;
    // Type, code; the kernel fills in checksum and identifier; sequence number 1.
    let outcome = socket
        .connect(&SocketAddr::new(address, 0).into())
        .and_then(|()| socket.send(&[request, 0, 0, 0, 0, 0, 0, 1]))
        .and_then(|_| {
            let mut answer = [0; 64];
            let length = socket.read(&mut answer)?;
            Ok(length >= 8 && answer[0] == reply)
        });
    outcome
        .or_else(|error| {
            if is_no_answer(&error) {
                Ok(false)
            } else {
                Err(error)
            }
        })
        .with_context(|| format!("cannot ping {address}"))
}

/// Nothing came in time, or an ICMP error or the neighbour table says that nothing will.
fn is_no_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::ConnectionRefused
    )
}
