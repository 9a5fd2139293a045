//! XDP programs for measurements: the wrapper, which gives the program under test a fresh packet in each
//! repetition of `BPF_PROG_TEST_RUN`, and programs whose cost is a measure of what is possible at all.
//!
//! The kernel repeats a program on one and the same frame, as the last run left it. So the wrapper
//! gives the frame its length back, writes the next packet into it, and calls the program under test,
//! which then ends the repetition. While the slot for that program is empty, the repetition ends in the
//! wrapper: that is the wrapper's own cost.

// On the host, where clippy and rust-analyzer look at it, this is a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[path = "../../bench/src/abi.rs"]
pub mod abi;
mod floor;
mod headers;
#[path = "../../xdp-lb-ebpf/src/runtime.rs"]
mod runtime;

use core::ptr;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};

use crate::abi::{Difference, FRAME, Listed, SHORT_FRAME, State, drawn};

/// One entry.
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);

/// Packets of the first connections, each of which can be fetched from memory.
#[map]
static LIST: Array<Listed> = Array::with_max_entries(1, 0);

/// One slot: the program under test.
#[map]
static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Writes the next packet and calls the program under test.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn wrapper(ctx: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: only one CPU runs the wrapper, and the wrapper is not interrupted by itself.
    let state = unsafe { &mut *state };
    let connection = choose(state);
    if restore(ctx.ctx, state)
        .and_then(|()| write(&ctx, state, connection))
        .is_none()
    {
        state.failures += 1;
        return xdp_action::XDP_ABORTED;
    }
    state.packets += 1;
    // SAFETY: the context is the kernel's.
    unsafe { PROGRAM.tail_call(&ctx, 0) };
    xdp_action::XDP_TX
}

/// The connection that the next packet is of.
#[inline(always)]
fn choose(state: &mut State) -> u32 {
    if state.stride == 0 {
        return drawn(state.packets, state.connections);
    }
    let this = state.next;
    let next = this + state.stride;
    state.next = if next >= state.connections {
        next - state.connections
    } else {
        next
    };
    this
}

/// Gives the frame the length back that it had before the last packet's program added to its head, or
/// took from it.
#[inline(always)]
fn restore(ctx: *mut xdp_md, state: &mut State) -> Option<()> {
    // SAFETY: the context is the kernel's and has these fields. What is read back from memory is a number for the
    // verifier, apart from the pointers that `write` checks.
    let length = unsafe {
        let end = ptr::read_volatile(&raw const (*ctx).data_end);
        let length = end.wrapping_sub(ptr::read_volatile(&raw const (*ctx).data));
        ptr::write_volatile(&raw mut state.length, length);
        ptr::read_volatile(&raw const state.length)
    };
    let growth = length.wrapping_sub(state.frame).cast_signed();
    // Called where there is nothing to undo as well: it is to cost the same for all programs.
    // SAFETY: the context is the kernel's; pointers into the frame are made anew after this.
    let result = unsafe { bpf_xdp_adjust_head(ctx, growth) };
    (result == 0).then_some(())
}

/// Writes all of the frame, a packet of this connection.
#[inline(always)]
fn write(ctx: &XdpContext, state: &State, connection: u32) -> Option<()> {
    if connection < state.listed {
        // SAFETY: nobody writes the list while packets are under way.
        let words = unsafe { &*LIST.get_ptr(connection)? };
        return if state.frame == FRAME as u32 {
            fill::<{ FRAME / 8 }>(ctx, |index| words[index])
        } else {
            fill::<{ SHORT_FRAME / 8 }>(ctx, |index| words[index])
        };
    }
    let own = Difference::new(connection, state.services);
    if state.frame == FRAME as u32 {
        fill::<{ FRAME / 8 }>(ctx, |index| own.apply_v6(index, state.base[index]))
    } else {
        fill::<{ SHORT_FRAME / 8 }>(ctx, |index| own.apply_v4(index, state.base[index]))
    }
}

/// Writes so many words.
#[inline(always)]
fn fill<const WORDS: usize>(ctx: &XdpContext, word: impl Fn(usize) -> u64) -> Option<()> {
    let start = ctx.data();
    if start + 8 * WORDS > ctx.data_end() {
        return None;
    }
    for index in 0..WORDS {
        // SAFETY: the range was checked against the end of the frame, and the write needs no alignment.
        unsafe { ptr::write_unaligned((start as *mut u64).add(index), word(index)) };
    }
    Some(())
}

/// Sends each frame back as it is: what it costs to be called at all.
#[xdp]
fn floor_tx(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Reads the headers up to the ports and sends each frame back to its sender: what no forwarding
/// program can do without.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn floor_parse(ctx: XdpContext) -> u32 {
    match floor::reflect(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

/// Balances as little as one can, and sends each frame back: what no balancer can do without.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn floor_stateless(ctx: XdpContext) -> u32 {
    let Some(state) = STATE.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    match floor::balance(&ctx, state) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

/// Adds to the head of each frame, as tunnels do, or takes from it, and sends it back: it tells whether
/// the wrapper undoes that.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn grow(ctx: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: as in the wrapper, whose borrow ended with the tail call.
    let state = unsafe { &mut *state };
    // SAFETY: the context is the kernel's; there are no pointers into the frame.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -state.growth) } != 0 {
        state.failures += 1;
        return xdp_action::XDP_ABORTED;
    }
    xdp_action::XDP_TX
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
