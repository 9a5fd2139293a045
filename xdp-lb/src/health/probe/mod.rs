//! Asking a backend once.

use std::net::{IpAddr, SocketAddr};

/// Whom to ask, and by which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where sockets are connected to: the backend's own address, and the port that is asked.
    pub address: SocketAddr,
    /// The VIP that steered packets go to; None: they go to `address` as they are.
    pub vip: Option<IpAddr>,
    /// The mark of packets to be steered.
    pub mark: Option<u32>,
    /// The source address to take; None: the one that the kernel's route prefers.
    pub source: Option<IpAddr>,
    /// The largest IP packet that the way takes, in bytes, without outer headers; None: not known.
    pub mtu: Option<u16>,
}
