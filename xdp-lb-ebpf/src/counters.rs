//! Counting, per CPU.

use xdp_lb_common::{
    abi::Count,
    counters::{Counter, Event},
};

use aya_ebpf::helpers::bpf_get_smp_processor_id;

use crate::maps::{BACKEND_COUNTERS, COUNTERS, timing};

#[inline(always)]
fn add(count: Option<*mut Count>, bytes: u32) {
    if let Some(count) = count {
        // SAFETY: the element is this CPU's own, and the program is not interrupted by itself. The daemon reads its
        // words meanwhile, each at once.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += u64::from(bytes);
        }
    }
}

/// Counts what became of a packet that was not forwarded; `index` is that of a [`Counter`].
#[inline(always)]
pub(crate) fn verdict(index: u32, bytes: u32) {
    add(COUNTERS.get_ptr_mut(index), bytes);
}

/// Counts something on a packet's way.
#[inline(always)]
pub(crate) fn event(event: Event) {
    const { assert!(Event::FlowCreated as u32 == Counter::FlowCreated as u32) };
    add(COUNTERS.get_ptr_mut(event as u32), 0);
}

/// Counts a forwarded packet, in one place: sums are for those who ask.
#[inline(always)]
pub(crate) fn forwarded(backend: u16, bytes: u32) {
    // SAFETY: takes no argument and has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let index = cpu
        .wrapping_mul(timing!(backends))
        .wrapping_add(u32::from(backend));
    add(BACKEND_COUNTERS.get_ptr_mut(index), bytes);
}
