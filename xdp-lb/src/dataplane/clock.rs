//! The kernel's clock tick, in which the program counts time.

use std::time::Duration;

use nix::time::{ClockId, clock_getres};

/// How long a tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    nanoseconds: u64,
}

impl Ticks {
    /// Asks the running kernel: the resolution of its coarse clock is one tick.
    pub(super) fn of_this_kernel() -> Self {
        let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
        // Every Linux has that clock (since 2.6.32); Debian's and most others' tick is 4 ms.
        let tick = resolution.unwrap_or(Duration::from_millis(4));
        Self {
            nanoseconds: u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX).max(1),
        }
    }

    /// Ticks in a second, at least one.
    pub(super) fn per_second(self) -> u32 {
        u32::try_from(1_000_000_000 / self.nanoseconds)
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// The periods by which the flow table counts time, as a power of two of ticks: about a quarter of a second.
    pub(super) fn period_shift(self) -> u32 {
        (self.per_second() / 4).max(1).ilog2()
    }

    /// `time` in ticks, rounded up. Times that 32 bits of ticks cannot tell apart are cut off at
    /// half of their range.
    pub(super) fn count(self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(u128::from(self.nanoseconds));
        u32::try_from(ticks).unwrap_or(u32::MAX).min(u32::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_to_ticks() {
        let ticks = Ticks {
            nanoseconds: 4_000_000,
        };
        assert_eq!(ticks.per_second(), 250);
        assert_eq!(ticks.count(Duration::ZERO), 0);
        assert_eq!(ticks.count(Duration::from_millis(1)), 1);
        assert_eq!(ticks.count(Duration::from_millis(8)), 2);
        assert_eq!(ticks.count(Duration::from_secs(60)), 15_000);
        assert_eq!(ticks.count(Duration::MAX), u32::MAX / 2);
    }

    #[test]
    fn this_kernel_ticks_between_24_and_10_000_times_a_second() {
        assert!((24..=10_000).contains(&Ticks::of_this_kernel().per_second()));
    }
}
