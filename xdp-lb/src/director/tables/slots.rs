//! What a slot remembers when its table changes.
//!
//! The rules, for a slot whose current backend changes:
//!
//! - It remembers the backend that it moved from, as long as that one is a member of the service: older
//!   connections that nobody remembers belong there, and if it cannot be sent packets now, it may be again before
//!   they send the next one.
//! - A slot that moves again while it is moving keeps the backend that it moved from first.
//! - A slot that has nobody to remember, but may still get packets of connections that opened while
//!   it was moving, goes on moving, from its own current backend.
//! - A slot that has moved is settled again once no remembered flow disagrees with it; whether that is so
//!   is not known here.
//! - A slot may have no current backend at all (index 0), while its flows go on with the one before.

use xdp_lb_common::abi::Slot;

/// What a table was before it changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before<'a> {
    /// The service is new: no flow can be known.
    New,
    /// These slots; none where the service had no backend.
    Slots(&'a [Slot]),
}

/// A changed table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    pub(super) slots: Vec<Slot>,
    /// The slots that got another backend, in ascending order.
    pub(super) moved: Vec<u32>,
}

/// The slots of a table whose backends become `current`, slot by slot. `is_member` tells which
/// backends the service has.
pub(super) fn inherit(
    before: Before<'_>,
    current: &[u16],
    is_member: impl Fn(u16) -> bool,
) -> Inherited {
    let held = match before {
        Before::New => {
            let slots = current
                .iter()
                .map(|&current| Slot {
                    current,
                    previous: 0,
                })
                .collect();
            return Inherited {
                slots,
                moved: Vec::new(),
            };
        }
        Before::Slots(held) => held,
    };
    let mut moved = Vec::new();
    let mut slots = Vec::with_capacity(current.len());
    for (index, &to) in current.iter().enumerate() {
        let slot = match covering(held, index, current.len()) {
            // There was no backend, but there are flows from before that.
            None => Slot {
                current: to,
                previous: Slot::MIXED,
            },
            Some(from) => {
                let next = step(from, to, &is_member);
                // Where the size changes, a slot covers parts of its neighbours' hashes as well.
                if held.len() != current.len() {
                    unsettled(next)
                } else {
                    next
                }
            }
        };
        if covering(held, index, current.len()).is_none_or(|from| from.current != to) {
            moved.push(u32::try_from(index).expect("tables have less than 2^32 slots"));
        }
        slots.push(slot);
    }
    Inherited { slots, moved }
}

/// A slot that is settled no more.
pub(super) fn unsettled(slot: Slot) -> Slot {
    if slot.is_settled() {
        Slot {
            previous: Slot::MIXED,
            ..slot
        }
    } else {
        slot
    }
}

/// The slot that held the middle of the hashes that slot `index` of `size` covers.
fn covering(held: &[Slot], index: usize, size: usize) -> Option<Slot> {
    if held.len() == size {
        return held.get(index).copied();
    }
    let middle = (2 * index as u128 + 1) * held.len() as u128 / (2 * size as u128);
    held.get(usize::try_from(middle).ok()?).copied()
}

fn step(from: Slot, to: u16, is_member: impl Fn(u16) -> bool) -> Slot {
    // Nobody to remember, but openings to look for, if there can be any.
    let nobody = if to == 0 { Slot::MIXED } else { to };
    let previous = match from.moving_from() {
        Some(previous) if is_member(previous) => previous,
        // Its first backend is gone.
        Some(_) if from.current != to && is_member(from.current) => from.current,
        Some(_) => nobody,
        None if from.current == to => from.previous,
        None if is_member(from.current) => from.current,
        None => nobody,
    };
    Slot {
        current: to,
        previous,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: u16 = 1;
    const B: u16 = 2;
    const C: u16 = 3;

    fn slot(current: u16, previous: u16) -> Slot {
        Slot { current, previous }
    }

    fn one(from: Slot, to: u16, serving: &[u16]) -> Slot {
        inherit(Before::Slots(&[from]), &[to], |index| {
            serving.contains(&index)
        })
        .slots[0]
    }

    #[test]
    fn a_slot_remembers_as_the_rules_say() {
        let mixed = Slot::MIXED;
        for (from, to, serving, expected, why) in [
            (slot(A, 0), A, &[A][..], slot(A, 0), "nothing changes"),
            (slot(A, 0), B, &[A, B], slot(B, A), "it moves"),
            (
                slot(A, 0),
                B,
                &[B],
                slot(B, B),
                "it moves, and the first is gone",
            ),
            (
                slot(B, A),
                C,
                &[A, B, C],
                slot(C, A),
                "it moves again and keeps the first",
            ),
            (
                slot(B, A),
                C,
                &[B, C],
                slot(C, B),
                "it moves again, the first is gone",
            ),
            (
                slot(B, A),
                C,
                &[C],
                slot(C, C),
                "it moves again, both are gone",
            ),
            (
                slot(B, A),
                A,
                &[A, B],
                slot(A, A),
                "it moves back, openings may be on B",
            ),
            (
                slot(B, A),
                B,
                &[A, B],
                slot(B, A),
                "it stays and goes on moving",
            ),
            (slot(B, A), B, &[B], slot(B, B), "the first goes"),
            (slot(B, mixed), B, &[B], slot(B, mixed), "mixed stays mixed"),
            (slot(B, mixed), C, &[B, C], slot(C, B), "mixed moves"),
            (
                slot(A, 0),
                0,
                &[A],
                slot(0, A),
                "nobody is left for new ones",
            ),
            (slot(A, 0), 0, &[], slot(0, mixed), "nobody is left at all"),
            (slot(0, A), B, &[A, B], slot(B, A), "somebody comes back"),
            (slot(0, A), B, &[B], slot(B, B), "somebody comes back late"),
            (
                slot(0, mixed),
                B,
                &[B],
                slot(B, B),
                "somebody comes back later",
            ),
        ] {
            assert_eq!(one(from, to, serving), expected, "{why}");
        }
    }

    #[test]
    fn a_new_service_is_settled_and_one_that_had_no_backend_is_not() {
        let new = inherit(Before::New, &[A, B], |_| true);
        assert_eq!(
            new,
            Inherited {
                slots: vec![slot(A, 0), slot(B, 0)],
                moved: vec![]
            }
        );
        let back = inherit(Before::Slots(&[]), &[A], |_| true);
        assert_eq!(
            back,
            Inherited {
                slots: vec![slot(A, Slot::MIXED)],
                moved: vec![0]
            }
        );
        let none = inherit(Before::Slots(&[slot(A, 0)]), &[], |_| true);
        assert_eq!(
            none,
            Inherited {
                slots: vec![],
                moved: vec![]
            }
        );
    }

    #[test]
    fn a_table_of_another_size_takes_over_by_hash_range() {
        let held = [slot(A, 0), slot(B, 0)];
        let grown = inherit(Before::Slots(&held), &[A, A, A, A, B], |_| true);
        assert_eq!(grown.slots[0], slot(A, Slot::MIXED));
        assert_eq!(grown.slots[3], slot(A, B));
        assert_eq!(grown.slots[4], slot(B, Slot::MIXED));
        // The middle one covers both halves: the hash at its middle decides.
        assert_eq!(grown.slots[2], slot(A, B));
        assert_eq!(grown.moved, [2, 3]);
    }

    proptest! {
        #[test]
        fn no_slot_ever_remembers_a_backend_that_is_gone(
            changes in prop::collection::vec((prop::collection::vec(1u16..6, 7), prop::collection::vec(any::<bool>(), 6)), 1..20),
        ) {
            let mut held = inherit(Before::New, &[1; 7], |_| true).slots;
            for (mut current, mut serving) in changes {
                serving[1] = true;
                current.iter_mut().for_each(|index| if !serving[usize::from(*index)] { *index = 1; });
                let was = held.clone();
                let next = inherit(Before::Slots(&held), &current, |index| serving[usize::from(index)]);
                held = next.slots;
                for (index, slot) in held.iter().enumerate() {
                    prop_assert_eq!(slot.current, current[index]);
                    if let Some(previous) = slot.moving_from() {
                        prop_assert!(serving[usize::from(previous)]);
                    }
                    prop_assert!(was[index].is_settled() || !slot.is_settled());
                    let has_moved = was[index].current != slot.current;
                    prop_assert_eq!(next.moved.contains(&u32::try_from(index).unwrap()), has_moved);
                    prop_assert!(!has_moved || slot.moving_from().is_some());
                }
            }
        }
    }
}
