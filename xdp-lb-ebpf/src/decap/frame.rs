//! Bounds-checked access to the frame: the only place that makes pointers into packets.

use core::ptr;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_head};

use crate::context;

/// The frame being processed.
pub(crate) struct Frame {
    ctx: *mut xdp_md,
    start: usize,
    end: usize,
    length: usize,
}

impl Frame {
    /// The frame of the context that the kernel gave to the program.
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        // SAFETY: the context is the kernel's and has these fields. The reads are volatile so that
        // the compiler does not see that this is the distance of the pointers below: from checks of
        // the length it would conclude that checks of pointers are superfluous, which the verifier
        // does not follow.
        let length = unsafe {
            let end = ptr::read_volatile(&raw const (*ctx).data_end);
            end.wrapping_sub(ptr::read_volatile(&raw const (*ctx).data))
        };
        Self {
            ctx,
            start: context::start(ctx),
            end: context::end(ctx),
            length: length as usize,
        }
    }

    /// Bytes in the frame, from the Ethernet header on.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The `N` bytes at `offset`, or None where the frame ends before their end.
    ///
    /// `offset` is one that the verifier can bound: a constant, or a value masked to a few bits.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // The check for a single byte would be compiled to `at >= end`, from which the verifier
        // concludes nothing.
        const { assert!(N > 1) };
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the range was checked against the end of the frame, and bytes need no alignment.
        Some(unsafe { ptr::read(at as *const [u8; N]) })
    }

    /// Two bytes in network order; as [`read`](Self::read).
    #[inline(always)]
    pub(crate) fn read_u16(&self, offset: usize) -> Option<u16> {
        self.read(offset).map(u16::from_be_bytes)
    }

    /// Takes away what is between the first `N` bytes and `offset`, and writes `header` in place of
    /// those `N` bytes. None where the kernel refuses.
    #[inline(always)]
    pub(crate) fn close_gap<const N: usize>(self, header: [u8; N], offset: usize) -> Option<()> {
        let gap = i32::try_from(offset.checked_sub(N)?).ok()?;
        // SAFETY: the context is the kernel's. The pointers into the frame, which this makes
        // invalid, end with `self`.
        if unsafe { bpf_xdp_adjust_head(self.ctx, gap) } != 0 {
            return None;
        }
        let Self { start, end, .. } = Self::new(self.ctx);
        if start + N > end {
            return None;
        }
        // SAFETY: the range was checked against the end of the frame, which belongs to this program
        // while it runs, and bytes need no alignment.
        unsafe { ptr::write(start as *mut [u8; N], header) };
        Some(())
    }
}
