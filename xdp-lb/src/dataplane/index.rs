//! The service index: keeps it to what the map of services has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use xdp_lb_common::abi::{
    INDEX_ENTRY, INDEX_HAS_ANY_PORT, INDEX_HAS_PREFIXES, INDEX_WORDS, IndexKey, SPILLED, ServiceKey,
};

use super::mapping::Mapping;

/// The word that holds the rest of an entry's key and its id. 0: there is no entry.
const TAIL: usize = 2;

/// The index, and where everything is in it.
pub(super) struct Index {
    memory: Mapping,
    bits: u32,
    /// Where the entry of each key begins; None: its line has no room.
    keys: BTreeMap<ServiceKey, Option<usize>>,
    /// How many of the keys are for every port.
    any_port: usize,
    /// Entries that packets under way may still be reading, although nothing is in them any more.
    left: BTreeSet<usize>,
}

impl Index {
    /// An empty index in a new map of 2^`bits` lines and a head.
    pub(super) fn new(memory: Mapping, bits: u32) -> Self {
        Self {
            memory,
            bits,
            keys: BTreeMap::new(),
            any_port: 0,
            left: BTreeSet::new(),
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.memory.words()[at]
    }

    /// The first word of the line that a key belongs to.
    fn line(&self, key: &ServiceKey) -> usize {
        usize::try_from(IndexKey::of(key).line(self.bits)).unwrap_or(0) * INDEX_WORDS
    }

    /// True if [`set`](Self::set) may write where packets under way still read.
    pub(super) fn must_wait_for(&self, key: &ServiceKey) -> bool {
        let line = self.line(key);
        !self.keys.contains_key(key) && self.left.range(line..line + INDEX_WORDS).next().is_some()
    }

    /// All packets that were under way have passed.
    pub(super) fn has_waited(&mut self) {
        self.left.clear();
    }

    /// Lets a key lead to a service. The mere address of a VIP is for packets that the index is not asked for.
    pub(super) fn set(&mut self, key: ServiceKey, id: u32) {
        if key == ServiceKey::of_vip(key.vip) {
            return;
        }
        let word = IndexKey::of(&key).word(id);
        if let Some(held) = self.keys.get(&key) {
            if let Some(entry) = held {
                self.word(entry + TAIL).store(word, Ordering::Release);
            }
            return;
        }
        let line = self.line(&key);
        let free = [line, line + INDEX_ENTRY]
            .into_iter()
            .find(|entry| self.word(entry + TAIL).load(Ordering::Relaxed) == 0);
        if let Some(entry) = free {
            for (at, half) in IndexKey::of(&key).vip.into_iter().enumerate() {
                self.word(entry + at).store(half, Ordering::Relaxed);
            }
            self.word(entry + TAIL).store(word, Ordering::Release);
        } else {
            self.spill(line, true);
        }
        self.keys.insert(key, free);
        self.any_port += usize::from(is_any_port(&key));
        self.set_head(INDEX_HAS_ANY_PORT, self.any_port > 0);
    }

    /// Takes a key away.
    pub(super) fn remove(&mut self, key: &ServiceKey) {
        let Some(held) = self.keys.remove(key) else {
            return;
        };
        let line = self.line(key);
        if let Some(entry) = held {
            self.word(entry + TAIL).store(0, Ordering::Release);
            self.left.insert(entry);
        } else {
            let others = self.keys.iter().filter(|(_, place)| place.is_none());
            let is_last = others.map(|(key, _)| self.line(key)).all(|it| it != line);
            self.spill(line, !is_last);
        }
        self.any_port -= usize::from(is_any_port(key));
        self.set_head(INDEX_HAS_ANY_PORT, self.any_port > 0);
    }

    /// Says whether there are VIPs that are prefixes.
    pub(super) fn set_prefixes(&self, are_there: bool) {
        self.set_head(INDEX_HAS_PREFIXES, are_there);
    }

    fn spill(&self, line: usize, is_spilled: bool) {
        let word = if is_spilled { SPILLED } else { 0 };
        self.word(line + INDEX_WORDS - 1)
            .store(word, Ordering::Release);
    }

    fn set_head(&self, flag: u64, is_set: bool) {
        let head = self.word(0);
        if is_set {
            head.fetch_or(flag, Ordering::Release);
        } else {
            head.fetch_and(!flag, Ordering::Release);
        }
    }
}

fn is_any_port(key: &ServiceKey) -> bool {
    key.port_be == [0; 2]
}
