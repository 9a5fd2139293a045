//! Fingerprints of lookup tables: directors with equal ones send every new connection alike.
//!
//! A fingerprint is made of all that decides where a new connection goes: what leads to the service,
//! what its slots are chosen by, and the backend of each slot, by its address. Indices, ids and what
//! slots remember differ among directors that agree, and are left out.

use std::fmt;

use xdp_lb_common::{
    abi::{ServiceEntry, Slot},
    hash::{HashKey, Hasher},
};

use super::{Table, Tables};
use crate::director::{desired::mapped, keys::Key};

/// Written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::director) struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of several services together, by name and in whatever order.
    pub(in crate::director) fn of_all<'a>(
        services: impl IntoIterator<Item = (&'a str, Self)>,
    ) -> Self {
        let mut services: Vec<_> = services.into_iter().collect();
        services.sort_unstable();
        let hasher = Hasher::new(HashKey::DEFAULT);
        let all = services
            .into_iter()
            .fold(hasher, |hasher, (name, one)| text(hasher, name).word(one.0));
        Self(all.finish())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Tables {
    /// The fingerprint of a service, whose table has these slots.
    pub(in crate::director) fn fingerprint(&self, table: &Table, slots: &[Slot]) -> Fingerprint {
        // The same key with each director, whatever the key of flows is.
        let mut hasher = text(Hasher::new(HashKey::DEFAULT), &table.name);
        hasher = number(hasher, table.keys.len());
        for &key in &table.keys {
            hasher = self::key(hasher, key);
        }
        // Flows' key tells itself apart from others, and no more: fingerprints may be shown around.
        hasher = hasher.word(Hasher::new(self.hash_key).finish());
        hasher = hasher.word(u64::from(
            table.entry.flags & ServiceEntry::FLAG_SOURCE_AFFINITY,
        ));
        // A table that new connections find nobody in is like none.
        let is_empty = slots.iter().all(|slot| slot.current == 0);
        let slots = if is_empty { &[] } else { slots };
        hasher = number(hasher, slots.len());
        let members = digests(table);
        for slot in slots {
            let member = members.get(usize::from(slot.current));
            hasher = hasher.word(member.copied().unwrap_or_default());
        }
        Fingerprint(hasher.finish())
    }
}

/// A digest of the address of each member, by its index; 0 where there is none.
fn digests(table: &Table) -> Vec<u64> {
    let highest = table.members.values().copied().max().unwrap_or_default();
    let mut digests = vec![0; usize::from(highest) + 1];
    for (&address, &index) in &table.members {
        let digest = bytes(Hasher::new(HashKey::DEFAULT), mapped(address));
        digests[usize::from(index)] = digest.finish();
    }
    digests
}

fn key(hasher: Hasher, key: Key) -> Hasher {
    let (address, port_be, protocol, version, length) = match key {
        Key::Address(key) => (key.vip, key.port_be, key.protocol, 0, u32::MAX),
        Key::Prefix { key, length } => {
            (key.address, key.port_be, key.protocol, key.version, length)
        }
    };
    let word = u64::from(u16::from_be_bytes(port_be)) | u64::from(protocol) << 16;
    let word = word | u64::from(version) << 24 | u64::from(length) << 32;
    bytes(hasher, address).word(word)
}

/// Takes a text in, so that it cannot be taken for a part of its neighbours.
fn text(hasher: Hasher, text: &str) -> Hasher {
    let words = text.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_be_bytes(word)
    });
    words.fold(number(hasher, text.len()), Hasher::word)
}

fn bytes(hasher: Hasher, bytes: [u8; 16]) -> Hasher {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let hasher = hasher.word(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    hasher.word(u64::from_be_bytes(rest))
}

fn number(hasher: Hasher, number: usize) -> Hasher {
    hasher.word(number as u64)
}
