//! Ways to the backends, as their entries have them.

use super::*;
use crate::director::ways::TunnelEnd;

#[test]
fn the_way_to_a_backend_is_in_its_entry() {
    let mut world = World::new();
    let mut service = service("web", 80, &[1]);
    let way = service.backends.get_mut(&address(1)).unwrap().way.as_mut();
    let way = way.unwrap();
    way.tags = [0x8064, 20];
    way.mtu = 1400;
    way.tunnel = Some(TunnelEnd {
        flag: NextHop::FLAG_GUE,
        source: address(2),
    });
    world.apply(&[service]);
    let (_, table) = world.tables.find("web").unwrap();
    let entry = world.maps.backend(table.members[&address(1)]);
    let flags = NextHop::FLAG_SERVING | NextHop::FLAG_ACCEPTS | NextHop::FLAG_GUE;
    assert_eq!(NextHop::unpack(entry.next_hop).flags, flags);
    assert_eq!((entry.ifindex, entry.mtu), (2, 1400));
    assert_eq!((entry.outer_tag, entry.inner_tag), (0x8064, 20));
    assert_eq!(entry.tunnel_source, mapped(address(2)));
}

#[test]
fn another_way_moves_no_slot_and_is_written_for_all_backends_at_once() {
    let mut world = World::new();
    let mut desired = [service("web", 80, &[1, 2, 3]), service("dns", 53, &[1, 2])];
    world.apply(&desired);
    let slots = world.maps.plane.slots.clone();
    for backend in desired
        .iter_mut()
        .flat_map(|service| service.backends.values_mut())
    {
        backend.way.as_mut().unwrap().ifindex = 7;
    }
    let batches = world.maps.batches;
    let report = world.apply(&desired);
    assert_eq!(world.maps.batches, batches + 1);
    assert!(report.values().all(|moved| moved.slots_moved == 0));
    assert_eq!(world.maps.plane.slots, slots);
    let in_use = world
        .maps
        .plane
        .backends
        .iter()
        .filter(|entry| entry.next_hop != 0);
    let interfaces: Vec<_> = in_use.map(|entry| entry.ifindex).collect();
    assert_eq!(interfaces, [7; 5]);
}
