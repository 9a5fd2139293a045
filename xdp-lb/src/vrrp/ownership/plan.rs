//! What is to be done so that the interfaces have the addresses that they should. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{Holding, Wanted};
use crate::{netlink::LinkMap, vrrp::VirtualAddress};

/// What all is wanted, by virtual router.
pub(super) type Desired = BTreeMap<usize, (Holding, Wanted)>;

/// An address on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spot {
    pub(super) device: String,
    pub(super) address: VirtualAddress,
}

/// What is ours to take away: kept in a file, so that a later life knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Addresses that we may have added.
    pub(super) addresses: BTreeSet<Spot>,
    /// Devices that we may have made.
    pub(super) devices: BTreeSet<String>,
}

impl Record {
    /// Whether an address may be ours, with whatever prefix.
    pub(super) fn has(&self, spot: &Spot) -> bool {
        let with = |prefix| {
            let mut other = spot.clone();
            other.address.prefix = prefix;
            other
        };
        let mut same = self.addresses.range(with(0)..=with(u8::MAX));
        same.next().is_some()
    }
}

/// A device with a virtual MAC address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    pub(super) name: String,
    /// The interface that it is on top of.
    pub(super) parent: String,
    pub(super) mac: [u8; 6],
    pub(super) is_ipv6: bool,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Make a device, and switch it on.
    Make(Device),
    /// Switch a device on that is there.
    SwitchOn(String),
    /// Add an address.
    Add(Spot),
    /// Take an address away.
    Remove(Spot),
    /// Take a device away.
    Unmake(String),
}

impl Step {
    /// The address that comes by it.
    pub(super) fn added(&self) -> Option<&Spot> {
        match self {
            Self::Add(spot) => Some(spot),
            _ => None,
        }
    }

    /// Whether netlink has told of it.
    pub(super) fn is_visible(&self, links: &LinkMap) -> bool {
        match self {
            Self::Make(device) => links.contains_key(&device.name),
            Self::SwitchOn(device) => links.get(device).is_some_and(|link| link.is_running),
            Self::Add(spot) => is_there(links, spot),
            Self::Remove(spot) => !is_there_so(links, spot),
            Self::Unmake(device) => !links.contains_key(device),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(Device { name, parent, .. }) => write!(f, "make {name} on {parent}"),
            Self::SwitchOn(device) => write!(f, "switch {device} on"),
            Self::Add(Spot { device, address }) => write!(f, "add {address} to {device}"),
            Self::Remove(Spot { device, address }) => write!(f, "remove {address} from {device}"),
            Self::Unmake(device) => write!(f, "remove {device}"),
        }
    }
}

/// What is to be claimed as ours before it is needed: it is wanted, at some time, and is not there, or is there
/// by us. `known` are addresses that have been looked at before.
pub(super) fn claims(
    desired: &Desired,
    record: &Record,
    links: &LinkMap,
    known: &BTreeSet<Spot>,
) -> Record {
    let mut claims = Record::default();
    for (holding, _) in desired.values() {
        let unknown = holding.spots().filter(|spot| !known.contains(spot));
        let ours = unknown.filter(|spot| !is_there(links, spot) || record.has(spot));
        claims.addresses.extend(ours);
        claims
            .devices
            .extend(holding.own_device().map(|it| it.name));
    }
    claims
}

/// What is ours by these steps.
pub(super) fn touched(steps: &[Step]) -> Record {
    let mut touched = Record::default();
    for step in steps {
        match step {
            Step::Add(spot) => drop(touched.addresses.insert(spot.clone())),
            Step::Make(device) => drop(touched.devices.insert(device.name.clone())),
            Step::SwitchOn(_) | Step::Remove(_) | Step::Unmake(_) => {}
        }
    }
    touched
}

/// What is to be done next. `all_known`: every virtual router that there is has said what it wants.
pub(super) fn plan(
    desired: &Desired,
    record: &Record,
    links: &LinkMap,
    all_known: bool,
) -> Vec<Step> {
    // First what is to go: an address may be wanted on another device.
    let mut steps = removals(desired, record, links, all_known);
    let leaves = |device: &str, address: IpAddr, prefix| {
        let address = VirtualAddress { address, prefix };
        let device = device.to_owned();
        steps.contains(&Step::Remove(Spot { device, address }))
    };
    let mut additions = Vec::new();
    for (holding, wanted) in desired.values() {
        if *wanted != Wanted::Held {
            continue;
        }
        let is_running = |name: &str| links.get(name).map(|link| link.is_running);
        if let Some(device) = holding.own_device() {
            match is_running(&device.name) {
                None => additions.push(Step::Make(device)),
                Some(false) if is_running(&device.parent) == Some(true) => {
                    additions.push(Step::SwitchOn(device.name));
                }
                Some(_) => {}
            }
        }
        let is_missing = |spot: &Spot| {
            let prefixes = prefixes(links, spot);
            let mut stay =
                prefixes.filter(|prefix| !leaves(&spot.device, spot.address.address, *prefix));
            stay.next().is_none()
        };
        additions.extend(holding.spots().filter(is_missing).map(Step::Add));
    }
    steps.extend(additions);
    steps
}

/// What is ours and not wanted where it is.
fn removals(desired: &Desired, record: &Record, links: &LinkMap, all_known: bool) -> Vec<Step> {
    let mut told_of = BTreeSet::new();
    let (mut held, mut as_found) = (BTreeSet::new(), BTreeSet::new());
    let (mut devices, mut used_devices) = (BTreeSet::new(), BTreeSet::new());
    for (holding, wanted) in desired.values() {
        told_of.extend(holding.spots());
        devices.insert(holding.device());
        match wanted {
            Wanted::Held => held.extend(holding.spots()),
            // With the prefix that it was found with.
            Wanted::AsFound => {
                let places = holding.spots();
                as_found.extend(places.map(|spot| (spot.device, spot.address.address)));
            }
            Wanted::Released => continue,
        }
        used_devices.insert(holding.device());
    }
    let is_over = |device: &&String| {
        let may_go = all_known || devices.contains(*device);
        may_go && !used_devices.contains(*device) && links.contains_key(*device)
    };
    let unmade: BTreeSet<&String> = record.devices.iter().filter(is_over).collect();
    let is_unwanted = |spot: &&Spot| {
        let may_go = all_known || told_of.contains(*spot);
        let is_used =
            held.contains(*spot) || as_found.contains(&(spot.device.clone(), spot.address.address));
        // A device takes its addresses with it. If they went before it, the kernel would tell routers, by MLD from the
        // virtual MAC address, that their groups are left; and switches would learn that address here, where nobody is
        // active any more.
        may_go && !is_used && is_there_so(links, spot) && !unmade.contains(&spot.device)
    };
    let removed = record.addresses.iter().filter(is_unwanted).cloned();
    let removed = removed.map(Step::Remove);
    // For the same reason devices go first, and of them those of IPv6, whose names come last: some 20 ms each, during
    // which those that are still there may speak of groups, while those of IPv4 speak if they are asked.
    let unmade = unmade.iter().rev().copied().cloned().map(Step::Unmake);
    unmade.chain(removed).collect()
}

/// What of the record can be forgotten: it is not there, and nobody wants it. What is released counts as wanted
/// later, unless it `is_over`.
pub(super) fn over(desired: &Desired, record: &Record, links: &LinkMap, is_over: bool) -> Record {
    let wanted = || {
        let wanted = desired.values();
        wanted
            .filter(|(_, wanted)| !is_over || *wanted != Wanted::Released)
            .map(|(holding, _)| holding)
    };
    let spots: BTreeSet<Spot> = wanted().flat_map(Holding::spots).collect();
    let devices: BTreeSet<String> = wanted().map(Holding::device).collect();
    let is_gone = |spot: &&Spot| !spots.contains(*spot) && !is_there_so(links, spot);
    let is_unmade = |device: &&String| !devices.contains(*device) && !links.contains_key(*device);
    Record {
        addresses: record.addresses.iter().filter(is_gone).cloned().collect(),
        devices: record.devices.iter().filter(is_unmade).cloned().collect(),
    }
}

/// Why a device could not be made or unmade, if it could not.
pub(super) fn error_of_device<'a>(
    errors: &'a BTreeMap<Step, String>,
    name: &str,
) -> Option<&'a String> {
    let is_about = |step: &Step| match step {
        Step::Make(device) => device.name == name,
        Step::SwitchOn(device) | Step::Unmake(device) => device == name,
        Step::Add(_) | Step::Remove(_) => false,
    };
    let mut found = errors.iter().filter(|(step, _)| is_about(step));
    found.next().map(|(_, error)| error)
}

/// Whether a device has an address, with whatever prefix.
pub(super) fn is_there(links: &LinkMap, spot: &Spot) -> bool {
    prefixes(links, spot).next().is_some()
}

/// Whether a device has an address with the same prefix.
fn is_there_so(links: &LinkMap, spot: &Spot) -> bool {
    prefixes(links, spot).any(|prefix| prefix == spot.address.prefix)
}

/// The lengths of the prefixes that a device has an address with.
fn prefixes<'a>(links: &'a LinkMap, spot: &'a Spot) -> impl Iterator<Item = u8> {
    let addresses = links.get(&spot.device).map(|link| &link.addresses[..]);
    let known = addresses.unwrap_or_default().iter();
    let same = known.filter(|known| known.address == spot.address.address);
    same.map(|known| known.prefix)
}

#[cfg(test)]
mod tests;
