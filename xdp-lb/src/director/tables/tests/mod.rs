//! Tables over maps in memory. After each single write the maps are looked at as a packet would see
//! them: every slot of every service leads to a backend of that service.

mod adaptive;
mod fingerprints;
mod flows;
mod fresh;
mod memory;
mod prefixes;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use xdp_lb_common::abi::{NextHop, ServiceEntry, ServiceKey, Slot};

use self::memory::{FEW, MANY, SIZES, watched};
use super::*;
use crate::{
    config::WhenDown,
    director::{
        desired::{DesiredBackend, Health, Origin, mapped},
        keys::Key,
        selection::Standing,
        simulation::Memory,
        ways::Way,
    },
    lookup::Scheduler,
};

const M: u32 = 101;
const GRACE: Duration = Duration::from_secs(900);

fn key(port: u16) -> ServiceKey {
    ServiceKey {
        vip: mapped(address(250)),
        port_be: port.to_be_bytes(),
        protocol: 6,
        reserved: 0,
    }
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn reachable(last: u8) -> (IpAddr, DesiredBackend) {
    let way = Way {
        ifindex: 2,
        mac: [2, 0, 0, 0, 0, last],
        source_mac: [2; 6],
        tags: [0; 2],
        mtu: 1500,
        tunnel: None,
    };
    let backend = DesiredBackend {
        weight: 100,
        draining: false,
        tier: 0,
        origin: Origin::Config,
        way: Ok(way),
        health: Health::Unchecked,
        standing: Standing::InUse,
        weight_in_force: 100,
    };
    (address(last), backend)
}

fn service(name: &str, port: u16, backends: &[u8]) -> DesiredService {
    DesiredService {
        name: name.into(),
        keys: BTreeSet::from([Key::Address(key(port))]),
        flags: ServiceEntry::FLAG_TRACK,
        idle_timeout: GRACE,
        scheduler: Scheduler::Maglev,
        table_size: M,
        backends: backends.iter().map(|&last| reachable(last)).collect(),
        is_panicking: false,
        assumed: None,
    }
}

/// The same with standings and weights as they follow from the rest.
fn judged(desired: &[DesiredService]) -> Vec<DesiredService> {
    let mut desired = desired.to_vec();
    let services = desired.iter_mut();
    for backend in services.flat_map(|service| service.backends.values_mut()) {
        let is_used = backend.way.is_ok() && backend.is_wanted() && backend.health.is_up();
        backend.standing = if is_used {
            Standing::InUse
        } else {
            Standing::Down
        };
        backend.weight_in_force = backend.weight;
    }
    desired
}

/// Maps and tables, and the time.
struct World {
    maps: Memory,
    tables: Tables,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with_buckets(FEW)
    }

    /// With room for flows in 2 to the power of so many buckets.
    fn with_buckets(bits: u32) -> Self {
        let mut maps = watched(bits);
        let now = Instant::now();
        let found = maps.found();
        let tables = Tables::adopt(&mut maps, SIZES, HashKey::DEFAULT, &found, now);
        Self { maps, tables, now }
    }

    fn apply(&mut self, desired: &[DesiredService]) -> BTreeMap<String, Moved> {
        self.try_apply(desired).unwrap()
    }

    fn try_apply(
        &mut self,
        desired: &[DesiredService],
    ) -> Result<BTreeMap<String, Moved>, ChangeError> {
        let desired = judged(desired);
        self.tables.apply(&mut self.maps, &desired, self.now)
    }

    /// As another daemon would take over.
    fn restart(&mut self) {
        let until = self.now + GRACE;
        let found = self.maps.found();
        self.tables = Tables::adopt(&mut self.maps, SIZES, HashKey::DEFAULT, &found, until);
    }
}

#[test]
fn a_service_gets_its_table_and_a_change_moves_few_slots() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2, 3])]);
    assert!(
        world
            .maps
            .table(key(80))
            .iter()
            .all(|slot| slot.is_settled())
    );
    let report = world.apply(&[service("web", 80, &[1, 2, 3, 4])]);
    let shares = world.maps.shares(key(80));
    assert_eq!(shares.len(), 4);
    let new = shares[&address(4)];
    let moved = report["web"].slots_moved;
    assert_eq!(report["web"].table_size, M);
    assert!(
        (new..new + 10).contains(&(moved as usize)),
        "{moved} moved for {new}"
    );
    let moving = world
        .maps
        .table(key(80))
        .iter()
        .filter(|slot| slot.moving_from().is_some())
        .count();
    assert_eq!(moving, moved as usize);
}

#[test]
fn what_does_not_change_is_not_written() {
    let mut world = World::new();
    let desired = [service("web", 80, &[1, 2, 3]), service("dns", 53, &[1])];
    world.apply(&desired);
    let (writes, barriers) = (world.maps.writes, world.maps.barriers.get());
    world.apply(&desired);
    assert_eq!(
        (world.maps.writes, world.maps.barriers.get()),
        (writes, barriers)
    );
    world.restart();
    let before = world.maps.clone();
    let report = world.apply(&desired);
    assert!(report.values().all(|moved| moved.slots_moved == 0));
    assert_eq!(before.plane.slots, world.maps.plane.slots);
    assert_eq!(before.plane.backends, world.maps.plane.backends);
    assert_eq!(before.keys, world.maps.keys);
}

#[test]
fn slots_move_for_the_grace_time_and_rest_then() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    let start = world.now;
    world.apply(&[service("web", 80, &[1, 2, 3])]);
    assert_eq!(
        world.tables.settle(&mut world.maps, start),
        Some(start + GRACE)
    );
    world.now = start + GRACE / 2;
    world.apply(&[service("web", 80, &[1, 2, 3, 4])]);
    let moving = |world: &World| -> BTreeSet<usize> {
        let table = world.maps.table(key(80));
        (0..)
            .zip(table)
            .filter(|(_, slot)| slot.moving_from().is_some())
            .map(|(i, _)| i)
            .collect()
    };
    let all = moving(&world);
    let next = world.tables.settle(&mut world.maps, start + GRACE);
    assert_eq!(next, Some(start + GRACE / 2 + GRACE));
    let later = moving(&world);
    assert!(!later.is_empty() && later.is_subset(&all) && later != all);
    assert_eq!(
        world.tables.settle(&mut world.maps, start + 2 * GRACE),
        None
    );
    assert!(moving(&world).is_empty());
    let table = world.maps.table(key(80));
    assert!(table.iter().all(|slot| slot.is_settled()));
}

#[test]
fn slots_that_are_found_moving_go_on_for_the_grace_time() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    world.apply(&[service("web", 80, &[1, 2, 3])]);
    world.restart();
    world.apply(&[service("web", 80, &[1, 2, 3])]);
    assert_eq!(
        world.tables.settle(&mut world.maps, world.now),
        Some(world.now + GRACE)
    );
}

#[test]
fn a_draining_backend_keeps_serving_and_loses_its_slots() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    let mut drained = service("web", 80, &[1, 2]);
    drained.backends.get_mut(&address(1)).unwrap().draining = true;
    world.apply(&[drained]);
    assert_eq!(
        world.maps.shares(key(80)).into_keys().collect::<Vec<_>>(),
        [address(2)]
    );
    let (_, table) = world.tables.find("web").unwrap();
    let entry = world.maps.backend(table.members[&address(1)]);
    assert!(NextHop::unpack(entry.next_hop).is_serving());
}

#[test]
fn a_backend_without_next_hop_gets_no_slots_until_it_has_one() {
    let mut world = World::new();
    let mut service = service("web", 80, &[1, 2]);
    service.backends.get_mut(&address(1)).unwrap().way = Err("does not answer".into());
    world.apply(std::slice::from_ref(&service));
    assert_eq!(
        world.maps.shares(key(80)).into_keys().collect::<Vec<_>>(),
        [address(2)]
    );
    service.backends.extend([reachable(1)]);
    world.apply(&[service]);
    assert_eq!(world.maps.shares(key(80)).len(), 2);
}

#[test]
fn the_last_backend_takes_the_table_along_and_it_comes_back_mixed() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1])]);
    world.apply(&[service("web", 80, &[])]);
    assert!(world.maps.table(key(80)).is_empty());
    world.apply(&[service("web", 80, &[1])]);
    assert!(
        world
            .maps
            .table(key(80))
            .iter()
            .all(|slot| slot.previous == Slot::MIXED)
    );
}

#[test]
fn an_index_that_is_used_again_has_another_generation() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    for round in 0..40 {
        world.apply(&[service("web", 80, &[1 + round % 2])]);
        let (_, table) = world.tables.find("web").unwrap();
        let index = table.members[&address(1 + round % 2)];
        let generation = world.maps.backend(index).generation;
        assert!(
            generation > 0 && seen.insert((index, generation)),
            "{index} {generation}"
        );
    }
}

#[test]
fn a_service_keeps_its_id_by_name_and_after_a_restart_by_key() {
    let mut world = World::new();
    world.apply(&[service("a", 1, &[1]), service("b", 2, &[2])]);
    let id = |world: &World, name: &str| world.tables.find(name).unwrap().0;
    let (a, b) = (id(&world, "a"), id(&world, "b"));
    // They swap their ports.
    world.apply(&[service("a", 2, &[1]), service("b", 1, &[2])]);
    assert_eq!((id(&world, "a"), id(&world, "b")), (a, b));
    assert_eq!(
        world.maps.service_keys(),
        BTreeMap::from([(key(2), a), (key(1), b)])
    );
    world.restart();
    world.apply(&[service("renamed", 2, &[1]), service("b", 1, &[2])]);
    assert_eq!((id(&world, "renamed"), id(&world, "b")), (a, b));
}

#[test]
fn a_service_that_goes_leaves_nothing_behind() {
    let mut world = World::new();
    world.apply(&[service("a", 1, &[1, 2]), service("b", 2, &[3])]);
    world.apply(&[service("b", 2, &[3])]);
    assert_eq!(
        world.maps.service_keys().keys().collect::<Vec<_>>(),
        [&key(2)]
    );
    assert_eq!(world.maps.keys.len(), 2, "the VIP has a key of its own");
    let in_use = world
        .maps
        .plane
        .backends
        .iter()
        .filter(|entry| entry.address != [0; 16])
        .count();
    assert_eq!(in_use, 1);
    let serving = world
        .maps
        .plane
        .backends
        .iter()
        .filter(|entry| NextHop::unpack(entry.next_hop).is_serving());
    assert_eq!(serving.count(), 1);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    let before = world.maps.clone();
    let many: Vec<u8> = (1..=12).collect();
    let mut wide = service("web", 80, &[1, 2]);
    wide.table_size = 307;
    let five: Vec<_> = (0..5)
        .map(|port| service(&format!("s{port}"), port, &[1]))
        .collect();
    for (desired, expected) in [
        (
            vec![service("web", 80, &many)],
            "backends: 12 are needed, 11 fit",
        ),
        (
            vec![wide],
            "the slots do not fit: 14 more are needed, of 600",
        ),
        (five, "VIPs and ports: 5 are needed, 4 fit"),
    ] {
        let error = world.try_apply(&desired).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert_eq!(before.plane.slots, world.maps.plane.slots);
        assert_eq!(before.keys, world.maps.keys);
    }
    world.apply(&[service("web", 80, &[1, 2, 3])]);
}

#[test]
fn another_affinity_unsettles_every_slot() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    let mut source = service("web", 80, &[1, 2]);
    source.flags |= ServiceEntry::FLAG_SOURCE_AFFINITY;
    let report = world.apply(&[source]);
    assert_eq!(report["web"].slots_moved, 0);
    assert!(
        world
            .maps
            .table(key(80))
            .iter()
            .all(|slot| slot.previous == Slot::MIXED)
    );
}

fn down(then: WhenDown) -> Health {
    let reason = "connect: refused".into();
    Health::Down { reason, then }
}

#[test]
fn a_backend_that_is_down_keeps_its_connections_or_loses_them() {
    for (then, serves) in [(WhenDown::Keep, true), (WhenDown::Move, false)] {
        let mut world = World::new();
        let mut desired = vec![service("web", 80, &[1, 2])];
        world.apply(&desired);
        desired[0].backends.get_mut(&address(1)).unwrap().health = down(then);
        world.apply(&desired);
        assert_eq!(
            world.maps.shares(key(80)).len(),
            1,
            "{then}: new ones go to the other"
        );
        let entries = &world.maps.plane.backends;
        let entry = entries
            .iter()
            .find(|entry| entry.address == mapped(address(1)));
        let next_hop = NextHop::unpack(entry.unwrap().next_hop);
        assert_eq!(next_hop.is_serving(), serves, "{then}");
        let slots = world.maps.table(key(80));
        let remembers = slots
            .iter()
            .any(|slot| slot.moving_from().is_some_and(|from| from != slot.current));
        assert!(remembers, "{then}: old ones are followed there, or will be");
    }
}

/// A random change: which of two services has which backends, and how they are.
fn change() -> impl Strategy<Value = (bool, Vec<(u8, u8)>, bool)> {
    let backends = prop::collection::vec((1u8..6, 0u8..6), 0..5);
    (any::<bool>(), backends, any::<bool>())
}

proptest! {
    #[test]
    fn random_changes_and_restarts_keep_every_promise(changes in prop::collection::vec(change(), 1..25)) {
        let mut world = World::new();
        let mut desired = vec![service("a", 1, &[1]), service("b", 2, &[2])];
        for (second, backends, restart) in changes {
            let at = usize::from(second);
            desired[at].backends = backends.iter().map(|&(last, kind)| {
                let (address, mut backend) = reachable(last);
                match kind {
                    0 => backend.way = Err("gone".into()),
                    1 => backend.draining = true,
                    2 => backend.weight = 7,
                    3 => backend.health = down(WhenDown::Keep),
                    4 => backend.health = down(WhenDown::Move),
                    _ => {}
                }
                (address, backend)
            }).collect();
            if restart {
                world.restart();
            }
            world.now += GRACE / 3;
            world.tables.settle(&mut world.maps, world.now);
            // Reaching the end means that `wrote` found nothing wrong on the way.
            world.apply(&desired);
            for service in &judged(&desired) {
                let candidates: BTreeSet<IpAddr> =
                    service.candidates().iter().map(|candidate| candidate.address).collect();
                let Some(Key::Address(key)) = service.keys.first().copied() else { panic!() };
                let in_table: BTreeSet<IpAddr> = world.maps.shares(key).into_keys().collect();
                prop_assert_eq!(in_table, candidates);
            }
            let entries = world.maps.plane.backends.iter().filter(|entry| entry.address != [0; 16]);
            let members: usize = desired.iter().map(|service| service.backends.len()).sum();
            prop_assert_eq!(entries.count(), members);
        }
    }
}
