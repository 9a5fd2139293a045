//! Who gets a packet: flow, else slot, else nobody.
//!
//! A settled slot answers for itself: every flow on it belongs to its current backend. Once a slot
//! has moved, a flow that nobody remembers is either older than the move (it belongs to the previous
//! backend) or has just opened (its SYN went to the current one, and was remembered as an opening,
//! or went to the previous one where it could not be).

use core::ptr;

use xdp_lb_common::{
    abi::{BackendOwner, BackendRef, BackendWay, FlowKey, Place, ServiceEntry, Slot},
    counters::{DropReason, Event, PassReason},
    hash::{Address, Affinity, flow_hash, reduce},
};

use crate::{
    counters,
    flows::{self, Known, Tracked},
    fragments,
    frame::Frame,
    maps::{BACKEND_OWNERS, BACKENDS, HASH_KEY, MEMBERS, RESTING, SLOTS, timing},
    outcome::{Outcome, Status},
    packet::{Found, Fragment, Packet, Segment, Way},
    path::Path,
    services::{self, Service, Vip},
    transport,
};

/// Finds out who gets a packet, and notes the way there.
#[inline(always)]
pub(crate) fn choose<P: Path, A: Tracked + Vip>(frame: &Frame, packet: &mut Packet) -> Status {
    let found = &raw mut packet.found;
    let flow = A::flow(packet);
    let (service, way, entropy) = if packet.fragment == Fragment::Later {
        let (service, way) = fragments::follow(flow, packet.fragment_id)?;
        let hash = flow_hash(HASH_KEY.load(), Affinity::Flow, flow);
        (service, way, hash)
    } else {
        let service = match services::find::<P, A>(flow) {
            Ok(service) => service,
            Err(outcome) => {
                if packet.fragment == Fragment::First {
                    fragments::leave(frame, flow, packet.fragment_id);
                }
                return Err(outcome);
            }
        };
        let segment = transport::segment(frame, packet, flow.protocol)?;
        let hash = Hash::of(flow, &service);
        if segment != Segment::Quotes && A::is_nobodys(flow) {
            return Err(DropReason::BadSource.into());
        }
        let way = balance::<P>(frame, &hash, segment, &service, found)?;
        if packet.fragment == Fragment::First {
            fragments::remember(frame, flow, packet.fragment_id, service.id, &way)?;
        }
        if segment == Segment::Quotes {
            counters::event(Event::IcmpError);
        }
        (service.id, way, hash.flow)
    };
    packet.entropy = entropy as u32;
    packet.service = service;
    packet.way = way;
    Ok(())
}

/// What is chosen by.
struct Hash {
    /// The hash of the whole flow.
    flow: u64,
    /// The one that the slot is chosen by.
    slot: u64,
}

impl Hash {
    #[inline(always)]
    fn of<A: Address>(flow: &FlowKey<A>, service: &Service) -> Self {
        let key = HASH_KEY.load();
        let hash = flow_hash(key, Affinity::Flow, flow);
        let slot = if service.flags & ServiceEntry::FLAG_SOURCE_AFFINITY == 0 {
            hash
        } else {
            flow_hash(key, Affinity::Source, flow)
        };
        Self { flow: hash, slot }
    }
}

/// The way of a packet that has ports.
#[inline(always)]
fn balance<P: Path>(
    frame: &Frame,
    hash: &Hash,
    segment: Segment,
    service: &Service,
    found: *mut Found,
) -> Result<Way, Outcome> {
    let place = Place::of(hash.flow, timing!(bucket_bits));
    if P::IS_COMMON && service.tracks() && !service.is_adaptive() && segment != Segment::Opens {
        let known = flows::look_up(place, service.idle_ticks, found);
        return by_entry::<P>(&known, segment, hash.slot, service);
    }
    let slot = find_slot(hash.slot, service);
    if !service.tracks() || (service.is_adaptive() && slot.is_settled()) {
        return by_slot(slot, service);
    }
    if segment == Segment::Opens {
        if slot.is_settled() || service.table.size == 0 {
            return by_slot(slot, service);
        }
        P::rare()?;
    }
    let known = flows::look_up(place, service.idle_ticks, found);
    if segment == Segment::Opens {
        match by_opening(frame, &known, slot, service) {
            Some(way) => Ok(way),
            None => by_slot(slot, service),
        }
    } else {
        by_flow::<P>(frame, &known, segment, slot, service)
    }
}

/// The current backend of the slot.
#[inline(always)]
fn by_slot(slot: Slot, service: &Service) -> Result<Way, Outcome> {
    if service.table.size == 0 || slot.current == 0 {
        return Err(PassReason::NoBackend.into());
    }
    Ok(serving_now(slot.current).ok_or(DropReason::BackendGone)?)
}

/// What a fragment's entry says of the backend at the end of a way.
#[inline(always)]
pub(crate) fn reference(way: &Way) -> BackendRef {
    BackendRef {
        index: way.backend,
        generation: owner(way).generation,
    }
}

/// Where all flows are remembered, for a packet that opens no connection: the backend that its flow is at. The slot, which has
/// nothing to say to that, would be one more wait for memory.
#[inline(always)]
fn by_entry<P: Path>(
    known: &Known,
    segment: Segment,
    hash: u64,
    service: &Service,
) -> Result<Way, Outcome> {
    if flows::is_unknown(known) {
        // It is what the other path needs. Where many are unknown, the processor takes the next one for unknown as well, and
        // waits for the entry and the slot at a time.
        find_slot(hash, service);
    }
    let backend = flows::continued::<P>(known, segment)?;
    serving_for(service, backend).ok_or(Outcome::RARE)
}

/// For a packet that opens no connection: the backend that its flow is at, else by its slot.
#[inline(always)]
fn by_flow<P: Path>(
    frame: &Frame,
    known: &Known,
    segment: Segment,
    slot: Slot,
    service: &Service,
) -> Result<Way, Outcome> {
    let backend = flows::continued::<P>(known, segment)?;
    if let Some(way) = serving_for(service, backend) {
        if flows::is_opening(known) {
            flows::prove(known, segment);
        }
        return Ok(way);
    }
    P::rare()?;
    if service.table.size == 0 {
        return Err(PassReason::NoBackend.into());
    }
    let way = match by_older_slot(slot, segment) {
        Some(way) => way,
        None => by_slot(slot, service)?,
    };
    if !service.is_adaptive() || slot.moving_from().is_some() {
        flows::remember(frame, known, segment, way.backend);
    } else if segment == Segment::Continues {
        // Without an entry it goes on as it does now, even if the backend that the entry names comes back.
        flows::forget(known);
    }
    Ok(way)
}

/// For a SYN on a slot that has moved: where it must go if not to the current backend.
#[inline(always)]
fn by_opening(frame: &Frame, known: &Known, slot: Slot, service: &Service) -> Option<Way> {
    // Of a connection that goes on, whatever was forged about its end, or of a SYN that is repeated.
    let (backend, has_ended) = flows::begun(known);
    if let Some(way) = serving_for(service, backend)
        && way.next_hop().takes_syn(has_ended)
    {
        flows::begin_again(known);
        return Some(way);
    }
    flows::begin_elsewhere(known, has_ended);
    let previous = slot.moving_from()?;
    let current = serving_now(slot.current)?;
    if flows::remember_opening(frame, known, current.backend) {
        return Some(current);
    }
    // Its next packet will be taken for one of an older connection, so it begins where that goes.
    serving_now(previous)
}

/// For a packet that no entry speaks for, on a slot that is moving: the previous backend.
#[inline(always)]
fn by_older_slot(slot: Slot, segment: Segment) -> Option<Way> {
    let way = serving_now(slot.moving_from()?)?;
    if segment != Segment::Quotes {
        counters::event(Event::FlowFollowedPrevious);
    }
    Some(way)
}

/// The slot that a hash leads to; where the service has no table, one without a backend.
///
/// It is no `Option`: the compiler would read the slot before it knows whether there is one, which the verifier
/// does not allow.
#[inline(always)]
fn find_slot(hash: u64, service: &Service) -> Slot {
    const NONE: u32 = Slot {
        current: 0,
        previous: Slot::MIXED,
    }
    .pack();
    let index = service
        .table
        .offset
        .wrapping_add(reduce(hash, service.table.size));
    if service.is_at_rest {
        return Slot {
            current: at_rest(index, service.id),
            previous: 0,
        };
    }
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

/// The backend of a slot of a table at rest.
#[inline(always)]
fn at_rest(index: u32, service: u32) -> u16 {
    let (Some(slots), Some(members)) = (RESTING.get_ptr(index / 8), MEMBERS.get_ptr(service))
    else {
        // Never: tables are within the arena, and each service has its members.
        return 0;
    };
    // SAFETY: the pointers are to arrays' elements, the first of eight bytes, the second of as many half words as a
    // byte has values. The daemon writes neither while a table is at rest.
    unsafe {
        let member = ptr::read_volatile(slots.cast::<u8>().add((index & 7) as usize));
        ptr::read_volatile(members.cast::<u16>().add(usize::from(member)))
    }
}

/// The way to the backend that an entry of the flow table leads to, if it is one of the service's, and may be sent
/// packets. 0 is none.
#[inline(always)]
fn serving_for(service: &Service, index: u16) -> Option<Way> {
    let way = serving_now(index)?;
    (owner(&way).service == service.id).then_some(way)
}

/// The way to the backend a fragment's entry refers to, if it is still that one and may be sent packets.
#[inline(always)]
pub(crate) fn serving(backend: BackendRef) -> Option<Way> {
    let way = serving_now(backend.index)?;
    (owner(&way).generation == backend.generation).then_some(way)
}

/// Whose the backend is at the end of a way. Read after the flag that it is served by, as all that is not in that word.
#[inline(always)]
fn owner(way: &Way) -> BackendOwner {
    let Some(owner) = BACKEND_OWNERS.get_ptr(u32::from(way.backend)) else {
        // Never: it has as many elements as `BACKENDS`.
        return BackendOwner {
            service: u32::MAX,
            generation: 0,
        };
    };
    // SAFETY: `owner` points to an array's element, which the daemon writes at once.
    BackendOwner::unpack(unsafe { ptr::read_volatile(owner) })
}

/// The way to the backend at `index`, if it may be sent packets.
#[inline(always)]
fn serving_now(index: u16) -> Option<Way> {
    let entry = BACKENDS.get_ptr(u32::from(index))?;
    // SAFETY: `entry` points to an array's element. The daemon writes its words meanwhile, each at
    // once, and clears the serving flag while they do not fit together.
    let way = unsafe {
        Way {
            entry: BackendWay {
                next_hop: ptr::read_volatile(&raw const (*entry).next_hop),
                link: ptr::read_volatile(&raw const (*entry).link),
                source: ptr::read_volatile(&raw const (*entry).source),
                ends: ptr::read_volatile(&raw const (*entry).ends),
            },
            backend: index,
            reserved: [0; 3],
        }
    };
    way.next_hop().is_serving().then_some(way)
}
