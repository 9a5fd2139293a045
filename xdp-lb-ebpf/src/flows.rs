//! Connection tracking: which backend a flow went to before.
//!
//! Two tables of the same shape. *Flows* are connections that have sent more than their SYN;
//! *openings* are SYNs seen on a moving slot. Both lose their oldest entries when full, and new ones
//! are limited per CPU and tick, so that a flood wears out neither memory nor the processor; it
//! cannot reach the flows with SYNs at all.

use aya_ebpf::maps::LruHashMap;
use xdp_lb_common::{
    abi::{BackendRef, Budget, FlowEntry, FlowKey},
    counters::Event,
    hash::Address,
};

use crate::{
    budget, counters,
    frame::Frame,
    maps::{FLOWS_V4, FLOWS_V6, OPENINGS_V4, OPENINGS_V6, TIMING},
    packet::{Packet, Segment},
    time,
};

/// An address family that flows are kept for.
pub(crate) trait Tracked: Address + Sized + 'static {
    /// The flow that is noted of a packet of this family.
    fn flow(packet: &Packet) -> &FlowKey<Self>;
    /// The same, to note it.
    fn flow_mut(packet: &mut Packet) -> &mut FlowKey<Self>;
    fn flows() -> &'static LruHashMap<FlowKey<Self>, FlowEntry>;
    fn openings() -> &'static LruHashMap<FlowKey<Self>, FlowEntry>;
}

macro_rules! tracked {
    ($address:ty, $flow:ident, $flows:ident, $openings:ident) => {
        impl Tracked for $address {
            #[inline(always)]
            fn flow(packet: &Packet) -> &FlowKey<Self> {
                &packet.$flow
            }

            #[inline(always)]
            fn flow_mut(packet: &mut Packet) -> &mut FlowKey<Self> {
                &mut packet.$flow
            }

            #[inline(always)]
            fn flows() -> &'static LruHashMap<FlowKey<Self>, FlowEntry> {
                &$flows
            }

            #[inline(always)]
            fn openings() -> &'static LruHashMap<FlowKey<Self>, FlowEntry> {
                &$openings
            }
        }
    };
}

tracked!([u8; 4], flow_v4, FLOWS_V4, OPENINGS_V4);
tracked!([u8; 16], flow_v6, FLOWS_V6, OPENINGS_V6);

/// The backend of a flow that has been seen lately; its time is renewed, but by an ICMP error.
/// `segment` is not one that opens.
#[inline(always)]
pub(crate) fn continued<A: Tracked>(
    flow: &FlowKey<A>,
    segment: Segment,
    idle_ticks: u32,
) -> Option<BackendRef> {
    let entry = A::flows().get_ptr_mut(flow)?;
    let now = time::now();
    // SAFETY: `entry` points into the map, whose memory lives as long as the program. Another CPU
    // may evict and reuse it meanwhile; then a packet may go astray, as after an eviction.
    unsafe {
        if is_over(&*entry, now, idle_ticks) {
            if segment != Segment::Quotes {
                counters::event(Event::FlowExpired);
            }
            return None;
        }
        if (*entry).last_seen != now && segment != Segment::Quotes {
            (*entry).last_seen = now;
        }
        if segment == Segment::Ends {
            (*entry).flags |= FlowEntry::FLAG_CLOSING;
        }
        Some(BackendRef::unpack((*entry).backend))
    }
}

/// The backend of a flow that a SYN came for, while the flow is still open. One that has ended is
/// forgotten, and its opening with it, since the SYN begins another.
#[inline(always)]
pub(crate) fn still_open<A: Tracked>(flow: &FlowKey<A>, idle_ticks: u32) -> Option<BackendRef> {
    let entry = A::flows().get_ptr(flow)?;
    // SAFETY: as in `continued`.
    let (ended, backend) = unsafe {
        let closing = (*entry).flags & FlowEntry::FLAG_CLOSING != 0;
        (
            closing || is_over(&*entry, time::now(), idle_ticks),
            (*entry).backend,
        )
    };
    if ended {
        counters::event(Event::FlowReopened);
        // These fail only where there is nothing, or not any more.
        let _ = A::flows().remove(flow);
        let _ = A::openings().remove(flow);
        return None;
    }
    Some(BackendRef::unpack(backend))
}

/// Remembers a flow, as far as budget and map allow. A flow that begins with its end is not worth it.
#[inline(always)]
pub(crate) fn remember<A: Tracked>(
    frame: &Frame,
    flow: &FlowKey<A>,
    segment: Segment,
    backend: BackendRef,
) {
    if segment != Segment::Continues {
        return;
    }
    let made = insert(frame, Budget::Flows, A::flows(), flow, backend);
    counters::event(if made {
        Event::FlowCreated
    } else {
        Event::FlowNotCreated
    });
}

/// The backend that got this flow's SYN while the slot was moving.
#[inline(always)]
pub(crate) fn opening<A: Tracked>(flow: &FlowKey<A>) -> Option<BackendRef> {
    let entry = A::openings().get_ptr(flow)?;
    // SAFETY: as in `continued`.
    let (age, backend) = unsafe {
        (
            time::since((*entry).last_seen, time::now()),
            (*entry).backend,
        )
    };
    (age <= TIMING.load().opening_ticks).then(|| BackendRef::unpack(backend))
}

/// Remembers an opening; false where budget or map did not allow it.
#[inline(always)]
pub(crate) fn remember_opening<A: Tracked>(
    frame: &Frame,
    flow: &FlowKey<A>,
    backend: BackendRef,
) -> bool {
    let made = insert(frame, Budget::Openings, A::openings(), flow, backend);
    counters::event(if made {
        Event::OpeningCreated
    } else {
        Event::OpeningNotCreated
    });
    made
}

#[inline(always)]
fn is_over(entry: &FlowEntry, now: u32, idle_ticks: u32) -> bool {
    let silence = time::since(entry.last_seen, now);
    let closing = entry.flags & FlowEntry::FLAG_CLOSING != 0;
    silence > idle_ticks || (closing && silence > TIMING.load().closing_ticks)
}

#[inline(always)]
fn insert<A>(
    frame: &Frame,
    budget: Budget,
    map: &LruHashMap<FlowKey<A>, FlowEntry>,
    flow: &FlowKey<A>,
    backend: BackendRef,
) -> bool {
    let now = time::now();
    let entry = FlowEntry {
        backend: backend.pack(),
        last_seen: now,
        flags: 0,
        reserved: 0,
    };
    budget::take(frame, budget, now) && map.insert(flow, entry, 0).is_ok()
}
