//! Flows that are over are forgotten, in time: a time in an entry is of so many bits, and after half of what they can
//! tell a flow that was silent all along would look as if it had just been seen.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{Tables, flows::Lives};
use crate::director::maps::{Maps, PART};

/// How often all of the flow table is gone through: a small part of a day and a half.
const EVERY: Duration = Duration::from_secs(3600);

/// How far it has got.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    /// When to go on; None: it has not begun.
    at: Option<Instant>,
    /// The part of the table that is next.
    part: u32,
}

impl Tables {
    /// Forgets flows that are over in the next part of the flow table, if it is time. Returns when to go on.
    pub(in crate::director) fn forget_over(
        &mut self,
        maps: &mut impl Maps,
        now: Instant,
    ) -> Instant {
        let parts = (1_u32 << maps.flow_shape().bucket_bits).div_ceil(PART);
        if let Some(at) = self.forgetting.at.filter(|&at| at > now) {
            return at;
        }
        if self.forgetting.at.is_some() {
            let part = self.forgetting.part % parts;
            self.forget_in(maps, part);
            self.forgetting.part = part + 1;
        }
        let next = now + EVERY / parts;
        self.forgetting.at = Some(next);
        next
    }

    fn forget_in(&self, maps: &mut impl Maps, part: u32) {
        let idle = self.tables.values().flat_map(|table| {
            let indices = table.members.values();
            indices.map(|&index| (index, table.entry.idle_ticks))
        });
        let idle: HashMap<u16, u32> = idle.collect();
        let lives = Lives::of(maps);
        let buckets = part * PART..(part + 1) * PART;
        maps.forget_flows_in(buckets, &mut |_, entry| {
            let idle = idle.get(&entry.backend());
            idle.is_none_or(|&ticks| lives.is_over(entry, ticks))
        });
    }
}
