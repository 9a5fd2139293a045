//! Services whose VIPs are prefixes.

use xdp_lb_common::abi::PrefixKey;

use super::*;

const LENGTH: u32 = 96 + 16;

fn prefix(port: u16) -> PrefixKey {
    PrefixKey {
        protocol: 6,
        version: 4,
        port_be: port.to_be_bytes(),
        address: mapped([10, 1, 0, 0].into()),
    }
}

fn prefix_service(name: &str, port: u16) -> DesiredService {
    DesiredService {
        keys: BTreeSet::from([Key::Prefix {
            key: prefix(port),
            length: LENGTH,
        }]),
        ..service(name, port, &[1])
    }
}

#[test]
fn a_prefix_leads_to_its_service_and_is_known_without_ports() {
    let mut world = World::new();
    world.apply(&[prefix_service("web", 80), prefix_service("tls", 443)]);
    let id = |name| world.tables.find(name).unwrap().0;
    let mere = PrefixKey {
        protocol: 0,
        ..prefix(0)
    };
    let expected = [
        ((mere, LENGTH), ServiceKey::VIP),
        ((prefix(80), LENGTH), id("web")),
        ((prefix(443), LENGTH), id("tls")),
    ];
    assert_eq!(world.maps.prefixes, BTreeMap::from(expected));
    assert!(world.maps.keys.is_empty());

    world.apply(&[prefix_service("web", 80)]);
    let left: Vec<_> = world.maps.prefixes.into_keys().collect();
    assert_eq!(left, [(mere, LENGTH), (prefix(80), LENGTH)]);
}

#[test]
fn a_service_that_is_found_by_its_prefix_keeps_its_id_and_table() {
    let mut world = World::new();
    let desired = [service("first", 1, &[1]), prefix_service("web", 80)];
    world.apply(&desired);
    let (id, _) = world.tables.find("web").unwrap();
    world.restart();
    let before = world.maps.clone();
    let report = world.apply(&desired[1..]);
    assert_eq!(world.tables.find("web").unwrap().0, id);
    assert_eq!(report["web"].slots_moved, 0);
    assert_eq!(before.prefixes, world.maps.prefixes);
    world.apply(&[]);
    assert!(world.maps.prefixes.is_empty() && world.maps.keys.is_empty());
}

#[test]
fn another_length_is_another_key() {
    let mut world = World::new();
    world.apply(&[prefix_service("web", 80)]);
    let mut longer = prefix_service("web", 80);
    longer.keys = BTreeSet::from([Key::Prefix {
        key: prefix(80),
        length: LENGTH + 8,
    }]);
    world.apply(&[longer]);
    let lengths: BTreeSet<u32> = world
        .maps
        .prefixes
        .keys()
        .map(|(_, length)| *length)
        .collect();
    assert_eq!(lengths, [LENGTH + 8].into());
}
