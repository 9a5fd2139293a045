//! Services that other directors have had before: what their slots remember.

use super::*;
use crate::lookup::Candidate;

/// A fresh service whose backends are `assumed` to have been in use, of which only some can serve.
fn fresh(wanted: &[u8], usable: &[u8], assumed: Option<&[u8]>) -> DesiredService {
    let mut service = service("web", 80, wanted);
    for (address, backend) in &mut service.backends {
        if !usable.iter().any(|&last| super::address(last) == *address) {
            backend.way = Err("does not answer ARP".into());
        }
    }
    let candidate = |&last: &u8| Candidate {
        address: address(last),
        weight: 100,
    };
    service.assumed = assumed.map(|all| all.iter().map(candidate).collect());
    service
}

/// The current and the previous backend of each slot, by the last byte of their addresses.
fn slots(world: &World) -> Vec<(Option<u8>, Option<u8>)> {
    let last = |index: u16| {
        let address = (index != 0).then(|| unmapped(world.maps.backend(index).address))?;
        match address {
            IpAddr::V4(address) => Some(address.octets()[3]),
            IpAddr::V6(_) => unreachable!(),
        }
    };
    let table = world.maps.table(key(80));
    table
        .iter()
        .map(|slot| (last(slot.current), slot.moving_from().and_then(last)))
        .collect()
}

/// The table of these backends.
fn whole(backends: &[u8]) -> Vec<u8> {
    let mut world = World::new();
    world.apply(&[service("web", 80, backends)]);
    let slots = slots(&world).into_iter();
    slots.map(|(current, _)| current.unwrap()).collect()
}

#[test]
fn a_backend_that_is_not_known_yet_keeps_its_connections() {
    let expected = whole(&[1, 2, 3]);
    let mut world = World::new();
    let moved = world.apply(&[fresh(&[1, 2, 3], &[1, 2], Some(&[1, 2, 3]))]);
    assert_eq!(moved["web"].slots_moved, 0);
    for ((current, previous), was) in slots(&world).into_iter().zip(&expected) {
        assert_ne!(current, Some(3));
        let expected = (current != Some(*was)).then_some(*was);
        assert_eq!(previous, expected);
    }
    // It is found, and no slot has ever been another's.
    world.apply(&[fresh(&[1, 2, 3], &[1, 2, 3], Some(&[1, 2, 3]))]);
    for ((current, previous), was) in slots(&world).into_iter().zip(&expected) {
        assert_eq!(current, Some(*was));
        assert!(previous.is_none_or(|previous| previous == *was));
    }
    world.apply(&[fresh(&[1, 2, 3], &[1, 2, 3], None)]);
    assert!(
        slots(&world)
            .iter()
            .all(|(current, previous)| previous.is_none() || previous == current)
    );
    // After the time of silence no trace of it is left.
    world.now += GRACE;
    world.tables.settle(&mut world.maps, world.now);
    world.now += Duration::from_secs(11);
    world.tables.settle(&mut world.maps, world.now);
    assert!(
        world
            .maps
            .table(key(80))
            .iter()
            .all(|slot| slot.is_settled())
    );
}

#[test]
fn with_nobody_known_the_slots_know_all_the_same() {
    let expected = whole(&[1, 2, 3]);
    let mut world = World::new();
    world.apply(&[fresh(&[1, 2, 3], &[], Some(&[1, 2, 3]))]);
    for ((current, previous), was) in slots(&world).into_iter().zip(&expected) {
        assert_eq!((current, previous), (None, Some(*was)));
    }
    for usable in [&[2][..], &[1, 2], &[1, 2, 3]] {
        world.apply(&[fresh(&[1, 2, 3], usable, Some(&[1, 2, 3]))]);
        for ((_, previous), was) in slots(&world).into_iter().zip(&expected) {
            assert_eq!(previous, Some(*was));
        }
    }
}

#[test]
fn one_that_is_found_down_never_had_any() {
    let expected = whole(&[1, 2]);
    let mut world = World::new();
    world.apply(&[fresh(&[1, 2, 3], &[1, 2], Some(&[1, 2, 3]))]);
    world.apply(&[fresh(&[1, 2, 3], &[1, 2], Some(&[1, 2]))]);
    world.apply(&[fresh(&[1, 2, 3], &[1, 2], None)]);
    for ((current, previous), was) in slots(&world).into_iter().zip(&expected) {
        assert_eq!((current, previous), (Some(*was), None));
    }
    // When it comes, it is new.
    world.apply(&[fresh(&[1, 2, 3], &[1, 2, 3], None)]);
    for ((current, previous), was) in slots(&world).into_iter().zip(&expected) {
        assert_eq!(previous, (current != Some(*was)).then_some(*was));
    }
}

#[test]
fn one_that_is_added_meanwhile_takes_slots_from_the_others() {
    let expected = whole(&[1, 2]);
    let mut world = World::new();
    world.apply(&[fresh(&[1, 2], &[1, 2], Some(&[1, 2]))]);
    world.apply(&[fresh(&[1, 2, 3], &[1, 2, 3], Some(&[1, 2]))]);
    for ((current, previous), was) in slots(&world).into_iter().zip(&expected) {
        assert_eq!(previous, (current != Some(*was)).then_some(*was));
    }
}

#[test]
fn a_service_that_does_not_track_assumes_nothing() {
    let mut world = World::new();
    let mut service = fresh(&[1, 2, 3], &[1, 2], Some(&[1, 2, 3]));
    service.flags = 0;
    world.apply(&[service.clone()]);
    assert!(
        world
            .maps
            .table(key(80))
            .iter()
            .all(|slot| slot.previous == 0 && slot.current != 0)
    );
    service.assumed = Some(Vec::new());
    world.apply(&[service]);
    assert!(
        world
            .maps
            .table(key(80))
            .iter()
            .all(|slot| slot.previous == 0)
    );
}

proptest! {
    /// Backends are found in any order, or not to be there; whoever is found to have been in use has its
    /// connections, whatever the slots were meanwhile.
    #[test]
    fn in_the_end_the_past_is_that_of_those_that_were_there(
        steps in proptest::collection::vec((1_u8..6, any::<bool>()), 0..12),
    ) {
        let all = [1, 2, 3, 4, 5];
        let mut world = World::new();
        let (mut usable, mut assumed) = (Vec::new(), all.to_vec());
        world.apply(&[fresh(&all, &usable, Some(&assumed))]);
        for (last, is_there) in steps {
            if usable.contains(&last) || !assumed.contains(&last) {
                continue;
            }
            if is_there {
                usable.push(last);
            } else {
                assumed.retain(|it| *it != last);
            }
            world.apply(&[fresh(&all, &usable, Some(&assumed))]);
        }
        if assumed.is_empty() {
            return Ok(());
        }
        let expected = whole(&assumed);
        for ((current, previous), was) in slots(&world).into_iter().zip(expected) {
            // What a packet without SYN follows that nobody remembers.
            prop_assert_eq!(previous.or(current), Some(was));
        }
    }
}
