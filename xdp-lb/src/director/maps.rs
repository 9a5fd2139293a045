//! What the tables need of the maps; [`Dataplane`] has it, and tests have it in memory.

use std::ops::{ControlFlow, Range};

use xdp_lb_common::abi::{
    BackendEntry, FlowEntry, Place, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef,
};

use crate::dataplane::{Dataplane, DataplaneError, FlowShape};

/// Buckets of the flow table that are looked at in one go: 2 MiB, some milliseconds.
pub(super) const PART: u32 = 1 << 15;

/// Reading and writing the maps. See the methods of [`Dataplane`] of the same names.
pub(super) trait Maps {
    fn service(&self, id: u32) -> ServiceEntry;
    fn set_service(&mut self, id: u32, entry: &ServiceEntry);
    fn begin_service(&mut self, id: u32) -> Result<(), DataplaneError>;
    fn set_key(&mut self, key: ServiceKey, id: u32) -> Result<(), DataplaneError>;
    fn remove_key(&mut self, key: &ServiceKey) -> Result<(), DataplaneError>;
    fn set_prefix(&mut self, key: PrefixKey, length: u32, id: u32) -> Result<(), DataplaneError>;
    fn remove_prefix(&mut self, key: PrefixKey, length: u32) -> Result<(), DataplaneError>;
    fn slots(&self, table: TableRef) -> Vec<Slot>;
    fn set_slots(&mut self, offset: u32, slots: &[Slot]);
    fn backend(&self, index: u16) -> BackendEntry;
    fn set_backends(&mut self, changes: &[(u16, BackendEntry)]) -> Result<(), DataplaneError>;
    fn begin_backend(&mut self, index: u16);
    fn retire_backend(&mut self, index: u16, service: u32);
    fn wait_for_packets_in_flight(&self) -> Result<(), DataplaneError>;
    fn each_flow_in(&self, buckets: Range<u32>, look: &mut dyn FnMut(Place, FlowEntry));
    fn flow_shape(&self) -> FlowShape;
    fn flow_period(&self) -> u32;
    fn forget_flows_in(
        &mut self,
        buckets: Range<u32>,
        is_meant: &mut dyn FnMut(Place, FlowEntry) -> bool,
    );
    fn ticks(&self, time: std::time::Duration) -> u32;
    fn rest(&mut self, id: u32) -> bool;
    fn set_longest_idle(&mut self, ticks: u32);

    /// Shows each entry of the flow table.
    fn each_flow(&self, look: &mut dyn FnMut(Place, FlowEntry)) {
        self.each_flow_in(0..u32::MAX, look);
    }

    /// Forgets the flows at these backends.
    fn forget_flows_at(&mut self, is_meant: &dyn Fn(u16) -> bool) {
        self.forget_flows_in(0..u32::MAX, &mut |_, entry| is_meant(entry.backend()));
    }
}

impl Maps for Dataplane {
    fn service(&self, id: u32) -> ServiceEntry {
        self.service(id)
    }

    fn set_service(&mut self, id: u32, entry: &ServiceEntry) {
        self.set_service(id, entry);
    }

    fn begin_service(&mut self, id: u32) -> Result<(), DataplaneError> {
        self.begin_service(id)
    }

    fn set_key(&mut self, key: ServiceKey, id: u32) -> Result<(), DataplaneError> {
        self.set_key(key, id)
    }

    fn remove_key(&mut self, key: &ServiceKey) -> Result<(), DataplaneError> {
        self.remove_key(key)
    }

    fn set_prefix(&mut self, key: PrefixKey, length: u32, id: u32) -> Result<(), DataplaneError> {
        self.set_prefix(key, length, id)
    }

    fn remove_prefix(&mut self, key: PrefixKey, length: u32) -> Result<(), DataplaneError> {
        self.remove_prefix(key, length)
    }

    fn slots(&self, table: TableRef) -> Vec<Slot> {
        self.slots(table)
    }

    fn set_slots(&mut self, offset: u32, slots: &[Slot]) {
        self.set_slots(offset, slots);
    }

    fn backend(&self, index: u16) -> BackendEntry {
        self.backend(index)
    }

    fn set_backends(&mut self, changes: &[(u16, BackendEntry)]) -> Result<(), DataplaneError> {
        self.set_backends(changes)
    }

    fn begin_backend(&mut self, index: u16) {
        self.begin_backend(index);
    }

    fn retire_backend(&mut self, index: u16, service: u32) {
        self.retire_backend(index, service);
    }

    fn wait_for_packets_in_flight(&self) -> Result<(), DataplaneError> {
        self.wait_for_packets_in_flight()
    }

    fn each_flow_in(&self, buckets: Range<u32>, look: &mut dyn FnMut(Place, FlowEntry)) {
        self.each_flow_in(buckets, |place, entry| {
            look(place, entry);
            ControlFlow::Continue(())
        });
    }

    fn flow_shape(&self) -> FlowShape {
        self.flow_shape()
    }

    fn flow_period(&self) -> u32 {
        self.flow_period()
    }

    fn forget_flows_in(
        &mut self,
        buckets: Range<u32>,
        is_meant: &mut dyn FnMut(Place, FlowEntry) -> bool,
    ) {
        Self::forget_flows_in(self, buckets, is_meant);
    }

    fn ticks(&self, time: std::time::Duration) -> u32 {
        self.ticks(time)
    }

    fn rest(&mut self, id: u32) -> bool {
        self.rest(id)
    }

    fn set_longest_idle(&mut self, ticks: u32) {
        Self::set_longest_idle(self, ticks);
    }
}
