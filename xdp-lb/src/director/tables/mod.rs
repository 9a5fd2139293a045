//! What the maps hold, and how they are brought to what is desired.
//!
//! The order of writes is what keeps packets right at every moment: backends first, then the new
//! table in a free region, then the one word that puts it to use; what is no longer referred to is
//! given back only after the packets under way have passed.

mod arena;
mod assumed;
mod backend;
mod fingerprint;
mod flows;
mod forget;
mod indices;
mod keys;
mod rest;
mod room;
mod slots;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use xdp_lb_common::{
    abi::{ServiceEntry, TableRef},
    hash::HashKey,
};

pub(super) use self::{
    fingerprint::Fingerprint,
    flows::{Lives, flow_period},
    table::Table,
};
use self::{forget::Forgetting, indices::Indices, room::Room};
use super::{
    desired::{DesiredService, unmapped},
    error::ChangeError,
    keys::Key,
    maps::Maps,
};
use crate::dataplane::{DataplaneError, Found, Sizes};

/// All services and backends, as the maps hold them.
#[derive(Debug)]
pub(super) struct Tables {
    hash_key: HashKey,
    room: Room,
    tables: BTreeMap<u32, Table>,
    /// When to look next whether slots can rest.
    next_look: Option<Instant>,
    forgetting: Forgetting,
}

/// What a change did to one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Moved {
    /// Slots that got another backend.
    pub(super) slots_moved: u32,
    /// Slots of the table.
    pub(super) table_size: u32,
}

impl Tables {
    /// Takes over what was found in the maps; slots that are found moving do so until `until`.
    pub(super) fn adopt(
        maps: &mut impl Maps,
        sizes: Sizes,
        hash_key: HashKey,
        found: &Found,
        until: Instant,
    ) -> Self {
        let mut this = Self {
            hash_key,
            room: Room::new(sizes),
            tables: BTreeMap::new(),
            next_look: None,
            forgetting: Forgetting::default(),
        };
        for (key, id) in keys::found(found) {
            if id < sizes.services {
                this.tables
                    .entry(id)
                    .or_insert_with(|| Table::found(maps, id))
                    .keys
                    .insert(key);
            }
        }
        for table in this.tables.values_mut() {
            // Never so unless somebody else has written to the maps; then begin the table anew.
            if !this.room.arena.claim(table.region()) {
                table.entry.table = TableRef::default().pack();
            }
            let slots = maps.slots(table.region());
            table.remember_all_moving(&slots, until);
        }
        let mut in_use = HashSet::new();
        for &(index, ref entry) in &found.backends {
            let is_retired = entry.address == [0; 16];
            let table = this.tables.get_mut(&entry.service).filter(|_| !is_retired);
            let Some(table) = table else { continue };
            table.members.insert(unmapped(entry.address), index);
            in_use.insert(index);
        }
        // Those of backends that went when nobody was left to forget them.
        maps.forget_flows_at(&|index| !in_use.contains(&index));
        this.room.indices = Indices::new(sizes.backends, &in_use);
        this
    }

    /// The table of the service with this name, and its id.
    pub(super) fn find(&self, name: &str) -> Option<(u32, &Table)> {
        self.tables
            .iter()
            .find(|(_, table)| table.name == name)
            .map(|(&id, table)| (id, table))
    }

    /// True if there has been a table for the service with this name, or with one of these keys.
    pub(super) fn knows(&self, name: &str, keys: &BTreeSet<Key>) -> bool {
        let shares_key = |table: &Table| !table.keys.is_disjoint(keys);
        let mut tables = self.tables.values();
        tables.any(|table| table.name == name || shares_key(table))
    }

    /// The backends that have slots in the table of the service with this name, else of the one with one
    /// of these keys: names are not known after a restart, and may change.
    pub(super) fn in_use(
        &self,
        maps: &impl Maps,
        name: &str,
        keys: &BTreeSet<Key>,
    ) -> HashSet<IpAddr> {
        let shares_key = |table: &&Table| !table.keys.is_disjoint(keys);
        let named = self.find(name).map(|(_, table)| table);
        let table = named.or_else(|| self.tables.values().find(shares_key));
        let Some(table) = table else {
            return HashSet::new();
        };
        let shares = Self::shares(maps, table);
        let members = table.members.iter();
        members
            .filter(|(_, index)| shares.contains_key(index))
            .map(|(&address, _)| address)
            .collect()
    }

    /// How many slots each backend index has in a table.
    pub(super) fn shares(maps: &impl Maps, table: &Table) -> HashMap<u16, u32> {
        let mut shares = HashMap::new();
        let slots = maps.slots(table.region());
        for slot in slots.into_iter().filter(|slot| slot.current != 0) {
            *shares.entry(slot.current).or_default() += 1;
        }
        shares
    }

    /// Brings the maps to what is desired. Returns what moved, by service.
    ///
    /// # Errors
    ///
    /// If it does not fit the maps, and then nothing is changed.
    pub(super) fn apply(
        &mut self,
        maps: &mut impl Maps,
        desired: &[DesiredService],
        now: Instant,
    ) -> Result<BTreeMap<String, Moved>, ChangeError> {
        self.check(desired)?;
        let ids = self.match_services(desired)?;
        // Before anything of theirs is remembered.
        let idle = desired
            .iter()
            .map(|service| maps.ticks(service.idle_timeout));
        maps.set_longest_idle(idle.max().unwrap_or(0));
        self.move_ways(maps, desired, &ids)?;
        let mut report = BTreeMap::new();
        for (service, &id) in desired.iter().zip(&ids) {
            let moved = self.apply_service(maps, id, service, now)?;
            report.insert(service.name.clone(), moved);
        }
        self.apply_keys(maps, desired, &ids)?;
        self.room.reclaim(maps)?;
        Ok(report)
    }

    /// When there is a change to make for which flows had to be remembered first.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let waiting = self.tables.values().filter_map(|table| table.waits_until);
        waiting.min()
    }

    /// Ends the moving of slots whose time has come, and lets those rest that can. Returns when to call it again.
    pub(super) fn settle(&mut self, maps: &mut impl Maps, now: Instant) -> Option<Instant> {
        for table in self.tables.values_mut() {
            table.settle(maps, now);
        }
        let moving = self.tables.values().flat_map(|table| &table.moving);
        let next = moving.map(|moving| moving.until).min();
        next.into_iter().chain(self.rest(maps, now)).min()
    }

    /// Refuses what would not fit, before anything is written.
    fn check(&self, desired: &[DesiredService]) -> Result<(), ChangeError> {
        let refuse = |what, needed, size, limit| {
            if usize::try_from(size).is_ok_and(|size| needed <= size) {
                Ok(())
            } else {
                Err(ChangeError::TooMany {
                    what,
                    needed,
                    size,
                    limit,
                })
            }
        };
        let keys = desired.iter().map(|service| service.keys.len()).sum();
        let backends = desired.iter().map(|service| service.backends.len()).sum();
        refuse("VIPs and ports", keys, self.room.sizes.services, "services")?;
        refuse(
            "backends",
            backends,
            self.room.sizes.backends.saturating_sub(1),
            "backends",
        )?;
        let slots: u64 = desired
            .iter()
            .map(|service| u64::from(service.table_size))
            .sum();
        let largest = desired
            .iter()
            .map(|service| service.table_size)
            .max()
            .unwrap_or(0);
        // A table is rebuilt beside the old one.
        let needed = slots + u64::from(largest);
        if needed > u64::from(self.room.sizes.slots) {
            let more = u32::try_from(needed - u64::from(self.room.sizes.slots)).unwrap_or(u32::MAX);
            return Err(ChangeError::NoSlots {
                needed: more,
                size: self.room.sizes.slots,
            });
        }
        Ok(())
    }

    /// The id of each desired service: the one that it has by its name, else by one of its keys
    /// (after a restart names are not known), else a free one.
    fn match_services(&self, desired: &[DesiredService]) -> Result<Vec<u32>, ChangeError> {
        let mut taken = HashSet::new();
        let mut ids: Vec<Option<u32>> = desired
            .iter()
            .map(|service| {
                self.find(&service.name)
                    .map(|(id, _)| id)
                    .filter(|id| taken.insert(*id))
            })
            .collect();
        for (service, id) in desired.iter().zip(&mut ids).filter(|(_, id)| id.is_none()) {
            let shares_key = |table: &Table| !table.keys.is_disjoint(&service.keys);
            *id = self
                .tables
                .iter()
                .find(|(id, table)| shares_key(table) && !taken.contains(id))
                .map(|(&id, _)| id);
            taken.extend(*id);
        }
        let mut free = (0..self.room.sizes.services).filter(|id| !self.tables.contains_key(id));
        let full = || ChangeError::TooMany {
            what: "services, those that go included",
            needed: self.tables.len() + 1,
            size: self.room.sizes.services,
            limit: "services",
        };
        ids.into_iter()
            .map(|id| id.or_else(|| free.next()).ok_or_else(full))
            .collect()
    }

    /// Changes the ways to backends in use, all at once: each that changes in more than its next hop
    /// waits for the packets under way, and one waiting is enough for all.
    fn move_ways(
        &self,
        maps: &mut impl Maps,
        desired: &[DesiredService],
        ids: &[u32],
    ) -> Result<(), DataplaneError> {
        let mut changes = Vec::new();
        for (service, id) in desired.iter().zip(ids) {
            let Some(table) = self.tables.get(id) else {
                continue;
            };
            for (address, backend) in &service.backends {
                let index = table.members.get(address).copied();
                let moved =
                    index.and_then(|index| Some((index, backend::moved(maps, index, backend)?)));
                changes.extend(moved);
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        maps.set_backends(&changes)
    }

    fn apply_service(
        &mut self,
        maps: &mut impl Maps,
        id: u32,
        service: &DesiredService,
        now: Instant,
    ) -> Result<Moved, ChangeError> {
        if !self.tables.contains_key(&id) {
            maps.begin_service(id)?;
        }
        let table = self.tables.entry(id).or_insert_with(|| Table::new(id));
        table.update(maps, &mut self.room, self.hash_key, service, now)
    }

    fn apply_keys(
        &mut self,
        maps: &mut impl Maps,
        desired: &[DesiredService],
        ids: &[u32],
    ) -> Result<(), DataplaneError> {
        let wanted = desired
            .iter()
            .zip(ids)
            .flat_map(|(service, &id)| service.keys.iter().map(move |&key| (key, id)));
        let held = self
            .tables
            .iter()
            .flat_map(|(&id, table)| table.keys.iter().map(move |&key| (key, id)));
        keys::apply(maps, held.collect(), wanted.collect())?;
        for (service, id) in desired.iter().zip(ids) {
            if let Some(table) = self.tables.get_mut(id) {
                table.keys.clone_from(&service.keys);
            }
        }
        let gone: Vec<_> = self
            .tables
            .extract_if(.., |id, _| !ids.contains(id))
            .collect();
        for (id, table) in gone {
            maps.set_service(id, &ServiceEntry::default());
            self.room.leave_region(table.region());
            for (_, index) in table.members {
                backend::end(maps, index)?;
                self.room.leave_index(index, id);
            }
        }
        Ok(())
    }
}
