//! Maps in memory.

use std::{cell::Cell, collections::BTreeMap, net::IpAddr, ops::Range, time::Duration};

use xdp_lb_common::abi::{
    BackendEntry, FlowEntry, Place, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef,
};

use crate::{
    dataplane::{DataplaneError, FlowShape, Found, Sizes},
    director::{desired::unmapped, maps::Maps},
};

pub(super) const SIZES: Sizes = Sizes {
    services: 4,
    backends: 12,
    slots: 600,
    flows: 0,
};

pub(super) const SHAPE: FlowShape = FlowShape {
    bucket_bits: 20,
    period_shift: 0,
};

#[derive(Clone)]
pub(super) struct Memory {
    pub(super) keys: BTreeMap<ServiceKey, u32>,
    /// By prefix and length.
    pub(super) prefixes: BTreeMap<(PrefixKey, u32), u32>,
    pub(super) services: Vec<ServiceEntry>,
    pub(super) slots: Vec<Slot>,
    pub(super) backends: Vec<BackendEntry>,
    pub(super) writes: usize,
    /// Calls of `set_backends`.
    pub(super) batches: usize,
    pub(super) barriers: Cell<usize>,
    /// The period of time that it is.
    pub(super) period: u32,
    /// Remembered flows.
    pub(super) flows: Vec<(Place, FlowEntry)>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            services: vec![ServiceEntry::default(); SIZES.services as usize],
            slots: vec![Slot::default(); SIZES.slots as usize],
            backends: vec![BackendEntry::default(); SIZES.backends as usize],
            writes: 0,
            batches: 0,
            barriers: Cell::new(0),
            period: 0,
            flows: Vec::new(),
        }
    }

    /// What a packet would see.
    fn wrote(&mut self) {
        self.writes += 1;
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

    pub(super) fn found(&self) -> Found {
        let keys = self.keys.iter().map(|(&key, &id)| (key, id)).collect();
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|(&(key, length), &id)| (key, length, id));
        let backends = (1..).zip(self.backends[1..].iter().copied());
        Found {
            keys,
            prefixes: prefixes.collect(),
            backends: backends.filter(|(_, entry)| entry.link != 0).collect(),
        }
    }

    /// The keys that lead to services.
    pub(super) fn service_keys(&self) -> BTreeMap<ServiceKey, u32> {
        let keys = self.keys.iter().filter(|&(_, &id)| id != ServiceKey::VIP);
        keys.map(|(&key, &id)| (key, id)).collect()
    }

    /// The addresses in the table of the service with this key, with their numbers of slots.
    pub(super) fn shares(&self, key: ServiceKey) -> BTreeMap<IpAddr, usize> {
        let mut shares = BTreeMap::new();
        for slot in self.table(key) {
            *shares
                .entry(unmapped(self.backend(slot.current).address))
                .or_default() += 1;
        }
        shares
    }

    pub(super) fn table(&self, key: ServiceKey) -> Vec<Slot> {
        self.slots(TableRef::unpack(self.service(self.keys[&key]).table))
    }
}

impl Maps for Memory {
    fn service(&self, id: u32) -> ServiceEntry {
        self.services[id as usize]
    }

    fn set_service(&mut self, id: u32, entry: &ServiceEntry) {
        self.services[id as usize] = *entry;
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
        self.slots[table.offset as usize..][..table.size as usize].to_vec()
    }

    fn set_slots(&mut self, offset: u32, slots: &[Slot]) {
        for (index, slot) in (offset as usize..).zip(slots) {
            self.slots[index] = *slot;
        }
        self.wrote();
    }

    fn backend(&self, index: u16) -> BackendEntry {
        self.backends[usize::from(index)]
    }

    fn set_backends(&mut self, changes: &[(u16, BackendEntry)]) -> Result<(), DataplaneError> {
        self.batches += 1;
        for &(index, entry) in changes {
            self.backends[usize::from(index)] = entry;
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
        self.flows
            .retain(|&(place, entry)| !buckets.contains(&place.bucket) || !is_meant(place, entry));
    }

    fn each_flow_in(&self, buckets: Range<u32>, look: &mut dyn FnMut(Place, FlowEntry)) {
        let flows = self.flows.iter();
        let flows = flows.filter(|(place, _)| buckets.contains(&place.bucket));
        flows.for_each(|&(place, entry)| look(place, entry));
    }

    fn flow_shape(&self) -> FlowShape {
        SHAPE
    }

    fn flow_period(&self) -> u32 {
        self.period
    }

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
        u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
    }
}
