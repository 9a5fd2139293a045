//! Who gets a packet: flow, else slot, else nobody.
//!
//! A settled slot answers for itself: every flow on it belongs to its current backend. Once a slot
//! has moved, a flow that nobody remembers is either older than the move (it belongs to the previous
//! backend) or has just opened (its SYN went to the current one, and was remembered as an opening,
//! or went to the previous one where it could not be).

use core::ptr;

use xdp_lb_common::{
    abi::{BackendLink, BackendRef, FlowKey, NextHop, ServiceEntry, Slot},
    counters::{DropReason, Event},
    hash::{Affinity, flow_hash, reduce},
};

use crate::{
    counters,
    flows::{self, Tracked},
    frame::Frame,
    maps::{BACKENDS, HASH_KEY, SLOTS},
    packet::Segment,
    services::Service,
};

/// A backend that may be sent packets, as read once for a packet.
pub(crate) struct Chosen {
    pub(crate) index: u16,
    pub(crate) next_hop: NextHop,
    pub(crate) link: BackendLink,
    pub(crate) source_mac: [u8; 6],
}

impl Chosen {
    #[inline(always)]
    pub(crate) fn reference(&self) -> BackendRef {
        BackendRef {
            index: self.index,
            generation: self.link.generation,
        }
    }
}

/// The backend for a packet; None where the service has none left.
#[inline(always)]
pub(crate) fn choose<A: Tracked>(
    frame: &Frame,
    flow: &FlowKey<A>,
    segment: Segment,
    service: &Service,
) -> Result<Option<Chosen>, DropReason> {
    if service.tracks() && segment != Segment::Opens {
        let known = flows::continued(flow, segment, service.idle_ticks);
        if let Some(chosen) = known.and_then(serving) {
            return Ok(Some(chosen));
        }
    }
    if service.table.size == 0 {
        return Ok(None);
    }
    let slot = find_slot(flow, service).ok_or(DropReason::BackendGone)?;
    let chosen = if !service.tracks() {
        None
    } else if segment == Segment::Opens {
        by_opening(frame, flow, slot, service)
    } else {
        let chosen = by_older_slot(flow, slot, segment);
        let backend = if chosen.is_some() {
            chosen
        } else {
            serving_now(slot.current)
        };
        let backend = backend.ok_or(DropReason::BackendGone)?;
        flows::remember(frame, flow, segment, backend.reference());
        Some(backend)
    };
    match chosen {
        Some(chosen) => Ok(Some(chosen)),
        None => serving_now(slot.current)
            .map(Some)
            .ok_or(DropReason::BackendGone),
    }
}

/// For a SYN on a slot that has moved: where it must go if not to the current backend.
#[inline(always)]
fn by_opening<A: Tracked>(
    frame: &Frame,
    flow: &FlowKey<A>,
    slot: Slot,
    service: &Service,
) -> Option<Chosen> {
    if slot.is_settled() {
        return None;
    }
    if let Some(chosen) = flows::still_open(flow, service.idle_ticks).and_then(serving) {
        return Some(chosen);
    }
    let previous = slot.moving_from()?;
    // A repeated SYN follows the first.
    if let Some(chosen) = flows::opening(flow).and_then(serving) {
        return Some(chosen);
    }
    let current = serving_now(slot.current)?;
    if flows::remember_opening(frame, flow, current.reference()) {
        return Some(current);
    }
    // Its next packet will be taken for one of an older connection, so it begins where that goes.
    serving_now(previous)
}

/// For a packet that no flow entry speaks for, on a slot that is moving: the backend that got its
/// SYN.
#[inline(always)]
fn by_older_slot<A: Tracked>(flow: &FlowKey<A>, slot: Slot, segment: Segment) -> Option<Chosen> {
    let previous = slot.moving_from()?;
    if let Some(chosen) = flows::opening(flow).and_then(serving) {
        return Some(chosen);
    }
    let chosen = serving_now(previous)?;
    if segment != Segment::Quotes {
        counters::event(Event::FlowFollowedPrevious);
    }
    Some(chosen)
}

#[inline(always)]
fn find_slot<A: Tracked>(flow: &FlowKey<A>, service: &Service) -> Option<Slot> {
    let affinity = if service.flags & ServiceEntry::FLAG_SOURCE_AFFINITY != 0 {
        Affinity::Source
    } else {
        Affinity::Flow
    };
    let hash = flow_hash(HASH_KEY.load(), affinity, flow);
    let index = service
        .table
        .offset
        .wrapping_add(reduce(hash, service.table.size));
    let pair = SLOTS.get_ptr(index / 2)?;
    // SAFETY: `pair` points to an array's element of two words, and the index is 0 or 1. The daemon
    // writes slots meanwhile, each as one word.
    let word = unsafe { ptr::read_volatile(pair.cast::<u32>().add((index & 1) as usize)) };
    Some(Slot::unpack(word))
}

/// The backend a flow refers to, if it is still that one and may be sent packets.
#[inline(always)]
pub(crate) fn serving(reference: BackendRef) -> Option<Chosen> {
    let chosen = serving_now(reference.index)?;
    (chosen.link.generation == reference.generation).then_some(chosen)
}

/// The backend at `index`, if it may be sent packets.
#[inline(always)]
fn serving_now(index: u16) -> Option<Chosen> {
    let entry = BACKENDS.get_ptr(u32::from(index))?;
    // SAFETY: `entry` points to an array's element. The daemon writes its words meanwhile, each at
    // once, and clears the serving flag while they do not fit together.
    let (next_hop, link, source_mac) = unsafe {
        (
            ptr::read_volatile(&raw const (*entry).next_hop),
            ptr::read_volatile(&raw const (*entry).link),
            ptr::read_volatile((&raw const (*entry).source_mac).cast::<u64>()),
        )
    };
    let next_hop = NextHop::unpack(next_hop);
    if !next_hop.is_serving() {
        return None;
    }
    Some(Chosen {
        index,
        next_hop,
        link: BackendLink::unpack(link),
        source_mac: NextHop::unpack(source_mac).mac,
    })
}
