//! What a fresh director assumes of a service's slots.
//!
//! Connections may have been made before this director began, by others that share the VIP. Which backend they
//! are at is told by the table that those had, and that is the table of all backends that are wanted, as long as
//! nothing else is known. A backend that does not answer *yet* says nothing of the past: slots that go to
//! another one for now move, from it.

use xdp_lb_common::abi::Slot;

/// The slots of a table that was whole, by the backend of each slot.
pub(super) fn slots(table: &[u16]) -> Vec<Slot> {
    let settled = |&current: &u16| Slot {
        current,
        previous: 0,
    };
    table.iter().map(settled).collect()
}

/// `held`, once a backend that was assumed to have been in use turns out not to be: slots that know nothing
/// but the assumption have the new one. `before` and `now` are the assumed tables, and may be of another size
/// than the slots after a change of the config; then what was assumed stays.
pub(super) fn withdraw(held: &[Slot], before: &[u16], now: &[u16]) -> Vec<Slot> {
    let mut slots = held.to_vec();
    if before.len() != held.len() || now.len() != held.len() {
        return slots;
    }
    for ((slot, &before), &now) in slots.iter_mut().zip(before).zip(now) {
        let is_assumed = match slot.moving_from() {
            Some(previous) => previous == before,
            None => slot.current == before,
        };
        if is_assumed && before != now {
            slot.previous = if now == slot.current {
                // Openings may be remembered, and are to be looked for.
                Slot::MIXED
            } else {
                now
            };
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u16 = 1;
    const B: u16 = 2;
    const C: u16 = 3;

    fn slot(current: u16, previous: u16) -> Slot {
        Slot { current, previous }
    }

    fn one(held: Slot, before: u16, now: u16) -> Slot {
        withdraw(&[held], &[before], &[now])[0]
    }

    #[test]
    fn what_was_assumed_is_withdrawn_and_what_is_known_is_not() {
        let mixed = Slot::MIXED;
        for (held, before, now, expected, why) in [
            (slot(A, B), B, A, slot(A, mixed), "it was never at B"),
            (slot(A, B), B, C, slot(A, C), "it was at C"),
            (slot(A, 0), A, C, slot(A, C), "it was at C, and goes to A"),
            (slot(A, 0), A, A, slot(A, 0), "nothing has changed"),
            (slot(A, C), B, A, slot(A, C), "it has moved from C since"),
            (
                slot(A, mixed),
                A,
                C,
                slot(A, C),
                "it was at C, not at A as was assumed last",
            ),
            (slot(A, mixed), B, C, slot(A, mixed), "it has settled since"),
            (slot(0, B), B, A, slot(0, A), "nobody gets new ones yet"),
            (
                slot(B, B),
                B,
                A,
                slot(B, A),
                "it has come, and was not there",
            ),
        ] {
            assert_eq!(one(held, before, now), expected, "{why}");
        }
    }

    #[test]
    fn tables_of_another_size_withdraw_nothing() {
        let held = [slot(A, B), slot(A, 0)];
        assert_eq!(withdraw(&held, &[B], &[A]), held);
        assert_eq!(withdraw(&held, &[B, A], &[]), held);
    }
}
