//! Random services and backends, and what may happen to them, in the reference and in the maps at
//! once.

use std::{net::SocketAddr, time::Duration};

use xdp_lb::timing;
use xdp_lb_common::hash::HashKey;

use crate::{
    fuzz::{
        mirror::{Mirror, REGION, ticks},
        pools,
    },
    packet::WEB,
    plane::{GUE_PORT, INGRESS, Plane, SERVICE},
    random::Random,
    reference::{
        Backend, Entry, Flow, FragmentKey, Kind, Mode, Prefix, Reference, Service, Slot, Tag,
    },
};

/// Services have ids from 1 on.
pub(super) const SERVICES: u32 = 6;
/// Backends have indices from 1 on.
pub(super) const BACKENDS: u16 = 12;
/// How long flows are remembered: long beside the time that a run takes.
const IDLE: Duration = Duration::from_secs(900);
/// How long entries grow older by at once: not enough to be over, enough for one, for all.
const AGES: [Duration; 4] = [
    Duration::from_secs(10),
    timing::CLOSING.saturating_add(timing::FRAGMENT),
    timing::OPENING.saturating_add(timing::CLOSING),
    IDLE.saturating_add(timing::CLOSING),
];
const PROTOCOLS: [u8; 2] = [6, 17];

/// The state of reference and program.
pub(super) struct World {
    pub(super) reference: Reference,
    pub(super) mirror: Mirror,
}

impl World {
    /// Random services and backends.
    pub(super) fn new(random: &mut Random, plane: &mut Plane, hash_key: HashKey) -> Self {
        let mut world = Self {
            reference: Reference::new(hash_key, GUE_PORT, INGRESS),
            mirror: Mirror::open(plane),
        };
        for index in 1..=BACKENDS {
            let backend = backend(random, 1);
            world.reference.backends.insert(index, backend);
            Mirror::write_backend(plane, &world.reference, index);
        }
        for id in 1..=SERVICES {
            world.reference.services.insert(id, service(random));
            Mirror::write_service(plane, &world.reference, id);
        }
        for vip in pools::VIPS {
            for port in pools::PORTS {
                for protocol in PROTOCOLS {
                    if !random.once_in(3) {
                        let key = (SocketAddr::new(vip, port), protocol);
                        world.reference.keys.insert(key, any_service(random));
                    }
                }
            }
        }
        for _ in 0..50 {
            world.reference.prefixes.extend(prefix(random));
            keep_one_of_each(&mut world.reference.prefixes);
        }
        // The plane has begun with this one.
        let web = (SocketAddr::V4(WEB), PROTOCOLS[0]);
        world.reference.keys.insert(web, SERVICE);
        world.mirror.write_keys(plane, &world.reference);
        world
    }

    /// Something happens to a service or to a backend, or time passes for some entries.
    pub(super) fn change(&mut self, random: &mut Random, plane: &mut Plane) {
        match random.below(16) {
            0..=4 => self.change_slots(random, plane),
            5..=8 => self.change_backend(random, plane),
            9..=10 => self.change_service(random, plane),
            11 => self.change_keys(random, plane),
            _ => self.age(random, plane),
        }
    }

    fn change_slots(&mut self, random: &mut Random, plane: &mut Plane) {
        let id = any_service(random);
        let service = self.reference.services.get_mut(&id).expect("a service");
        for slot in &mut service.table {
            if random.once_in(2) {
                *slot = match (*slot, random.below(3)) {
                    (Slot::Moving { to, .. }, 0) => Slot::Mixed(to),
                    (Slot::Mixed(current), 0) => Slot::Settled(current),
                    (slot, 1) => moving(random, slot.current()),
                    _ => any_slot(random),
                };
            }
        }
        Mirror::write_service(plane, &self.reference, id);
    }

    fn change_backend(&mut self, random: &mut Random, plane: &mut Plane) {
        let index = any_backend(random);
        let entry = self.reference.backends.get_mut(&index).expect("a backend");
        match random.below(6) {
            0 => entry.serves = !entry.serves,
            4 => entry.accepts = !entry.accepts,
            5 => entry.is_down = !entry.is_down,
            1 => entry.serves = true,
            2 => entry.mtu = mtu(random),
            _ => {
                *entry = backend(random, entry.generation + 1);
                // Whoever gets an index has nothing to do with flows of the one before.
                let stays = |_: &Flow, entry: &mut Entry| entry.backend != index;
                self.reference.flows.retain(stays);
                self.reference.openings.retain(stays);
                plane.forget_flows_at(index);
            }
        }
        Mirror::write_backend(plane, &self.reference, index);
    }

    fn change_service(&mut self, random: &mut Random, plane: &mut Plane) {
        let id = any_service(random);
        let entry = self.reference.services.get_mut(&id).expect("a service");
        match random.below(12) {
            0 => entry.table.clear(),
            1..=2 => entry.tracks = !entry.tracks,
            3..=4 => entry.is_adaptive = !entry.is_adaptive,
            5..=6 => entry.by_source = !entry.by_source,
            _ => *entry = service(random),
        }
        Mirror::write_service(plane, &self.reference, id);
    }

    fn change_keys(&mut self, random: &mut Random, plane: &mut Plane) {
        let vip = SocketAddr::new(random.one_of(&pools::VIPS), random.one_of(&pools::PORTS));
        let key = (vip, random.one_of(&PROTOCOLS));
        if self.reference.keys.remove(&key).is_none() {
            self.reference.keys.insert(key, any_service(random));
        }
        let prefixes = &mut self.reference.prefixes;
        if random.once_in(2) && !prefixes.is_empty() {
            prefixes.remove(random.below(prefixes.len()));
        } else {
            prefixes.extend(prefix(random));
            keep_one_of_each(prefixes);
        }
        self.mirror.write_keys(plane, &self.reference);
    }

    /// Time passes for some entries, once for each until it is renewed: ages that add up might come so
    /// close to a limit that the time that the run takes counts.
    fn age(&mut self, random: &mut Random, plane: &mut Plane) {
        let time = random.one_of(&AGES);
        let ticks = ticks(plane, time);
        let start = random_flow(random);
        let count = random.below(40);
        let reference = &mut self.reference;
        let flows = reference.flows.range_mut(start..).take(count);
        for (flow, entry) in flows.filter(|(_, entry)| entry.silent.is_zero()) {
            entry.silent += time;
            plane.age_entry(reference.hash_key, flow, time);
        }
        let openings = reference.openings.range_mut(start..).take(count);
        for (flow, entry) in openings.filter(|(_, entry)| entry.silent.is_zero()) {
            entry.silent += time;
            plane.age_entry(reference.hash_key, flow, time);
        }
        let start = FragmentKey {
            source: start.source.ip(),
            destination: start.destination.ip(),
            id: 0,
            protocol: 0,
        };
        let fragments = reference.fragments.range_mut(start..).take(count);
        for (key, place) in fragments.filter(|(_, place)| place.age.is_zero()) {
            place.age += time;
            self.mirror.age_fragment(key, ticks);
        }
    }
}

fn random_flow(random: &mut Random) -> Flow {
    let is_v4 = random.once_in(2);
    let client = pools::client(random, is_v4);
    Flow {
        source: SocketAddr::new(client, pools::client_port(random)),
        destination: SocketAddr::new(pools::destination(random, is_v4), 0),
        protocol: 0,
    }
}

fn any_service(random: &mut Random) -> u32 {
    1 + u32::try_from(random.below(6)).expect("a small number")
}

/// The index of a backend.
fn any_backend(random: &mut Random) -> u16 {
    1 + u16::try_from(random.below(usize::from(BACKENDS))).expect("a small number")
}

fn service(random: &mut Random) -> Service {
    let most = usize::try_from(REGION).expect("a small number");
    let size = if random.once_in(12) {
        0
    } else {
        1 + random.below(most)
    };
    Service {
        table: (0..size).map(|_| any_slot(random)).collect(),
        tracks: !random.once_in(4),
        is_adaptive: random.once_in(2),
        by_source: random.once_in(4),
        idle: IDLE,
    }
}

fn any_slot(random: &mut Random) -> Slot {
    let current = any_backend(random);
    match random.below(3) {
        0 => Slot::Settled(current),
        1 => Slot::Mixed(current),
        _ => moving(random, current),
    }
}

/// The slot moves from this backend to another one.
fn moving(random: &mut Random, from: u16) -> Slot {
    Slot::Moving {
        from,
        to: any_backend(random),
    }
}

fn prefix(random: &mut Random) -> Option<Prefix> {
    let (address, length) = random.one_of(&pools::PREFIXES);
    Some(Prefix {
        address,
        length,
        port: random.one_of(&pools::PORTS),
        protocol: random.one_of(&PROTOCOLS),
        service: any_service(random),
    })
}

/// The same key cannot lead to two services.
fn keep_one_of_each(prefixes: &mut Vec<Prefix>) {
    let key = |prefix: &Prefix| (prefix.address, prefix.length, prefix.port, prefix.protocol);
    prefixes.sort_by_key(key);
    prefixes.dedup_by_key(|prefix| key(prefix));
}

fn backend(random: &mut Random, generation: u16) -> Backend {
    let is_v4 = random.once_in(2);
    let kind = random.one_of(&[None, Some(Kind::Ipip), Some(Kind::Gue)]);
    let mode = kind.map_or(Mode::L2, |kind| Mode::Tunnel {
        kind,
        from: pools::infrastructure(random, is_v4),
        to: pools::infrastructure(random, is_v4),
    });
    let tags = random.below(3);
    Backend {
        service: any_service(random),
        generation,
        serves: !random.once_in(8),
        accepts: !random.once_in(3),
        is_down: random.once_in(4),
        mac: mac(random),
        source_mac: mac(random),
        interface: if random.once_in(3) { 7 } else { INGRESS },
        tags: (0..tags).map(|_| tag(random)).collect(),
        mtu: mtu(random),
        mode,
    }
}

fn mac(random: &mut Random) -> [u8; 6] {
    random.bytes(6).try_into().expect("six bytes")
}

fn tag(random: &mut Random) -> Tag {
    Tag {
        is_service: random.once_in(3),
        id: 1 + random.short() % 4094,
    }
}

fn mtu(random: &mut Random) -> Option<u16> {
    random.one_of(&[
        None,
        None,
        None,
        Some(1500),
        Some(1400),
        Some(1280),
        Some(560),
        Some(20),
    ])
}
