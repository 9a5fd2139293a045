//! How fast entries may be made and messages sent, per CPU and tick, so that a flood wears out neither
//! memory nor the processor.

use aya_log_ebpf::warn;
use xdp_lb_common::abi::{Budget, TokenBucket};

use crate::{
    frame::Frame,
    maps::{BUDGETS, timing},
};

/// Takes one token from this CPU's bucket.
#[inline(always)]
pub(crate) fn take(frame: &Frame, budget: Budget, now: u32) -> bool {
    let Some(bucket) = BUDGETS.get_ptr_mut(budget as u32) else {
        return false;
    };
    // SAFETY: the element is this CPU's own, and the program is not interrupted by itself.
    let bucket: &mut TokenBucket = unsafe { &mut *bucket };
    let (rate, burst) = match budget {
        Budget::Flows => (timing!(tokens_per_tick)[0], timing!(burst)[0]),
        Budget::Openings => (timing!(tokens_per_tick)[1], timing!(burst)[1]),
        Budget::Fragments => (timing!(tokens_per_tick)[2], timing!(burst)[2]),
        Budget::Answers => (timing!(tokens_per_tick)[3], timing!(burst)[3]),
    };
    let elapsed = now.wrapping_sub(bucket.filled_at);
    if elapsed != 0 {
        let filled = u64::from(bucket.tokens) + u64::from(elapsed) * u64::from(rate);
        bucket.tokens = if filled > u64::from(burst) {
            burst
        } else {
            filled as u32
        };
        bucket.filled_at = now;
    }
    if bucket.tokens == 0 {
        if now.wrapping_sub(bucket.warned_at) > timing!(warning_ticks) {
            bucket.warned_at = now;
            warn!(
                &frame.context(),
                "new flows, fragments or packets that are too big come faster than the limits allow"
            );
        }
        return false;
    }
    bucket.tokens -= 1;
    true
}
