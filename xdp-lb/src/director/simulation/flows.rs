//! The flow table in memory, and the time by which its entries live.

use std::time::Duration;

use xdp_lb_common::abi::{BUCKET, FlowBucket, FlowEntry, Place};

use crate::{dataplane::FlowShape, director::tables::Lives, timing};

/// Past the last place of a bucket: nowhere.
const NOWHERE: usize = BUCKET;

/// The flow table, and the time by which its entries live.
#[derive(Clone, Debug)]
pub struct Flows {
    buckets: Vec<FlowBucket>,
    /// The period that it is.
    pub period: u32,
    /// How long openings are remembered, in ticks.
    pub opening_ticks: u32,
    /// How long flows are remembered that are closing, in ticks.
    pub closing_ticks: u32,
    /// Periods of 2 to the power of this many ticks.
    pub period_shift: u32,
}

/// What the table has of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    place: Place,
    idle_ticks: u32,
    /// None where there is none.
    pub(super) entry: FlowEntry,
    at: usize,
}

impl Known {
    /// How long its flow is remembered.
    pub(super) fn idle_ticks(&self) -> u32 {
        self.idle_ticks
    }

    /// The flow's fingerprint.
    pub(super) fn fingerprint(&self) -> u32 {
        self.place.fingerprint
    }
}

impl Flows {
    /// An empty table of 2^`bucket_bits` buckets, whose ticks are seconds and whose periods are ticks.
    #[must_use]
    pub fn new(bucket_bits: u32) -> Self {
        Self {
            buckets: vec![[0; BUCKET]; 1 << bucket_bits],
            period: 0,
            opening_ticks: seconds(timing::OPENING),
            closing_ticks: seconds(timing::CLOSING),
            period_shift: 0,
        }
    }

    /// How the table counts time, and how large it is.
    #[must_use]
    pub fn shape(&self) -> FlowShape {
        FlowShape {
            bucket_bits: self.buckets.len().trailing_zeros(),
            period_shift: self.period_shift,
        }
    }

    /// The buckets.
    #[must_use]
    pub fn buckets(&self) -> &[FlowBucket] {
        &self.buckets
    }

    /// The same, to write to.
    pub fn buckets_mut(&mut self) -> &mut [FlowBucket] {
        &mut self.buckets
    }

    /// All entries with their places.
    pub fn iter(&self) -> impl Iterator<Item = (Place, FlowEntry)> {
        let buckets = (0..).zip(&self.buckets);
        let used = buckets.filter(|(_, words)| **words != [0; BUCKET]);
        used.flat_map(|(bucket, words)| {
            let entries = words.iter().map(|&word| FlowEntry(word));
            let entries = entries.filter(|entry| !entry.is_none());
            entries.map(move |entry| (place(bucket, entry), entry))
        })
    }

    /// How many entries are not over, if each flow is remembered for `idle_ticks`.
    #[must_use]
    pub fn alive(&self, idle_ticks: u32) -> usize {
        let lives = self.lives();
        let alive = |entry: FlowEntry| !lives.is_over(entry, idle_ticks);
        self.iter().filter(|&(_, entry)| alive(entry)).count()
    }

    /// True if an entry has been silent for too long, of a service that remembers flows for `idle_ticks`.
    #[must_use]
    pub fn is_over(&self, entry: FlowEntry, idle_ticks: u32) -> bool {
        self.lives().is_over(entry, idle_ticks)
    }

    fn lives(&self) -> Lives {
        Lives {
            opening: self.opening_ticks,
            closing: self.closing_ticks,
            now: self.period,
            shape: self.shape(),
        }
    }

    /// Looks a flow up.
    pub(super) fn look_up(&self, place: Place, idle_ticks: u32) -> Known {
        let is_it = |entry: FlowEntry| entry.fingerprint() == place.fingerprint && !entry.is_none();
        let words = self.buckets[place.bucket as usize];
        let at = words.iter().position(|&word| is_it(FlowEntry(word)));
        Known {
            place,
            idle_ticks,
            entry: at.map_or(FlowEntry::default(), |at| FlowEntry(words[at])),
            at: at.unwrap_or(NOWHERE),
        }
    }

    /// True if what is known of a flow counts no more.
    pub(super) fn has_ended(&self, known: &Known) -> bool {
        self.is_over(known.entry, known.idle_ticks)
    }

    /// Writes the entry that was found anew.
    pub(super) fn rewrite(&mut self, known: &mut Known, entry: FlowEntry) {
        self.buckets[known.place.bucket as usize][known.at] = entry.0;
        known.entry = entry;
    }

    /// Forgets what was found, if anything was.
    pub(super) fn forget(&mut self, known: &mut Known) {
        if !known.entry.is_none() {
            self.rewrite(known, FlowEntry::default());
            known.at = NOWHERE;
        }
    }

    /// Remembers a flow in the place of its entry, or in a new one. Returns the entry whose place it took, or None
    /// where there was no place.
    pub(super) fn insert(
        &mut self,
        known: &Known,
        backend: u16,
        is_opening: bool,
    ) -> Option<FlowEntry> {
        let make = if is_opening {
            FlowEntry::opening
        } else {
            FlowEntry::new
        };
        let entry = make(known.place.fingerprint, backend, self.period);
        let at = match known.at {
            NOWHERE => self.room(known, is_opening),
            at => at,
        };
        let word = self.buckets[known.place.bucket as usize].get_mut(at)?;
        Some(FlowEntry(std::mem::replace(word, entry.0)))
    }

    /// Where in its bucket a new entry may stand: where there is none, else in the place of one that is over,
    /// else of the oldest of its kind.
    fn room(&self, known: &Known, is_opening: bool) -> usize {
        let worth_leaving = |entry: FlowEntry| {
            let is_over = self.is_over(entry, known.idle_ticks);
            entry.worth_leaving(is_opening, is_over, self.period)
        };
        let (mut best, mut most) = (NOWHERE, 0);
        for (at, &word) in self.buckets[known.place.bucket as usize].iter().enumerate() {
            let worth = worth_leaving(FlowEntry(word));
            if worth > most {
                (best, most) = (at, worth);
            }
        }
        best
    }
}

/// The place of an entry in a bucket.
pub(super) fn place(bucket: u32, entry: FlowEntry) -> Place {
    Place {
        bucket,
        fingerprint: entry.fingerprint(),
    }
}

/// A time in ticks of a second.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
