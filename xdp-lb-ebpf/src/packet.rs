//! The notes on the packet at hand, which the stages hand on to each other.

use core::mem;

use xdp_lb_common::abi::{BackendWay, FlowKey, NextHop, WayLink};

use crate::frame::Frame;

/// The notes. They lie in memory of this CPU that the packet before has used, so each stage writes
/// every field that it is said to write, and reads none that no stage before it has written.
#[repr(C)]
pub(crate) struct Packet {
    /// The flow, where [`flow_family`](Self::flow_family) is IPv4. By [`network`](crate::network).
    pub(crate) flow_v4: FlowKey<[u8; 4]>,
    /// The flow, where it is IPv6.
    pub(crate) flow_v6: FlowKey<[u8; 16]>,
    /// The way to the backend. By [`balance`](crate::balance).
    pub(crate) way: Way,
    /// What the flow table has of the flow. By [`flows`](crate::flows), for itself.
    pub(crate) found: Found,
    /// Id of the service. By `balance`.
    pub(crate) service: u32,
    /// For tunnels, a hash of the flow. By `balance`.
    pub(crate) entropy: u32,
    /// Bytes in the frame as it came. By the entry, as `ingress`.
    pub(crate) length: u32,
    /// Index of the interface that it came in by.
    pub(crate) ingress: u32,
    /// Where the IP header begins, from the start of the frame: behind 0, 1 or 2 tags. By
    /// [`link`](crate::link).
    network: u32,
    /// Where the transport header begins. By `network`, as all that follows.
    transport: u32,
    /// Bytes of the IP packet from there on.
    pub(crate) transport_length: u32,
    /// Bytes of the IP packet.
    pub(crate) ip_length: u32,
    /// The packet's identification, as it stands in the header, where it is a fragment.
    pub(crate) fragment_id: u32,
    /// Which fragment it is.
    pub(crate) fragment: Fragment,
    /// Family of the packet.
    pub(crate) family: Family,
    /// Family of the flow: another one only where an ICMP error quotes a packet in a tunnel.
    pub(crate) flow_family: Family,
    /// It is an ICMP error about a packet of the flow.
    pub(crate) is_icmp_error: bool,
    /// IPv4's type of service, IPv6's traffic class.
    pub(crate) traffic_class: u8,
    /// Routers may not fragment it: IPv4 with this bit, IPv6 always.
    pub(crate) is_unfragmentable: bool,
}

/// An address family.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// Which fragment a packet is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// None.
    Whole = 0,
    /// The first, which has the ports.
    First = 1,
    /// Another, which has none.
    Later = 2,
}

/// What was read of a backend's entry, once for a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// The entry.
    pub(crate) entry: BackendWay,
    /// Index of the backend.
    pub(crate) backend: u16,
    /// Fills the struct up to a multiple of eight bytes.
    pub(crate) reserved: [u16; 3],
}

/// An entry of the flow table, and a search for room in a bucket.
///
/// Here and not in registers: of what is read back from memory the verifier does not know which turn of a loop wrote
/// it, so that it does not follow each turn through the rest of the program.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// The entry; 0: there is none.
    pub(crate) entry: u64,
    /// Where it stands in its bucket.
    pub(crate) at: u32,
    /// The best place so far.
    pub(crate) best: u32,
    /// How good that is.
    pub(crate) most: u32,
    /// Fills the struct up to a multiple of eight bytes.
    reserved: u32,
}

/// What a packet does to its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    /// SYN without ACK: opens it.
    Opens,
    /// FIN or RST: ends it.
    Ends,
    /// Anything else, UDP always.
    Continues,
    /// Nothing: it is an ICMP error about one of its packets.
    Quotes,
}

/// The most that [`Packet::transport`] can be, plus one; a power of two, so that it is a mask.
const TRANSPORT_LIMIT: u32 = 2048;

impl Packet {
    /// Notes on which there is nothing but what the entry writes.
    #[inline(always)]
    pub(crate) fn of(frame: &Frame) -> Self {
        // SAFETY: integers, arrays of them, and enums that have a variant 0.
        let mut packet: Self = unsafe { mem::zeroed() };
        packet.length = frame.length();
        packet.ingress = frame.ingress();
        packet
    }

    /// Where the IP header begins. The mask is for the verifier.
    #[inline(always)]
    pub(crate) fn network(&self) -> usize {
        (self.network & 0x1f) as usize
    }

    #[inline(always)]
    pub(crate) fn set_network(&mut self, offset: usize) {
        self.network = offset as u32;
    }

    /// Where the transport header begins. The mask is for the verifier.
    #[inline(always)]
    pub(crate) fn transport(&self) -> usize {
        (self.transport & (TRANSPORT_LIMIT - 1)) as usize
    }

    #[inline(always)]
    pub(crate) fn set_transport(&mut self, offset: usize) {
        self.transport = offset as u32;
    }
}

impl Way {
    #[inline(always)]
    pub(crate) fn next_hop(&self) -> NextHop {
        NextHop::unpack(self.entry.next_hop)
    }

    #[inline(always)]
    pub(crate) fn link(&self) -> WayLink {
        WayLink::unpack(self.entry.link)
    }

    /// The inner tag.
    #[inline(always)]
    pub(crate) fn inner_tag(&self) -> u16 {
        let [.., a, b] = self.entry.source.to_ne_bytes();
        u16::from_ne_bytes([a, b])
    }
}
