//! Time, in ticks of the kernel's clock (`jiffies`): a memory read, where nanoseconds would be a
//! call that reads the hardware's clock.

use aya_ebpf::helpers::generated::bpf_jiffies64;

/// The low 32 bits of the tick count. They wrap after 49 days at 1,000 ticks a second, so only
/// differences mean anything.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: takes no argument and has no precondition.
    unsafe { bpf_jiffies64() as u32 }
}
