//! What the maps hold, and how they are brought to what is desired.
//!
//! The order of writes is what keeps packets right at every moment: backends first, then the new
//! table in a free region, then the one word that puts it to use; what is no longer referred to is
//! given back only after the packets under way have passed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use xdp_lb_common::{
    abi::{BackendEntry, BackendLink, NextHop, ServiceEntry, ServiceKey, Slot, TableRef},
    hash::HashKey,
};

use super::{
    arena::Arena,
    desired::{DesiredBackend, DesiredService, mapped, unmapped},
    error::ChangeError,
    indices::Indices,
    maps::Maps,
    slots::{Before, Inherited, inherit, unsettled},
};
use crate::{
    dataplane::{DataplaneError, Found, Sizes},
    lookup::{self, Candidate, Scheduler},
};

/// One service, as the maps hold it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    keys: BTreeSet<ServiceKey>,
    entry: ServiceEntry,
    /// What the table was built from; None where that is not known.
    inputs: Option<Inputs>,
    pub(super) members: BTreeMap<IpAddr, u16>,
    /// The members that could be sent packets when the table was last looked at.
    serving: BTreeSet<u16>,
    /// Slots that are moving, by the time at which they will have moved.
    moving: Vec<Moving>,
    /// True until the first table: no flow can be known.
    is_new: bool,
}

#[derive(Debug)]
struct Moving {
    until: Instant,
    slots: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inputs {
    scheduler: Scheduler,
    size: u32,
    candidates: Vec<Candidate>,
}

impl Table {
    /// Where its slots are.
    pub(super) fn region(&self) -> TableRef {
        TableRef::unpack(self.entry.table)
    }
}

/// All services and backends, as the maps hold them.
#[derive(Debug)]
pub(super) struct Tables {
    hash_key: HashKey,
    sizes: Sizes,
    arena: Arena,
    indices: Indices,
    tables: BTreeMap<u32, Table>,
    /// What waits for the packets under way to pass.
    freed: Freed,
}

#[derive(Debug, Default)]
struct Freed {
    regions: Vec<TableRef>,
    backends: Vec<u16>,
}

/// What a change did to one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Moved {
    /// Slots that got another backend.
    pub slots_moved: u32,
    /// Slots of the table.
    pub table_size: u32,
}

impl Tables {
    /// Takes over what was found in the maps; slots that are found moving do so until `until`.
    pub(super) fn adopt(
        maps: &impl Maps,
        sizes: Sizes,
        hash_key: HashKey,
        found: &Found,
        until: Instant,
    ) -> Self {
        let mut this = Self {
            hash_key,
            sizes,
            arena: Arena::new(sizes.slots),
            indices: Indices::default(),
            tables: BTreeMap::new(),
            freed: Freed::default(),
        };
        for &(key, id) in &found.keys {
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
            if !this.arena.claim(table.region()) {
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
        this.indices = Indices::new(sizes.backends, &in_use);
        this
    }

    /// The table of the service with this name, and its id.
    pub(super) fn find(&self, name: &str) -> Option<(u32, &Table)> {
        self.tables
            .iter()
            .find(|(_, table)| table.name == name)
            .map(|(&id, table)| (id, table))
    }

    /// How many slots each backend index has in a table.
    pub(super) fn shares(maps: &impl Maps, table: &Table) -> HashMap<u16, u32> {
        let mut shares = HashMap::new();
        for slot in maps.slots(table.region()) {
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
        let mut report = BTreeMap::new();
        for (service, &id) in desired.iter().zip(&ids) {
            if !self.tables.contains_key(&id) {
                maps.begin_service(id)?;
            }
            let moved = self.apply_service(maps, id, service, now)?;
            report.insert(service.name.clone(), moved);
        }
        self.apply_keys(maps, desired, &ids)?;
        self.reclaim(maps)?;
        Ok(report)
    }

    /// Ends the moving of slots whose time has come. Returns when to call it again.
    pub(super) fn settle(&mut self, maps: &mut impl Maps, now: Instant) -> Option<Instant> {
        for table in self.tables.values_mut() {
            table.settle(maps, now);
        }
        self.tables
            .values()
            .flat_map(|table| &table.moving)
            .map(|moving| moving.until)
            .min()
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
        refuse("VIPs and ports", keys, self.sizes.services, "services")?;
        refuse(
            "backends",
            backends,
            self.sizes.backends.saturating_sub(1),
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
        if needed > u64::from(self.arena.size()) {
            let more = u32::try_from(needed - u64::from(self.arena.size())).unwrap_or(u32::MAX);
            return Err(ChangeError::NoSlots {
                needed: more,
                size: self.arena.size(),
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
        let mut free = (0..self.sizes.services).filter(|id| !self.tables.contains_key(id));
        let full = || ChangeError::TooMany {
            what: "services, those that go included",
            needed: self.tables.len() + 1,
            size: self.sizes.services,
            limit: "services",
        };
        ids.into_iter()
            .map(|id| id.or_else(|| free.next()).ok_or_else(full))
            .collect()
    }

    fn apply_service(
        &mut self,
        maps: &mut impl Maps,
        id: u32,
        service: &DesiredService,
        now: Instant,
    ) -> Result<Moved, ChangeError> {
        let mut table = self.tables.remove(&id).unwrap_or_else(Table::new);
        let result = self.update(maps, id, &mut table, service, now);
        self.tables.insert(id, table);
        result
    }

    fn update(
        &mut self,
        maps: &mut impl Maps,
        id: u32,
        table: &mut Table,
        service: &DesiredService,
        now: Instant,
    ) -> Result<Moved, ChangeError> {
        table.name.clone_from(&service.name);
        for (&address, backend) in &service.backends {
            let index = match table.members.get(&address) {
                Some(&index) => index,
                None => self.new_backend(maps, table, id, address)?,
            };
            write_backend(maps, index, id, address, backend)?;
        }
        let mut gone: BTreeMap<_, _> = table
            .members
            .extract_if(.., |address, _| !service.backends.contains_key(address))
            .collect();
        let moved = self.update_table(maps, id, table, service, now);
        if moved.is_err() {
            // The table that is in use still has them.
            table.members.append(&mut gone);
        }
        for index in gone.into_values() {
            maps.set_backend(index, &retired(&maps.backend(index)))?;
            self.freed.backends.push(index);
        }
        moved
    }

    fn new_backend(
        &mut self,
        maps: &mut impl Maps,
        table: &mut Table,
        id: u32,
        address: IpAddr,
    ) -> Result<u16, ChangeError> {
        let index = match self.indices.allocate() {
            Some(index) => index,
            None => {
                self.reclaim(maps)?;
                self.indices.allocate().ok_or(ChangeError::TooMany {
                    what: "backends",
                    needed: usize::from(u16::MAX),
                    size: self.sizes.backends,
                    limit: "backends",
                })?
            }
        };
        maps.begin_backend(index)?;
        let generation = BackendLink::unpack(maps.backend(index).link).generation;
        let link = BackendLink {
            ifindex: 0,
            generation: generation.checked_add(1).unwrap_or(1),
        };
        let entry = BackendEntry {
            link: link.pack(),
            service: id,
            address: mapped(address),
            ..BackendEntry::default()
        };
        maps.set_backend(index, &entry)?;
        table.members.insert(address, index);
        Ok(index)
    }

    fn update_table(
        &mut self,
        maps: &mut impl Maps,
        id: u32,
        table: &mut Table,
        service: &DesiredService,
        now: Instant,
    ) -> Result<Moved, ChangeError> {
        let inputs = Inputs {
            scheduler: service.scheduler,
            size: service.table_size,
            candidates: service.candidates(),
        };
        let serving: BTreeSet<u16> = table
            .members
            .values()
            .copied()
            .filter(|&index| is_serving(maps, index))
            .collect();
        let entry = ServiceEntry {
            table: table.entry.table,
            flags: service.flags,
            idle_ticks: maps.ticks(service.idle_timeout),
        };
        let region = table.region();
        if table.inputs.as_ref() == Some(&inputs)
            && table.serving == serving
            && table.entry == entry
        {
            return Ok(Moved {
                slots_moved: 0,
                table_size: region.size,
            });
        }
        let held = maps.slots(region);
        let current = build(self.hash_key, &inputs, &table.members);
        let before = if table.is_new {
            Before::New
        } else {
            Before::Slots(&held)
        };
        let mut next = inherit(before, &current, |index| serving.contains(&index));
        if !table.is_new && changes_affinity(entry.flags, table.entry.flags) {
            next.slots
                .iter_mut()
                .for_each(|slot| *slot = unsettled(*slot));
        }
        let region = if next.slots == held {
            region
        } else {
            let free = self.allocate(maps, next.slots.len())?;
            maps.set_slots(free.offset, &next.slots);
            self.freed.regions.push(region);
            free
        };
        table.entry = ServiceEntry {
            table: region.pack(),
            ..entry
        };
        maps.set_service(id, &table.entry);
        table.remember_moving(&held, &next, now + service.idle_timeout);
        table.is_new &= next.slots.is_empty();
        table.inputs = Some(inputs);
        table.serving = serving;
        let slots_moved = u32::try_from(next.moved.len()).unwrap_or(u32::MAX);
        Ok(Moved {
            slots_moved,
            table_size: region.size,
        })
    }

    /// A free region for a table of `size` slots, or an empty one.
    fn allocate(&mut self, maps: &mut impl Maps, slots: usize) -> Result<TableRef, ChangeError> {
        let size = u32::try_from(slots).unwrap_or(u32::MAX);
        if size == 0 {
            return Ok(TableRef::default());
        }
        if let Some(region) = self.arena.allocate(size) {
            return Ok(region);
        }
        self.reclaim(maps)?;
        let size_of_arena = self.arena.size();
        self.arena.allocate(size).ok_or(ChangeError::NoSlots {
            needed: size,
            size: size_of_arena,
        })
    }

    fn apply_keys(
        &mut self,
        maps: &mut impl Maps,
        desired: &[DesiredService],
        ids: &[u32],
    ) -> Result<(), DataplaneError> {
        let wanted: BTreeMap<ServiceKey, u32> = desired
            .iter()
            .zip(ids)
            .flat_map(|(service, &id)| service.keys.iter().map(move |&key| (key, id)))
            .collect();
        let held: BTreeMap<ServiceKey, u32> = self
            .tables
            .iter()
            .flat_map(|(&id, table)| table.keys.iter().map(move |&key| (key, id)))
            .collect();
        for key in held.keys().filter(|key| !wanted.contains_key(key)) {
            maps.remove_key(key)?;
        }
        for (&key, &id) in wanted.iter().filter(|(key, id)| held.get(key) != Some(id)) {
            maps.set_key(key, id)?;
        }
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
            self.freed.regions.push(table.region());
            maps.set_service(id, &ServiceEntry::default());
            for (_, index) in table.members {
                maps.set_backend(index, &retired(&maps.backend(index)))?;
                self.freed.backends.push(index);
            }
        }
        Ok(())
    }

    /// Gives back what is no longer referred to, once the packets under way have passed.
    fn reclaim(&mut self, maps: &mut impl Maps) -> Result<(), DataplaneError> {
        if self.freed.regions.is_empty() && self.freed.backends.is_empty() {
            return Ok(());
        }
        maps.wait_for_packets_in_flight()?;
        self.freed
            .regions
            .drain(..)
            .for_each(|region| self.arena.release(region));
        self.freed
            .backends
            .drain(..)
            .for_each(|index| self.indices.release(index));
        Ok(())
    }
}

impl Table {
    fn new() -> Self {
        Self {
            name: String::new(),
            keys: BTreeSet::new(),
            entry: ServiceEntry::default(),
            inputs: None,
            members: BTreeMap::new(),
            serving: BTreeSet::new(),
            moving: Vec::new(),
            is_new: true,
        }
    }

    fn found(maps: &impl Maps, id: u32) -> Self {
        Self {
            entry: maps.service(id),
            is_new: false,
            ..Self::new()
        }
    }

    /// Notes which slots began to move by a change.
    fn remember_moving(&mut self, held: &[Slot], next: &Inherited, until: Instant) {
        if held.len() != next.slots.len() {
            self.moving.clear();
            self.remember_all_moving(&next.slots, until);
        } else if !next.moved.is_empty() {
            self.moving.push(Moving {
                until,
                slots: next.moved.clone(),
            });
        }
    }

    fn remember_all_moving(&mut self, slots: &[Slot], until: Instant) {
        let is_moving = |slot: &Slot| slot.moving_from().is_some();
        let slots: Vec<u32> = (0..)
            .zip(slots)
            .filter(|(_, slot)| is_moving(slot))
            .map(|(index, _)| index)
            .collect();
        if !slots.is_empty() {
            self.moving.push(Moving { until, slots });
        }
    }

    fn settle(&mut self, maps: &mut impl Maps, now: Instant) {
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.moving)
            .into_iter()
            .partition(|moving| moving.until <= now);
        self.moving = waiting;
        if due.is_empty() {
            return;
        }
        // A slot that has moved again since has a later time as well.
        let again: HashSet<u32> = self
            .moving
            .iter()
            .flat_map(|moving| moving.slots.iter().copied())
            .collect();
        let region = self.region();
        let slots = maps.slots(region);
        for index in due.into_iter().flat_map(|moving| moving.slots) {
            let held = usize::try_from(index)
                .ok()
                .and_then(|index| slots.get(index));
            if let Some(slot) =
                held.filter(|slot| slot.moving_from().is_some() && !again.contains(&index))
            {
                maps.set_slots(
                    region.offset + index,
                    &[Slot {
                        previous: Slot::MIXED,
                        ..*slot
                    }],
                );
            }
        }
    }
}

/// The backend index of each slot.
fn build(key: HashKey, inputs: &Inputs, members: &BTreeMap<IpAddr, u16>) -> Vec<u16> {
    let indices: Vec<u16> = inputs
        .candidates
        .iter()
        .map(|candidate| members[&candidate.address])
        .collect();
    let table = lookup::build(inputs.scheduler, inputs.size, key, &inputs.candidates);
    table
        .into_iter()
        .map(|position| indices[usize::from(position)])
        .collect()
}

fn is_serving(maps: &impl Maps, index: u16) -> bool {
    NextHop::unpack(maps.backend(index).next_hop).is_serving()
}

fn changes_affinity(flags: u32, held: u32) -> bool {
    (flags ^ held) & ServiceEntry::FLAG_SOURCE_AFFINITY != 0
}

fn write_backend(
    maps: &mut impl Maps,
    index: u16,
    id: u32,
    address: IpAddr,
    backend: &DesiredBackend,
) -> Result<(), DataplaneError> {
    let held = maps.backend(index);
    let link = BackendLink::unpack(held.link);
    let base = BackendEntry {
        service: id,
        address: mapped(address),
        ..held
    };
    let entry = match &backend.hop {
        Ok(hop) => BackendEntry {
            next_hop: NextHop {
                mac: hop.mac,
                flags: NextHop::FLAG_SERVING,
            }
            .pack(),
            link: BackendLink {
                ifindex: hop.ifindex,
                ..link
            }
            .pack(),
            source_mac: NextHop {
                mac: hop.source_mac,
                flags: 0,
            }
            .pack()
            .to_ne_bytes(),
            ..base
        },
        Err(_) => BackendEntry {
            next_hop: 0,
            ..base
        },
    };
    if entry == held {
        Ok(())
    } else {
        maps.set_backend(index, &entry)
    }
}

/// An entry whose backend is gone: only the generation stays.
fn retired(held: &BackendEntry) -> BackendEntry {
    let generation = BackendLink::unpack(held.link).generation;
    BackendEntry {
        link: BackendLink {
            ifindex: 0,
            generation,
        }
        .pack(),
        ..BackendEntry::default()
    }
}
