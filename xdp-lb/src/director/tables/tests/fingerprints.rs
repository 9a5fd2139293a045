//! Fingerprints: the same where directors agree, others where they do not.

use xdp_lb_common::abi::PrefixKey;

use super::*;
use crate::director::tables::Fingerprint;

fn fingerprint(world: &World, name: &str) -> Fingerprint {
    let (_, table) = world.tables.find(name).unwrap();
    let slots = world.maps.slots(table.region());
    world.tables.fingerprint(table, &slots)
}

fn of(desired: DesiredService) -> Fingerprint {
    let mut world = World::new();
    let name = desired.name.clone();
    world.apply(&[desired]);
    fingerprint(&world, &name)
}

#[test]
fn it_depends_on_what_the_tables_are_and_not_on_how_they_came_about() {
    let mut straight = World::new();
    straight.apply(&[service("web", 80, &[1, 2, 3]), service("dns", 53, &[4])]);
    let mut detour = World::new();
    detour.apply(&[service("dns", 53, &[3, 4])]);
    detour.apply(&[service("dns", 53, &[4]), service("web", 80, &[9, 3])]);
    detour.apply(&[service("dns", 53, &[4]), service("web", 80, &[3, 2, 1])]);
    let (_, table) = detour.tables.find("web").unwrap();
    let (_, other) = straight.tables.find("web").unwrap();
    assert_ne!(table.members, other.members, "the indices differ");
    assert_ne!(detour.maps.table(key(80)), straight.maps.table(key(80)));
    for name in ["web", "dns"] {
        assert_eq!(fingerprint(&detour, name), fingerprint(&straight, name));
    }
    let before = fingerprint(&detour, "web");
    detour.restart();
    detour.apply(&[service("dns", 53, &[4]), service("web", 80, &[3, 2, 1])]);
    assert_eq!(fingerprint(&detour, "web"), before);
}

#[test]
fn each_slot_counts() {
    let mut world = World::new();
    world.apply(&[service("web", 80, &[1, 2])]);
    let (_, table) = world.tables.find("web").unwrap();
    let (one, two) = (table.members[&address(1)], table.members[&address(2)]);
    let slots = world.maps.slots(table.region());
    let mut seen = BTreeSet::from([world.tables.fingerprint(table, &slots)]);
    for at in 0..slots.len() {
        let mut changed = slots.clone();
        changed[at].current = if slots[at].current == one { two } else { one };
        assert!(
            seen.insert(world.tables.fingerprint(table, &changed)),
            "{at}"
        );
        // What it remembers is another matter.
        let mut moving = slots.clone();
        moving[at].previous = two;
        assert!(!seen.insert(world.tables.fingerprint(table, &moving)));
    }
    assert!(seen.insert(world.tables.fingerprint(table, &slots[1..])));
}

#[test]
fn all_that_decides_where_a_connection_goes_counts() {
    let plain = service("web", 80, &[1, 2]);
    let prefix = |length| Key::Prefix {
        key: PrefixKey {
            protocol: 6,
            version: 4,
            port_be: 80u16.to_be_bytes(),
            address: mapped([10, 1, 0, 0].into()),
        },
        length,
    };
    let with_key = |key| DesiredService {
        keys: BTreeSet::from([key]),
        ..plain.clone()
    };
    let with_flags = |flags| DesiredService {
        flags,
        ..plain.clone()
    };
    let mut weighted = plain.clone();
    weighted.backends.get_mut(&address(2)).unwrap().weight = 50;
    let udp = ServiceKey {
        protocol: 17,
        ..key(80)
    };
    let source = ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_SOURCE_AFFINITY;
    let all = [
        plain.clone(),
        service("api", 80, &[1, 2]),
        service("web", 81, &[1, 2]),
        service("web", 80, &[1, 3]),
        service("web", 80, &[]),
        weighted,
        with_key(Key::Address(udp)),
        with_key(prefix(112)),
        with_key(prefix(113)),
        with_flags(source),
    ];
    let count = all.len();
    let different: BTreeSet<_> = all.into_iter().map(of).collect();
    assert_eq!(different.len(), count);
    assert_eq!(of(with_flags(0)), of(plain), "tracking decides nothing");
}

#[test]
fn another_key_of_flows_makes_another_fingerprint_of_the_same_table() {
    let fingerprint = |hash_key| {
        let mut maps = watched(FEW);
        let now = Instant::now();
        let found = maps.found();
        let tables = Tables::adopt(&mut maps, SIZES, hash_key, &found, now);
        let mut world = World { maps, tables, now };
        let modulo = DesiredService {
            scheduler: Scheduler::Modulo,
            ..service("web", 80, &[1, 2])
        };
        world.apply(&[modulo]);
        (world.maps.table(key(80)), fingerprint(&world, "web"))
    };
    let (table, one) = fingerprint(HashKey::DEFAULT);
    let (same, other) = fingerprint(HashKey([1, 2]));
    assert_eq!(table, same);
    assert_ne!(one, other);
}

#[test]
fn that_of_all_tells_services_apart_and_forgets_their_order() {
    let (web, dns) = (of(service("web", 80, &[1])), of(service("dns", 53, &[1])));
    let all = Fingerprint::of_all([("web", web), ("dns", dns)]);
    assert_eq!(all, Fingerprint::of_all([("dns", dns), ("web", web)]));
    let others = [
        Fingerprint::of_all([("web", dns), ("dns", web)]),
        Fingerprint::of_all([("web", web)]),
        Fingerprint::of_all([]),
    ];
    for other in others {
        assert_ne!(all, other);
    }
    assert_eq!(all.to_string().len(), 16);
}
