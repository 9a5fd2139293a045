//! Handing out regions of the slot arena to lookup tables: first fit, neighbours joined on release.

use std::collections::BTreeMap;

use xdp_lb_common::abi::TableRef;

/// Which parts of the arena are free.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    /// Free regions: offset → size, never empty, never touching.
    free: BTreeMap<u32, u32>,
}

impl Arena {
    /// An arena of `size` slots, all free.
    pub(super) fn new(size: u32) -> Self {
        let free = if size == 0 {
            BTreeMap::new()
        } else {
            BTreeMap::from([(0, size)])
        };
        Self { free }
    }

    /// Takes a region of `size` slots; None where none is large enough.
    pub(super) fn allocate(&mut self, size: u32) -> Option<TableRef> {
        let (&offset, _) = self.free.iter().find(|&(_, &free)| free >= size)?;
        let region = TableRef { offset, size };
        self.claim(region).then_some(region)
    }

    /// Takes this region, as one found in use; false, and nothing taken, where it is not all free.
    pub(super) fn claim(&mut self, region: TableRef) -> bool {
        let TableRef { offset, size } = region;
        if size == 0 {
            return true;
        }
        let Some((&start, &length)) = self.free.range(..=offset).next_back() else {
            return false;
        };
        let (end, free_end) = (
            u64::from(offset) + u64::from(size),
            u64::from(start) + u64::from(length),
        );
        if end > free_end {
            return false;
        }
        self.free.remove(&start);
        if start < offset {
            self.free.insert(start, offset - start);
        }
        if end < free_end {
            // Both fit 32 bits: they lie within the arena.
            self.free
                .insert(offset + size, start + length - (offset + size));
        }
        true
    }

    /// Gives a region back.
    pub(super) fn release(&mut self, region: TableRef) {
        let TableRef {
            mut offset,
            mut size,
        } = region;
        if size == 0 {
            return;
        }
        if let Some(next) = self.free.remove(&(offset + size)) {
            size += next;
        }
        if let Some((&start, &length)) = self.free.range(..offset).next_back()
            && start + length == offset
        {
            self.free.remove(&start);
            offset = start;
            size += length;
        }
        self.free.insert(offset, size);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(offset: u32, size: u32) -> TableRef {
        TableRef { offset, size }
    }

    #[test]
    fn regions_come_from_the_first_gap_that_fits() {
        let mut arena = Arena::new(100);
        assert_eq!(arena.allocate(40), Some(region(0, 40)));
        assert_eq!(arena.allocate(40), Some(region(40, 40)));
        assert_eq!(arena.allocate(40), None);
        assert_eq!(arena.allocate(20), Some(region(80, 20)));
        assert_eq!(arena.allocate(1), None);
        arena.release(region(0, 40));
        arena.release(region(80, 20));
        assert_eq!(arena.allocate(41), None);
        arena.release(region(40, 40));
        assert_eq!(arena.allocate(100), Some(region(0, 100)));
    }

    #[test]
    fn a_region_in_use_cannot_be_claimed_again() {
        let mut arena = Arena::new(100);
        assert!(arena.claim(region(10, 20)));
        assert!(!arena.claim(region(10, 20)));
        assert!(!arena.claim(region(29, 1)));
        assert!(!arena.claim(region(0, 11)));
        assert!(!arena.claim(region(90, 11)));
        assert!(!arena.claim(region(u32::MAX, u32::MAX)));
        assert!(arena.claim(region(30, 70)));
        assert!(arena.claim(region(0, 10)));
        assert_eq!(arena.allocate(1), None);
    }

    #[test]
    fn an_empty_arena_has_nothing_to_give() {
        assert_eq!(Arena::new(0).allocate(1), None);
    }

    proptest! {
        #[test]
        fn regions_never_overlap_and_all_come_back(sizes in prop::collection::vec((1u32..50, any::<bool>()), 1..60)) {
            let mut arena = Arena::new(500);
            let mut held: Vec<TableRef> = Vec::new();
            for (size, release) in sizes {
                if release && !held.is_empty() {
                    arena.release(held.swap_remove(usize::try_from(size).unwrap() % held.len()));
                } else if let Some(new) = arena.allocate(size) {
                    for other in &held {
                        prop_assert!(new.offset + new.size <= other.offset || other.offset + other.size <= new.offset);
                    }
                    prop_assert!(new.offset + new.size <= 500);
                    held.push(new);
                }
            }
            held.into_iter().for_each(|region| arena.release(region));
            prop_assert_eq!(arena.allocate(500), Some(region(0, 500)));
        }
    }
}
