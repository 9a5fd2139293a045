//! What the program remembers: flows, openings, fragments.

use std::collections::HashMap;

use aya::maps::{self, Map, MapData};
use xdp_lb_common::abi::{FlowEntry, FlowKey, FragmentEntry, FragmentKey, map};

use super::Plane;

impl Plane {
    /// What is in the map of flows.
    #[must_use]
    pub fn flows(&self) -> HashMap<FlowKey<[u8; 4]>, FlowEntry> {
        self.all(map::FLOWS_V4)
    }

    /// What is in the map of openings.
    #[must_use]
    pub fn openings(&self) -> HashMap<FlowKey<[u8; 4]>, FlowEntry> {
        self.all(map::OPENINGS_V4)
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

    /// What is in the map of IPv6 flows.
    #[must_use]
    pub fn flows6(&self) -> HashMap<FlowKey<[u8; 16]>, FlowEntry> {
        let data = MapData::from_pin(self.pins.join(map::FLOWS_V6)).expect("the map is pinned");
        let map = maps::HashMap::<_, FlowKey<[u8; 16]>, FlowEntry>::try_from(Map::LruHashMap(data));
        let entries = map
            .expect("a map of flows")
            .iter()
            .collect::<Result<_, _>>();
        entries.expect("the map can be read")
    }

    /// The entry of a flow.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn flow(&self, key: &FlowKey<[u8; 4]>) -> FlowEntry {
        let entry = self.tracked(map::FLOWS_V4).get(key, 0);
        entry.expect("the flow has an entry")
    }

    /// Changes the entry of a flow.
    pub fn edit_flow(&mut self, key: &FlowKey<[u8; 4]>, change: impl FnOnce(&mut FlowEntry)) {
        self.edit(map::FLOWS_V4, key, change);
    }

    /// Changes the entry of an opening.
    pub fn edit_opening(&mut self, key: &FlowKey<[u8; 4]>, change: impl FnOnce(&mut FlowEntry)) {
        self.edit(map::OPENINGS_V4, key, change);
    }

    fn edit(&mut self, name: &str, key: &FlowKey<[u8; 4]>, change: impl FnOnce(&mut FlowEntry)) {
        let mut map = self.tracked(name);
        let mut entry = map.get(key, 0).expect("the flow has an entry");
        change(&mut entry);
        map.insert(key, entry, 0).expect("the entry can be written");
    }

    fn all(&self, name: &str) -> HashMap<FlowKey<[u8; 4]>, FlowEntry> {
        let map = self.tracked(name);
        let entries = map.iter().collect::<Result<_, _>>();
        entries.expect("the map can be read")
    }

    fn tracked(&self, name: &str) -> maps::HashMap<MapData, FlowKey<[u8; 4]>, FlowEntry> {
        let data = MapData::from_pin(self.pins.join(name)).expect("the map is pinned");
        let map = maps::HashMap::try_from(Map::LruHashMap(data));
        map.expect("a map of flows")
    }

    /// Empties a map of flows or openings.
    pub(super) fn forget<A>(&mut self, name: &str)
    where
        FlowKey<A>: aya::Pod,
    {
        let data = MapData::from_pin(self.pins.join(name)).expect("the map is pinned");
        let map = maps::HashMap::<_, FlowKey<A>, FlowEntry>::try_from(Map::LruHashMap(data));
        let mut map = map.expect("a map of flows");
        let keys: Vec<_> = map
            .keys()
            .collect::<Result<_, _>>()
            .expect("the map can be read");
        for key in keys {
            map.remove(&key).expect("the entry can be removed");
        }
    }

    /// Empties the map of fragments.
    pub(super) fn forget_fragments(&mut self) {
        let mut map = self.fragment_map();
        for key in self.fragments().into_keys() {
            map.remove(&key).expect("the entry can be removed");
        }
    }
}
