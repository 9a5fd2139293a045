//! Where the frame is, by the context that the kernel gives to a program. All programs here include it.

use core::mem::offset_of;

use aya_ebpf::bindings::xdp_md;

/// Where the frame begins.
#[inline(always)]
pub(crate) fn start(ctx: *mut xdp_md) -> usize {
    pointer::<{ offset_of!(xdp_md, data) }>(ctx)
}

/// Where it ends.
#[inline(always)]
pub(crate) fn end(ctx: *mut xdp_md) -> usize {
    pointer::<{ offset_of!(xdp_md, data_end) }>(ctx)
}

/// The pointer in the field of the context at `OFFSET`.
///
/// The field has 32 bits, and the kernel makes a load of it one of 64. By hand, since the compiler
/// takes it for what it says: where it then loads in one place and extends to 64 bits in another, the
/// verifier sees a pointer cut in half.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn pointer<const OFFSET: usize>(ctx: *mut xdp_md) -> usize {
    let pointer: u64;
    // SAFETY: the context is the kernel's and has the field.
    unsafe {
        core::arch::asm!(
            "{pointer} = *(u32 *)({ctx} + {offset})",
            pointer = out(reg) pointer,
            ctx = in(reg) ctx,
            offset = const OFFSET,
            options(nostack, readonly),
        );
    }
    pointer as usize
}

#[cfg(not(target_arch = "bpf"))]
fn pointer<const OFFSET: usize>(_: *mut xdp_md) -> usize {
    OFFSET
}
