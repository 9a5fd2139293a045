//! What the maps hold: reading it when a data plane is adopted, and writing changes.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{MapError, lpm_trie::Key};
use nix::errno::Errno;
use xdp_lb_common::abi::{BackendEntry, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef, map};

use super::{Dataplane, DataplaneError};

/// What was found in adopted maps.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Keys with the ids that they lead to.
    pub keys: Vec<(ServiceKey, u32)>,
    /// Prefixes with their lengths in bits and the ids that they lead to.
    pub prefixes: Vec<(PrefixKey, u32, u32)>,
    /// All backend entries that are in use or have been, with their indices.
    pub backends: Vec<(u16, BackendEntry)>,
}

const SERVICE_WORDS: usize = size_of::<ServiceEntry>() / 8;

impl Dataplane {
    /// Reads what is in the maps.
    ///
    /// # Errors
    ///
    /// If the kernel does not let a map be read.
    pub fn found(&self) -> Result<Found, DataplaneError> {
        let keys = self
            .services
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|source| DataplaneError::map(map::SERVICES, source))?;
        let prefixes = self
            .prefixes
            .iter()
            .map(|found| found.map(|(key, id)| (key.data(), length(&key), id)))
            .collect::<Result<_, _>>()
            .map_err(|source| DataplaneError::map(map::PREFIXES, source))?;
        let backends = (1..self.sizes.backends.min(u32::from(Slot::MIXED)))
            .filter_map(|index| u16::try_from(index).ok())
            .map(|index| (index, self.backend(index)))
            .filter(|(_, entry)| entry.generation != 0)
            .collect();
        Ok(Found {
            keys,
            prefixes,
            backends,
        })
    }

    /// Reads a service's entry.
    #[must_use]
    pub fn service(&self, id: u32) -> ServiceEntry {
        let [table, rest] = read_words(self.service_table.words(), id);
        let [a, b, c, d, e, f, g, h] = rest.to_ne_bytes();
        ServiceEntry {
            table,
            flags: u32::from_ne_bytes([a, b, c, d]),
            idle_ticks: u32::from_ne_bytes([e, f, g, h]),
        }
    }

    /// Writes a service's entry: flags and times first, then, in one write, its table.
    pub fn set_service(&mut self, id: u32, entry: &ServiceEntry) {
        let [a, b, c, d] = entry.flags.to_ne_bytes();
        let [e, f, g, h] = entry.idle_ticks.to_ne_bytes();
        let rest = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let words = words::<SERVICE_WORDS>(self.service_table.words(), id);
        words[1].store(rest, Ordering::Release);
        words[0].store(entry.table, Ordering::Release);
    }

    /// Begins the counters of a service anew, for an id that gets a new owner.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be written.
    pub fn begin_service(&mut self, id: u32) -> Result<(), DataplaneError> {
        self.retire_service(id)
    }

    /// Lets `key` lead to the service `id`, from the next packet on.
    ///
    /// # Errors
    ///
    /// If the map is full, or as [`wait_for_packets_in_flight`](Self::wait_for_packets_in_flight), which it may call.
    pub fn set_key(&mut self, key: ServiceKey, id: u32) -> Result<(), DataplaneError> {
        if self.index.must_wait_for(&key) {
            self.wait_for_packets_in_flight()?;
            self.index.has_waited();
        }
        let size = self.sizes.services;
        self.services.insert(key, id, 0).map_err(|error| match error {
            MapError::SyscallError(error)
                if matches!(error.io_error.raw_os_error(), Some(e) if e == Errno::E2BIG as i32) =>
            {
                DataplaneError::Full { name: map::SERVICES, size, limit: "services" }
            }
            source => DataplaneError::map(map::SERVICES, source),
        })?;
        self.index.set(key, id);
        Ok(())
    }

    /// Takes `key` away: packets for it go to the kernel.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be written. That it is gone already is none.
    pub fn remove_key(&mut self, key: &ServiceKey) -> Result<(), DataplaneError> {
        self.index.remove(key);
        match self.services.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(Errno::ENOENT as i32) =>
            {
                Ok(())
            }
            Err(source) => Err(DataplaneError::map(map::SERVICES, source)),
        }
    }

    /// Lets the prefix with the first `length` bits of the key's address lead to the service `id`.
    ///
    /// # Errors
    ///
    /// If the map is full.
    pub fn set_prefix(
        &mut self,
        key: PrefixKey,
        length: u32,
        id: u32,
    ) -> Result<(), DataplaneError> {
        let key = Key::new(PrefixKey::bits(length), key);
        let size = self.sizes.services;
        self.index.set_prefixes(true);
        self.prefixes
            .insert(&key, id, 0)
            .map_err(|error| match error {
                MapError::SyscallError(error)
                    if error.io_error.raw_os_error() == Some(Errno::ENOSPC as i32) =>
                {
                    DataplaneError::Full {
                        name: map::PREFIXES,
                        size,
                        limit: "services",
                    }
                }
                source => DataplaneError::map(map::PREFIXES, source),
            })
    }

    /// Takes a prefix away.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be written. That it is gone already is none.
    pub fn remove_prefix(&mut self, key: PrefixKey, length: u32) -> Result<(), DataplaneError> {
        let key = Key::new(PrefixKey::bits(length), key);
        match self.prefixes.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            Err(source) => return Err(DataplaneError::map(map::PREFIXES, source)),
        }
        let are_left = self.prefixes.keys().next().is_some();
        self.index.set_prefixes(are_left);
        Ok(())
    }

    /// Fills the index, which each program begins with anew, from maps that were adopted.
    pub(super) fn fill_index(&mut self) -> Result<(), DataplaneError> {
        let found = self.found()?;
        self.index.set_prefixes(!found.prefixes.is_empty());
        for (key, id) in found.keys {
            self.index.set(key, id);
        }
        Ok(())
    }

    /// Reads the slots of a table. A table that is not within the arena reads as empty.
    #[must_use]
    pub fn slots(&self, table: TableRef) -> Vec<Slot> {
        let words = range(table).and_then(|range| self.slots.half_words().get(range));
        words
            .unwrap_or_default()
            .iter()
            .map(|word| Slot::unpack(word.load(Ordering::Relaxed)))
            .collect()
    }

    /// Writes slots from `offset` of the arena on. Each slot is written at once; a table in use may
    /// be written to where every state in between is right too.
    ///
    /// # Panics
    ///
    /// If the slots do not fit the arena: its regions are handed out by [`director`](crate::director).
    pub fn set_slots(&mut self, offset: u32, slots: &[Slot]) {
        let size = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let range = range(TableRef { offset, size }).expect("a region within 32 bits");
        for (word, slot) in self.slots.half_words()[range].iter().zip(slots) {
            word.store(slot.pack(), Ordering::Relaxed);
        }
        // What follows (the service's entry) must not be seen before the slots.
        std::sync::atomic::fence(Ordering::Release);
    }

    /// Sets a backend's counters to zero, for an index that gets a new owner.
    pub fn begin_backend(&mut self, index: u16) {
        self.clear_backend_traffic(index);
    }

    /// Waits until no packet is under way that began before the call, so that what is no longer
    /// referred to can be used anew. Takes some milliseconds.
    ///
    /// # Errors
    ///
    /// If the kernel lacks `membarrier(2)`.
    pub fn wait_for_packets_in_flight(&self) -> Result<(), DataplaneError> {
        // XDP programs run within an RCU read-side critical section, and MEMBARRIER_CMD_GLOBAL
        // returns after an RCU grace period.
        // SAFETY: the system call takes no pointers.
        let result =
            unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
        if result == 0 {
            Ok(())
        } else {
            Err(DataplaneError::Barrier(std::io::Error::last_os_error()))
        }
    }
}

/// The length of a prefix, without the bits of the trie's key that stand in front of it.
fn length(key: &Key<PrefixKey>) -> u32 {
    key.prefix_len().saturating_sub(PrefixKey::bits(0))
}

fn range(table: TableRef) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(table.offset).ok()?;
    Some(start..start.checked_add(usize::try_from(table.size).ok()?)?)
}

/// The words of one element.
///
/// # Panics
///
/// If there is no such element: indices are handed out within the maps' sizes.
pub(super) fn words<const WORDS: usize>(all: &[AtomicU64], index: u32) -> &[AtomicU64] {
    let start = usize::try_from(index).expect("a 32-bit index fits usize") * WORDS;
    &all[start..start + WORDS]
}

pub(super) fn read_words<const WORDS: usize>(all: &[AtomicU64], index: u32) -> [u64; WORDS] {
    let words = words::<WORDS>(all, index);
    std::array::from_fn(|i| words[i].load(Ordering::Acquire))
}
