//! Room in the maps: free slots and free backend indices. What is given back is used again only after
//! the packets under way have passed, which may still refer to it.

use std::collections::HashSet;

use xdp_lb_common::abi::TableRef;

use super::{arena::Arena, indices::Indices};
use crate::{
    dataplane::{DataplaneError, Sizes},
    director::{error::ChangeError, maps::Maps},
};

/// What is free, and what will be.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) sizes: Sizes,
    pub(super) arena: Arena,
    pub(super) indices: Indices,
    leaving_regions: Vec<TableRef>,
    /// With the ids of their services.
    leaving_backends: Vec<(u16, u32)>,
}

impl Room {
    /// Maps of these sizes, with nothing in them.
    pub(super) fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            arena: Arena::new(sizes.slots),
            indices: Indices::default(),
            leaving_regions: Vec::new(),
            leaving_backends: Vec::new(),
        }
    }

    /// A free region for a table of `slots` slots.
    pub(super) fn region(
        &mut self,
        maps: &mut impl Maps,
        slots: usize,
    ) -> Result<TableRef, ChangeError> {
        let size = u32::try_from(slots).unwrap_or(u32::MAX);
        if size == 0 {
            return Ok(TableRef::default());
        }
        if let Some(region) = self.arena.allocate(size) {
            return Ok(region);
        }
        self.reclaim(maps)?;
        let all = self.sizes.slots;
        self.arena.allocate(size).ok_or(ChangeError::NoSlots {
            needed: size,
            size: all,
        })
    }

    /// A free backend index.
    pub(super) fn index(&mut self, maps: &mut impl Maps) -> Result<u16, ChangeError> {
        if let Some(index) = self.indices.allocate() {
            return Ok(index);
        }
        self.reclaim(maps)?;
        let size = self.sizes.backends.saturating_sub(1);
        self.indices.allocate().ok_or(ChangeError::TooMany {
            what: "backends, those that go included",
            needed: usize::try_from(size)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
            size,
            limit: "backends",
        })
    }

    /// Takes back a region that no service entry leads to any more.
    pub(super) fn leave_region(&mut self, region: TableRef) {
        self.leaving_regions.push(region);
    }

    /// Takes back the index of a backend of `service` that no slot refers to any more.
    pub(super) fn leave_index(&mut self, index: u16, service: u32) {
        self.leaving_backends.push((index, service));
    }

    /// Makes what was taken back free, once the packets under way have passed.
    pub(super) fn reclaim(&mut self, maps: &mut impl Maps) -> Result<(), DataplaneError> {
        if self.leaving_regions.is_empty() && self.leaving_backends.is_empty() {
            return Ok(());
        }
        maps.wait_for_packets_in_flight()?;
        if !self.leaving_backends.is_empty() {
            // Whoever gets the index next has nothing to do with them.
            let leaving = self.leaving_backends.iter().map(|&(index, _)| index);
            let leaving: HashSet<u16> = leaving.collect();
            maps.forget_flows_at(&|index| leaving.contains(&index));
        }
        self.leaving_regions
            .drain(..)
            .for_each(|region| self.arena.release(region));
        self.leaving_backends
            .drain(..)
            .for_each(|(index, service)| {
                maps.retire_backend(index, service);
                self.indices.release(index);
            });
        Ok(())
    }
}
