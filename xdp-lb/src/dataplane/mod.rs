//! The data plane as the daemon sees it: the loaded program, its maps and its links.
//!
//! The only module that touches aya. It knows how to read and write what
//! [`xdp_lb_common::abi`] describes, and nothing of why: what should be in the maps is decided in
//! [`director`](crate::director).
//!
//! Maps and links are pinned, so that packets go on flowing without the daemon. Opening a data plane
//! whose pins are there adopts them, with the flows in them.

mod attach;
mod backends;
pub mod check;
mod clock;
mod counters;
pub mod decap;
mod detach;
mod error;
mod flow_table;
mod index;
mod logs;
mod mapping;
mod memory;
mod pins;
mod ports;
mod resting;
mod sizes;
mod state;

use std::{fs::File, os::fd::AsFd as _};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, ProgramArray, lpm_trie::LpmTrie},
    programs::Xdp,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use xdp_lb_common::{
    abi::{
        ABI_VERSION, BUCKET, Count, INDEX_WORDS, MEMBERS, Meta, PORT_WORDS, PROGRAM_WHOLE,
        PrefixKey, ServiceKey, Timing, bucket_bits, global, index_bits, map,
    },
    hash::HashKey,
};

pub use self::{
    attach::{Attachment, Mode, index_of, ports},
    counters::{Counters, Traffic},
    error::DataplaneError,
    flow_table::FlowShape,
    memory::{HostMemory, Memory, Part, of_map, possible_cpus},
    pins::{PinDirectory, Removed, User},
    sizes::Sizes,
    state::Found,
};
use self::{
    backends::Backends, clock::Ticks, flow_table::FlowTable, index::Index, mapping::Mapping,
    sizes::FRAGMENTS,
};
use crate::config::Limits;

/// The program, as the build script made it. Empty where it had no BPF toolchain.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-lb-ebpf"));

/// Name of the program in the object that is attached.
pub const PROGRAM: &str = "xdp_lb";

/// Name of the one that it leaves to what is not common.
pub const WHOLE_PROGRAM: &str = "xdp_lb_whole";

/// ICMP messages that one CPU sends to clients in a second: enough for each of many clients to learn
/// the size that fits, too few to be of use to one who forges their addresses.
const ANSWERS_PER_SECOND: u32 = 1000;

/// What a data plane is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where maps and links are pinned.
    pub pins: PinDirectory,
    /// Sizes of the maps, where they are made anew.
    pub limits: Limits,
    /// Key of the flow hash.
    pub hash_key: HashKey,
    /// Destination port of the forwarding mode `gue`.
    pub gue_port: u16,
}

/// The loaded program with its maps. Dropping it closes them; what is pinned stays.
pub struct Dataplane {
    pins: PinDirectory,
    ebpf: Ebpf,
    ticks: Ticks,
    sizes: Sizes,
    services: HashMap<MapData, ServiceKey, u32>,
    prefixes: LpmTrie<MapData, PrefixKey, u32>,
    index: Index,
    service_table: Mapping,
    slots: Mapping,
    resting: Mapping,
    members: Mapping,
    ports: Mapping,
    backends: Backends,
    flows: FlowTable,
    counters: PerCpuArray<MapData, Count>,
    service_counters: Mapping,
    backend_counters: Mapping,
    /// Keeps another daemon away from the pins.
    _lock: File,
}

/// Whether the maps were there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made anew.
    New,
    /// Those of an earlier daemon, with all that was in them.
    Adopted,
}

impl Dataplane {
    /// Loads the program and opens its maps, those that are pinned first.
    ///
    /// # Errors
    ///
    /// If the pin directory is not on a BPF file system, if pinned maps are of another ABI version
    /// or were made with another hash key, if this host has no memory for new ones, or if the kernel
    /// refuses the program.
    pub fn open(options: &Options) -> Result<(Self, Origin), DataplaneError> {
        if OBJECT.is_empty() {
            return Err(DataplaneError::NoObject);
        }
        lift_memory_limit();
        let lock = options.pins.prepare(User::Daemon)?;
        let origin = adoptable(&options.pins, options.hash_key)?;
        if origin == Origin::New {
            memory::check(Sizes::from(&options.limits))?;
        }
        let ticks = Ticks::of_this_kernel();
        let shape = FlowShape {
            bucket_bits: pinned_size(&options.pins, map::FLOWS)?
                .map_or_else(|| bucket_bits(options.limits.flows), u32::ilog2),
            period_shift: ticks.period_shift(),
        };
        let mut timing = timing(&options.limits, shape, ticks, possible_cpus());
        if let Some(backends) = pinned_size(&options.pins, map::BACKENDS)? {
            timing.backends = backends;
        }
        let mut ebpf = load(options, &timing)?;
        let sizes = sizes(&ebpf)?;
        let flows = FlowTable::new(
            mapping(&mut ebpf, map::FLOWS, 8 * BUCKET)?,
            mapping(&mut ebpf, map::CLOCK, 8)?,
            shape,
            ticks,
        );
        let mut dataplane = Self {
            pins: options.pins.clone(),
            ticks,
            flows,
            sizes,
            services: take(&mut ebpf, map::SERVICES)?,
            prefixes: take(&mut ebpf, map::PREFIXES)?,
            index: Index::new(
                mapping(&mut ebpf, map::INDEX, 8 * INDEX_WORDS)?,
                timing.index_bits,
            ),
            service_table: mapping(&mut ebpf, map::SERVICE_TABLE, 16)?,
            slots: mapping(&mut ebpf, map::SLOTS, 8)?,
            resting: mapping(&mut ebpf, map::RESTING, 8)?,
            members: mapping(&mut ebpf, map::MEMBERS, 2 * MEMBERS)?,
            ports: mapping(&mut ebpf, map::PORTS, 8 * PORT_WORDS)?,
            backends: Backends::open(|name, bytes| mapping(&mut ebpf, name, bytes))?,
            counters: take(&mut ebpf, map::COUNTERS)?,
            service_counters: mapping(&mut ebpf, map::SERVICE_COUNTERS, 16)?,
            backend_counters: mapping(&mut ebpf, map::BACKEND_COUNTERS, 16)?,
            ebpf,
            _lock: lock,
        };
        let mut meta: Array<MapData, Meta> = take(&mut dataplane.ebpf, map::META)?;
        let found = Meta {
            abi_version: ABI_VERSION,
            reserved: 0,
            hash_key: options.hash_key.0,
        };
        meta.set(0, found, 0)
            .map_err(|source| DataplaneError::map(map::META, source))?;
        dataplane.fill_index()?;
        show_whole_path(&mut dataplane.ebpf)?;
        Ok((dataplane, origin))
    }

    /// How much the maps hold. Adopted maps keep the sizes they were made with.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Converts a time to ticks of the kernel's clock, rounded up.
    #[must_use]
    pub fn ticks(&self, time: std::time::Duration) -> u32 {
        self.ticks.count(time)
    }

    /// The loaded program, for what tests do with it.
    ///
    /// # Errors
    ///
    /// Never in practice: the program was there when it was loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, DataplaneError> {
        xdp_program(&mut self.ebpf, PROGRAM)
    }

    /// The one that it leaves to what is not common.
    ///
    /// # Errors
    ///
    /// As `program`.
    pub fn whole_program(&mut self) -> Result<&mut Xdp, DataplaneError> {
        xdp_program(&mut self.ebpf, WHOLE_PROGRAM)
    }
}

/// The XDP program of this name in an object.
fn xdp_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataplaneError> {
    let program = ebpf.program_mut(name);
    program
        .ok_or(DataplaneError::NoProgram { name })?
        .try_into()
        .map_err(DataplaneError::Load)
}

/// Kernels before 5.11 count maps against the locked memory that a process may have. Where the limit
/// cannot be lifted, making the maps fails and says why.
fn lift_memory_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// Looks at what is pinned, before anything is loaded.
fn adoptable(pins: &PinDirectory, hash_key: HashKey) -> Result<Origin, DataplaneError> {
    let pinned = pins.path().join(map::META);
    if !pinned.exists() {
        return Ok(Origin::New);
    }
    let read = || {
        let data = MapData::from_pin(&pinned)?;
        Array::<_, Meta>::try_from(Map::Array(data))?.get(&0, 0)
    };
    let meta = read().map_err(|source| DataplaneError::map(map::META, source))?;
    match meta.abi_version {
        // Made by a daemon that was killed before it had written this.
        0 => Ok(Origin::New),
        ABI_VERSION if meta.hash_key == hash_key.0 => Ok(Origin::Adopted),
        ABI_VERSION => Err(DataplaneError::HashKey {
            pins: pins.path().to_owned(),
        }),
        found => Err(DataplaneError::Abi {
            pins: pins.path().to_owned(),
            found,
        }),
    }
}

fn timing(limits: &Limits, shape: FlowShape, ticks: Ticks, cpus: u32) -> Timing {
    // Slow enough for an opening to outlive a handshake, and for a first fragment to outlive its
    // packet, whatever else comes meanwhile.
    let lasting = |entries: u32| entries / (crate::timing::ENTRIES_LAST_SECONDS * cpus.max(1));
    let rates = [
        limits.new_flows_per_second,
        lasting(8 << shape.bucket_bits).min(limits.new_flows_per_second),
        lasting(FRAGMENTS),
        ANSWERS_PER_SECOND,
    ];
    let per_tick = rates.map(|rate| rate.div_ceil(ticks.per_second()).max(1));
    Timing {
        tokens_per_tick: per_tick,
        burst: std::array::from_fn(|budget| (rates[budget] / 10).max(per_tick[budget])),
        closing_ticks: ticks.count(crate::timing::CLOSING),
        opening_ticks: ticks.count(crate::timing::OPENING),
        period_shift: shape.period_shift,
        bucket_bits: shape.bucket_bits,
        index_bits: index_bits(limits.services),
        backends: Sizes::from(limits).backends,
        fragment_ticks: ticks.count(crate::timing::FRAGMENT),
        warning_ticks: ticks.count(crate::timing::BETWEEN_WARNINGS),
    }
}

fn load(options: &Options, timing: &Timing) -> Result<Ebpf, DataplaneError> {
    let gue_port_be = options.gue_port.to_be_bytes();
    let pins: Vec<_> = map::PINNED
        .iter()
        .map(|&name| (name, options.pins.path().join(name)))
        .collect();
    let mut loader = EbpfLoader::new();
    loader
        .override_global(global::HASH_KEY, &options.hash_key, true)
        .override_global(global::TIMING, timing, true)
        .override_global(global::GUE_PORT, &gue_port_be, true);
    for (name, entries) in Sizes::from(&options.limits).entries(possible_cpus()) {
        loader.map_max_entries(name, entries);
    }
    for (name, path) in &pins {
        loader.map_pin_path(name, path.as_path());
    }
    let mut ebpf = loader.load(OBJECT).map_err(DataplaneError::Object)?;
    for name in [PROGRAM, WHOLE_PROGRAM] {
        let program = xdp_program(&mut ebpf, name)?;
        program.load().map_err(DataplaneError::Load)?;
    }
    Ok(ebpf)
}

/// Puts the whole path where the common one finds it. That place is shared with the program that an earlier daemon has
/// attached: from here on its packets come here as well, so all that they need has to be there.
fn show_whole_path(ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    let mut programs: ProgramArray<MapData> = take(ebpf, map::PROGRAMS)?;
    let whole = xdp_program(ebpf, WHOLE_PROGRAM)?;
    let fd = whole.fd().map_err(DataplaneError::Load)?;
    programs
        .set(PROGRAM_WHOLE, fd, 0)
        .map_err(|source| DataplaneError::map(map::PROGRAMS, source))
}

fn sizes(ebpf: &Ebpf) -> Result<Sizes, DataplaneError> {
    let size = |name: &'static str| match ebpf.map(name) {
        Some(Map::Array(data) | Map::LruHashMap(data)) => max_entries(name, data),
        _ => Err(DataplaneError::MissingMap { name }),
    };
    Ok(Sizes {
        services: size(map::SERVICE_TABLE)?,
        backends: size(map::BACKENDS)?,
        slots: size(map::SLOTS)?.saturating_mul(2),
        flows: size(map::FLOWS)?.saturating_mul(8),
    })
}

/// The entries of a map that is pinned, if it is.
fn pinned_size(pins: &PinDirectory, name: &'static str) -> Result<Option<u32>, DataplaneError> {
    let pinned = pins.path().join(name);
    if !pinned.exists() {
        return Ok(None);
    }
    let data = MapData::from_pin(&pinned).map_err(|source| DataplaneError::map(name, source))?;
    max_entries(name, &data).map(Some)
}

fn max_entries(name: &'static str, data: &MapData) -> Result<u32, DataplaneError> {
    Ok(data
        .info()
        .map_err(|source| DataplaneError::map(name, source))?
        .max_entries())
}

/// Takes a map out of the object as the type it is used by.
fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf
        .take_map(name)
        .ok_or(DataplaneError::MissingMap { name })?;
    M::try_from(map).map_err(|source| DataplaneError::map(name, source))
}

/// Maps the memory of an array whose elements have `size` bytes.
fn mapping(ebpf: &mut Ebpf, name: &'static str, size: usize) -> Result<Mapping, DataplaneError> {
    let Some(Map::Array(data)) = ebpf.take_map(name) else {
        return Err(DataplaneError::MissingMap { name });
    };
    let entries = usize::try_from(max_entries(name, &data)?).unwrap_or(usize::MAX);
    let bytes = entries.saturating_mul(size);
    Mapping::new(data.fd().as_fd(), bytes)
        .map_err(|source| DataplaneError::Mapping { name, source })
}
