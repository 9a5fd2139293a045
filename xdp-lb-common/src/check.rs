//! What the programs that steer health checks and the daemon agree on: maps, and what a check's packets
//! are made into.
//!
//! A check with `via: vip` is to test what clients' packets meet. Its socket is connected to the
//! backend's own address, and marked; on the way out its packets become what the data plane would send,
//! and the answers, which come from the VIP, get the backend's address back on the way in.
//!
//! None of it outlives the daemon.

use core::time::Duration;

/// Names of the maps.
pub mod map {
    /// Hash, a socket's mark (`u32`, never 0) → [`Target`](super::Target).
    pub const TARGETS: &str = "TARGETS";
    /// LRU hash, [`FlowKey`](crate::abi::FlowKey) of 16-byte addresses → [`FlowEntry`](super::FlowEntry):
    /// what was sent to a VIP, so that answers are known. The flow is as the backend sees it, from the
    /// director's own address to the VIP, IPv4 addresses in their IPv4-mapped form; an ICMP echo has its
    /// identifier as source port, and 0 as destination port.
    pub const FLOWS: &str = "FLOWS";
}

/// How many targets there can be, and how many flows.
pub const ENTRIES: u32 = 65536;

/// Answers are taken for this long after the last packet that was sent.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// The value of [`map::TARGETS`]: what becomes of the packets with a mark.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Packets that were steered. The program counts up from what is written here.
    pub packets: u64,
    /// What becomes the packet's destination; an IPv4 address in its IPv4-mapped form.
    pub vip: [u8; 16],
    /// The backend's own address, which the packet was for; of the family of `vip` and written like it.
    pub backend: [u8; 16],
    /// With a tunnel, the source of the outer header, of the same family and written like it.
    pub tunnel_source: [u8; 16],
    /// [`Self::FLAG_IPIP`] or [`Self::FLAG_GUE`]; neither: the frame goes to the backend as it is.
    pub flags: u16,
    /// With `gue`, the outer header's destination port, in network order.
    pub gue_port_be: [u8; 2],
    /// Always 0.
    pub reserved: [u8; 4],
}

impl Target {
    /// Packets go to the backend inside an IP packet (forwarding mode `ipip`).
    pub const FLAG_IPIP: u16 = 1;
    /// Packets go to the backend inside a UDP datagram (forwarding mode `gue`).
    pub const FLAG_GUE: u16 = 2;
}

/// The value of [`map::FLOWS`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry {
    /// Whom it was sent to, as in [`Target::backend`].
    pub backend: [u8; 16],
    /// When the last packet was sent, in nanoseconds of `CLOCK_MONOTONIC`.
    pub sent: u64,
}

/// The four bytes of an IPv4 address in its mapped form.
#[inline(always)]
#[must_use]
pub const fn unmapped(address: &[u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = *address;
    [a, b, c, d]
}

// The kernel knows a map by sizes alone.
const _: () = {
    assert!(size_of::<Target>() == 64);
    assert!(size_of::<FlowEntry>() == 24);
};

// SAFETY: `repr(C)`, integers and arrays of integers: every bit pattern is valid, and the sizes above
// are the sums of the fields', so there is no padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Target {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FlowEntry {}
