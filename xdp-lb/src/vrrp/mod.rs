//! The Virtual Router Redundancy Protocol, version 3 (RFC 9568): which of several directors has the VIPs.
//!
//! [`packet`] is how an advertisement looks; [`machine`] decides what a virtual router does, and [`group`]
//! what several do that fail over together. All three are without I/O, and the time is passed in.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

pub mod counters;
pub mod group;
mod link_socket;
pub mod machine;
pub mod packet;
mod receiver;
mod sender;

/// An address that the active router has on its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits: up to 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.address, self.prefix))
    }
}
