//! The flow table as the daemon sees it: all of it, at the speed of memory.

use std::{
    cell::Cell,
    ops::{ControlFlow, Range},
    sync::atomic::{AtomicU64, Ordering},
};

use xdp_lb_common::abi::{BUCKET, FlowEntry, LONGEST_IDLE, Place};

use super::{
    Dataplane,
    clock::{Periods, Ticks},
    mapping::Mapping,
};

/// How the table counts time, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowShape {
    /// 2 to the power of this many buckets.
    pub bucket_bits: u32,
    /// Periods of 2 to the power of this many ticks.
    pub period_shift: u32,
}

/// The table's memory, and its clock.
pub(super) struct FlowTable {
    memory: Mapping,
    shape: FlowShape,
    clock: Mapping,
    periods: Cell<Periods>,
}

impl FlowTable {
    pub(super) fn new(memory: Mapping, clock: Mapping, shape: FlowShape, ticks: Ticks) -> Self {
        Self {
            memory,
            shape,
            clock,
            periods: Cell::new(Periods::new(ticks, shape.period_shift)),
        }
    }

    fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    /// The period that it is, or one that is somewhat earlier.
    fn period(&self) -> u32 {
        let mut periods = self.periods.get();
        let period = periods.read(self.clock.words()[0].load(Ordering::Relaxed));
        self.periods.set(periods);
        period
    }
}

impl Dataplane {
    /// How the flow table counts time, and how large it is.
    #[must_use]
    pub fn flow_shape(&self) -> FlowShape {
        self.flows.shape
    }

    /// The period of time that it is, as flow entries count it; one that is up to some seconds earlier until packets
    /// have been looked up.
    #[must_use]
    pub fn flow_period(&self) -> u32 {
        self.flows.period()
    }

    /// Tells the program for how many ticks a service remembers a silent flow at the most.
    pub fn set_longest_idle(&self, ticks: u32) {
        let at = usize::try_from(LONGEST_IDLE).unwrap_or(0);
        self.flows.clock.words()[at].store(u64::from(ticks), Ordering::Relaxed);
    }

    /// Shows each entry with its place, until `look` breaks off.
    pub fn each_flow(&self, look: impl FnMut(Place, FlowEntry) -> ControlFlow<()>) {
        self.each_flow_in(0..u32::MAX, look);
    }

    /// The same for the entries in these buckets, as far as the table has them.
    pub fn each_flow_in(
        &self,
        buckets: Range<u32>,
        mut look: impl FnMut(Place, FlowEntry) -> ControlFlow<()>,
    ) {
        for (bucket, words) in self.flow_buckets(buckets) {
            for word in words {
                let entry = FlowEntry(word.load(Ordering::Relaxed));
                if entry.is_none() {
                    continue;
                }
                let fingerprint = entry.fingerprint();
                let place = Place {
                    bucket,
                    fingerprint,
                };
                if look(place, entry).is_break() {
                    return;
                }
            }
        }
    }

    /// Forgets the flows that `is_over` picks, and returns how many those were. One that a packet renews at that
    /// very moment may stay.
    pub fn forget_flows(&self, is_over: impl FnMut(Place, FlowEntry) -> bool) -> u64 {
        self.forget_flows_in(0..u32::MAX, is_over)
    }

    /// The same for the flows in these buckets, as far as the table has them.
    pub fn forget_flows_in(
        &self,
        buckets: Range<u32>,
        mut is_over: impl FnMut(Place, FlowEntry) -> bool,
    ) -> u64 {
        let mut forgotten = 0;
        for (bucket, words) in self.flow_buckets(buckets) {
            for word in words {
                let held = word.load(Ordering::Relaxed);
                let entry = FlowEntry(held);
                let fingerprint = entry.fingerprint();
                let place = Place {
                    bucket,
                    fingerprint,
                };
                if !entry.is_none() && is_over(place, entry) {
                    let (relaxed, none) = (Ordering::Relaxed, FlowEntry::default().0);
                    forgotten +=
                        u64::from(word.compare_exchange(held, none, relaxed, relaxed).is_ok());
                }
            }
        }
        forgotten
    }

    /// The words of these buckets, as far as the table has them.
    fn flow_buckets(&self, buckets: Range<u32>) -> impl Iterator<Item = (u32, &[AtomicU64])> {
        let first = usize::try_from(buckets.start).unwrap_or(usize::MAX);
        let words = self.flows.words();
        let words = words.get(first.saturating_mul(BUCKET)..);
        buckets.zip(words.unwrap_or_default().chunks_exact(BUCKET))
    }

    /// The entry at a place, if there is one.
    #[must_use]
    pub fn flow(&self, place: Place) -> Option<FlowEntry> {
        let found = self.flow_word(place)?.load(Ordering::Relaxed);
        Some(FlowEntry(found))
    }

    /// Changes the entry at a place, if there is one.
    pub fn edit_flow(&mut self, place: Place, change: impl FnOnce(FlowEntry) -> FlowEntry) {
        if let Some(word) = self.flow_word(place) {
            let entry = FlowEntry(word.load(Ordering::Relaxed));
            word.store(change(entry).0, Ordering::Relaxed);
        }
    }

    fn flow_word(&self, place: Place) -> Option<&AtomicU64> {
        let start = usize::try_from(place.bucket).ok()? * BUCKET;
        let bucket = self.flows.words().get(start..start + BUCKET)?;
        bucket.iter().find(|word| {
            let entry = FlowEntry(word.load(Ordering::Relaxed));
            !entry.is_none() && entry.fingerprint() == place.fingerprint
        })
    }
}
