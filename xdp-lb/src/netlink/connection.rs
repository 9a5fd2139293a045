//! Sockets towards the kernel: one that is told what changes, and one that asks.
//!
//! They are two, since the kernel drops what does not fit a socket's buffer: on one that both asks and is told,
//! an answer could get lost among notifications, and would be waited for for ever.

use std::{io, time::Duration};

use futures_util::Stream;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use rtnetlink::{
    Handle, MulticastGroup,
    sys::{AsyncSocket as _, SocketAddr},
};
use tokio::time::{error::Elapsed, timeout};

/// Bytes of notifications that may wait: some ten thousand neighbours that change at a time.
const BUFFER: usize = 16 << 20;

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the kernel tells of by itself.
pub(super) type Notification = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// Opens both, each with a task of its own that ends with what is returned.
///
/// # Errors
///
/// If no netlink socket can be had.
pub(super) fn open(
    groups: &[MulticastGroup],
) -> io::Result<(Handle, impl Stream<Item = Notification> + Unpin + use<>)> {
    let (mut told, _, messages) = rtnetlink::new_multicast_connection(groups)?;
    // Without the right to it, the kernel's usual size has to do: what gets lost is read again.
    let _ = setsockopt(told.socket_mut().socket_ref(), RcvBufForce, &BUFFER);
    tokio::spawn(told);
    Ok((ask()?, messages))
}

/// Opens the one that asks.
///
/// # Errors
///
/// As [`open`].
pub(super) fn ask() -> io::Result<Handle> {
    let (asks, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(asks);
    Ok(handle)
}

/// Waits for an answer, but not for ever.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, rtnetlink::Error> {
    let late = |_: Elapsed| rtnetlink::Error::RequestFailed;
    timeout(PATIENCE, answer).await.map_err(late)?
}
