//! A socket that sends whole Ethernet frames by one interface (packet(7)), and receives none.

use std::{io, num::NonZero};

use socket2::{Domain, SockAddr, Socket, Type};

/// Sends frames by one interface.
#[derive(Debug)]
pub(super) struct LinkSocket(Socket);

impl LinkSocket {
    /// Opens one for the interface with this index.
    ///
    /// # Errors
    ///
    /// If the process may not (CAP_NET_RAW), or the interface is gone.
    pub(super) fn open(ifindex: NonZero<u32>) -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        socket.bind(&address(ifindex)?)?;
        Ok(Self(socket))
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    ///
    /// If the interface is down or gone, or its queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }
}

fn address(ifindex: NonZero<u32>) -> io::Result<SockAddr> {
    let ifindex = i32::try_from(ifindex.get()).map_err(io::Error::other)?;
    let family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    // SAFETY: a `sockaddr_ll` is written into storage that is zero, has room for it, and gets its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let storage = storage.cast::<libc::sockaddr_ll>();
            (*storage).sll_family = family;
            (*storage).sll_ifindex = ifindex;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}
