//! Handing out backend indices, those that were given back last, last: whoever looks at counters by index has
//! time to notice.

use std::collections::{HashSet, VecDeque};

use xdp_lb_common::abi::Slot;

/// Which indices are free.
#[derive(Debug, Default)]
pub(super) struct Indices {
    /// Free ones, the next to be handed out first.
    free: VecDeque<u16>,
}

impl Indices {
    /// The indices of a map of `size` entries but for those in use; 0 means none and is not one.
    pub(super) fn new(size: u32, in_use: &HashSet<u16>) -> Self {
        let end = u16::try_from(size).unwrap_or(Slot::MIXED);
        Self {
            free: (1..end).filter(|index| !in_use.contains(index)).collect(),
        }
    }

    /// Takes an index; None where all are in use.
    pub(super) fn allocate(&mut self) -> Option<u16> {
        self.free.pop_front()
    }

    /// Gives an index back.
    pub(super) fn release(&mut self, index: u16) {
        self.free.push_back(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_the_mark_of_mixed_slots_are_never_handed_out() {
        let mut indices = Indices::new(u32::MAX, &HashSet::new());
        let all: Vec<u16> = std::iter::from_fn(|| indices.allocate()).collect();
        assert_eq!(
            (all.first(), all.last()),
            (Some(&1), Some(&(Slot::MIXED - 1)))
        );
        assert_eq!(Indices::new(1, &HashSet::new()).allocate(), None);
        assert_eq!(Indices::new(0, &HashSet::new()).allocate(), None);
    }

    #[test]
    fn an_index_given_back_is_the_last_to_be_used_again() {
        let mut indices = Indices::new(4, &HashSet::from([2]));
        assert_eq!(indices.allocate(), Some(1));
        indices.release(1);
        assert_eq!(indices.allocate(), Some(3));
        assert_eq!(indices.allocate(), Some(1));
        assert_eq!(indices.allocate(), None);
    }
}
