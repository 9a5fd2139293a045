//! The maps that lead to services: which keys are found, come and go.

use std::collections::BTreeMap;

use xdp_lb_common::abi::ServiceKey;

use crate::{
    dataplane::{DataplaneError, Found},
    director::{keys::Key, maps::Maps},
};

/// The keys that were found, with the ids that they lead to.
pub(super) fn found(found: &Found) -> impl Iterator<Item = (Key, u32)> {
    let addresses = found.keys.iter();
    let addresses = addresses.map(|&(key, id)| (Key::Address(key), id));
    let prefixes = found.prefixes.iter();
    let prefixes = prefixes.map(|&(key, length, id)| (Key::Prefix { key, length }, id));
    addresses.chain(prefixes)
}

/// Brings the maps from the keys that they hold to those that are wanted.
pub(super) fn apply(
    maps: &mut impl Maps,
    held: BTreeMap<Key, u32>,
    wanted: BTreeMap<Key, u32>,
) -> Result<(), DataplaneError> {
    let (held, wanted) = (with_vips(held), with_vips(wanted));
    for key in held.keys().filter(|key| !wanted.contains_key(key)) {
        match *key {
            Key::Address(key) => maps.remove_key(&key)?,
            Key::Prefix { key, length } => maps.remove_prefix(key, length)?,
        }
    }
    for (key, &id) in wanted.iter().filter(|(key, id)| held.get(key) != Some(id)) {
        match *key {
            Key::Address(key) => maps.set_key(key, id)?,
            Key::Prefix { key, length } => maps.set_prefix(key, length, id)?,
        }
    }
    Ok(())
}

/// Adds the keys of the mere VIPs, by which packets without ports are known to be ours.
fn with_vips(mut keys: BTreeMap<Key, u32>) -> BTreeMap<Key, u32> {
    let vips: Vec<_> = keys.keys().map(|key| key.of_its_vip()).collect();
    keys.extend(vips.into_iter().map(|key| (key, ServiceKey::VIP)));
    keys
}
