//! The memory that maps of given sizes need in the kernel, counted as the kernel counts it
//! (`map_mem_usage` in its sources), and what the host has.

use std::{fs, io};

use serde::Serialize;
use xdp_lb_common::{
    abi::{
        BackendWay, Count, FlowBucket, FragmentEntry, FragmentKey, IndexLine, PrefixKey,
        RestingSlots, ServiceEntry, ServiceKey, ServiceMembers, SlotPair, TunnelEnds, map,
    },
    counters::Counter,
};

use super::{DataplaneError, Sizes};

/// In front of each element of a hash: its place in lists, its hash, its place in the LRU list.
const HASH_ELEMENT: u64 = 48;
/// A bucket of a hash: head of a list, and a lock.
const BUCKET: u64 = 16;
/// A node of a trie without its data: two children, a length, and what frees it.
const TRIE_NODE: u64 = 40;
/// What an array has besides its elements.
const ARRAY: u64 = 320;
/// What a hash has besides its elements and buckets.
const HASH: u64 = 896;
/// An array that is mapped into memory begins at a page, and so do its elements.
const PAGE: u64 = 4096;
/// A pointer; also what a list of freed elements adds to one.
const POINTER: u64 = 8;

/// The memory that the maps need, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What it is needed for, the parts of the whole.
    pub parts: Vec<Part>,
    /// All of it.
    pub total: u64,
}

/// A part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is for.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
}

impl Memory {
    /// The memory that maps of these `sizes` need where the kernel may come to have `cpus` CPUs.
    /// Maps that grow with what is in them are counted as full.
    #[must_use]
    pub fn of(sizes: Sizes, cpus: u32) -> Self {
        let of = |names: &[&str]| {
            let maps = sizes.entries(cpus);
            let maps = maps.iter().filter(|(name, _)| names.contains(name));
            maps.map(|&(name, entries)| of_map(name, entries, cpus))
                .sum::<u64>()
        };
        let counters = of_map(map::COUNTERS, Counter::COUNT, cpus) + of_map(map::PROGRAMS, 1, cpus);
        let parts: [(&str, u64); 5] = [
            ("lookup tables", of(&[map::SLOTS, map::RESTING])),
            ("flows", of(&[map::FLOWS])),
            (
                "services",
                of(&[
                    map::SERVICES,
                    map::PREFIXES,
                    map::INDEX,
                    map::SERVICE_TABLE,
                    map::MEMBERS,
                    map::SERVICE_COUNTERS,
                ]),
            ),
            (
                "backends",
                of(&[
                    map::BACKENDS,
                    map::BACKEND_OWNERS,
                    map::TUNNEL_ENDS,
                    map::BACKEND_COUNTERS,
                ]),
            ),
            ("fragments, counters", of(&[map::FRAGMENTS]) + counters),
        ];
        Self {
            parts: parts.map(|(name, bytes)| Part { name, bytes }).into(),
            total: parts.iter().map(|(_, bytes)| bytes).sum(),
        }
    }
}

/// The memory of one map with `entries` entries, if it is full.
///
/// # Panics
///
/// If there is no such map.
#[must_use]
pub fn of_map(name: &str, entries: u32, cpus: u32) -> u64 {
    let (entries, cpus) = (u64::from(entries), u64::from(cpus));
    match name {
        map::SERVICES => on_demand_hash::<ServiceKey, u32>(entries),
        // A node that only branches off is needed for each but one.
        map::PREFIXES => {
            let node = TRIE_NODE + size::<PrefixKey>() + size::<u32>();
            2 * entries * node.next_power_of_two()
        }
        map::INDEX => mapped_array::<IndexLine>(entries),
        map::SERVICE_TABLE => mapped_array::<ServiceEntry>(entries),
        map::RESTING => mapped_array::<RestingSlots>(entries),
        map::MEMBERS => mapped_array::<ServiceMembers>(entries),
        map::SLOTS => mapped_array::<SlotPair>(entries),
        map::BACKENDS => mapped_array::<BackendWay>(entries),
        map::BACKEND_OWNERS => mapped_array::<u64>(entries),
        map::TUNNEL_ENDS => mapped_array::<TunnelEnds>(entries),
        map::PROGRAMS => ARRAY + entries * POINTER,
        map::COUNTERS => ARRAY + entries * (POINTER + cpus * size::<Count>()),
        map::SERVICE_COUNTERS | map::BACKEND_COUNTERS => mapped_array::<Count>(entries),
        map::FLOWS => mapped_array::<FlowBucket>(entries),
        map::FRAGMENTS => lru_hash::<FragmentKey, FragmentEntry>(entries),
        _ => panic!("no map `{name}`"),
    }
}

fn size<T>() -> u64 {
    size_of::<T>() as u64
}

/// An element of a hash; key and value begin at multiples of eight.
fn hash_element<K, V>() -> u64 {
    HASH_ELEMENT + size::<K>().next_multiple_of(8) + size::<V>().next_multiple_of(8)
}

fn mapped_array<T>(entries: u64) -> u64 {
    PAGE + (entries * size::<T>()).next_multiple_of(PAGE)
}

fn lru_hash<K, V>(entries: u64) -> u64 {
    HASH + entries * hash_element::<K, V>() + entries.next_power_of_two() * BUCKET
}

fn on_demand_hash<K, V>(entries: u64) -> u64 {
    HASH + entries * (hash_element::<K, V>() + POINTER) + entries.next_power_of_two() * BUCKET
}

/// How many CPUs the kernel may come to have, each of which has counters of its own.
#[must_use]
pub fn possible_cpus() -> u32 {
    aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(u32::MAX))
}

/// The memory of this host, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// All that there is.
    pub total: u64,
    /// What can be had now, without driving others out to swap.
    pub available: u64,
}

impl HostMemory {
    /// What the kernel says.
    ///
    /// # Errors
    ///
    /// If `/proc/meminfo` cannot be read or understood.
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(Self {
            total: field("MemTotal:")?,
            available: field("MemAvailable:")?,
        })
    }
}

/// Refuses maps that this host has no memory for, before the kernel ends some process to make room.
pub(super) fn check(sizes: Sizes) -> Result<(), DataplaneError> {
    match HostMemory::read() {
        Ok(host) => fits(Memory::of(sizes, possible_cpus()).total, host),
        // A host that does not tell is left to say so itself.
        Err(_) => Ok(()),
    }
}

fn fits(needed: u64, host: HostMemory) -> Result<(), DataplaneError> {
    if needed <= host.available {
        return Ok(());
    }
    Err(DataplaneError::Memory {
        needed_mib: needed.div_ceil(1 << 20),
        available_mib: host.available >> 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn the_parts_make_up_the_whole() {
        let sizes = Sizes::from(&Limits::default());
        let memory = Memory::of(sizes, 4);
        let sum: u64 = memory.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(memory.total, sum);
        assert!(memory.parts.iter().all(|part| part.bytes > 0));
    }

    #[test]
    fn sixteen_million_flows_take_what_the_kernel_says_they_do() {
        let flows = 1 << 24;
        assert_eq!(of_map(map::FLOWS, flows / 8, 4), PAGE + (8 << 24));
        let limits = Limits {
            flows,
            ..Limits::default()
        };
        let memory = Memory::of(Sizes::from(&limits), 4);
        assert!(memory.total > 8 << 24);
    }

    #[test]
    fn counters_are_there_once_for_each_cpu() {
        let one = of_map(map::COUNTERS, 1000, 1);
        let many = of_map(map::COUNTERS, 1000, 64);
        assert_eq!((one, many), (ARRAY + 24_000, ARRAY + 1_032_000));
        let sizes = Sizes::from(&Limits::default());
        let part = |cpus| Memory::of(sizes, cpus).parts[3].bytes;
        let more = part(64) - part(1);
        assert!(more >= 63 * 16 * u64::from(sizes.backends));
    }

    #[test]
    fn the_largest_maps_are_counted_without_overflow() {
        let sizes = Sizes {
            services: u32::MAX,
            backends: u32::MAX,
            slots: u32::MAX,
            flows: u32::MAX,
        };
        assert!(Memory::of(sizes, 8192).total > 1 << 40);
    }

    #[test]
    fn what_the_host_has_no_memory_for_is_refused() {
        let host = HostMemory {
            total: 4 << 30,
            available: 1 << 30,
        };
        assert!(fits(1 << 30, host).is_ok());
        assert_eq!(
            fits((2 << 30) + 1, host).unwrap_err().to_string(),
            "the maps of this config need 2049 MiB, and this host has 1024 MiB left: make `limits` \
             smaller (`xdp-lb config check` shows what takes how much), or free memory"
        );
    }

    #[test]
    fn the_hosts_memory_is_read() {
        let text = "MemTotal:        8036964 kB\nMemFree:  1 kB\nMemAvailable:    7000000 kB\n";
        let host = HostMemory::parse(text).unwrap();
        assert_eq!(
            (host.total, host.available),
            (8_036_964 << 10, 7_000_000 << 10)
        );
        assert_eq!(HostMemory::parse("MemTotal: many kB\n"), None);
        assert!(HostMemory::read().is_ok_and(|host| host.available <= host.total));
    }
}
