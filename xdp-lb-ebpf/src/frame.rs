//! Bounds-checked access to the frame: the only place that makes pointers into packets.

use core::{mem::size_of, ptr};

use aya_ebpf::programs::XdpContext;

/// The frame being processed.
pub(crate) struct Frame<'a> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
    length: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        // SAFETY: the context is the kernel's and has these fields. The reads are volatile so that
        // the compiler does not see that this is the distance of the pointers below: from checks of
        // the length it would conclude that checks of pointers are superfluous, which the verifier
        // does not follow.
        let length = unsafe {
            let end = ptr::read_volatile(&raw const (*ctx.ctx).data_end);
            end.wrapping_sub(ptr::read_volatile(&raw const (*ctx.ctx).data))
        };
        Self {
            ctx,
            start: ctx.data(),
            end: ctx.data_end(),
            length: length as usize,
        }
    }

    /// Bytes in the frame, from the Ethernet header on.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Index of the interface that the frame came in by.
    #[inline(always)]
    pub(crate) fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// The context, for the log.
    #[inline(always)]
    pub(crate) fn context(&self) -> &XdpContext {
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
unsafe impl Plain for [u8; 4] {}
// SAFETY: as above.
unsafe impl Plain for [u8; 8] {}
// SAFETY: as above.
unsafe impl Plain for [u8; 12] {}
// SAFETY: as above.
unsafe impl Plain for [u8; 20] {}
