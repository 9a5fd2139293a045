//! The memory of an array map, shared with the kernel.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of a whole array, as atomic words: the program reads them while they are written.
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    bytes: NonZeroUsize,
}

// SAFETY: the memory is plain words, accessed only as atomics, and stays mapped until the drop.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the `bytes` bytes of the map behind `map`, which must be mmap-able. The mapping keeps
    /// the map alive.
    pub(super) fn new(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self {
            start: start.cast(),
            bytes,
        })
    }

    /// The memory as 64-bit words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the range is mapped, aligned to a page, and lives as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes.get() / 8) }
    }

    /// The memory as bytes.
    pub(super) fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(self.start.cast().as_ptr(), self.bytes.get()) }
    }

    /// The memory as 32-bit words.
    pub(super) fn half_words(&self) -> &[AtomicU32] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(self.start.cast().as_ptr(), self.bytes.get() / 4) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing can refer to the memory any more: the slices borrow `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "unmapping what was mapped does not fail");
    }
}
