//! The packet on its way: forwarding modes.

use aya_ebpf::helpers::generated::bpf_redirect;
use xdp_lb_common::{abi::NextHop, counters::DropReason};

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
    if flags & NextHop::TUNNEL_FLAGS == 0 {
        let frame = within::<P>(frame, packet, 0)?;
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
        tunnel::v6(frame, packet, kind, source, address)?;
    }
    Ok(transmit(packet))
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
