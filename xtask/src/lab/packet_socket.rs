//! Sockets for whole frames (packet(7)).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;

use super::host::Host;

/// Which frames a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receives {
    Nothing,
    /// All frames, those that the host sends, too.
    All,
}

/// A socket on an interface of a host.
pub(super) fn open(host: &Host, interface: &str, receives: Receives) -> Result<OwnedFd> {
    let ifindex = i32::try_from(host.ifindex(interface)?)?;
    host.run(|| {
        // Bound before it is told what to receive, so that it gets nothing of other interfaces.
        let socket = new()?;
        bind(&socket, ifindex, receives)?;
        Ok::<_, io::Error>(socket)
    })
    .with_context(|| {
        format!(
            "cannot open a packet socket on {interface} of {}",
            host.name()
        )
    })
}

fn new() -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(socket: &OwnedFd, ifindex: i32, receives: Receives) -> io::Result<()> {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_ifindex = ifindex;
    if receives == Receives::All {
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        address.sll_protocol = all.to_be();
    }
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes of `address`.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            length,
        )
    };
    result(bound)
}

/// Sets an option of `libc::SOL_SOCKET` or `libc::SOL_PACKET`.
pub(super) fn set_option<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `length` bytes of `value`, and what that points to during the call.
    result(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) })
}

/// Reads the socket's statistics, which begin anew with that.
pub(super) fn take_statistics(socket: &OwnedFd) -> io::Result<libc::tpacket_stats> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length =
        libc::socklen_t::try_from(size_of_val(&statistics)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes to `statistics`.
    result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    })?;
    Ok(statistics)
}

pub(super) fn result(code: i32) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
