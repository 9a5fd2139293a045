//! Slow start: the weight of a backend that came up grows in steps.

use std::time::{Duration, Instant};

/// Steps from nothing to the whole weight. Each one is a table build, and moves slots to the backend: few
/// enough of both.
const STEPS: u32 = 10;

/// The weight that counts at `now`, of a backend of weight `weight` that came up at `since`, and when it
/// grows next; None when it is whole.
pub(super) fn weight(
    weight: u32,
    since: Instant,
    slow_start: Duration,
    now: Instant,
) -> (u32, Option<Instant>) {
    let steps = STEPS.min(weight.max(1));
    let passed = now.saturating_duration_since(since);
    if passed >= slow_start {
        return (weight, None);
    }
    // Less than `steps`, since the time is not over.
    let done = passed.as_nanos() * u128::from(steps) / slow_start.as_nanos();
    let step = u32::try_from(done).unwrap_or(steps) + 1;
    let in_force = u64::from(weight) * u64::from(step);
    let in_force = in_force.div_ceil(u64::from(steps));
    // Rounded up, so that the step has come by then.
    let next = (slow_start.as_nanos() * u128::from(step)).div_ceil(u128::from(steps));
    let next = Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
    (
        u32::try_from(in_force).unwrap_or(weight),
        Some(since + next),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xdp_lb_common::hash::HashKey;

    use super::*;
    use crate::lookup::{self, Candidate, Scheduler};

    /// All weights on the way, one by one.
    fn ramp(whole: u32, slow_start: Duration) -> Vec<u32> {
        let since = Instant::now();
        let mut now = since;
        let mut weights = Vec::new();
        loop {
            let (in_force, next) = weight(whole, since, slow_start, now);
            weights.push(in_force);
            match next {
                Some(next) => {
                    assert!(next > now);
                    now = next;
                }
                None => return weights,
            }
        }
    }

    #[test]
    fn a_weight_grows_in_ten_steps() {
        let second = Duration::from_secs(1);
        assert_eq!(
            ramp(100, 30 * second),
            [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]
        );
        assert_eq!(ramp(3, second), [1, 2, 3, 3]);
        assert_eq!(ramp(1, second), [1, 1]);
        assert_eq!(ramp(0, second), [0, 0]);
        assert_eq!(ramp(100, Duration::ZERO), [100]);
        assert_eq!(ramp(65_535, second)[0], 6554);
    }

    #[test]
    fn each_step_moves_few_slots() {
        const SIZE: u32 = 65_537;
        for backends in [10_u8, 100] {
            let mut before: Option<(Vec<u16>, usize)> = None;
            for weight in ramp(100, Duration::from_secs(10)) {
                let candidate = |last| Candidate {
                    address: [10, 0, 0, last].into(),
                    weight: if last == 0 { weight } else { 100 },
                };
                let candidates: Vec<_> = (0..backends).map(candidate).collect();
                let table = lookup::build(Scheduler::Maglev, SIZE, HashKey::DEFAULT, &candidates);
                let share = table.iter().filter(|slot| **slot == 0).count();
                if let Some((old, old_share)) = before {
                    let moved = old.iter().zip(&table).filter(|(a, b)| a != b).count();
                    let grown = share.abs_diff(old_share);
                    // A few slots move between the others whenever a share changes: at most half a
                    // percent of all here.
                    let others = moved - grown;
                    assert!(
                        others <= SIZE as usize / 200,
                        "{moved} slots moved for {grown}"
                    );
                }
                before = Some((table, share));
            }
        }
    }

    proptest! {
        #[test]
        fn a_weight_never_shrinks_and_becomes_whole(whole in 0_u32..=65_535, millis in 0_u64..3_600_000) {
            let weights = ramp(whole, Duration::from_millis(millis));
            prop_assert!(weights.is_sorted());
            prop_assert_eq!(weights.last(), Some(&whole));
            prop_assert!(whole == 0 || weights[0] > 0);
            prop_assert!(weights.len() <= STEPS as usize + 1);
        }
    }
}
