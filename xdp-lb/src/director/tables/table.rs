//! One service: its members, its lookup table, and what its slots remember.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    time::Instant,
};

use xdp_lb_common::{
    abi::{ServiceEntry, Slot, TableRef},
    hash::HashKey,
};

use super::{
    Moved, assumed, backend,
    room::Room,
    slots::{Before, Inherited, inherit, unsettled},
};
use crate::{
    director::{desired::DesiredService, error::ChangeError, keys::Key, maps::Maps},
    lookup::{self, Candidate, Scheduler},
};

/// One service, as the maps hold it.
#[derive(Debug)]
pub(in crate::director) struct Table {
    id: u32,
    pub(in crate::director) name: String,
    pub(super) keys: BTreeSet<Key>,
    pub(super) entry: ServiceEntry,
    /// What the table was built from; None where that is not known.
    inputs: Option<Inputs>,
    pub(in crate::director) members: BTreeMap<IpAddr, u16>,
    /// What its slots were taken to be before this director knew them: see
    /// [`DesiredService::assumed`].
    assumed: Option<Vec<Candidate>>,
    /// The indices of the members when the table was last looked at.
    known: BTreeSet<u16>,
    /// Slots that are moving, by the time at which they will have moved.
    pub(super) moving: Vec<Moving>,
    /// True until the first table: no flow can be known.
    is_new: bool,
    /// Until when there were flows that nobody remembered, as far as is known.
    forgetful_until: Option<Instant>,
    /// When that change can be made.
    pub(super) waits_until: Option<Instant>,
    /// False where it is known that neither the table nor any of its slots could come to rest.
    pub(super) may_rest: bool,
}

#[derive(Debug)]
pub(super) struct Moving {
    pub(super) until: Instant,
    slots: Vec<u32>,
}

/// A table's flags and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    flags: u32,
    size: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inputs {
    scheduler: Scheduler,
    size: u32,
    candidates: Vec<Candidate>,
}

impl Table {
    /// A service that is not in the maps yet.
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            name: String::new(),
            keys: BTreeSet::new(),
            entry: ServiceEntry::default(),
            inputs: None,
            assumed: None,
            members: BTreeMap::new(),
            known: BTreeSet::new(),
            moving: Vec::new(),
            is_new: true,
            forgetful_until: None,
            waits_until: None,
            may_rest: true,
        }
    }

    /// A service that was found in the maps.
    pub(super) fn found(maps: &impl Maps, id: u32) -> Self {
        Self {
            entry: maps.service(id),
            is_new: false,
            ..Self::new(id)
        }
    }

    /// Where its slots are.
    pub(in crate::director) fn region(&self) -> TableRef {
        TableRef::unpack(self.entry.table)
    }

    /// True where its packets read it in its short form.
    pub(in crate::director) fn is_at_rest(&self) -> bool {
        TableRef::is_at_rest(self.entry.table)
    }

    /// Brings members and table to what is desired.
    pub(super) fn update(
        &mut self,
        maps: &mut impl Maps,
        room: &mut Room,
        hash_key: HashKey,
        service: &DesiredService,
        now: Instant,
    ) -> Result<Moved, ChangeError> {
        self.name.clone_from(&service.name);
        for (&address, desired) in &service.backends {
            let index = match self.members.get(&address) {
                Some(&index) => index,
                None => {
                    let index = room.index(maps)?;
                    backend::begin(maps, index, self.id, address)?;
                    self.members.insert(address, index);
                    index
                }
            };
            backend::write(maps, index, desired)?;
        }
        let mut gone: BTreeMap<_, _> = self
            .members
            .extract_if(.., |address, _| !service.backends.contains_key(address))
            .collect();
        let moved = self.rebuild(maps, room, hash_key, service, now);
        if moved.is_err() {
            // The table that is in use still has them.
            self.members.append(&mut gone);
        }
        for index in gone.into_values() {
            backend::end(maps, index)?;
            room.leave_index(index, self.id);
        }
        moved
    }

    /// Builds the table anew where anything that it depends on has changed, and puts it to use.
    fn rebuild(
        &mut self,
        maps: &mut impl Maps,
        room: &mut Room,
        hash_key: HashKey,
        service: &DesiredService,
        now: Instant,
    ) -> Result<Moved, ChangeError> {
        let plan = self.plan(service, now);
        let inputs = Inputs {
            scheduler: service.scheduler,
            size: plan.size,
            candidates: service.candidates(),
        };
        let members: BTreeSet<u16> = self.members.values().copied().collect();
        let entry = ServiceEntry {
            table: self.entry.table,
            flags: plan.flags,
            idle_ticks: maps.ticks(service.idle_timeout),
        };
        let mut region = self.region();
        let known = (self.inputs.as_ref(), &self.known, self.entry);
        let is_assumed = service.assumed.is_none() || service.assumed == self.assumed;
        if is_assumed && known == (Some(&inputs), &members, entry) {
            self.assumed.clone_from(&service.assumed);
            return Ok(Moved {
                slots_moved: 0,
                table_size: region.size,
            });
        }
        let held = maps.slots(region);
        let before = self.before(&held, hash_key, service.assumed.as_deref(), &inputs);
        let mut current = self.build(hash_key, &inputs);
        let tracks = entry.flags & ServiceEntry::FLAG_TRACK != 0;
        if current.is_empty() && tracks && !members.is_empty() {
            // Slots alone know where flows go that nobody had to remember.
            current = vec![0; before.len()];
        }
        let is_first = self.is_new && held.is_empty();
        let mut next = self.next_slots(&before, &current, &members, entry.flags);
        if is_first {
            // They come to be, and do not move.
            next.moved.clear();
        }
        if next.slots != held {
            let free = room.region(maps, next.slots.len())?;
            maps.set_slots(free.offset, &next.slots);
            room.leave_region(std::mem::replace(&mut region, free));
        }
        self.entry = ServiceEntry {
            table: region.pack(),
            ..entry
        };
        maps.set_service(self.id, &self.entry);
        if entry.flags & ServiceEntry::FLAG_TRACK != 0 {
            self.remember_moving(&before, &held, &next, now + service.idle_timeout);
        }
        self.may_rest = true;
        self.is_new &= next.slots.is_empty();
        self.inputs = Some(inputs);
        self.known = members;
        self.assumed.clone_from(&service.assumed);
        let slots_moved = u32::try_from(next.moved.len()).unwrap_or(u32::MAX);
        Ok(Moved {
            slots_moved,
            table_size: region.size,
        })
    }

    /// What may be done now of what is desired.
    ///
    /// A flow that nobody remembers is found again by its slot alone. So before a service that has not remembered all
    /// of them gets other slots for its flows, it does so for as long as a silent one would be remembered.
    fn plan(&mut self, service: &DesiredService, now: Instant) -> Plan {
        self.waits_until = None;
        const BY: u32 = ServiceEntry::FLAG_SOURCE_AFFINITY;
        const TRACK: u32 = ServiceEntry::FLAG_TRACK;
        let desired = Plan {
            flags: service.flags,
            size: service.table_size,
        };
        let held = self.entry.flags;
        let remembers_all = held & TRACK != 0 && held & ServiceEntry::FLAG_ADAPTIVE == 0;
        // What was before a restart is not known.
        let is_known = self.inputs.is_some();
        let may_forget = !remembers_all || !is_known;
        if may_forget && !self.is_new {
            self.forgetful_until = Some(now);
        }
        let has_other_slots =
            self.region().size != service.table_size || (held ^ service.flags) & BY != 0;
        let are_at_risk = held & service.flags & TRACK != 0 && self.region().size != 0;
        let safe_from = self.forgetful_until.map(|at| at + service.idle_timeout);
        let waits_until = safe_from.filter(|&at| at > now && has_other_slots && are_at_risk);
        let Some(waits_until) = waits_until else {
            return desired;
        };
        self.waits_until = Some(waits_until);
        Plan {
            flags: service.flags & !(ServiceEntry::FLAG_ADAPTIVE | BY) | held & BY,
            size: self.region().size,
        }
    }

    /// The slots before a change: those that are `held`, but for what a fresh director has assumed of them.
    fn before(
        &self,
        held: &[Slot],
        hash_key: HashKey,
        assumed: Option<&[Candidate]>,
        inputs: &Inputs,
    ) -> Vec<Slot> {
        let Some(assumed) = assumed else {
            return held.to_vec();
        };
        let of = |candidates: &[Candidate]| {
            let members = candidates.iter();
            let members = members.filter(|it| self.members.contains_key(&it.address));
            let inputs = Inputs {
                candidates: members.copied().collect(),
                ..*inputs
            };
            self.build(hash_key, &inputs)
        };
        if held.is_empty() {
            return if self.is_new {
                assumed::slots(&of(assumed))
            } else {
                Vec::new()
            };
        }
        match &self.assumed {
            Some(before) if before != assumed => assumed::withdraw(held, &of(before), &of(assumed)),
            _ => held.to_vec(),
        }
    }

    /// The backend index of each slot.
    fn build(&self, hash_key: HashKey, inputs: &Inputs) -> Vec<u16> {
        let index = |candidate: &Candidate| self.members[&candidate.address];
        let indices: Vec<u16> = inputs.candidates.iter().map(index).collect();
        let table = lookup::build(inputs.scheduler, inputs.size, hash_key, &inputs.candidates);
        table
            .into_iter()
            .map(|position| indices[usize::from(position)])
            .collect()
    }

    fn next_slots(
        &self,
        held: &[Slot],
        current: &[u16],
        members: &BTreeSet<u16>,
        flags: u32,
    ) -> Inherited {
        let before = if self.is_new && held.is_empty() {
            Before::New
        } else {
            Before::Slots(held)
        };
        let mut next = inherit(before, current, |index| members.contains(&index));
        let changes_affinity = (flags ^ self.entry.flags) & ServiceEntry::FLAG_SOURCE_AFFINITY != 0;
        if changes_affinity && !self.is_new {
            // Flows have other slots now, so what is remembered of them may disagree with any.
            next.slots
                .iter_mut()
                .for_each(|slot| *slot = unsettled(*slot));
        }
        if flags & ServiceEntry::FLAG_TRACK == 0 {
            // Nobody asks what a slot was before.
            next.slots.iter_mut().for_each(|slot| slot.previous = 0);
        }
        next
    }

    /// Notes which slots began to move by a change.
    fn remember_moving(
        &mut self,
        before: &[Slot],
        held: &[Slot],
        next: &Inherited,
        until: Instant,
    ) {
        if held.len() != next.slots.len() || before != held {
            self.moving.clear();
            self.remember_all_moving(&next.slots, until);
        } else if !next.moved.is_empty() {
            self.moving.push(Moving {
                until,
                slots: next.moved.clone(),
            });
        }
    }

    pub(super) fn remember_all_moving(&mut self, slots: &[Slot], until: Instant) {
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

    pub(super) fn settle(&mut self, maps: &mut impl Maps, now: Instant) {
        let (due, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.moving)
            .into_iter()
            .partition(|moving| moving.until <= now);
        self.moving = waiting;
        if due.is_empty() {
            return;
        }
        self.may_rest = true;
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
