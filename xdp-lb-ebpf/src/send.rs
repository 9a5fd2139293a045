//! The packet on its way: forwarding modes.

use aya_ebpf::helpers::generated::bpf_redirect;
use xdp_lb_common::{
    abi::NextHop,
    counters::{DropReason, PassReason},
};

use crate::{
    frame::Frame,
    link,
    maps::TUNNEL_ENDS,
    outcome::Outcome,
    packet::{Family, Packet},
    path::Path,
    too_big,
    tunnel::{self, Kind},
};

/// An address in words that are read and written as they stand: of bytes the compiler reads and writes each.
pub(crate) type Words = [u32; 4];

/// Sends the packet on by its forwarding mode, or tells the client that it is too big for that.
#[inline(always)]
pub(crate) fn send<P: Path>(frame: Frame, packet: &Packet) -> Result<Outcome, Outcome> {
    let flags = packet.way.next_hop().flags;
    let hop = Hop::of(&frame, packet)?;
    if flags & NextHop::TUNNEL_FLAGS == 0 {
        let frame = within::<P>(frame, packet, 0)?;
        hop.take(&frame, packet)?;
        // A change of the number of tags is a change of the link header's length.
        let frame = frame
            .resize_head(packet.network(), link::length(&packet.way))
            .ok_or(DropReason::NoRoom)?;
        let ether_type = match packet.family {
            Family::V4 => link::IPV4,
            Family::V6 => link::IPV6,
        };
        link::write(&frame, &packet.way, ether_type).ok_or(DropReason::NoRoom)?;
        return Ok(transmit(packet));
    }
    let kind = if flags & NextHop::FLAG_GUE == 0 {
        Kind::Ipip
    } else {
        Kind::Gue
    };
    let ends = packet.way.entry.ends;
    if ends != 0 {
        let frame = within::<P>(frame, packet, tunnel::overhead(Family::V4, kind))?;
        hop.take(&frame, packet)?;
        tunnel::v4(frame, packet, kind, ends as u32, (ends >> 32) as u32)?;
    } else {
        let ends = TUNNEL_ENDS
            .get_ptr(u32::from(packet.way.backend))
            .ok_or(DropReason::BackendGone)?;
        // SAFETY: `ends` points to an array's element, in which both are aligned to eight bytes. They do not change while a
        // packet is under way that has seen the serving flag.
        let (address, source) = unsafe {
            let address = (&raw const (*ends).address).cast::<Words>();
            (*address, *(&raw const (*ends).source).cast::<Words>())
        };
        let frame = within::<P>(frame, packet, tunnel::overhead(Family::V6, kind))?;
        hop.take(&frame, packet)?;
        tunnel::v6(frame, packet, kind, source, address)?;
    }
    Ok(transmit(packet))
}

/// The word of the IP header that forwarding changes: with IPv4 time to live, protocol and checksum, with IPv6 the hop limit
/// behind next header and the half of the length.
struct Hop([u8; 4]);

/// Where that word is in the header.
const HOP_V4: usize = 8;
const HOP_V6: usize = 4;

impl Hop {
    /// Reads it. A packet that may go no further is dropped: so no mistake makes a loop (RFC 1812, section 5.3.1; RFC 8200,
    /// section 3).
    #[inline(always)]
    fn of(frame: &Frame, packet: &Packet) -> Result<Self, Outcome> {
        let (at, hops) = match packet.family {
            Family::V4 => (HOP_V4, 0),
            Family::V6 => (HOP_V6, 3),
        };
        let word: [u8; 4] = frame
            .read(packet.network() + at)
            .ok_or(PassReason::Truncated)?;
        if word[hops] <= 1 {
            return Err(DropReason::HopsExpired.into());
        }
        Ok(Self(word))
    }

    /// Takes one hop, and makes the checksum right for it (RFC 1624).
    #[inline(always)]
    fn take(self, frame: &Frame, packet: &Packet) -> Result<(), Outcome> {
        let [a, b, c, d] = self.0;
        let (at, word) = match packet.family {
            Family::V4 => {
                let sum = u32::from(u16::from_be_bytes([c, d])) + 0x100;
                let [c, d] = ((sum + u32::from(sum >= 0xffff)) as u16).to_be_bytes();
                (HOP_V4, [a - 1, b, c, d])
            }
            Family::V6 => (HOP_V6, [a, b, c, d - 1]),
        };
        frame
            .write(packet.network() + at, word)
            .ok_or(DropReason::NoRoom)?;
        Ok(())
    }
}

/// The frame, if the packet fits the way with `overhead` bytes of outer headers.
#[inline(always)]
fn within<P: Path>(frame: Frame, packet: &Packet, overhead: u32) -> Result<Frame, Outcome> {
    let mtu = u32::from(packet.way.link().mtu);
    if mtu == 0 || packet.ip_length + overhead <= mtu {
        return Ok(frame);
    }
    P::rare()?;
    Err(too_big::answer(
        frame.into_context(),
        packet,
        mtu.saturating_sub(overhead),
    ))
}

/// Out by the interface that leads to the backend.
#[inline(always)]
fn transmit(packet: &Packet) -> Outcome {
    let ifindex = packet.way.link().ifindex;
    if ifindex == packet.ingress {
        return Outcome::transmit();
    }
    // Not through a devmap: generic mode before Linux 5.15 takes no program that has one. The daemon
    // sees to it that the interface is one that the program is attached to.
    // SAFETY: takes no pointers.
    unsafe { bpf_redirect(ifindex, 0) };
    Outcome::redirect()
}
