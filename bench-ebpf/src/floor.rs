//! Programs whose cost is a measure of what is possible at all.

use core::ptr;

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array, programs::XdpContext};
use xdp_lb_common::{
    abi::Count,
    hash::{HashKey, Hasher, reduce},
};

use crate::{
    abi::{SlotLine, State, StatelessBackend},
    headers::Headers,
};

/// The slots of all services, one after the other.
#[map]
static SLOTS: Array<SlotLine> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The backends of all services, one after the other.
#[map]
static BACKENDS: Array<StatelessBackend> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What was forwarded to each of them.
#[map]
static COUNTS: Array<Count> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The least that a forwarding program does: headers up to the ports, and two MAC addresses, which are swapped.
#[inline(always)]
pub(crate) fn reflect(ctx: &XdpContext) -> Option<()> {
    let headers = Headers::read(ctx, Hasher::new(HashKey::DEFAULT))?;
    let (to, from) = (headers.ethernet.src_addr, headers.ethernet.dst_addr);
    headers.address(to, from);
    Some(())
}

/// The least that a balancer does: the packet's hash, one slot of one byte, one backend, its counter. It finds services
/// by a byte of their address and checks nothing.
#[inline(always)]
pub(crate) fn balance(ctx: &XdpContext, state: &State) -> Option<()> {
    let headers = Headers::read(ctx, Hasher::new(HashKey::DEFAULT))?;
    let service = u32::from(headers.service);
    let hasher = headers
        .hasher
        .word(u32::from_ne_bytes(headers.ports).into());
    let slot = service
        .wrapping_mul(state.table_size)
        .wrapping_add(reduce(hasher.finish(), state.table_size));
    let line = SLOTS.get_ptr(slot / 64)?.cast::<u8>();
    // SAFETY: `line` points to an element of 64 bytes.
    let member = unsafe { ptr::read_volatile(line.add((slot % 64) as usize)) };
    let backend = service
        .wrapping_mul(state.backends)
        .wrapping_add(u32::from(member));
    let entry = BACKENDS.get_ptr(backend)?;
    // SAFETY: `entry` points to an element, which nobody writes meanwhile.
    let [to, from, ..] = unsafe { *entry };
    headers.address_by_words(to, from);
    let count = COUNTS.get_ptr_mut(backend)?;
    // SAFETY: `count` points to an element. The benchmark stays on one CPU.
    unsafe {
        (*count).packets += 1;
        (*count).bytes += u64::from(state.frame);
    }
    Some(())
}
