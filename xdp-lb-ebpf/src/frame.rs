//! Bounds-checked access to the frame: the only place that makes pointers into packets.

use core::{mem::size_of, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};

use crate::context;

/// The frame being processed.
pub(crate) struct Frame {
    ctx: *mut xdp_md,
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame of the context that the kernel gave to the program.
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        Self {
            ctx,
            start: context::start(ctx),
            end: context::end(ctx),
        }
    }

    /// Bytes in the frame, from the Ethernet header on. Where the compiler saw that this is the distance of the
    /// pointers, it would conclude from checks of the length that checks of pointers are superfluous, which the
    /// verifier does not follow.
    #[inline(always)]
    pub(crate) fn length(&self) -> u32 {
        opaque(self.end.wrapping_sub(self.start)) as u32
    }

    /// Index of the interface that the frame came in by.
    #[inline(always)]
    pub(crate) fn ingress(&self) -> u32 {
        // SAFETY: the context is the kernel's and has this field.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// The context, for the log.
    #[inline(always)]
    pub(crate) fn context(&self) -> XdpContext {
        XdpContext::new(self.ctx)
    }

    /// The context, for one who makes another frame of it.
    #[inline(always)]
    pub(crate) fn into_context(self) -> *mut xdp_md {
        self.ctx
    }

    /// The `T` at `offset`, or None where the frame ends before its end.
    ///
    /// `offset` is one that the verifier can bound: a constant, or a value masked to a few bits.
    #[inline(always)]
    pub(crate) fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the range was checked against the end of the frame, any bytes are a valid `T`,
        // and the read needs no alignment.
        Some(unsafe { ptr::read_unaligned(at as *const T) })
    }

    /// Writes `value` at `offset`; None, and nothing written, where the frame ends before its end.
    #[inline(always)]
    pub(crate) fn write<T: Plain>(&self, offset: usize, value: T) -> Option<()> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the range was checked against the end of the frame, which belongs to this
        // program while it runs, and the write needs no alignment.
        unsafe { ptr::write_unaligned(at as *mut T, value) };
        Some(())
    }

    /// The Internet checksum's sum over the `N` bytes at `offset` and `seed`, not folded; None where
    /// the frame ends before. `N` is a multiple of 4, 512 at most.
    #[inline(always)]
    pub(crate) fn sum<const N: usize>(&self, offset: usize, seed: u32) -> Option<u32> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the range was checked, and the kernel only reads it.
        let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, at as *mut u32, N as u32, seed) };
        u32::try_from(sum).ok()
    }

    /// Gives the frame `to` bytes in front of what is at the offset `from` now; None where there is no
    /// room. What is in them is to be written anew.
    #[inline(always)]
    pub(crate) fn resize_head(self, from: usize, to: usize) -> Option<Self> {
        let later = (from as u32).cast_signed() - (to as u32).cast_signed();
        if later == 0 {
            return Some(self);
        }
        // SAFETY: the context is the kernel's; the pointers into the old frame are given up.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx, later) };
        (failed == 0).then(|| Self::new(self.ctx))
    }

    /// Lets the frame end `bytes` earlier; None where it has no more than them.
    #[inline(always)]
    pub(crate) fn cut_tail(self, bytes: u32) -> Option<Self> {
        // SAFETY: as above.
        let failed = unsafe { bpf_xdp_adjust_tail(self.ctx, -bytes.cast_signed()) };
        (failed == 0).then(|| Self::new(self.ctx))
    }
}

/// The same number, of which the compiler does not know where it is from.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // SAFETY: an instruction on a register alone.
    unsafe {
        core::arch::asm!("{number} = {number}", number = inout(reg) number, options(nostack, nomem))
    };
    number
}

#[cfg(not(target_arch = "bpf"))]
fn opaque(number: usize) -> usize {
    number
}

/// Types that any bytes are a valid value of, and that have no padding.
///
/// # Safety
///
/// Implement it for nothing else.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: headers made of byte arrays and integers.
unsafe impl Plain for network_types::eth::EthHdr {}
// SAFETY: as above.
unsafe impl Plain for network_types::ip::Ipv4Hdr {}
// SAFETY: as above.
unsafe impl Plain for network_types::ip::Ipv6Hdr {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u8; N] {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u16; N] {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u32; N] {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
