//! Maps in memory.

use std::{cell::Cell, collections::BTreeMap, ops::Range, time::Duration};

use xdp_lb_common::abi::{
    BackendEntry, FlowEntry, Place, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef,
};

use super::{
    flows::{Flows, place, seconds},
    plane::{Counts, Plane},
};
use crate::{
    dataplane::{DataplaneError, FlowShape, Found, Sizes},
    director::maps::Maps,
};

/// Maps in memory.
#[derive(Clone, Debug)]
pub(in crate::director) struct Memory {
    pub(in crate::director) keys: BTreeMap<ServiceKey, u32>,
    /// By prefix and length.
    pub(in crate::director) prefixes: BTreeMap<(PrefixKey, u32), u32>,
    /// What packets are chosen by.
    pub(in crate::director) plane: Plane,
    /// After each write all slots are looked at as packets would see them.
    pub(in crate::director) is_watched: bool,
    pub(in crate::director) writes: usize,
    /// Calls of `set_backends`.
    pub(in crate::director) batches: usize,
    pub(in crate::director) barriers: Cell<usize>,
}

impl Memory {
    /// Empty maps of these sizes, with 2^`bucket_bits` buckets for flows.
    pub(in crate::director) fn new(sizes: Sizes, bucket_bits: u32) -> Self {
        let plane = Plane {
            services: vec![ServiceEntry::default(); sizes.services as usize],
            slots: vec![Slot::default(); sizes.slots as usize],
            backends: vec![BackendEntry::default(); sizes.backends as usize],
            flows: Flows::new(bucket_bits),
            counts: Counts::default(),
        };
        Self {
            keys: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            plane,
            is_watched: false,
            writes: 0,
            batches: 0,
            barriers: Cell::new(0),
        }
    }

    /// What a packet would see.
    fn wrote(&mut self) {
        self.writes += 1;
        if !self.is_watched {
            return;
        }
        let ids = self.keys.values().chain(self.prefixes.values());
        for &id in ids.filter(|&&id| id != ServiceKey::VIP) {
            for slot in self.slots(TableRef::unpack(self.service(id).table)) {
                let leads_to = [Some(slot.current), slot.moving_from()];
                // 0 is nobody.
                for index in leads_to.into_iter().flatten().filter(|&index| index != 0) {
                    let entry = self.backend(index);
                    assert!(
                        entry.address != [0; 16],
                        "service {id} has an ended backend {index}"
                    );
                    assert_eq!(entry.service, id, "backend {index} is of another service");
                }
            }
        }
    }

    pub(in crate::director) fn found(&self) -> Found {
        let keys = self.keys.iter().map(|(&key, &id)| (key, id)).collect();
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|(&(key, length), &id)| (key, length, id));
        let backends = (1..).zip(self.plane.backends[1..].iter().copied());
        Found {
            keys,
            prefixes: prefixes.collect(),
            backends: backends
                .filter(|(_, entry)| entry.generation != 0)
                .collect(),
        }
    }
}

impl Maps for Memory {
    fn service(&self, id: u32) -> ServiceEntry {
        self.plane.services[id as usize]
    }

    fn set_service(&mut self, id: u32, entry: &ServiceEntry) {
        self.plane.services[id as usize] = *entry;
        self.wrote();
    }

    fn begin_service(&mut self, _: u32) -> Result<(), DataplaneError> {
        Ok(())
    }

    fn set_key(&mut self, key: ServiceKey, id: u32) -> Result<(), DataplaneError> {
        self.keys.insert(key, id);
        self.wrote();
        Ok(())
    }

    fn remove_key(&mut self, key: &ServiceKey) -> Result<(), DataplaneError> {
        self.keys.remove(key);
        self.wrote();
        Ok(())
    }

    fn set_prefix(&mut self, key: PrefixKey, length: u32, id: u32) -> Result<(), DataplaneError> {
        self.prefixes.insert((key, length), id);
        self.wrote();
        Ok(())
    }

    fn remove_prefix(&mut self, key: PrefixKey, length: u32) -> Result<(), DataplaneError> {
        self.prefixes.remove(&(key, length));
        self.wrote();
        Ok(())
    }

    fn slots(&self, table: TableRef) -> Vec<Slot> {
        self.plane.slots[table.offset as usize..][..table.size as usize].to_vec()
    }

    fn set_slots(&mut self, offset: u32, slots: &[Slot]) {
        for (index, slot) in (offset as usize..).zip(slots) {
            self.plane.slots[index] = *slot;
        }
        self.wrote();
    }

    fn backend(&self, index: u16) -> BackendEntry {
        self.plane.backends[usize::from(index)]
    }

    fn set_backends(&mut self, changes: &[(u16, BackendEntry)]) -> Result<(), DataplaneError> {
        self.batches += 1;
        for &(index, entry) in changes {
            self.plane.backends[usize::from(index)] = entry;
            self.wrote();
        }
        Ok(())
    }

    fn begin_backend(&mut self, _: u16) {}

    fn retire_backend(&mut self, _: u16, _: u32) {}

    fn wait_for_packets_in_flight(&self) -> Result<(), DataplaneError> {
        self.barriers.set(self.barriers.get() + 1);
        Ok(())
    }

    fn forget_flows_in(
        &mut self,
        buckets: Range<u32>,
        is_meant: &mut dyn FnMut(Place, FlowEntry) -> bool,
    ) {
        let all = (0..).zip(self.plane.flows.buckets_mut());
        for (bucket, words) in within(all, &buckets) {
            for word in words {
                let entry = FlowEntry(*word);
                if !entry.is_none() && is_meant(place(bucket, entry), entry) {
                    *word = FlowEntry::default().0;
                }
            }
        }
    }

    fn each_flow_in(&self, buckets: Range<u32>, look: &mut dyn FnMut(Place, FlowEntry)) {
        let all = (0..).zip(self.plane.flows.buckets());
        for (bucket, words) in within(all, &buckets) {
            for entry in words.iter().map(|&word| FlowEntry(word)) {
                if !entry.is_none() {
                    look(place(bucket, entry), entry);
                }
            }
        }
    }

    fn flow_shape(&self) -> FlowShape {
        self.plane.flows.shape()
    }

    fn flow_period(&self) -> u32 {
        self.plane.flows.period
    }

    /// There is one service here, whose own time is the longest.
    fn set_longest_idle(&mut self, _ticks: u32) {}

    fn rest(&mut self, id: u32) -> bool {
        let entry = self.service(id);
        let slots = self.slots(TableRef::unpack(entry.table));
        let can = !slots.is_empty() && slots.iter().all(|slot| slot.is_settled());
        if can {
            let table = entry.table | TableRef::AT_REST;
            self.set_service(id, &ServiceEntry { table, ..entry });
        }
        can
    }

    fn ticks(&self, time: Duration) -> u32 {
        seconds(time)
    }
}

/// Those of the buckets that are meant.
fn within<T>(
    all: impl Iterator<Item = (u32, T)>,
    meant: &Range<u32>,
) -> impl Iterator<Item = (u32, T)> {
    let count = meant.end.saturating_sub(meant.start);
    all.skip(meant.start as usize).take(count as usize)
}
