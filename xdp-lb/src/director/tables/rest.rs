//! When slots come to rest: a slot that has moved is settled again once no remembered flow disagrees with it, so that
//! its SYNs, and where a service tracks adaptively all its packets, are looked up no more. A table whose slots are all
//! settled is at rest, and is found in a shorter form.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracing::warn;
use xdp_lb_common::abi::{FlowEntry, ServiceEntry, Slot};

use super::{Table, Tables, flows::Lives};
use crate::director::maps::Maps;

/// How often it is looked whether slots can rest, while there are any that could.
const LOOK: Duration = Duration::from_secs(10);

/// A table that may come to rest, or some slots of which may.
struct Candidate {
    slots: Vec<Slot>,
    /// Slots that a remembered flow disagrees with.
    disagree: Vec<bool>,
    /// How long its flows are remembered.
    idle_ticks: u32,
    by_source: bool,
}

impl Candidate {
    fn of(table: &Table, maps: &impl Maps) -> Option<Self> {
        if table.is_at_rest() {
            return None;
        }
        let slots = maps.slots(table.region());
        let is_settled = !slots.is_empty() && slots.iter().all(|slot| slot.is_settled());
        (is_settled || slots.iter().any(is_mixed)).then(|| Self {
            disagree: vec![false; slots.len()],
            slots,
            idle_ticks: table.entry.idle_ticks,
            by_source: table.entry.flags & ServiceEntry::FLAG_SOURCE_AFFINITY != 0,
        })
    }
}

fn is_mixed(slot: &Slot) -> bool {
    slot.previous == Slot::MIXED && slot.current != 0
}

impl Tables {
    /// Lets slots rest that can. Returns when to look again.
    pub(super) fn rest(&mut self, maps: &mut impl Maps, now: Instant) -> Option<Instant> {
        if let Some(next) = self.next_look.filter(|&next| now < next) {
            return Some(next);
        }
        let mut candidates: HashMap<u32, Candidate> = HashMap::new();
        for (&id, table) in &mut self.tables {
            if table.may_rest {
                let candidate = Candidate::of(table, maps);
                table.may_rest = candidate.is_some();
                candidates.extend(candidate.map(|candidate| (id, candidate)));
            }
        }
        self.next_look = (!candidates.is_empty()).then(|| now + LOOK);
        if candidates.is_empty() {
            return None;
        }
        // Packets that have seen a slot move may still be writing what they remember, and packets that have found a
        // table at rest may still be reading it, which is written anew here.
        if let Err(error) = maps.wait_for_packets_in_flight() {
            warn!(%error, "slots cannot come to rest");
            return self.next_look;
        }
        if candidates.values().any(|it| it.slots.iter().any(is_mixed)) {
            self.mark(maps, &mut candidates);
        }
        let mut is_any_left = false;
        for (id, candidate) in candidates {
            let Some(table) = self.tables.get_mut(&id) else {
                continue;
            };
            let mut is_left = false;
            let slots = (table.region().offset..).zip(&candidate.slots);
            for ((at, slot), disagrees) in slots.zip(candidate.disagree) {
                if is_mixed(slot) && !disagrees {
                    let previous = 0;
                    maps.set_slots(at, &[Slot { previous, ..*slot }]);
                }
                is_left |= is_mixed(slot) && disagrees;
            }
            if maps.rest(id) {
                table.entry = maps.service(id);
            }
            table.may_rest = is_left;
            is_any_left |= is_left;
        }
        if !is_any_left {
            self.next_look = None;
        }
        self.next_look
    }

    /// Finds the slots that remembered flows disagree with.
    fn mark(&self, maps: &impl Maps, candidates: &mut HashMap<u32, Candidate>) {
        let members = self.tables.iter().flat_map(|(&id, table)| {
            let indices = table.members.values();
            indices.map(move |&index| (index, id))
        });
        let owner: HashMap<u16, u32> = members.collect();
        let (shape, lives) = (maps.flow_shape(), Lives::of(maps));
        maps.each_flow(&mut |place, entry: FlowEntry| {
            let index = entry.backend();
            let candidate = owner.get(&index).and_then(|id| candidates.get_mut(id));
            let Some(candidate) = candidate else { return };
            if lives.is_over(entry, candidate.idle_ticks) {
                return;
            }
            let size = u32::try_from(candidate.slots.len()).unwrap_or(u32::MAX);
            // A place does not tell the slot of a client: it may be any.
            let (first, last) = if candidate.by_source {
                (0, size - 1)
            } else {
                place.slots(shape.bucket_bits, size)
            };
            let (Ok(first), Ok(last)) = (usize::try_from(first), usize::try_from(last)) else {
                return;
            };
            let slots = candidate.slots[first..=last].iter();
            for (slot, disagrees) in slots.zip(&mut candidate.disagree[first..=last]) {
                *disagrees |= slot.current != index;
            }
        });
    }
}
