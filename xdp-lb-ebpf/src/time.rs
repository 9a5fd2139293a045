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

/// Ticks that have passed since `then`; 0 where another CPU's clock was read later than this one's,
/// by which a time just written may lie ahead.
#[inline(always)]
pub(crate) fn since(then: u32, now: u32) -> u32 {
    let passed = now.wrapping_sub(then);
    if passed > u32::MAX / 2 { 0 } else { passed }
}
