//! What tests ask of maps in memory.

use std::{collections::BTreeMap, net::IpAddr};

use xdp_lb_common::abi::{FlowEntry, Place, ServiceKey, Slot, TableRef};

use crate::{
    dataplane::Sizes,
    director::{desired::unmapped, maps::Maps, simulation::Memory},
};

pub(super) const SIZES: Sizes = Sizes {
    services: 4,
    backends: 12,
    slots: 600,
    flows: 0,
};

/// 2 to the power of this many buckets for flows, where nothing is said of them.
pub(super) const FEW: u32 = 10;

/// More than are gone through at once.
pub(super) const MANY: u32 = 17;

/// Empty maps that are looked at after each write.
pub(super) fn watched(bucket_bits: u32) -> Memory {
    let mut maps = Memory::new(SIZES, bucket_bits);
    maps.is_watched = true;
    maps
}

impl Memory {
    /// The keys that lead to services.
    pub(super) fn service_keys(&self) -> BTreeMap<ServiceKey, u32> {
        let keys = self.keys.iter().filter(|&(_, &id)| id != ServiceKey::VIP);
        keys.map(|(&key, &id)| (key, id)).collect()
    }

    /// The addresses in the table of the service with this key, with their numbers of slots.
    pub(super) fn shares(&self, key: ServiceKey) -> BTreeMap<IpAddr, usize> {
        let mut shares = BTreeMap::new();
        for slot in self.table(key).iter().filter(|slot| slot.current != 0) {
            *shares
                .entry(unmapped(self.backend(slot.current).address))
                .or_default() += 1;
        }
        shares
    }

    pub(super) fn table(&self, key: ServiceKey) -> Vec<Slot> {
        self.slots(TableRef::unpack(self.service(self.keys[&key]).table))
    }

    /// The remembered flows.
    pub(super) fn flows(&self) -> Vec<(Place, FlowEntry)> {
        self.plane.flows.iter().collect()
    }

    /// Remembers a flow, beside those of its bucket.
    pub(super) fn put_flow(&mut self, place: Place, entry: FlowEntry) {
        let bucket = &mut self.plane.flows.buckets_mut()[place.bucket as usize];
        let free = bucket.iter_mut().find(|word| **word == 0);
        *free.expect("a bucket that is not full") = entry.0;
    }

    /// Forgets all flows.
    pub(super) fn forget_all(&mut self) {
        self.forget_flows_in(0..u32::MAX, &mut |_, _| true);
    }
}
