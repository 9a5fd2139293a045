//! Tables at rest: lookup tables of which every slot is settled, once more in one byte a slot.
//!
//! Four times as many slots fit the processor's caches so, and that is most of what a packet of one of many flows waits for.

use std::{collections::HashMap, sync::atomic::Ordering};

use xdp_lb_common::abi::{MEMBERS, ServiceEntry, Slot, TableRef};

use super::Dataplane;

impl Dataplane {
    /// Lets packets for the service `id` find their backends in the short form of its table, if all slots are settled
    /// and have no more than [`MEMBERS`] different backends. Returns whether that is so.
    ///
    /// No packet may be under way that found the service's table at rest before, unless it still is.
    pub fn rest(&mut self, id: u32) -> bool {
        let entry = self.service(id);
        if TableRef::is_at_rest(entry.table) {
            return true;
        }
        let table = TableRef::unpack(entry.table);
        let Some((members, ordinals)) = short(&self.slots(table)) else {
            return false;
        };
        let Ok(start) = usize::try_from(table.offset) else {
            return false;
        };
        let list = usize::try_from(id).unwrap_or(usize::MAX) * MEMBERS;
        for (word, chunk) in self.members.words()[list / 4..]
            .iter()
            .zip(members.chunks(4))
        {
            let halves: [u16; 4] = std::array::from_fn(|at| chunk.get(at).copied().unwrap_or(0));
            let bytes = halves.map(u16::to_ne_bytes);
            word.store(
                u64::from_ne_bytes(*bytes.as_flattened().first_chunk().unwrap_or(&[0; 8])),
                Ordering::Relaxed,
            );
        }
        let bytes = &self.resting.bytes()[start..];
        for (byte, ordinal) in bytes.iter().zip(ordinals) {
            byte.store(ordinal, Ordering::Relaxed);
        }
        std::sync::atomic::fence(Ordering::Release);
        self.set_service(
            id,
            &ServiceEntry {
                table: table.pack() | TableRef::AT_REST,
                ..entry
            },
        );
        true
    }
}

/// The backends of a table whose slots are all settled, and for each slot which of them it has.
fn short(slots: &[Slot]) -> Option<(Vec<u16>, Vec<u8>)> {
    if slots.is_empty() || !slots.iter().all(|slot| slot.is_settled()) {
        return None;
    }
    let mut members = Vec::new();
    let mut known = HashMap::new();
    let mut ordinals = Vec::with_capacity(slots.len());
    for slot in slots {
        let next = members.len();
        let ordinal = *known.entry(slot.current).or_insert(next);
        if ordinal == next {
            members.push(slot.current);
        }
        ordinals.push(u8::try_from(ordinal).ok()?);
    }
    Some((members, ordinals))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(current: u16) -> Slot {
        Slot {
            current,
            previous: 0,
        }
    }

    #[test]
    fn a_short_table_says_the_same() {
        let slots: Vec<Slot> = [7, 300, 7, 0, 300].map(settled).into();
        let (members, ordinals) = short(&slots).unwrap();
        assert_eq!(members, [7, 300, 0]);
        assert_eq!(ordinals, [0, 1, 0, 2, 1]);
    }

    #[test]
    fn a_table_with_too_many_backends_or_a_slot_that_moves_has_none() {
        let slots: Vec<Slot> = (1..=256).map(settled).collect();
        assert_eq!(short(&slots).unwrap().1.last(), Some(&255));
        let slots: Vec<Slot> = (1..=257).map(settled).collect();
        assert!(short(&slots).is_none());
        for previous in [1, Slot::MIXED] {
            let moving = Slot {
                current: 2,
                previous,
            };
            assert!(short(&[settled(1), moving]).is_none());
        }
        assert!(short(&[]).is_none());
    }
}
