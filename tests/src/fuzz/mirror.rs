//! Writes the reference's state into the maps of the program.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use xdp_lb_common::abi::{
    self, BackendEntry, Budget, FragmentEntry, NextHop, PrefixKey, ServiceEntry, ServiceKey,
    TableRef, TokenBucket, map, mapped,
};

use crate::{
    plane::Plane,
    reference::{Backend, FragmentKey, Kind, Mode, Reference, Slot},
};

/// Slots that each service has in the arena.
pub(super) const REGION: u32 = 16;

/// The program's maps, opened once more.
pub(super) struct Mirror {
    budgets: PerCpuArray<MapData, TokenBucket>,
    /// Full buckets, one for each CPU.
    full: Vec<TokenBucket>,
    pub(super) fragments: HashMap<MapData, abi::FragmentKey, FragmentEntry>,
    /// The keys that have been written, and the prefixes with their lengths.
    keys: BTreeMap<ServiceKey, u32>,
    prefixes: BTreeMap<(PrefixKey, u32), u32>,
}

impl Mirror {
    /// Opens the maps of the plane's program.
    pub(super) fn open(plane: &mut Plane) -> Self {
        let program = plane.dataplane().whole_program().expect("the program");
        let ids = program.info().and_then(|info| info.map_ids());
        let ids = ids.expect("the kernel tells").expect("maps' ids");
        let find = |name: &str| {
            let maps = ids.iter().map(|&id| MapData::from_id(id).expect("the map"));
            let named = |map: &MapData| {
                let info = map.info().expect("the kernel tells of maps");
                // The kernel keeps fifteen characters of a name.
                info.name_as_str() == Some(&name[..name.len().min(15)])
            };
            maps.into_iter().find(named).expect("a map of this name")
        };
        let bucket = TokenBucket {
            tokens: 1 << 30,
            ..TokenBucket::default()
        };
        let cpus = nr_cpus().expect("the number of CPUs");
        Self {
            budgets: Map::PerCpuArray(find(map::BUDGETS))
                .try_into()
                .expect("an array"),
            full: vec![bucket; cpus],
            fragments: hash(find(map::FRAGMENTS)),
            keys: BTreeMap::new(),
            prefixes: BTreeMap::new(),
        }
    }

    /// Fills all buckets. The program cuts them to their burst at the next tick.
    pub(super) fn fill_budgets(&mut self) {
        for budget in 0..Budget::COUNT {
            let full = PerCpuValues::try_from(self.full.clone());
            let full = full.expect("a value for each CPU");
            let filled = self.budgets.set(budget, full, 0);
            filled.expect("the bucket can be written");
        }
    }

    /// Makes the keys of services those of the reference.
    pub(super) fn write_keys(&mut self, plane: &mut Plane, reference: &Reference) {
        let mut keys = BTreeMap::new();
        for (&(vip, protocol), &id) in &reference.keys {
            let address = octets(vip.ip());
            keys.insert(ServiceKey::of_vip(address), ServiceKey::VIP);
            let port_be = vip.port().to_be_bytes();
            let key = ServiceKey {
                vip: address,
                port_be,
                protocol,
                reserved: 0,
            };
            keys.insert(key, id);
        }
        let mut prefixes = BTreeMap::new();
        for prefix in &reference.prefixes {
            let length = u32::from(prefix.length) + if prefix.address.is_ipv4() { 96 } else { 0 };
            let address = octets(prefix.address);
            let of_vip = PrefixKey {
                version: if prefix.address.is_ipv4() { 4 } else { 6 },
                address,
                ..PrefixKey::default()
            };
            prefixes.insert((of_vip, length), ServiceKey::VIP);
            let key = PrefixKey {
                protocol: prefix.protocol,
                port_be: prefix.port.to_be_bytes(),
                ..of_vip
            };
            prefixes.insert((key, length), prefix.service);
        }
        let dataplane = plane.dataplane();
        for key in self.keys.keys().filter(|key| !keys.contains_key(*key)) {
            dataplane.remove_key(key).expect("the key can be removed");
        }
        for (key, id) in &keys {
            dataplane.set_key(*key, *id).expect("room for a key");
        }
        for (key, length) in self
            .prefixes
            .keys()
            .filter(|key| !prefixes.contains_key(*key))
        {
            let removed = dataplane.remove_prefix(*key, *length);
            removed.expect("the prefix can be removed");
        }
        for ((key, length), id) in &prefixes {
            let set = dataplane.set_prefix(*key, *length, *id);
            set.expect("room for a prefix");
        }
        (self.keys, self.prefixes) = (keys, prefixes);
    }

    /// Makes a service's entry and its slots those of the reference.
    pub(super) fn write_service(plane: &mut Plane, reference: &Reference, id: u32) {
        let service = &reference.services[&id];
        let slots: Vec<_> = service.table.iter().map(|&slot| packed(slot)).collect();
        let (offset, size) = (
            id * REGION,
            u32::try_from(slots.len()).expect("a small table"),
        );
        let dataplane = plane.dataplane();
        dataplane.set_slots(offset, &slots);
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let entry = ServiceEntry {
            table: TableRef { offset, size }.pack(),
            flags: flag(service.tracks, ServiceEntry::FLAG_TRACK)
                | flag(service.is_adaptive, ServiceEntry::FLAG_ADAPTIVE)
                | flag(service.by_source, ServiceEntry::FLAG_SOURCE_AFFINITY),
            idle_ticks: dataplane.ticks(service.idle),
        };
        dataplane.set_service(id, &entry);
        if id.is_multiple_of(2) {
            // Where all slots are settled.
            dataplane.rest(id);
        }
    }

    /// Makes a backend's entry that of the reference.
    pub(super) fn write_backend(plane: &mut Plane, reference: &Reference, index: u16) {
        let dataplane = plane.dataplane();
        let entry = packed_backend(&reference.backends[&index]);
        // What is not in use may be written without waiting for packets that may see it.
        let unused = BackendEntry {
            next_hop: 0,
            ..dataplane.backend(index)
        };
        for entry in [unused, entry] {
            let written = dataplane.set_backend(index, &entry);
            written.expect("nothing is waited for");
        }
    }

    /// Lets a first fragment have been longer ago.
    pub(super) fn age_fragment(&mut self, key: &FragmentKey, ticks: u32) {
        edit(&mut self.fragments, packed_fragment(key), |entry| {
            entry.seen = entry.seen.wrapping_sub(ticks);
        });
    }
}

fn hash<K: Pod, V: Pod>(data: MapData) -> HashMap<MapData, K, V> {
    Map::LruHashMap(data).try_into().expect("a hash map")
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

fn packed(slot: Slot) -> abi::Slot {
    let (current, previous) = match slot {
        Slot::Settled(current) => (current, 0),
        Slot::Moving { from, to } => (to, from),
        Slot::Mixed(current) => (current, abi::Slot::MIXED),
    };
    abi::Slot { current, previous }
}

fn packed_backend(backend: &Backend) -> BackendEntry {
    let tag = |at: usize| {
        let tag = backend.tags.get(at);
        tag.map_or(0, |tag| BackendEntry::tag(tag.id, tag.is_service))
    };
    let mut flags = if backend.serves {
        NextHop::FLAG_SERVING
    } else {
        0
    };
    if backend.accepts {
        flags |= NextHop::FLAG_ACCEPTS;
    }
    if backend.is_down {
        flags |= NextHop::FLAG_DOWN;
    }
    let mut entry = BackendEntry::default();
    if let Mode::Tunnel { kind, from, to } = backend.mode {
        (entry.tunnel_source, entry.address) = (octets(from), octets(to));
        flags |= match kind {
            Kind::Ipip => NextHop::FLAG_IPIP,
            Kind::Gue => NextHop::FLAG_GUE,
        };
    }
    let mac = backend.mac;
    BackendEntry {
        next_hop: NextHop { mac, flags }.pack(),
        ifindex: backend.interface,
        mtu: backend.mtu.unwrap_or(0),
        generation: backend.generation,
        source_mac: backend.source_mac,
        service: backend.service,
        outer_tag: tag(0),
        inner_tag: tag(1),
        ..entry
    }
}

pub(super) fn packed_fragment(key: &FragmentKey) -> abi::FragmentKey {
    // As it stands in the header: IPv4's has two bytes, IPv6's four.
    let id = match key.source {
        IpAddr::V4(_) => {
            let id = u16::try_from(key.id).expect("an identification of 16 bits");
            u32::from(u16::from_ne_bytes(id.to_be_bytes()))
        }
        IpAddr::V6(_) => u32::from_ne_bytes(key.id.to_be_bytes()),
    };
    abi::FragmentKey {
        source: octets(key.source),
        destination: octets(key.destination),
        id,
        protocol: key.protocol,
        reserved: [0; 3],
    }
}

/// Changes an entry, if it is there: where it should be and is not, a later comparison tells.
fn edit<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: K, change: impl FnOnce(&mut V)) {
    if let Ok(mut entry) = map.get(&key, 0) {
        change(&mut entry);
        map.insert(key, entry, 0).expect("the entry can be written");
    }
}

/// A time in the kernel's ticks.
pub(super) fn ticks(plane: &mut Plane, time: Duration) -> u32 {
    plane.dataplane().ticks(time)
}
