//! What the maps hold: reading it when a data plane is adopted, and writing changes.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{MapError, lpm_trie::Key};
use nix::errno::Errno;
use xdp_lb_common::abi::{
    BackendEntry, BackendLink, NextHop, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef, map,
};

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
const BACKEND_WORDS: usize = size_of::<BackendEntry>() / 8;

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
            .filter(|(_, entry)| entry.link != 0)
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

    /// Reads a backend's entry.
    #[must_use]
    pub fn backend(&self, index: u16) -> BackendEntry {
        let words = read_words::<BACKEND_WORDS>(self.backends.words(), u32::from(index));
        // SAFETY: the entry is made of integers and arrays of them, without padding, as `Pod` says,
        // so any words are one.
        unsafe { std::mem::transmute::<[u64; BACKEND_WORDS], BackendEntry>(words) }
    }

    /// Writes backends' entries. Packets see the old entry, then one that may not be used, then the
    /// new one; where only the next hop and the MTU differ, the old and the new.
    ///
    /// # Errors
    ///
    /// As [`wait_for_packets_in_flight`](Self::wait_for_packets_in_flight), which it calls once where
    /// entries in use change in more than that.
    pub fn set_backends(&mut self, changes: &[(u16, BackendEntry)]) -> Result<(), DataplaneError> {
        let mut has_waiting = false;
        for (index, entry) in changes {
            let held = self.backend(*index);
            if !is_safe_in_use(&held, entry) {
                self.backend_words(*index)[0].store(0, Ordering::SeqCst);
                has_waiting |= NextHop::unpack(held.next_hop).is_serving();
            }
        }
        if has_waiting {
            self.wait_for_packets_in_flight()?;
        }
        for (index, entry) in changes {
            // SAFETY: as in `backend`.
            let new = unsafe { std::mem::transmute::<BackendEntry, [u64; BACKEND_WORDS]>(*entry) };
            let words = self.backend_words(*index);
            for (word, &new) in words.iter().zip(&new).skip(1) {
                word.store(new, Ordering::Release);
            }
            words[0].store(entry.next_hop, Ordering::SeqCst);
        }
        Ok(())
    }

    /// [`set_backends`](Self::set_backends) for one.
    ///
    /// # Errors
    ///
    /// As `set_backends`.
    pub fn set_backend(&mut self, index: u16, entry: &BackendEntry) -> Result<(), DataplaneError> {
        self.set_backends(&[(index, *entry)])
    }

    fn backend_words(&self, index: u16) -> &[AtomicU64] {
        words::<BACKEND_WORDS>(self.backends.words(), u32::from(index))
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

/// True if a packet that reads some words of the one entry and some of the other does nothing wrong:
/// they differ in the next hop and in the MTU only, each within one word.
fn is_safe_in_use(held: &BackendEntry, new: &BackendEntry) -> bool {
    let link = BackendLink {
        mtu: BackendLink::unpack(new.link).mtu,
        ..BackendLink::unpack(held.link)
    };
    let is_same_tunnel = NextHop::unpack(held.next_hop).flags & NextHop::TUNNEL_FLAGS
        == NextHop::unpack(new.next_hop).flags & NextHop::TUNNEL_FLAGS
        || new.next_hop == 0;
    let same = BackendEntry {
        next_hop: new.next_hop,
        link: link.pack(),
        ..*held
    };
    same == *new && is_same_tunnel
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
fn words<const WORDS: usize>(all: &[AtomicU64], index: u32) -> &[AtomicU64] {
    let start = usize::try_from(index).expect("a 32-bit index fits usize") * WORDS;
    &all[start..start + WORDS]
}

fn read_words<const WORDS: usize>(all: &[AtomicU64], index: u32) -> [u64; WORDS] {
    let words = words::<WORDS>(all, index);
    std::array::from_fn(|i| words[i].load(Ordering::Acquire))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_next_hop_and_mtu_change_under_packets() {
        let entry = |mac, flags, mtu, ifindex| BackendEntry {
            next_hop: NextHop {
                mac: [mac; 6],
                flags,
            }
            .pack(),
            link: BackendLink {
                ifindex,
                generation: 3,
                mtu,
            }
            .pack(),
            ..BackendEntry::default()
        };
        let held = entry(1, NextHop::FLAG_SERVING, 1500, 2);
        assert!(is_safe_in_use(
            &held,
            &entry(2, NextHop::FLAG_SERVING, 1400, 2)
        ));
        assert!(is_safe_in_use(
            &held,
            &BackendEntry {
                next_hop: 0,
                ..held
            }
        ));
        assert!(!is_safe_in_use(
            &held,
            &entry(1, NextHop::FLAG_SERVING, 1500, 3)
        ));
        let tunnel = NextHop::FLAG_SERVING | NextHop::FLAG_IPIP;
        assert!(!is_safe_in_use(&held, &entry(1, tunnel, 1500, 2)));
        let others = [
            BackendEntry {
                outer_tag: 1,
                ..held
            },
            BackendEntry {
                source_mac: [9; 6],
                ..held
            },
            BackendEntry {
                tunnel_source: [9; 16],
                ..held
            },
        ];
        assert!(others.iter().all(|other| !is_safe_in_use(&held, other)));
    }
}
