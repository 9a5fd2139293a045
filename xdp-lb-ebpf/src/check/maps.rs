//! The maps: whom marked packets are for, and which answers are known.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{HashMap, LruHashMap},
};
use xdp_lb_common::{
    abi::FlowKey,
    check::{ANSWERED_WITHIN, ENTRIES, FlowEntry, Target},
};

/// A flow of either family.
pub(crate) type Flow = FlowKey<[u8; 16]>;

#[map]
pub(crate) static TARGETS: HashMap<u32, Target> =
    HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static FLOWS: LruHashMap<Flow, FlowEntry> = LruHashMap::with_max_entries(ENTRIES, 0);

/// The target of a mark.
#[inline(always)]
pub(crate) fn target(mark: u32) -> Option<*mut Target> {
    // Most packets have none.
    if mark == 0 {
        return None;
    }
    TARGETS.get_ptr_mut(mark)
}

/// Counts a packet that was steered.
#[inline(always)]
pub(crate) fn count(target: *mut Target) {
    // SAFETY: the kernel frees no element of a map that a running program has got.
    unsafe { add_one(&raw mut (*target).packets) };
}

/// Adds one to what other CPUs count up as well.
///
/// # Safety
///
/// `counter` points to an element of a map.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn add_one(counter: *mut u64) {
    // By hand: atomic types have no plain addition on this target.
    // SAFETY: by the caller.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {one}",
            counter = in(reg) counter,
            one = in(reg) 1_u64,
            options(nostack),
        );
    }
}

#[cfg(not(target_arch = "bpf"))]
unsafe fn add_one(_: *mut u64) {}

/// Remembers that a packet of this flow is sent to `backend`, so that the answer is known. None where
/// there is no memory for it.
#[inline(always)]
pub(crate) fn remember(flow: &Flow, backend: &[u8; 16]) -> Option<()> {
    // SAFETY: has no precondition.
    let sent = unsafe { bpf_ktime_get_ns() };
    if let Some(entry) = FLOWS.get_ptr_mut(flow) {
        // SAFETY: the kernel frees no element of a map that a running program has got. What another
        // program writes at the same time is such a time, too.
        unsafe {
            if is_same(&(*entry).backend, backend) {
                ptr::write_volatile(&raw mut (*entry).sent, sent);
                return Some(());
            }
        }
    }
    let entry = FlowEntry {
        backend: *backend,
        sent,
    };
    FLOWS.insert(flow, entry, 0).ok()
}

/// Who was sent a packet of this flow lately.
#[inline(always)]
pub(crate) fn asked(flow: &Flow) -> Option<[u8; 16]> {
    let entry = FLOWS.get_ptr(flow)?;
    // SAFETY: the kernel frees no element of a map that a running program has got.
    let (backend, sent) = unsafe {
        (
            (*entry).backend,
            ptr::read_volatile(&raw const (*entry).sent),
        )
    };
    // Read after the other, so that it is not the earlier one.
    // SAFETY: has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let is_late = now.wrapping_sub(sent) > ANSWERED_WITHIN.as_nanos() as u64;
    (!is_late).then_some(backend)
}

/// Compares two addresses; by words, since the compiler would call a function that is not there.
#[inline(always)]
pub(crate) fn is_same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    let halves = |address: &[u8; 16]| {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *address;
        (
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from_ne_bytes(rest),
        )
    };
    halves(a) == halves(b)
}
