//! What is to be done so that the interfaces have the addresses that they should. No I/O.

use std::collections::{BTreeMap, BTreeSet};

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

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the device of a virtual MAC address.
    Make(usize),
    /// Add an address.
    Add(Spot),
    /// Take an address away.
    Remove(Spot),
    /// Take a device away.
    Unmake(String),
}

/// Everything that is to be claimed as ours before it is touched: it is wanted, at some time, and is not
/// there, so it is not somebody else's. `known` are those that have been looked at before.
pub(super) fn claims(desired: &Desired, links: &LinkMap, known: &BTreeSet<Spot>) -> Record {
    let mut record = Record::default();
    for (holding, _) in desired.values() {
        let device = holding.device();
        for spot in holding.spots() {
            if !known.contains(&spot) && !is_there(links, &spot) {
                record.addresses.insert(spot);
            }
        }
        if holding.virtual_mac {
            record.devices.insert(device);
        }
    }
    record
}

/// What is to be done next. `all_known`: every virtual router that there is has said what it wants.
pub(super) fn plan(
    desired: &Desired,
    record: &Record,
    links: &LinkMap,
    all_known: bool,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut used, mut told_of) = (BTreeSet::new(), BTreeSet::new());
    let mut used_devices = BTreeSet::new();
    // First what is to go: an address may be wanted on another device.
    for (holding, wanted) in desired.values() {
        told_of.extend(holding.spots());
        if *wanted != Wanted::Released {
            used.extend(holding.spots());
            used_devices.insert(holding.device());
        }
    }
    for spot in &record.addresses {
        let may_go = all_known || told_of.contains(spot);
        if may_go && !used.contains(spot) && is_there(links, spot) {
            steps.push(Step::Remove(spot.clone()));
        }
    }
    for device in &record.devices {
        let is_told_of = desired.values().any(|(it, _)| it.device() == *device);
        if (all_known || is_told_of) && !used_devices.contains(device) && links.contains_key(device)
        {
            steps.push(Step::Unmake(device.clone()));
        }
    }
    for (&id, (holding, wanted)) in desired {
        if *wanted != Wanted::Held {
            continue;
        }
        if holding.virtual_mac && !links.contains_key(&holding.device()) {
            steps.push(Step::Make(id));
        }
        let missing = holding.spots().filter(|spot| !is_there(links, spot));
        steps.extend(missing.map(Step::Add));
    }
    steps
}

/// What of the record can be forgotten: nobody wants it, and it is not there.
pub(super) fn over(desired: &Desired, record: &Record, links: &LinkMap) -> Record {
    let told_of: BTreeSet<Spot> = desired.values().flat_map(|(it, _)| it.spots()).collect();
    let devices: BTreeSet<String> = desired
        .values()
        .filter(|(holding, _)| holding.virtual_mac)
        .map(|(holding, _)| holding.device())
        .collect();
    let is_over = |spot: &&Spot| !told_of.contains(*spot) && !is_there(links, spot);
    let is_unmade = |device: &&String| !devices.contains(*device) && !links.contains_key(*device);
    Record {
        addresses: record.addresses.iter().filter(is_over).cloned().collect(),
        devices: record.devices.iter().filter(is_unmade).cloned().collect(),
    }
}

/// Whether a device has an address, with whatever prefix.
pub(super) fn is_there(links: &LinkMap, spot: &Spot) -> bool {
    let link = links.get(&spot.device);
    link.is_some_and(|link| {
        let mut addresses = link.addresses.iter();
        addresses.any(|known| known.address == spot.address.address)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::netlink::{IfAddress, Link};

    fn vip(last: u8) -> VirtualAddress {
        VirtualAddress {
            address: [192, 0, 2, last].into(),
            prefix: 32,
        }
    }

    fn holding(lasts: &[u8]) -> Holding {
        Holding {
            interface: "eth0".into(),
            vrid: 51,
            is_ipv6: false,
            addresses: lasts.iter().map(|&last| vip(last)).collect(),
            virtual_mac: false,
        }
    }

    fn spot(last: u8) -> Spot {
        Spot {
            device: "eth0".into(),
            address: vip(last),
        }
    }

    fn record(lasts: &[u8]) -> Record {
        Record {
            addresses: lasts.iter().map(|&last| spot(last)).collect(),
            devices: BTreeSet::new(),
        }
    }

    fn links(devices: &[(&str, &[u8])]) -> LinkMap {
        let links = devices.iter().zip(1..).map(|((name, lasts), ifindex)| {
            let addresses = lasts.iter().map(|&last| IfAddress {
                address: vip(last).address,
                prefix: 24,
                is_tentative: false,
            });
            let link = Link {
                ifindex,
                is_running: true,
                mac: [2; 6],
                addresses: addresses.collect(),
            };
            ((*name).to_owned(), link)
        });
        Arc::new(links.collect())
    }

    fn one(holding: Holding, wanted: Wanted) -> Desired {
        [(1, (holding, wanted))].into()
    }

    #[test]
    fn addresses_are_added_where_they_are_missing_and_removed_where_they_are_ours() {
        let held = one(holding(&[10, 11]), Wanted::Held);
        let ours = record(&[10, 11]);
        let some = links(&[("eth0", &[10])]);
        assert_eq!(plan(&held, &ours, &some, true), [Step::Add(spot(11))]);
        let released = one(holding(&[10, 11]), Wanted::Released);
        assert_eq!(
            plan(&released, &ours, &some, true),
            [Step::Remove(spot(10))]
        );
        // What is left of an earlier life stays until somebody decides.
        let as_found = one(holding(&[10, 11]), Wanted::AsFound);
        assert_eq!(plan(&as_found, &ours, &some, true), []);
        assert_eq!(
            plan(&held, &ours, &links(&[]), true).len(),
            2,
            "tried until it works"
        );
    }

    #[test]
    fn what_was_there_before_us_is_nobodys_but_its_owners() {
        let desired = one(holding(&[10, 11]), Wanted::AsFound);
        let there = links(&[("eth0", &[10])]);
        let claimed = claims(&desired, &there, &BTreeSet::new());
        assert_eq!(claimed, record(&[11]));
        let released = one(holding(&[10, 11]), Wanted::Released);
        assert_eq!(plan(&released, &claimed, &there, true), []);
        // Looked at once is enough: it may be taken away and put back by others.
        let known = [spot(10), spot(11)].into();
        assert_eq!(
            claims(&desired, &links(&[("eth0", &[])]), &known),
            record(&[])
        );
    }

    #[test]
    fn what_nobody_wants_any_more_goes_once_everybody_has_spoken() {
        let ours = record(&[10, 11]);
        let there = links(&[("eth0", &[10, 11])]);
        let desired = one(holding(&[10]), Wanted::Held);
        assert_eq!(plan(&desired, &ours, &there, false), []);
        assert_eq!(
            plan(&desired, &ours, &there, true),
            [Step::Remove(spot(11))]
        );
        assert_eq!(over(&desired, &ours, &there), record(&[]));
        let gone = links(&[("eth0", &[10])]);
        assert_eq!(over(&desired, &ours, &gone), record(&[11]));
        assert_eq!(over(&Desired::new(), &ours, &links(&[])), ours);
    }

    #[test]
    fn an_address_that_another_wants_stays() {
        let desired: Desired = [
            (1, (holding(&[10]), Wanted::Released)),
            (2, (holding(&[10]), Wanted::Held)),
        ]
        .into();
        let there = links(&[("eth0", &[10])]);
        assert_eq!(plan(&desired, &record(&[10]), &there, true), []);
    }

    #[test]
    fn a_virtual_mac_has_a_device() {
        let with_mac = Holding {
            virtual_mac: true,
            ..holding(&[10])
        };
        let device = with_mac.device();
        let on_device = Spot {
            device: device.clone(),
            address: vip(10),
        };
        let held = one(with_mac.clone(), Wanted::Held);
        let none = links(&[("eth0", &[])]);
        let claimed = claims(&held, &none, &BTreeSet::new());
        assert!(claimed.devices.contains(&device) && claimed.addresses.contains(&on_device));
        assert_eq!(
            plan(&held, &claimed, &none, true),
            [Step::Make(1), Step::Add(on_device.clone())]
        );
        let made = links(&[("eth0", &[]), (&device, &[10])]);
        assert_eq!(plan(&held, &claimed, &made, true), []);
        let released = one(with_mac, Wanted::Released);
        assert_eq!(
            plan(&released, &claimed, &made, true),
            [Step::Remove(on_device), Step::Unmake(device)]
        );
        // It has no virtual MAC any more: the address moves to the interface.
        let without = one(holding(&[10]), Wanted::Held);
        let steps = plan(&without, &claimed, &made, true);
        assert_eq!(steps.last(), Some(&Step::Add(spot(10))));
        assert_eq!(steps.len(), 3);
    }
}
