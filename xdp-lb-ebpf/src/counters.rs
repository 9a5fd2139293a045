//! Counting, per CPU.

use xdp_lb_common::{
    abi::Count,
    counters::{Counter, Event},
};

use aya_ebpf::maps::PerCpuArray;

use crate::maps::{BACKEND_COUNTERS, COUNTERS, SERVICE_COUNTERS};

#[inline(always)]
fn add(counters: &PerCpuArray<Count>, index: u32, bytes: u32) {
    if let Some(count) = counters.get_ptr_mut(index) {
        // SAFETY: the element is this CPU's own, and the program is not interrupted by itself.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += u64::from(bytes);
        }
    }
}

/// Counts what became of a packet; `index` is that of a [`Counter`].
#[inline(always)]
pub(crate) fn verdict(index: u32, bytes: u32) {
    add(&COUNTERS, index, bytes);
}

/// Counts something on a packet's way.
#[inline(always)]
pub(crate) fn event(event: Event) {
    const { assert!(Event::FlowCreated as u32 == Counter::FlowCreated as u32) };
    add(&COUNTERS, event as u32, 0);
}

/// Counts a forwarded packet for its service and its backend.
#[inline(always)]
pub(crate) fn forwarded(service: u32, backend: u16, bytes: u32) {
    add(&SERVICE_COUNTERS, service, bytes);
    add(&BACKEND_COUNTERS, u32::from(backend), bytes);
}
