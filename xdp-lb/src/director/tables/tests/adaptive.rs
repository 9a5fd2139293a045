//! Services that track adaptively: slots that come to rest, tables without a backend for new connections, and
//! changes that have to wait.

use xdp_lb_common::{
    abi::{FlowEntry, Place},
    hash::reduce,
};

use super::*;

const FLAGS: u32 = ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_ADAPTIVE;

fn adaptive(backends: &[u8]) -> DesiredService {
    DesiredService {
        flags: FLAGS,
        ..service("web", 80, backends)
    }
}

impl World {
    fn index(&self, last: u8) -> u16 {
        self.tables.find("web").unwrap().1.members[&address(last)]
    }

    fn web(&self) -> Vec<Slot> {
        self.maps.table(key(80))
    }

    fn flags(&self) -> u32 {
        self.tables.find("web").unwrap().1.entry.flags
    }

    fn is_at_rest(&self) -> bool {
        let (id, table) = self.tables.find("web").unwrap();
        let entry = self.maps.service(id);
        assert_eq!(entry, table.entry);
        TableRef::is_at_rest(entry.table)
    }

    fn settle_at(&mut self, now: Instant) -> Option<Instant> {
        self.now = now;
        self.tables.settle(&mut self.maps, now)
    }
}

/// A hash that leads to a slot, from the middle of its range.
fn hash_of(slot: usize) -> u64 {
    let middle = 2 * u128::try_from(slot).unwrap() + 1;
    let hash = u64::try_from((middle << 63) / u128::from(M)).unwrap();
    assert_eq!(usize::try_from(reduce(hash, M)), Ok(slot));
    hash
}

/// A table of two backends, a third one that is added, and the first slot that moved to it.
fn moved() -> (World, usize, Instant) {
    let mut world = World::new();
    world.apply(&[adaptive(&[1, 2])]);
    world.apply(&[adaptive(&[1, 2, 3])]);
    let moved = world.web().iter().position(|slot| !slot.is_settled());
    let after = world.now + GRACE;
    (world, moved.expect("some move"), after)
}

#[test]
fn slots_come_to_rest_when_no_flow_disagrees_with_them() {
    let (mut world, slot, after) = moved();
    let old = world.web()[slot].moving_from().unwrap();
    let place = Place::of(hash_of(slot), FEW);
    let entry = FlowEntry::new(place.fingerprint, old, 0);
    world.maps.put_flow(place, entry);
    let next = world.settle_at(after).expect("one slot is left");
    let unsettled: Vec<usize> = unsettled(&world.web());
    assert!(unsettled.contains(&slot), "{unsettled:?}");
    assert!(
        unsettled.len() <= 2,
        "a place may be of two slots: {unsettled:?}"
    );
    // Its flow is over.
    world.maps.forget_all();
    assert_eq!(
        world.settle_at(after),
        Some(next),
        "it is not looked all the time"
    );
    assert_eq!(world.settle_at(next), None);
    assert!(self::unsettled(&world.web()).is_empty());
}

fn unsettled(slots: &[Slot]) -> Vec<usize> {
    let slots = slots.iter().enumerate();
    slots
        .filter(|(_, slot)| !slot.is_settled())
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn flows_that_agree_or_are_over_keep_no_slot_from_resting() {
    let (mut world, slot, after) = moved();
    let held = world.web()[slot];
    let place = Place::of(hash_of(slot), FEW);
    let agrees = FlowEntry::new(place.fingerprint, held.current, 0);
    // The maps in memory are in period 0, and count seconds.
    let over = FlowEntry::new(place.fingerprint, held.moving_from().unwrap(), 0)
        .seen_in(0_u32.wrapping_sub(901));
    let closing = over.seen_in(0_u32.wrapping_sub(61)).closing();
    let opening = FlowEntry::opening(place.fingerprint, held.moving_from().unwrap(), 0)
        .seen_in(0_u32.wrapping_sub(131));
    for entry in [agrees, over, closing, opening] {
        world.maps.put_flow(place, entry);
    }
    assert_eq!(world.settle_at(after), None);
    assert!(unsettled(&world.web()).is_empty());
}

#[test]
fn with_affinity_to_the_source_any_flow_may_be_of_any_slot() {
    let mut world = World::new();
    let by_source = |backends: &[u8]| DesiredService {
        flags: FLAGS | ServiceEntry::FLAG_SOURCE_AFFINITY,
        ..adaptive(backends)
    };
    world.apply(&[by_source(&[1, 2])]);
    world.apply(&[by_source(&[1, 2, 3])]);
    let moving = unsettled(&world.web());
    let place = Place::of(0, FEW);
    let entry = FlowEntry::new(place.fingerprint, world.index(1), 0);
    world.maps.put_flow(place, entry);
    world.settle_at(world.now + GRACE);
    let slots = world.web();
    let at_the_first = world.index(1);
    let disagree = moving
        .into_iter()
        .filter(|&slot| slots[slot].current != at_the_first);
    assert_eq!(unsettled(&slots), disagree.collect::<Vec<_>>());
}

#[test]
fn slots_of_a_service_that_remembers_all_flows_come_to_rest_as_well() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    world.apply(&[service("web", 80, &[1, 2, 3])]);
    let slot = world.web().iter().position(|slot| !slot.is_settled());
    let slot = slot.expect("some move");
    let place = Place::of(hash_of(slot), FEW);
    let old = world.web()[slot].moving_from().unwrap();
    let entry = FlowEntry::new(place.fingerprint, old, 0);
    world.maps.put_flow(place, entry);
    let next = world.settle_at(world.now + GRACE).expect("one is left");
    assert!(unsettled(&world.web()).contains(&slot));
    assert!(!world.is_at_rest());
    world.maps.forget_all();
    assert_eq!(world.settle_at(next), None);
    assert!(unsettled(&world.web()).is_empty());
    assert!(world.is_at_rest());
}

#[test]
fn a_service_that_remembers_nothing_has_no_slots_that_move() {
    let mut world = World::new();
    let off = |backends: &[u8]| DesiredService {
        flags: 0,
        ..service("web", 80, backends)
    };
    world.apply(&[off(&[1, 2])]);
    world.apply(&[off(&[1, 2, 3])]);
    assert!(unsettled(&world.web()).is_empty());
    assert!(!world.is_at_rest(), "packets may still read the old table");
    assert_eq!(world.settle_at(world.now), None);
    assert!(world.is_at_rest());
}

#[test]
fn flows_that_are_over_are_forgotten_in_time() {
    let mut world = World::with_buckets(MANY);
    world.apply(&[adaptive(&[1])]);
    let index = world.index(1);
    // The maps in memory count seconds.
    world.maps.plane.flows.period = 100_000;
    let entry = |bucket: u32, silence: u32| {
        let place = Place {
            bucket,
            fingerprint: 7,
        };
        (place, FlowEntry::new(7, index, 100_000 - silence))
    };
    let last = (1 << MANY) - 1;
    for (place, entry) in [entry(0, 899), entry(1, 902), entry(last, 902)] {
        world.maps.put_flow(place, entry);
    }
    let mut next = world.tables.forget_over(&mut world.maps, world.now);
    assert_eq!(world.maps.flows().len(), 3, "there is time");
    let mut held = vec![world.maps.flows().len()];
    while next <= world.now + Duration::from_secs(3601) {
        assert_eq!(
            world
                .tables
                .forget_over(&mut world.maps, next - Duration::from_secs(1)),
            next
        );
        next = world.tables.forget_over(&mut world.maps, next);
        held.push(world.maps.flows().len());
    }
    held.dedup();
    assert_eq!(held, [3, 2, 1], "a part of the table at a time");
    assert_eq!(world.maps.flows(), [entry(0, 899)]);
}

#[test]
fn a_table_that_changes_is_not_at_rest() {
    let mut world = World::new();
    world.apply(&[adaptive(&[1, 2])]);
    world.settle_at(world.now);
    assert!(world.is_at_rest());
    let barriers = world.maps.barriers.get();
    assert_eq!(world.settle_at(world.now), None);
    assert_eq!(
        world.maps.barriers.get(),
        barriers,
        "there is nothing to do"
    );
    world.apply(&[adaptive(&[1, 2, 3])]);
    assert!(!world.is_at_rest());
    let after = world.now + GRACE;
    world.settle_at(after);
    assert!(world.is_at_rest());
}

#[test]
fn a_backend_that_was_gone_for_a_while_gets_its_silent_connections_back() {
    let mut world = World::new();
    world.apply(&[adaptive(&[1, 2])]);
    let before = world.web();
    let mut down = adaptive(&[1, 2]);
    down.backends.get_mut(&address(1)).unwrap().way = Err("no next hop".into());
    world.apply(&[down]);
    world.apply(&[adaptive(&[1, 2])]);
    let first = world.index(1);
    for (before, now) in before.iter().zip(world.web()) {
        assert_eq!(now.current, before.current);
        if before.current == first {
            assert_eq!(now.moving_from(), Some(first), "nobody need remember them");
        }
    }
}

#[test]
fn where_all_drain_their_slots_remember_them() {
    let mut world = World::new();
    world.apply(&[adaptive(&[1, 2])]);
    let before = world.web();
    let mut drained = adaptive(&[1, 2]);
    drained
        .backends
        .values_mut()
        .for_each(|it| it.draining = true);
    world.apply(&[drained]);
    let now = world.web();
    assert_eq!(now.len(), before.len());
    for (now, before) in now.iter().zip(&before) {
        assert_eq!((now.current, now.moving_from()), (0, Some(before.current)));
    }
    world.apply(&[adaptive(&[1, 2])]);
    let current = |slots: &[Slot]| slots.iter().map(|slot| slot.current).collect::<Vec<_>>();
    assert_eq!(current(&world.web()), current(&before));
}

#[test]
fn another_size_waits_until_all_flows_are_remembered() {
    let mut world = World::new();
    world.apply(&[adaptive(&[1, 2])]);
    let larger = DesiredService {
        table_size: 251,
        ..adaptive(&[1, 2])
    };
    world.apply(std::slice::from_ref(&larger));
    assert_eq!(world.web().len(), 101);
    assert_eq!(world.flags(), ServiceEntry::FLAG_TRACK);
    let due = world.now + GRACE;
    assert_eq!(world.tables.next_change(), Some(due));
    // Meanwhile tables change as ever.
    let third = DesiredService {
        table_size: 251,
        ..adaptive(&[1, 2, 3])
    };
    world.now += GRACE / 2;
    world.apply(std::slice::from_ref(&third));
    assert_eq!(world.tables.next_change(), Some(due));
    assert_eq!(world.web().len(), 101);
    assert!(
        world
            .web()
            .iter()
            .any(|slot| slot.current == world.index(3))
    );
    world.now = due;
    world.apply(&[third]);
    assert_eq!((world.web().len(), world.flags()), (251, FLAGS));
    assert_eq!(world.tables.next_change(), None);
    assert_eq!(unsettled(&world.web()).len(), 251);
}

#[test]
fn what_was_not_remembered_is_not_forgotten_about_by_remembering_all() {
    for flags in [0, FLAGS] {
        flows_of_before_are_waited_for(flags);
    }
}

fn flows_of_before_are_waited_for(flags: u32) {
    let mut world = World::new();
    let before = DesiredService {
        flags,
        ..adaptive(&[1, 2])
    };
    world.apply(&[before]);
    let full = service("web", 80, &[1, 2]);
    let larger = DesiredService {
        table_size: 251,
        ..full.clone()
    };
    // From the last moment on in which flows were not remembered.
    let due = world.now + GRACE;
    world.apply(&[full]);
    world.now += GRACE / 2;
    world.apply(std::slice::from_ref(&larger));
    assert_eq!(world.web().len(), 101);
    assert_eq!(world.tables.next_change(), Some(due));
    world.now = due;
    world.apply(std::slice::from_ref(&larger));
    assert_eq!(world.web().len(), 251);
    // What was before is not known then.
    world.restart();
    let smaller = service("web", 80, &[1, 2]);
    world.apply(&[smaller]);
    assert_eq!(world.web().len(), 251);
    assert_eq!(world.tables.next_change(), Some(due + GRACE));
}

#[test]
fn flows_that_nobody_remembers_keep_their_slots_when_no_backend_is_left_for_new_ones() {
    for flags in [ServiceEntry::FLAG_TRACK, FLAGS] {
        let mut world = World::new();
        let mut desired = DesiredService {
            flags,
            ..adaptive(&[1])
        };
        world.apply(std::slice::from_ref(&desired));
        let index = world.index(1);
        let backend = desired.backends.get_mut(&address(1));
        backend.expect("the only one").draining = true;
        world.apply(&[desired]);
        let slots = world.web();
        assert_eq!(slots.len(), 101);
        assert!(slots.iter().all(|slot| slot.moving_from() == Some(index)));
    }
}

#[test]
fn a_change_that_is_taken_back_waits_for_nothing() {
    let mut world = World::new();
    world.apply(&[adaptive(&[1, 2])]);
    let larger = DesiredService {
        table_size: 251,
        ..adaptive(&[1, 2])
    };
    world.apply(&[larger]);
    world.apply(&[adaptive(&[1, 2])]);
    assert_eq!(world.tables.next_change(), None);
    assert_eq!((world.web().len(), world.flags()), (101, FLAGS));
}
