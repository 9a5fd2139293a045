//! Connection tracking: which backend a flow went to before.
//!
//! One table has them all, of either family. *Flows* are connections that have sent more than their SYN;
//! *openings* are SYNs seen on a slot that was moving. New entries are limited per CPU and tick, so that a flood
//! wears out neither memory nor the processor, and none takes the place of one that lives but of its own kind: openings
//! push out openings, and flows of which a single packet is known push out such flows.

use core::ptr;

use xdp_lb_common::{
    abi::{self, BUCKET, Budget, FlowEntry, FlowKey, Place},
    counters::Event,
    hash::Address,
};

use crate::{
    budget, counters,
    frame::Frame,
    maps::{CLOCK, FLOWS, timing},
    outcome::Outcome,
    packet::{Found, Packet, Segment},
    path::Path,
    time,
};

/// An address family that flows are kept for.
pub(crate) trait Tracked: Address + Sized + 'static {
    /// The flow that is noted of a packet of this family.
    fn flow(packet: &Packet) -> &FlowKey<Self>;
    /// The same, to note it.
    fn flow_mut(packet: &mut Packet) -> &mut FlowKey<Self>;
}

macro_rules! tracked {
    ($address:ty, $flow:ident) => {
        impl Tracked for $address {
            #[inline(always)]
            fn flow(packet: &Packet) -> &FlowKey<Self> {
                &packet.$flow
            }

            #[inline(always)]
            fn flow_mut(packet: &mut Packet) -> &mut FlowKey<Self> {
                &mut packet.$flow
            }
        }
    };
}

tracked!([u8; 4], flow_v4);
tracked!([u8; 16], flow_v6);

/// What the table has of a flow.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    place: Place,
    /// How long a silent flow is remembered.
    idle_ticks: u32,
    /// The notes on the entry.
    found: *mut Found,
}

impl Known {
    #[inline(always)]
    fn entry(&self) -> FlowEntry {
        // SAFETY: the notes are this CPU's own, as in `main`.
        FlowEntry(unsafe { ptr::read_volatile(&raw const (*self.found).entry) })
    }

    #[inline(always)]
    fn at(&self) -> u32 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*self.found).at) }
    }

    #[inline(always)]
    fn note(&self, entry: FlowEntry, at: u32) {
        // SAFETY: as above.
        unsafe {
            ptr::write_volatile(&raw mut (*self.found).entry, entry.0);
            ptr::write_volatile(&raw mut (*self.found).at, at);
        }
    }
}

/// Looks a flow up. `found` is where to take notes.
#[inline(always)]
pub(crate) fn look_up(place: Place, idle_ticks: u32, found: *mut Found) -> Known {
    let known = Known {
        place,
        idle_ticks,
        found,
    };
    known.note(FlowEntry::default(), 0);
    let Some(bucket) = FLOWS.get_ptr(place.bucket) else {
        // Never: places are within the table.
        return known;
    };
    let mut at = 0;
    while at < BUCKET {
        let entry = read(bucket, at);
        if entry.fingerprint() == place.fingerprint && !entry.is_none() {
            known.note(entry, at as u32);
            break;
        }
        at += 1;
    }
    known
}

/// The backend of a flow for a packet that does not open it; 0: it is not known, or not any more. The flow's time
/// is renewed, but by an ICMP error.
#[inline(always)]
pub(crate) fn continued<P: Path>(known: &Known, segment: Segment) -> Result<u16, Outcome> {
    let entry = known.entry();
    if entry.is_none() {
        P::rare()?;
        return Ok(0);
    }
    let now = period();
    if entry.is_opening() {
        P::rare()?;
        return Ok(if is_over(entry, known.idle_ticks, now) {
            0
        } else {
            entry.backend()
        });
    }
    if is_over(entry, known.idle_ticks, now) {
        P::rare()?;
        if segment != Segment::Quotes {
            counters::event(Event::FlowExpired);
        }
        return Ok(0);
    }
    let mut renewed = entry;
    if segment != Segment::Quotes {
        renewed = renewed.continued_in(now);
    }
    if segment == Segment::Ends {
        renewed = renewed.closing();
    }
    if renewed.0 != entry.0 {
        write(known, known.at(), renewed);
    }
    Ok(entry.backend())
}

/// The backend that a flow was at for which a SYN came, 0 if it is not known, or not any more; and whether the connection
/// has ended, as far as can be told: FIN and RST may be forged.
#[inline(always)]
pub(crate) fn begun(known: &Known) -> (u16, bool) {
    let entry = known.entry();
    if entry.is_none() {
        return (0, false);
    }
    if is_over(entry, known.idle_ticks, period()) {
        return (0, !entry.is_opening());
    }
    (entry.backend(), entry.is_closing())
}

/// Renews the entry that a SYN follows. It may as well be the first SYN of another connection, which has all of its time before
/// it.
#[inline(always)]
pub(crate) fn begin_again(known: &Known) {
    let entry = known.entry();
    let renewed = entry.seen_in(period()).after_syn();
    if renewed.0 != entry.0 {
        write(known, known.at(), renewed);
    }
}

/// Forgets what the table has of a flow for which a SYN came that does not follow it.
#[inline(always)]
pub(crate) fn begin_elsewhere(known: &Known, has_ended: bool) {
    if has_ended {
        counters::event(Event::FlowReopened);
    }
    forget(known);
}

/// Makes a flow of an opening: its client has answered, or whoever has seen the SYN.
#[inline(always)]
pub(crate) fn prove(known: &Known, segment: Segment) {
    let proven = known.entry().seen_in(period()).proven();
    if segment == Segment::Continues {
        write(known, known.at(), proven);
        counters::event(Event::FlowCreated);
    } else if segment == Segment::Ends {
        write(known, known.at(), proven.closing());
    }
}

/// Forgets what the table has of a flow that goes elsewhere from now on.
#[inline(always)]
pub(crate) fn forget(known: &Known) {
    if !known.entry().is_none() {
        write(known, known.at(), FlowEntry::default());
        known.note(FlowEntry::default(), 0);
    }
}

/// True if there is no entry.
#[inline(always)]
pub(crate) fn is_unknown(known: &Known) -> bool {
    known.entry().is_none()
}

/// True if the entry is of an opening, which the next packet makes a flow of.
#[inline(always)]
pub(crate) fn is_opening(known: &Known) -> bool {
    known.entry().is_opening()
}

/// Remembers a flow, as far as the budget allows. A flow that begins with its end is not worth it.
#[inline(always)]
pub(crate) fn remember(frame: &Frame, known: &Known, segment: Segment, backend: u16) {
    if segment != Segment::Continues {
        return;
    }
    let entry = FlowEntry::new(known.place.fingerprint, backend, period());
    let made = insert(frame, Budget::Flows, known, entry);
    counters::event(if made {
        Event::FlowCreated
    } else {
        Event::FlowNotCreated
    });
}

/// Remembers an opening; false where the budget did not allow it, or the bucket is full of flows.
#[inline(always)]
pub(crate) fn remember_opening(frame: &Frame, known: &Known, backend: u16) -> bool {
    let entry = FlowEntry::opening(known.place.fingerprint, backend, period());
    let made = insert(frame, Budget::Openings, known, entry);
    counters::event(if made {
        Event::OpeningCreated
    } else {
        Event::OpeningNotCreated
    });
    made
}

#[inline(always)]
fn insert(frame: &Frame, budget: Budget, known: &Known, entry: FlowEntry) -> bool {
    let at = if known.entry().is_none() {
        room(known, entry.is_opening())
    } else {
        known.at()
    };
    if at >= BUCKET as u32 || !budget::take(frame, budget, time::now()) {
        return false;
    }
    write(known, at, entry);
    true
}

/// Where in its bucket a new entry may stand: where there is none, else in the place of one that is over, else
/// of the oldest of its kind. [`BUCKET`]: nowhere.
#[inline(always)]
fn room(known: &Known, is_opening: bool) -> u32 {
    let Some(bucket) = FLOWS.get_ptr(known.place.bucket) else {
        return BUCKET as u32;
    };
    let now = period();
    let idle_ticks = longest_idle(known.idle_ticks);
    // SAFETY: the notes are this CPU's own.
    let (best, most) = unsafe { (&raw mut (*known.found).best, &raw mut (*known.found).most) };
    // SAFETY: as above, here and in the loop.
    unsafe {
        ptr::write_volatile(best, BUCKET as u32);
        ptr::write_volatile(most, 0);
    }
    let mut at = 0;
    while at < BUCKET {
        let entry = read(bucket, at);
        let is_over = is_over(entry, idle_ticks, now);
        let worth = entry.worth_leaving(is_opening, is_over, now);
        // SAFETY: as above.
        unsafe {
            if worth > ptr::read_volatile(most) {
                ptr::write_volatile(most, worth);
                ptr::write_volatile(best, at as u32);
            }
        }
        at += 1;
    }
    // SAFETY: as above.
    unsafe { ptr::read_volatile(best) }
}

/// How long a flow of any service is remembered: those in a bucket may be of services that do so for longer.
#[inline(always)]
fn longest_idle(of_this_one: u32) -> u32 {
    let Some(longest) = CLOCK.get_ptr(abi::LONGEST_IDLE) else {
        return of_this_one;
    };
    // SAFETY: `longest` points to an array's element of one word, which the daemon writes at once.
    let longest = unsafe { ptr::read_volatile(longest) } as u32;
    longest.max(of_this_one)
}

#[inline(always)]
fn is_over(entry: FlowEntry, idle_ticks: u32, now: u32) -> bool {
    let mut ticks = idle_ticks;
    if entry.is_opening() {
        ticks = timing!(opening_ticks);
    } else if entry.is_closing() {
        ticks = ticks.min(timing!(closing_ticks));
    }
    entry.was_silent_for(ticks, now, timing!(period_shift))
}

/// The period of time that it is. The daemon is told, which has no such clock.
#[inline(always)]
fn period() -> u32 {
    let period = FlowEntry::period(time::now(), timing!(period_shift));
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: `clock` points to an array's element of one word.
        unsafe {
            // All CPUs share it, and it is written a few times in a second.
            if ptr::read_volatile(clock) != u64::from(period) {
                ptr::write_volatile(clock, u64::from(period));
            }
        }
    }
    period
}

#[inline(always)]
fn read(bucket: *const [u64; BUCKET], at: usize) -> FlowEntry {
    // SAFETY: `bucket` points to an array's element, and `at` is within it. Others write its words meanwhile, each
    // at once.
    FlowEntry(unsafe { ptr::read_volatile(bucket.cast::<u64>().add(at)) })
}

#[inline(always)]
fn write(known: &Known, at: u32, entry: FlowEntry) {
    if let Some(bucket) = FLOWS.get_ptr_mut(known.place.bucket) {
        // SAFETY: as in `read`.
        unsafe { ptr::write_volatile(word(bucket, at), entry.0) }
    }
}

/// The word at a place of a bucket.
///
/// By hand, since the compiler leaves out a mask where it knows that the place is within the bucket, which the
/// verifier, before Linux 5.17, has forgotten by then.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn word(bucket: *mut [u64; BUCKET], at: u32) -> *mut u64 {
    let mut word = bucket.cast::<u64>();
    // SAFETY: these are instructions on registers alone.
    unsafe {
        core::arch::asm!(
            "{at} &= {mask}",
            "{at} <<= 3",
            "{word} += {at}",
            at = inout(reg) u64::from(at) => _,
            word = inout(reg) word,
            mask = const BUCKET - 1,
            options(nostack, nomem),
        );
    }
    word
}

#[cfg(not(target_arch = "bpf"))]
fn word(bucket: *mut [u64; BUCKET], at: u32) -> *mut u64 {
    bucket.cast::<u64>().wrapping_add(at as usize)
}
