//! What the program remembers: flows, openings, fragments.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    time::Duration,
};

use aya::maps::{self, Map, MapData};
use xdp_lb::dataplane::Dataplane;
use xdp_lb_common::{
    abi::{FlowEntry, FlowKey, FragmentEntry, FragmentKey, Place, map},
    hash::{Address, Affinity, HashKey, flow_hash},
};

use super::Plane;

/// Entries of the flow table, of flows or of openings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    entries: BTreeMap<Place, FlowEntry>,
    finder: Finder,
}

impl Remembered {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a flow.
    pub fn get(&self, flow: &FlowKey<impl Address>) -> Option<FlowEntry> {
        self.entries.get(&self.finder.place(flow)).copied()
    }

    /// True if a flow has an entry.
    pub fn contains_key(&self, flow: &FlowKey<impl Address>) -> bool {
        self.get(flow).is_some()
    }
}

/// Knows where flows have their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Finder {
    hash_key: HashKey,
    bucket_bits: u32,
}

impl Finder {
    fn place(self, flow: &FlowKey<impl Address>) -> Place {
        let hash = flow_hash(self.hash_key, Affinity::Flow, flow);
        Place::of(hash, self.bucket_bits)
    }
}

/// A time in the periods of the flow table, rounded up.
pub(crate) fn periods(dataplane: &Dataplane, time: Duration) -> u32 {
    let shift = dataplane.flow_shape().period_shift;
    dataplane.ticks(time).div_ceil(1 << shift)
}

impl Plane {
    /// The flows that are remembered.
    #[must_use]
    pub fn flows(&self) -> Remembered {
        self.remembered(|entry| !entry.is_opening())
    }

    /// The openings that are remembered.
    #[must_use]
    pub fn openings(&self) -> Remembered {
        self.remembered(FlowEntry::is_opening)
    }

    fn remembered(&self, is_meant: impl Fn(FlowEntry) -> bool) -> Remembered {
        let mut entries = BTreeMap::new();
        self.dataplane.each_flow(|place, entry| {
            if is_meant(entry) {
                assert_eq!(entries.insert(place, entry), None, "a flow has one entry");
            }
            ControlFlow::Continue(())
        });
        let finder = self.finder();
        Remembered { entries, finder }
    }

    fn finder(&self) -> Finder {
        Finder {
            hash_key: self.hash_key,
            bucket_bits: self.dataplane.flow_shape().bucket_bits,
        }
    }

    /// The entry of a flow, or of its opening.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn flow(&self, flow: &FlowKey<impl Address>) -> FlowEntry {
        let entry = self.dataplane.flow(self.finder().place(flow));
        entry.expect("the flow has an entry")
    }

    /// Changes the entry of a flow, or of its opening.
    pub fn edit_flow(
        &mut self,
        flow: &FlowKey<impl Address>,
        change: impl FnOnce(FlowEntry) -> FlowEntry,
    ) {
        let place = self.finder().place(flow);
        assert!(self.dataplane.flow(place).is_some(), "it has no entry");
        self.dataplane.edit_flow(place, change);
    }

    /// Lets a flow or its opening have been silent for `time` longer than it was.
    pub fn silent_for(&mut self, flow: &FlowKey<impl Address>, time: Duration) {
        let periods = periods(&self.dataplane, time);
        self.edit_flow(flow, |entry| {
            entry.seen_in(entry.seen().wrapping_sub(periods))
        });
    }

    /// What is in the map of fragments.
    #[must_use]
    pub fn fragments(&self) -> HashMap<FragmentKey, FragmentEntry> {
        self.fragment_map()
            .iter()
            .collect::<Result<_, _>>()
            .expect("the map can be read")
    }

    /// Changes all entries of fragments.
    pub fn edit_fragments(&mut self, change: impl Fn(&mut FragmentEntry)) {
        let mut map = self.fragment_map();
        for (key, mut entry) in self.fragments() {
            change(&mut entry);
            map.insert(key, entry, 0).expect("the entry can be written");
        }
    }

    fn fragment_map(&self) -> maps::HashMap<MapData, FragmentKey, FragmentEntry> {
        let data = MapData::from_pin(self.pins.join(map::FRAGMENTS)).expect("the map is pinned");
        maps::HashMap::try_from(Map::LruHashMap(data)).expect("a map of fragments")
    }

    /// Forgets all flows, openings and fragments.
    pub(super) fn forget(&mut self) {
        self.dataplane.forget_flows(|_, _| true);
        let mut map = self.fragment_map();
        for key in self.fragments().into_keys() {
            map.remove(&key).expect("the entry can be removed");
        }
    }
}
