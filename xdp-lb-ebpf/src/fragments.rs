//! Fragments: the first one has the ports and picks the backend, the later ones follow it.

use xdp_lb_common::{
    abi::{BackendRef, Budget, FlowKey, FragmentEntry, FragmentKey, ServiceKey},
    counters::{DropReason, PassReason},
};

use crate::{
    Verdict,
    balance::{self, Chosen},
    budget,
    frame::Frame,
    maps::{FRAGMENTS, SERVICES, TIMING},
    packet::Fragment,
    rewrite,
    services::Vip,
    time, transport,
};

/// Remembers where the first fragment of the packet with this identification goes. Where that cannot
/// be, it goes nowhere: the packet could not be put together.
#[inline(always)]
pub(crate) fn remember<A: Vip>(
    frame: &Frame<'_>,
    flow: &FlowKey<A>,
    id: u32,
    service: u32,
    chosen: &Chosen,
) -> Result<(), DropReason> {
    let key = FragmentKey {
        source: flow.source.to_key(),
        destination: flow.destination.to_key(),
        id,
        protocol: flow.protocol,
        reserved: [0; 3],
    };
    let now = time::now();
    let backend = chosen.reference().pack();
    let entry = FragmentEntry {
        backend,
        service,
        seen: now,
        reserved: 0,
    };
    let made =
        budget::take(frame, Budget::Fragments, now) && FRAGMENTS.insert(key, entry, 0).is_ok();
    if made {
        Ok(())
    } else {
        Err(DropReason::FirstFragment)
    }
}

/// Sends a later fragment after its first.
#[inline(always)]
pub(crate) fn follow<A: Vip>(
    frame: &Frame<'_>,
    fragment: &Fragment<A>,
) -> Result<Verdict, DropReason> {
    let key = FragmentKey {
        source: fragment.source.to_key(),
        destination: fragment.destination.to_key(),
        id: fragment.id,
        protocol: fragment.protocol,
        reserved: [0; 3],
    };
    let Some(entry) = FRAGMENTS.get_ptr(key) else {
        return unknown(&key);
    };
    // SAFETY: `entry` points into the map, whose memory lives as long as the program. Another CPU
    // may evict and reuse it meanwhile; then a fragment may go astray, as after an eviction.
    let entry = unsafe { *entry };
    if time::since(entry.seen, time::now()) > TIMING.load().fragment_ticks {
        return unknown(&key);
    }
    let chosen =
        balance::serving(BackendRef::unpack(entry.backend)).ok_or(DropReason::BackendGone)?;
    let action = rewrite::l2(frame, &chosen)?;
    Ok(Verdict::Forward {
        service: entry.service,
        backend: chosen.index,
        action,
    })
}

/// A fragment whose first is not known: ours, if it is for a VIP and a protocol of services.
#[inline(always)]
fn unknown(key: &FragmentKey) -> Result<Verdict, DropReason> {
    // SAFETY: the value is one aligned word that is never changed in place.
    let vip = unsafe { SERVICES.get(ServiceKey::of_vip(key.destination)) };
    if vip.is_some() && transport::is_known(key.protocol) {
        return Err(DropReason::EarlyFragment);
    }
    Ok(Verdict::Pass(PassReason::LaterFragment))
}
