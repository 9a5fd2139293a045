//! The maps. The sizes of those of addresses are set when the program is loaded.

use aya_ebpf::{
    macros::map,
    maps::{Array, LpmTrie, PerCpuArray, lpm_trie::Key},
};
use xdp_lb_common::{abi::Count, counters::decap::Counter, decap::Settings};

#[map]
pub(crate) static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static FROM_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);

#[map]
pub(crate) static FROM_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<Count> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Counts what became of a packet; `index` is that of a [`Counter`].
#[inline(always)]
pub(crate) fn count(index: u32, bytes: usize) {
    if let Some(count) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the element is this CPU's own, and the program is not interrupted by itself.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes as u64;
        }
    }
}

/// An address that packets in tunnels come from.
pub(crate) trait Source: Copy {
    /// Says whether it is in the list.
    fn is_listed(self) -> bool;
}

impl Source for [u8; 4] {
    #[inline(always)]
    fn is_listed(self) -> bool {
        FROM_V4.get(Key::new(32, self)).is_some()
    }
}

impl Source for [u8; 16] {
    #[inline(always)]
    fn is_listed(self) -> bool {
        FROM_V6.get(Key::new(128, self)).is_some()
    }
}
