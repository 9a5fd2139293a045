//! Fragments: the first one has the ports and picks the backend, the later ones follow it.

use xdp_lb_common::{
    abi::{BackendRef, Budget, FlowKey, FragmentEntry, FragmentKey},
    counters::{DropReason, PassReason},
};

use crate::{
    balance, budget,
    frame::Frame,
    maps::{FRAGMENTS, timing},
    network,
    outcome::Outcome,
    packet::Way,
    services::{self, Vip},
    time, transport,
};

#[inline(always)]
fn key<A: Vip>(flow: &FlowKey<A>, id: u32) -> FragmentKey {
    FragmentKey {
        source: flow.source.to_key(),
        destination: flow.destination.to_key(),
        id,
        protocol: if A::VERSION == 6 { 0 } else { flow.protocol },
        reserved: [0; 3],
    }
}

/// Remembers where the first fragment of the packet with this identification goes. Where that cannot
/// be, it goes nowhere: the packet could not be put together.
#[inline(always)]
pub(crate) fn remember<A: Vip>(
    frame: &Frame,
    flow: &FlowKey<A>,
    id: u32,
    service: u32,
    way: &Way,
) -> Result<(), DropReason> {
    if insert(frame, flow, id, balance::reference(way), service) {
        Ok(())
    } else {
        Err(DropReason::FirstFragment)
    }
}

/// Remembers that the first fragment of a packet to a VIP is for no service, and that the kernel has it. Where that
/// cannot be, the kernel waits for the others in vain.
#[inline(always)]
pub(crate) fn leave<A: Vip>(frame: &Frame, flow: &FlowKey<A>, id: u32) {
    if services::is_vip(flow.destination) {
        insert(frame, flow, id, BackendRef::default(), 0);
    }
}

#[inline(always)]
fn insert<A: Vip>(
    frame: &Frame,
    flow: &FlowKey<A>,
    id: u32,
    backend: BackendRef,
    service: u32,
) -> bool {
    let now = time::now();
    let entry = FragmentEntry {
        backend: backend.pack(),
        service,
        seen: now,
        reserved: 0,
    };
    budget::take(frame, Budget::Fragments, now) && FRAGMENTS.insert(key(flow, id), entry, 0).is_ok()
}

/// The service and the way of a later fragment: those of its first.
#[inline(always)]
pub(crate) fn follow<A: Vip>(flow: &FlowKey<A>, id: u32) -> Result<(u32, Way), Outcome> {
    let key = key(flow, id);
    let Some(entry) = FRAGMENTS.get_ptr(key) else {
        return Err(unknown(flow));
    };
    // SAFETY: `entry` points into the map, whose memory lives as long as the program. Another CPU
    // may evict and reuse it meanwhile; then a fragment may go astray, as after an eviction.
    let entry = unsafe { *entry };
    if time::since(entry.seen, time::now()) > timing!(fragment_ticks) {
        return Err(unknown(flow));
    }
    if entry.backend == 0 {
        return Err(PassReason::LaterFragment.into());
    }
    let way = balance::serving(BackendRef::unpack(entry.backend)).ok_or(DropReason::BackendGone)?;
    Ok((entry.service, way))
}

/// A fragment whose first is not known: ours, if it is for a VIP and may be of a protocol of services, which with IPv6 may
/// stand behind further headers.
#[inline(always)]
fn unknown<A: Vip>(flow: &FlowKey<A>) -> Outcome {
    let may_be = transport::is_known(flow.protocol)
        || A::VERSION == 6 && network::is_extension(flow.protocol);
    if may_be && services::is_vip(flow.destination) {
        DropReason::EarlyFragment.into()
    } else {
        PassReason::LaterFragment.into()
    }
}
