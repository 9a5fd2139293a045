//! Who gets a packet: flow, else slot, else nobody.
//!
//! A settled slot answers for itself: every flow on it belongs to its current backend. Once a slot
//! has moved, a flow that nobody remembers is either older than the move (it belongs to the previous
//! backend) or has just opened (its SYN went to the current one, and was remembered as an opening,
//! or went to the previous one where it could not be).

use core::ptr;

use xdp_lb_common::{
    abi::{BackendRef, FlowKey, NextHop, ServiceEntry, Slot},
    counters::{DropReason, Event, PassReason},
    hash::{Affinity, flow_hash, reduce},
};

use crate::{
    counters,
    flows::{self, Tracked},
    fragments,
    frame::Frame,
    maps::{BACKENDS, HASH_KEY, SLOTS},
    outcome::{Outcome, Status},
    packet::{Fragment, Packet, Segment, Way},
    services::{self, Service, Vip},
    transport,
};

/// Finds out who gets a packet, and notes the way there.
#[inline(always)]
pub(crate) fn choose<A: Tracked + Vip>(frame: &Frame, packet: &mut Packet) -> Status {
    let flow = A::flow(packet);
    let (service, way) = if packet.fragment == Fragment::Later {
        fragments::follow(flow, packet.fragment_id)?
    } else {
        let service = services::find(flow).ok_or(PassReason::NoService)?;
        let segment = transport::segment(frame, packet, flow.protocol)?;
        let way = balance(frame, flow, segment, &service)?;
        if packet.fragment == Fragment::First {
            fragments::remember(frame, flow, packet.fragment_id, service.id, &way)?;
        }
        if segment == Segment::Quotes {
            counters::event(Event::IcmpError);
        }
        (service.id, way)
    };
    if way.next_hop().flags & NextHop::TUNNEL_FLAGS != 0 {
        packet.entropy = flow_hash(HASH_KEY.load(), Affinity::Flow, A::flow(packet)) as u32;
    }
    packet.service = service;
    packet.way = way;
    Ok(())
}

/// The way of a packet that has ports.
#[inline(always)]
fn balance<A: Tracked>(
    frame: &Frame,
    flow: &FlowKey<A>,
    segment: Segment,
    service: &Service,
) -> Result<Way, Outcome> {
    let slot = find_slot(flow, service);
    let remembers = service.tracks() && !(service.is_adaptive() && slot.is_settled());
    if remembers && segment != Segment::Opens {
        let known = flows::continued(flow, segment, service.idle_ticks);
        if let Some(way) = known.and_then(serving) {
            return Ok(way);
        }
    }
    if service.table.size == 0 {
        return Err(PassReason::NoBackend.into());
    }
    let way = if !remembers {
        None
    } else if segment == Segment::Opens {
        by_opening(frame, flow, slot, service)
    } else {
        let way = by_older_slot(flow, slot, segment);
        let way = if way.is_some() {
            way
        } else {
            serving_now(slot.current)
        };
        if let Some(way) = &way {
            // Of a mixed slot it is the one that a flow without an entry goes to.
            if !service.is_adaptive() || slot.moving_from().is_some() {
                flows::remember(frame, flow, segment, reference(way));
            }
        }
        way
    };
    if let Some(way) = way {
        return Ok(way);
    }
    if slot.current == 0 {
        return Err(PassReason::NoBackend.into());
    }
    Ok(serving_now(slot.current).ok_or(DropReason::BackendGone)?)
}

/// What a flow's entry says of the backend at the end of a way.
#[inline(always)]
pub(crate) fn reference(way: &Way) -> BackendRef {
    BackendRef {
        index: way.backend,
        generation: way.link().generation,
    }
}

/// For a SYN on a slot that has moved: where it must go if not to the current backend.
#[inline(always)]
fn by_opening<A: Tracked>(
    frame: &Frame,
    flow: &FlowKey<A>,
    slot: Slot,
    service: &Service,
) -> Option<Way> {
    if slot.is_settled() {
        return None;
    }
    if let Some(way) = flows::still_open(flow, service.idle_ticks).and_then(serving) {
        return Some(way);
    }
    let previous = slot.moving_from()?;
    // A repeated SYN follows the first.
    if let Some(way) = flows::opening(flow).and_then(serving) {
        return Some(way);
    }
    let current = serving_now(slot.current)?;
    if flows::remember_opening(frame, flow, reference(&current)) {
        return Some(current);
    }
    // Its next packet will be taken for one of an older connection, so it begins where that goes.
    serving_now(previous)
}

/// For a packet that no flow entry speaks for, on a slot that is moving: the backend that got its
/// SYN.
#[inline(always)]
fn by_older_slot<A: Tracked>(flow: &FlowKey<A>, slot: Slot, segment: Segment) -> Option<Way> {
    let previous = slot.moving_from()?;
    if let Some(way) = flows::opening(flow).and_then(serving) {
        return Some(way);
    }
    let way = serving_now(previous)?;
    if segment != Segment::Quotes {
        counters::event(Event::FlowFollowedPrevious);
    }
    Some(way)
}

/// The slot of a flow; where the service has no table, one without a backend.
///
/// It is no `Option`: the compiler would read the slot before it knows whether there is one, which the verifier
/// does not allow.
#[inline(always)]
fn find_slot<A: Tracked>(flow: &FlowKey<A>, service: &Service) -> Slot {
    const NONE: u32 = Slot {
        current: 0,
        previous: Slot::MIXED,
    }
    .pack();
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
    let mut word = NONE;
    if service.table.size != 0
        && let Some(pair) = SLOTS.get_ptr(index / 2)
    {
        // SAFETY: `pair` points to an array's element of two words, and the index is 0 or 1. The daemon
        // writes slots meanwhile, each as one word.
        word = unsafe { ptr::read_volatile(pair.cast::<u32>().add((index & 1) as usize)) };
    }
    Slot::unpack(word)
}

/// The way to the backend a flow refers to, if it is still that one and may be sent packets.
#[inline(always)]
pub(crate) fn serving(backend: BackendRef) -> Option<Way> {
    let way = serving_now(backend.index)?;
    (way.link().generation == backend.generation).then_some(way)
}

/// The way to the backend at `index`, if it may be sent packets.
#[inline(always)]
fn serving_now(index: u16) -> Option<Way> {
    let entry = BACKENDS.get_ptr(u32::from(index))?;
    // SAFETY: `entry` points to an array's element. The daemon writes its words meanwhile, each at
    // once, and clears the serving flag while they do not fit together.
    let way = unsafe {
        Way {
            next_hop: ptr::read_volatile(&raw const (*entry).next_hop),
            link: ptr::read_volatile(&raw const (*entry).link),
            source: ptr::read_volatile((&raw const (*entry).source_mac).cast::<u64>()),
            backend: index,
            inner_tag: ptr::read_volatile(&raw const (*entry).inner_tag),
            reserved: 0,
        }
    };
    way.next_hop().is_serving().then_some(way)
}
