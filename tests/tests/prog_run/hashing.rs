//! The slot that the program chooses is the one that the daemon computes.

use std::{collections::HashSet, net::SocketAddrV4};

use xdp_lb_common::{
    abi::{FlowKey, ServiceEntry, Slot},
    hash::{Affinity, HashKey, flow_hash, reduce},
};
use xdp_lb_tests::{
    packet::{Frame, Tcp, WEB, tcp},
    plane::{Action, Plane, SERVICE, Setup, backend_mac, on_plane_with, settled},
    random::Random,
};

/// Backends that slots are dealt to in turn, so that a slot too far shows.
const BACKENDS: u16 = 997;
/// As many of them as a table at rest can have, or nearly.
const FEW: u16 = 251;
/// Slots of the largest table.
const LARGE: u32 = 65_537;
/// Slots in the arena.
const ARENA: u32 = LARGE + 1001;
/// Flows tried on each of 220 tables; other kernels run this under emulation.
const FLOWS: usize = 40;

/// Runs `test` on a plane with all backends and a large arena.
fn on_large_plane(hash_key: HashKey, test: impl FnOnce(&mut Plane) + Send) {
    let mut setup = Setup::default();
    setup.limits.slots = ARENA;
    setup.limits.backends = u32::from(BACKENDS);
    setup.hash_key = hash_key;
    on_plane_with(setup, |plane| {
        for index in 1..=BACKENDS {
            plane.start(index);
        }
        clear(plane, 0, ARENA);
        test(plane);
    });
}

/// The backend of a table's slot.
fn backend_of(slot: u32, backends: u16) -> u16 {
    let turn = u16::try_from(slot % u32::from(backends)).expect("fewer than 16 bits hold");
    turn + 1
}

/// Gives these slots to nobody.
fn clear(plane: &mut Plane, offset: u32, size: u32) {
    let nobody = vec![Slot::default(); usize::try_from(size).expect("32 bits fit")];
    plane.dataplane().set_slots(offset, &nobody);
}

/// Gives the service a table of `size` slots at `offset`. Those around it are nobody's, so that one beside it shows.
fn deal(plane: &mut Plane, offset: u32, size: u32, backends: u16) {
    let slots: Vec<_> = (0..size)
        .map(|slot| settled(backend_of(slot, backends)))
        .collect();
    plane.table(SERVICE, offset, &slots);
}

fn random_flow(random: &mut Random) -> Tcp {
    let [a, b, c, d, e, f, ..] = random.number().to_be_bytes();
    // From an address that hosts may have.
    let address = [1 + a % 126, b, c, d].into();
    tcp().from(SocketAddrV4::new(address, u16::from_be_bytes([e, f])))
}

/// Asserts that a packet goes to the backend of this slot.
#[track_caller]
fn assert_on_slot(plane: &mut Plane, packet: &Tcp, slot: u32, backends: u16) {
    let (action, output) = plane.run(&packet.into());
    assert_eq!(action, Action::Tx, "{:?}, slot {slot}", packet.flow());
    let expected = backend_mac(backend_of(slot, backends));
    assert_eq!(
        output.bytes()[..6],
        expected,
        "{:?}, slot {slot}",
        packet.flow()
    );
}

fn slot_of(key: HashKey, affinity: Affinity, flow: &FlowKey<[u8; 4]>, size: u32) -> u32 {
    reduce(flow_hash(key, affinity, flow), size)
}

/// Random flows on tables of all sizes, at odd and even places and at the end of the arena.
fn agree(key: HashKey, affinity: Affinity) {
    on_large_plane(key, |plane| {
        let mut random = Random::new(7);
        let arena = plane.dataplane().sizes().slots;
        for size in [1, 2, 7, 1000, LARGE] {
            // The largest one takes the most time, and is nearly all of the arena wherever it is.
            let offsets: &[u32] = if size < LARGE {
                &[0, 1, 2, 501, arena - size]
            } else {
                &[0, arena - size]
            };
            let tables = offsets.iter().flat_map(|it| [(*it, BACKENDS), (*it, FEW)]);
            for (offset, backends) in tables {
                deal(plane, offset, size, backends);
                plane.configure(SERVICE, |service| {
                    service.flags = match affinity {
                        Affinity::Flow => 0,
                        Affinity::Source => ServiceEntry::FLAG_SOURCE_AFFINITY,
                    };
                });
                if backends == FEW {
                    assert!(plane.dataplane().rest(SERVICE), "all slots are settled");
                }
                for _ in 0..FLOWS {
                    let packet = random_flow(&mut random).ack();
                    let slot = slot_of(key, affinity, &packet.flow(), size);
                    assert_on_slot(plane, &packet, slot, backends);
                }
                clear(plane, offset, size);
            }
        }
    });
}

#[test]
fn program_and_daemon_agree_on_the_slot_of_a_flow() {
    for key in keys() {
        agree(key, Affinity::Flow);
    }
}

#[test]
fn program_and_daemon_agree_on_the_slot_of_a_client() {
    agree(HashKey::DEFAULT, Affinity::Source);
}

fn keys() -> [HashKey; 4] {
    [
        HashKey::DEFAULT,
        HashKey([0; 2]),
        HashKey([u64::MAX; 2]),
        HashKey::from_bytes(*b"sixteen bytes ok"),
    ]
}

#[test]
fn the_first_and_the_last_slot_of_a_table_are_reached() {
    let size = 7;
    on_large_plane(HashKey::DEFAULT, |plane| {
        let offset = plane.dataplane().sizes().slots - size;
        deal(plane, offset, size, BACKENDS);
        let mut random = Random::new(3);
        let mut hit = [0; 7];
        while hit.contains(&0) {
            let packet = random_flow(&mut random).syn();
            let slot = slot_of(HashKey::DEFAULT, Affinity::Flow, &packet.flow(), size);
            assert_on_slot(plane, &packet, slot, BACKENDS);
            hit[usize::try_from(slot).expect("less than 7")] += 1;
        }
    });
}

#[test]
fn with_affinity_to_the_source_all_connections_of_a_client_share_a_slot() {
    on_large_plane(HashKey::DEFAULT, |plane| {
        let size = 65_537;
        plane.listen(SocketAddrV4::new(*WEB.ip(), 0), SERVICE);
        deal(plane, 0, size, BACKENDS);
        plane.configure(SERVICE, |service| {
            service.flags = ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_SOURCE_AFFINITY;
        });
        let slot = slot_of(HashKey::DEFAULT, Affinity::Source, &tcp().flow(), size);
        for port in (1..=u16::MAX).step_by(997) {
            let client = SocketAddrV4::new([198, 51, 100, 10].into(), port);
            let service = SocketAddrV4::new(*WEB.ip(), port);
            assert_on_slot(plane, &tcp().from(client).syn(), slot, BACKENDS);
            assert_on_slot(plane, &tcp().from(client).to(service).ack(), slot, BACKENDS);
        }
    });
}

#[test]
fn with_affinity_to_the_flow_a_clients_connections_spread() {
    on_large_plane(HashKey::DEFAULT, |plane| {
        deal(plane, 0, 65_537, BACKENDS);
        let went: HashSet<_> = (1..=200)
            .map(|port| {
                let client = SocketAddrV4::new([198, 51, 100, 10].into(), port);
                let frame = Frame::from(tcp().from(client).syn());
                plane.run(&frame).1.bytes()[..6].to_vec()
            })
            .collect();
        assert!(went.len() > 150, "{} backends", went.len());
    });
}
