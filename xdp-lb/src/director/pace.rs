//! How soon the tables follow a change of a backend's health. No I/O, and the time is passed in.

use std::time::{Duration, Instant};

/// How long a change waits for others, so that they make one table together.
const DEBOUNCE: Duration = Duration::from_millis(5);

/// After a look at the backends' health, the next one waits for so many times as long as it took, at the most,
/// while changes keep coming.
const MOST: u32 = 4;

/// Looks at the backends' health. However many backends flap, most of the time is left for other things; a
/// single change is followed at once.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long the last look took, and when it ended.
    last: Option<(Duration, Instant)>,
    /// Looks that came one upon the other.
    in_a_row: u32,
}

impl Pace {
    /// When to look, because of a change at `now`.
    pub(super) fn after_change(&self, now: Instant) -> Instant {
        let rests_until = self
            .last
            .map(|(took, at)| at + took * self.in_a_row.min(MOST));
        rests_until
            .map_or(now, |at| at.max(now))
            .max(now + DEBOUNCE)
    }

    /// Notes a look.
    pub(super) fn looked(&mut self, begun: Instant, ended: Instant) {
        let is_close = self.last.is_some_and(|(took, at)| {
            begun.saturating_duration_since(at) <= took * (MOST + 1) + DEBOUNCE
        });
        self.in_a_row = if is_close { self.in_a_row + 1 } else { 0 };
        self.last = Some((ended.saturating_duration_since(begun), ended));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_that_keep_coming_wait() {
        let took = Duration::from_millis(50);
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let at = pace.after_change(now);
            waits.push((at - now).as_millis());
            pace.looked(at, at + took);
            now = at + took;
        }
        assert_eq!(waits, [5, 5, 50, 100, 150, 200, 200, 200]);
        // A quiet while, and the next change is followed at once.
        now += Duration::from_secs(1);
        let at = pace.after_change(now);
        assert_eq!(at - now, DEBOUNCE);
        pace.looked(at, at + took);
        assert_eq!(pace.after_change(at + took) - (at + took), DEBOUNCE);
    }
}
