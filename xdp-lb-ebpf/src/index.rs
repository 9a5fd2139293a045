//! The service index: what most packets need to know of services, in one cache line.

use core::ptr;

use xdp_lb_common::abi::{
    INDEX_ENTRY, INDEX_HAS_ANY_PORT, INDEX_HAS_PREFIXES, INDEX_WORDS, IndexKey, SPILLED, ServiceKey,
};

use crate::maps::{INDEX, timing};

/// What the index knows of a key.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    /// It leads to the service with this id.
    Service(u32),
    /// It leads to none.
    None,
    /// That only the maps know.
    Unsure,
}

/// Looks a key up; where there is no service at its port, the one for every port.
#[inline(always)]
pub(crate) fn find(key: &ServiceKey) -> Found {
    let found = at(key);
    if !matches!(found, Found::None) {
        return found;
    }
    let Some(head) = INDEX.get_ptr(0) else {
        return Found::Unsure;
    };
    let more = word(head, 0);
    if more == 0 {
        return Found::None;
    }
    if more & INDEX_HAS_ANY_PORT != 0 {
        let found = at(&ServiceKey {
            port_be: [0; 2],
            ..*key
        });
        if !matches!(found, Found::None) {
            return found;
        }
    }
    if more & INDEX_HAS_PREFIXES != 0 {
        return Found::Unsure;
    }
    Found::None
}

#[inline(always)]
fn at(key: &ServiceKey) -> Found {
    let key = IndexKey::of(key);
    let Some(line) = INDEX.get_ptr(key.line(timing!(index_bits))) else {
        return Found::Unsure;
    };
    if let Some(id) = entry(line, 0, key) {
        return Found::Service(id);
    }
    if let Some(id) = entry(line, INDEX_ENTRY, key) {
        return Found::Service(id);
    }
    if word(line, INDEX_WORDS - 1) & SPILLED != 0 {
        return Found::Unsure;
    }
    Found::None
}

/// The id in the entry at a place of a line, if it is the key's.
#[inline(always)]
fn entry(line: *const [u64; INDEX_WORDS], at: usize, key: IndexKey) -> Option<u32> {
    let id = key.id(word(line, at + 2))?;
    let is_same = word(line, at) == key.vip[0] && word(line, at + 1) == key.vip[1];
    is_same.then_some(id)
}

#[inline(always)]
fn word(line: *const [u64; INDEX_WORDS], at: usize) -> u64 {
    // SAFETY: `line` points to an array's element, and `at` is a constant within it. The daemon writes its words
    // meanwhile, each at once.
    unsafe { ptr::read_volatile(line.cast::<u64>().add(at)) }
}
