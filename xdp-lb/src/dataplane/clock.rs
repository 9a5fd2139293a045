//! The kernel's clock tick, in which the program counts time.

use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};
use xdp_lb_common::abi::FlowEntry;

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

    /// The periods by which the flow table counts time, as a power of two of ticks: a quarter of a second or somewhat
    /// more, so that half of those that an entry can tell apart are more than a day.
    pub(super) fn period_shift(self) -> u32 {
        (self.per_second() / 4).next_power_of_two().ilog2()
    }

    /// What the kernel's count of ticks shows about now, its low 32 bits: it goes as the monotonic clock does, and begins
    /// five minutes before these bits wrap. It is behind this by the time that the kernel took to begin.
    fn estimate(self) -> u32 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let ticks = now.unwrap_or_default().as_nanos() / u128::from(self.nanoseconds);
        #[expect(clippy::cast_possible_truncation, reason = "the count wraps")]
        let ticks = ticks as u32;
        ticks.wrapping_sub(300 * self.per_second())
    }

    /// `time` in ticks, rounded up. Times that 32 bits of ticks cannot tell apart are cut off at
    /// half of their range.
    pub(super) fn count(self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(u128::from(self.nanoseconds));
        u32::try_from(ticks).unwrap_or(u32::MAX).min(u32::MAX / 2)
    }
}

/// The clock of the flow table. The program shows which period it is while packets are looked up; what passes
/// between two of them is told by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Periods {
    ticks: Ticks,
    shift: u32,
    /// By how many periods the estimate is ahead at the most, as far as packets have shown it.
    ahead: Option<u32>,
}

impl Periods {
    /// By how many periods the estimate is taken to be ahead until a packet shows it: about two seconds.
    const AHEAD: u32 = 8;

    pub(super) fn new(ticks: Ticks, shift: u32) -> Self {
        Self {
            ticks,
            shift,
            ahead: None,
        }
    }

    /// The period that it is, or an earlier one. `shown` is that of the last packet; 0: there was none.
    pub(super) fn read(&mut self, shown: u64) -> u32 {
        self.correct(shown, FlowEntry::period(self.ticks.estimate(), self.shift))
    }

    fn correct(&mut self, shown: u64, estimate: u32) -> u32 {
        let before = |periods: u32| FlowEntry::period(estimate.wrapping_sub(periods), 0);
        if shown == 0 {
            return before(self.ahead.unwrap_or(Self::AHEAD));
        }
        // The last packet may have come a while ago, so of several looks the one that fits best counts.
        #[expect(clippy::cast_possible_truncation, reason = "periods wrap")]
        let shown = shown as u32;
        let ahead = FlowEntry::new(0, 0, shown).silence(estimate);
        let ahead = self.ahead.map_or(ahead, |known| known.min(ahead));
        self.ahead = Some(ahead);
        // Periods of the two clocks do not begin at the same moments: for a part of each the estimate is ahead by one
        // more than for the rest.
        let sure = before(ahead + 1);
        let missed = FlowEntry::new(0, 0, sure).silence(shown);
        FlowEntry::period(sure.wrapping_add(missed), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_correct_what_the_monotonic_clock_tells() {
        let mut periods = Periods::new(Ticks::of_this_kernel(), 5);
        assert_eq!(periods.correct(0, 1_000), 1_000 - Periods::AHEAD);
        // A packet that came ten periods ago, for all that is known, or now.
        assert_eq!(periods.correct(990, 1_000), 990);
        assert_eq!(periods.correct(1_097, 1_100), 1_097);
        assert_eq!(periods.correct(1_097, 1_200), 1_196);
        // Across the wrap.
        let last = u64::from(FlowEntry::period(u32::MAX, 0));
        assert_eq!(periods.correct(last, 4), 0);
    }

    #[test]
    fn no_period_is_told_before_it_begins() {
        // The estimate's periods begin half a period earlier than those that packets show.
        let mut periods = Periods::new(Ticks::of_this_kernel(), 5);
        for half in 200..300_u32 {
            let (shown, estimate) = (half / 2, half.div_ceil(2) + 7);
            let told = periods.correct(shown.into(), estimate);
            assert_eq!(told, shown, "a packet has just shown it");
            let told = periods.correct(100, estimate);
            assert!(told <= shown && told + 2 >= shown, "{told}, not {shown}");
        }
    }

    #[test]
    fn the_estimate_goes_as_fast_as_ticks_do() {
        let ticks = Ticks::of_this_kernel();
        let before = ticks.estimate();
        std::thread::sleep(Duration::from_millis(100));
        let passed = ticks.estimate().wrapping_sub(before);
        assert!(passed >= ticks.per_second() / 11, "{passed}");
    }

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
