//! The decapsulating program: loading, attaching, reading what it counts.
//!
//! Each interface has a program and a pin directory of its own, with the link and the counters in it.
//! The other maps come anew with each program, so that settings change as a whole, at the moment in
//! which the program is replaced; what is in force is read from the program that is attached.

use std::{
    collections::HashMap,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, LpmTrie, Map, MapData, MapError, MapInfo, PerCpuArray, lpm_trie::Key},
    programs::{
        ProgramInfo, Xdp,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use xdp_lb_common::{
    abi::Count,
    counters::decap::Counter,
    decap::{self as abi, ABI_VERSION, map},
};

use super::{
    Attachment, DataplaneError, PinDirectory, Traffic, User, attach, counters, lift_memory_limit,
    take, xdp_program,
};
use crate::{
    config::Interface,
    decap::{Prefix, Settings},
};

/// The program, as the build script made it. Empty where it had no BPF toolchain.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-lb-decap"));

/// Name of the program in the object.
pub const PROGRAM: &str = "xdp_lb_decap";

/// All counters, in the order of their indices.
pub type Counters = Vec<(Counter, Traffic)>;

/// The loaded program. Dropping it closes it; what is pinned stays.
pub struct Decapsulator {
    pins: PinDirectory,
    ebpf: Ebpf,
    counters: PerCpuArray<MapData, Count>,
    /// Keeps another call away from the pins.
    _lock: File,
}

/// What is attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where and how.
    pub attachment: Attachment,
    /// What it does.
    pub settings: Settings,
    /// What it has counted.
    pub counters: Counters,
}

impl Decapsulator {
    /// Loads the program. The counters are those of the program before it, where there was one. With
    /// an error nothing new is left behind.
    ///
    /// # Errors
    ///
    /// If the pin directory is not on a BPF file system or another call works on it, or if the kernel
    /// refuses the program.
    pub fn load(pins: PinDirectory, settings: &Settings) -> Result<Self, DataplaneError> {
        if OBJECT.is_empty() {
            return Err(DataplaneError::NoObject);
        }
        lift_memory_limit();
        let lock = pins.prepare(User::Decap)?;
        match load(&pins, settings) {
            Ok((ebpf, counters)) => Ok(Self {
                pins,
                ebpf,
                counters,
                _lock: lock,
            }),
            Err(error) => {
                remove_unlinked(&pins)?;
                Err(error)
            }
        }
    }

    /// Attaches the program to `interface`, or replaces the program in the link that is there. With
    /// an error nothing new is left behind.
    ///
    /// # Errors
    ///
    /// If the interface does not exist, has another program, or does not take the mode asked for.
    pub fn attach(&mut self, interface: &Interface) -> Result<Attachment, DataplaneError> {
        let pins = self.pins.clone();
        let attached = match attach::attach(&pins, self.program()?, interface) {
            Ok(attached) => attached,
            Err(error) => {
                remove_unlinked(&pins)?;
                return Err(error);
            }
        };
        // Of an interface that had this name before, and of versions that counted otherwise.
        attach::detach_others(&pins, &[attached.ifindex])?;
        for pin in pins.named(map::COUNTERS)? {
            if !pin.ends_with(counters_pin()) {
                pins.unpin(&pin)?;
            }
        }
        Ok(attached)
    }

    /// The loaded program.
    ///
    /// # Errors
    ///
    /// Never in practice: the program was there when it was loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, DataplaneError> {
        xdp_program(&mut self.ebpf, PROGRAM)
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        read(&self.counters)
    }
}

/// What is attached to the interface of this name; None where nothing is.
///
/// # Errors
///
/// If the interface does not exist, if what is pinned is of another version, or if the kernel does not
/// let it be read.
pub fn running(pins: &PinDirectory, interface: &str) -> Result<Option<Running>, DataplaneError> {
    let ifindex = attach::index_of(interface)?;
    let Some((pin, mode)) = attach::pinned(pins, ifindex)? else {
        return Ok(None);
    };
    let failed = |reason: String| DataplaneError::Inspect {
        interface: interface.to_owned(),
        reason,
    };
    if !pins.path().join(counters_pin()).exists() {
        return Err(failed(
            "another version of xdp-lb attached it; attach it again with this one".into(),
        ));
    }
    let link = PinnedLink::from_pin(&pin).and_then(|link| FdLink::from(link).info());
    let id = link
        .map_err(|error| failed(error.to_string()))?
        .program_id();
    // Programs of others come and go meanwhile; those that are gone are errors here.
    let program = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .ok_or_else(|| failed(format!("program {id} has just gone")))?;
    let mut maps = maps_of(&program).map_err(|error| failed(error.to_string()))?;
    let mut map = |name| {
        let data = maps.remove(name);
        data.ok_or(DataplaneError::MissingMap { name })
    };
    let value = Array::<_, abi::Settings>::try_from(Map::Array(map(map::SETTINGS)?))
        .and_then(|settings| settings.get(&0, 0))
        .map_err(|source| DataplaneError::map(map::SETTINGS, source))?;
    let mut from = Vec::new();
    from.extend(listed::<[u8; 4]>(map::FROM_V4, map(map::FROM_V4)?)?);
    from.extend(listed::<[u8; 16]>(map::FROM_V6, map(map::FROM_V6)?)?);
    let counters = PerCpuArray::try_from(Map::PerCpuArray(map(map::COUNTERS)?))
        .map_err(|source| DataplaneError::map(map::COUNTERS, source))?;
    Ok(Some(Running {
        attachment: Attachment {
            interface: interface.to_owned(),
            ifindex,
            mode,
            fallback: None,
        },
        settings: Settings {
            gue_port: value.gue_port,
            from,
        },
        counters: read(&counters)?,
    }))
}

/// Loads the program and fills its maps; returns it with its counters.
fn load(
    pins: &PinDirectory,
    settings: &Settings,
) -> Result<(Ebpf, PerCpuArray<MapData, Count>), DataplaneError> {
    let pin = pins.path().join(counters_pin());
    let (v4, v6) = by_family(&settings.from);
    let mut ebpf = EbpfLoader::new()
        .map_pin_path(map::COUNTERS, pin.as_path())
        .map_max_entries(map::FROM_V4, room(v4.len()))
        .map_max_entries(map::FROM_V6, room(v6.len()))
        .load(OBJECT)
        .map_err(DataplaneError::Object)?;
    // Before maps are taken out of the object: from then on the program alone keeps them.
    let program = xdp_program(&mut ebpf, PROGRAM)?;
    program.load().map_err(DataplaneError::Load)?;
    list(&mut ebpf, map::FROM_V4, &v4)?;
    list(&mut ebpf, map::FROM_V6, &v6)?;
    let mut entry: Array<MapData, abi::Settings> = take(&mut ebpf, map::SETTINGS)?;
    let listed_only = !settings.from.is_empty();
    let value = abi::Settings {
        gue_port: settings.gue_port,
        flags: u16::from(listed_only) * abi::Settings::FLAG_LISTED_ONLY,
    };
    entry
        .set(0, value, 0)
        .map_err(|source| DataplaneError::map(map::SETTINGS, source))?;
    let counters = take(&mut ebpf, map::COUNTERS)?;
    Ok((ebpf, counters))
}

/// Removes what was pinned for a program that is attached nowhere.
fn remove_unlinked(pins: &PinDirectory) -> Result<(), DataplaneError> {
    if pins.named(attach::LINK)?.is_empty() {
        pins.remove()?;
    }
    Ok(())
}

/// The pin of the counters: those of another version are others.
fn counters_pin() -> String {
    format!("{}-{ABI_VERSION}", map::COUNTERS)
}

fn read(map: &PerCpuArray<MapData, Count>) -> Result<Counters, DataplaneError> {
    let read = |&counter: &Counter| {
        counters::sum(map::COUNTERS, map, counter as u32).map(|traffic| (counter, traffic))
    };
    Counter::ALL.iter().map(read).collect()
}

/// An address as the tries have it.
trait Octets: aya::Pod {
    fn address(self) -> IpAddr;
}

impl Octets for [u8; 4] {
    fn address(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl Octets for [u8; 16] {
    fn address(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

type Keys<A> = Vec<Key<A>>;

fn by_family(from: &[Prefix]) -> (Keys<[u8; 4]>, Keys<[u8; 16]>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for prefix in from {
        let length = prefix.length().into();
        match prefix.address() {
            IpAddr::V4(address) => v4.push(Key::new(length, address.octets())),
            IpAddr::V6(address) => v6.push(Key::new(length, address.octets())),
        }
    }
    (v4, v6)
}

/// The size of a map for so many entries: the kernel takes no map without any.
fn room(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX).max(1)
}

fn list<A: Octets>(
    ebpf: &mut Ebpf,
    name: &'static str,
    keys: &[Key<A>],
) -> Result<(), DataplaneError> {
    let mut trie: LpmTrie<MapData, A, u32> = take(ebpf, name)?;
    keys.iter()
        .try_for_each(|key| trie.insert(key, 1, 0))
        .map_err(|source| DataplaneError::map(name, source))
}

/// What is in a trie.
fn listed<A: Octets>(name: &'static str, data: MapData) -> Result<Vec<Prefix>, DataplaneError> {
    let read = || {
        let trie = LpmTrie::<_, A, u32>::try_from(Map::LpmTrie(data))?;
        trie.keys().collect::<Result<Vec<_>, MapError>>()
    };
    let keys = read().map_err(|source| DataplaneError::map(name, source))?;
    let prefix = |key: Key<A>| {
        let length = u8::try_from(key.prefix_len()).ok()?;
        Prefix::new(key.data().address(), length).ok()
    };
    Ok(keys.into_iter().filter_map(prefix).collect())
}

/// The maps of a loaded program, by their names.
fn maps_of(program: &ProgramInfo) -> anyhow::Result<HashMap<String, MapData>> {
    let mut maps = HashMap::new();
    for id in program.map_ids()?.unwrap_or_default() {
        let info = MapInfo::from_id(id)?;
        if let Some(name) = info.name_as_str() {
            maps.insert(name.to_owned(), MapData::from_id(id)?);
        }
    }
    Ok(maps)
}
