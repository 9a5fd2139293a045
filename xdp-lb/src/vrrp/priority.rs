//! The priority in force: the one that is set, less what is wrong. No I/O, and the time is passed in.

use std::time::{Duration, Instant};

use super::machine::OWNER;
use crate::config::TrackedHealth;

/// Something that lowers the priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// What is wrong: "interface eth1 is down".
    pub what: String,
    /// By how much.
    pub weight: u8,
}

/// The priority in force. It is never below 1, which is the least that a router can have that takes part;
/// that of an owner is never lowered (RFC 9568, section 5.2.4).
#[must_use]
pub fn in_force(priority: u8, lowered: &[Lowered]) -> u8 {
    if priority == OWNER {
        return OWNER;
    }
    let weights = lowered.iter().map(|lowered| lowered.weight);
    weights.fold(priority, u8::saturating_sub).max(1)
}

/// How many backends of a service are wanted, and how many of those can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that can serve.
    pub healthy: u32,
    /// Those that are to.
    pub wanted: u32,
}

impl Share {
    /// Of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            healthy: self.healthy + other.healthy,
            wanted: self.wanted + other.wanted,
        }
    }

    /// Whether fewer can serve than so many percent. Of none, none is missing.
    #[must_use]
    pub fn is_below(self, percent: u8) -> bool {
        u64::from(self.healthy) * 100 < u64::from(self.wanted) * u64::from(percent)
    }
}

/// Whether too few backends are healthy, and have been for long enough: directors notice that a backend
/// fails at different moments, which is not to move the addresses to and fro.
#[derive(Clone, Debug, Default)]
pub struct Shortage {
    counts: bool,
    /// Since when it is otherwise.
    otherwise_since: Option<Instant>,
}

impl Shortage {
    /// Takes a share in. Returns what it lowers the priority by, if it does.
    pub fn observe(
        &mut self,
        tracked: &TrackedHealth,
        share: Share,
        now: Instant,
    ) -> Option<Lowered> {
        let is_short = share.is_below(tracked.below);
        if is_short == self.counts {
            self.otherwise_since = None;
        } else {
            let since = *self.otherwise_since.get_or_insert(now);
            if now.duration_since(since) >= tracked.delay {
                self.counts = is_short;
                self.otherwise_since = None;
            }
        }
        let Share { healthy, wanted } = share;
        let what = || format!("{healthy} of {wanted} backends are healthy");
        self.counts.then(|| Lowered {
            what: what(),
            weight: tracked.weight,
        })
    }

    /// When to observe again, though nothing may have changed.
    #[must_use]
    pub fn due(&self, delay: Duration) -> Option<Instant> {
        self.otherwise_since.map(|since| since + delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(weights: &[u8]) -> Vec<Lowered> {
        let lowered = |&weight: &u8| Lowered {
            what: String::new(),
            weight,
        };
        weights.iter().map(lowered).collect()
    }

    #[test]
    fn weights_add_up_and_one_is_left() {
        assert_eq!(in_force(150, &[]), 150);
        assert_eq!(in_force(150, &lowered(&[50, 30])), 70);
        assert_eq!(in_force(150, &lowered(&[149])), 1);
        assert_eq!(in_force(150, &lowered(&[150])), 1);
        assert_eq!(in_force(150, &lowered(&[254, 254])), 1);
        assert_eq!(in_force(OWNER, &lowered(&[254])), OWNER);
    }

    #[test]
    fn a_share_is_below_its_limit_or_not() {
        let share = |healthy, wanted| Share { healthy, wanted };
        assert!(share(1, 3).is_below(50));
        assert!(!share(2, 4).is_below(50));
        assert!(!share(0, 0).is_below(100));
        assert!(!share(0, 5).is_below(0));
        assert!(share(4, 5).is_below(100));
        assert_eq!(share(1, 2).and(share(3, 4)), share(4, 6));
    }

    #[test]
    fn only_what_lasts_counts() {
        let tracked = TrackedHealth {
            services: Vec::new(),
            below: 50,
            delay: Duration::from_secs(5),
            weight: 60,
        };
        let (few, many) = (
            Share {
                healthy: 1,
                wanted: 4,
            },
            Share {
                healthy: 3,
                wanted: 4,
            },
        );
        let begin = Instant::now();
        let mut shortage = Shortage::default();
        let mut at = |seconds, share| {
            let now = begin + Duration::from_secs(seconds);
            let lowered = shortage.observe(&tracked, share, now);
            let due = shortage.due(tracked.delay);
            (
                lowered.map(|lowered| lowered.weight),
                due.map(|due| (due - begin).as_secs()),
            )
        };
        assert_eq!(at(0, many), (None, None));
        assert_eq!(at(1, few), (None, Some(6)));
        // It has come back before it counts, which begins anew.
        assert_eq!(at(3, many), (None, None));
        assert_eq!(at(4, few), (None, Some(9)));
        assert_eq!(at(8, few), (None, Some(9)));
        assert_eq!(at(9, few), (Some(60), None));
        assert_eq!(at(10, many), (Some(60), Some(15)));
        assert_eq!(at(12, few), (Some(60), None));
        assert_eq!(at(13, many), (Some(60), Some(18)));
        assert_eq!(at(20, many), (None, None));
    }
}
