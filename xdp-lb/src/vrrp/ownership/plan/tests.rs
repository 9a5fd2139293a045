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
            prefix: 32,
            is_tentative: false,
        });
        let link = Link {
            ifindex,
            is_running: true,
            mac: [2; 6],
            below: None,
            master: None,
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
    let nothing = Record::default();
    let claimed = claims(&desired, &nothing, &there, &BTreeSet::new());
    assert_eq!(claimed, record(&[11]));
    let released = one(holding(&[10, 11]), Wanted::Released);
    assert_eq!(plan(&released, &claimed, &there, true), []);
    // Looked at once is enough: it may be taken away and put back by others.
    let known = [spot(10), spot(11)].into();
    assert_eq!(
        claims(&desired, &nothing, &links(&[("eth0", &[])]), &known),
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
    assert_eq!(over(&desired, &ours, &there, false), record(&[]));
    let gone = links(&[("eth0", &[10])]);
    assert_eq!(over(&desired, &ours, &gone, false), record(&[11]));
    assert_eq!(over(&Desired::new(), &ours, &links(&[]), false), ours);
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
    let own = with_mac.own_device().unwrap();
    let on_device = Spot {
        device: device.clone(),
        address: vip(10),
    };
    let held = one(with_mac.clone(), Wanted::Held);
    let none = links(&[("eth0", &[])]);
    let claimed = claims(&held, &Record::default(), &none, &BTreeSet::new());
    assert!(claimed.devices.contains(&device) && claimed.addresses.contains(&on_device));
    assert_eq!(
        plan(&held, &claimed, &none, true),
        [Step::Make(own), Step::Add(on_device.clone())]
    );
    let made = links(&[("eth0", &[]), (&device, &[10])]);
    assert_eq!(plan(&held, &claimed, &made, true), []);
    let released = one(with_mac.clone(), Wanted::Released);
    assert_eq!(
        plan(&released, &claimed, &made, true),
        [Step::Unmake(device.clone())],
        "its address goes with it"
    );
    // One of two addresses, of which the other stays: so does the device.
    let two = Holding {
        addresses: vec![vip(10), vip(11)],
        ..with_mac.clone()
    };
    let both = links(&[("eth0", &[]), (&device, &[10, 11])]);
    let claimed_two = claims(
        &one(two, Wanted::Held),
        &Record::default(),
        &none,
        &BTreeSet::new(),
    );
    let kept = one(
        Holding {
            addresses: vec![vip(11)],
            ..with_mac
        },
        Wanted::Held,
    );
    assert_eq!(
        plan(&kept, &claimed_two, &both, true),
        [Step::Remove(on_device.clone())]
    );
    // Until everybody has spoken, what nobody has told of stays as a whole.
    assert_eq!(plan(&Desired::new(), &claimed, &made, false), []);
    // A device that is not known as ours stays, without the address that is.
    let found = Record {
        devices: BTreeSet::new(),
        ..claimed.clone()
    };
    assert_eq!(
        plan(&Desired::new(), &found, &made, true),
        [Step::Remove(on_device)]
    );
    // It has no virtual MAC any more: the address moves to the interface.
    let without = one(holding(&[10]), Wanted::Held);
    assert_eq!(
        plan(&without, &claimed, &made, true),
        [Step::Unmake(device), Step::Add(spot(10))]
    );
}

/// As [`vip`], with another prefix than usual.
fn wider(last: u8) -> VirtualAddress {
    VirtualAddress {
        prefix: 24,
        ..vip(last)
    }
}

#[test]
fn an_address_that_gets_another_prefix_is_replaced_and_stays_ours() {
    let before = record(&[10]);
    let there = links(&[("eth0", &[10])]);
    let wide = Holding {
        addresses: vec![wider(10)],
        ..holding(&[])
    };
    let wide_spot = Spot {
        address: wider(10),
        ..spot(10)
    };
    let held = one(wide.clone(), Wanted::Held);
    let claimed = claims(&held, &before, &there, &BTreeSet::new());
    assert!(claimed.addresses.contains(&wide_spot), "{claimed:?}");
    assert_eq!(
        plan(&held, &before, &there, true),
        [Step::Remove(spot(10)), Step::Add(wide_spot)]
    );
    // Until it is known who is active, it stays as it is.
    let as_found = one(wide.clone(), Wanted::AsFound);
    assert_eq!(plan(&as_found, &before, &there, true), []);
    let released = one(wide, Wanted::Released);
    assert_eq!(
        plan(&released, &before, &there, true),
        [Step::Remove(spot(10))]
    );
}

#[test]
fn an_address_with_another_prefix_is_not_the_one_that_we_added() {
    let wide = Record {
        addresses: [Spot {
            address: wider(10),
            ..spot(10)
        }]
        .into(),
        devices: BTreeSet::new(),
    };
    let there = links(&[("eth0", &[10])]);
    assert_eq!(plan(&Desired::new(), &wide, &there, true), []);
    assert_eq!(over(&Desired::new(), &wide, &there, false), wide);
}

#[test]
fn what_is_added_is_ours_whoever_had_it_before() {
    let held = one(holding(&[10, 11]), Wanted::Held);
    // Both were there before us; one has been taken away.
    let steps = plan(&held, &Record::default(), &links(&[("eth0", &[10])]), true);
    assert_eq!(steps, [Step::Add(spot(11))]);
    assert_eq!(touched(&steps), record(&[11]));
}

#[test]
fn what_is_released_at_the_end_is_nobodys() {
    let ours = record(&[10]);
    let (there, gone) = (links(&[("eth0", &[10])]), links(&[("eth0", &[])]));
    for (wanted, links, is_over, forgotten) in [
        (Wanted::Released, &gone, false, false),
        (Wanted::Released, &gone, true, true),
        (Wanted::Released, &there, true, false),
        (Wanted::Held, &gone, true, false),
        (Wanted::AsFound, &gone, true, false),
    ] {
        let over = over(&one(holding(&[10]), wanted), &ours, links, is_over);
        assert_eq!(over == ours, forgotten, "{wanted:?}, {is_over}");
    }
}

/// The kernel repeats of its own accord which multicast groups a device of IPv6 is in.
#[test]
fn devices_go_before_addresses_and_those_of_ipv6_before_those_of_ipv4() {
    let on = |is_ipv6| Holding {
        is_ipv6,
        virtual_mac: true,
        ..holding(&[10])
    };
    let [v4, v6] = [on(false), on(true)].map(|it| it.device());
    let desired: Desired = [on(false), on(true), holding(&[11])]
        .map(|it| (it, Wanted::Released))
        .into_iter()
        .enumerate()
        .collect();
    let none = links(&[("eth0", &[])]);
    let claimed = claims(&desired, &Record::default(), &none, &BTreeSet::new());
    let there = links(&[("eth0", &[11]), (&v4, &[10]), (&v6, &[10])]);
    assert_eq!(
        plan(&desired, &claimed, &there, true),
        [Step::Unmake(v6), Step::Unmake(v4), Step::Remove(spot(11))]
    );
}

#[test]
fn a_device_that_was_switched_off_is_switched_on_if_its_parent_runs() {
    let with_mac = Holding {
        virtual_mac: true,
        ..holding(&[10])
    };
    let device = with_mac.device();
    let held = one(with_mac, Wanted::Held);
    let off = |names: &[&str]| {
        let mut links = links(&[("eth0", &[]), (&device, &[10])]);
        for (name, link) in Arc::make_mut(&mut links) {
            link.is_running = !names.contains(&&**name);
        }
        links
    };
    let switched = plan(&held, &Record::default(), &off(&[&device]), true);
    assert_eq!(switched, [Step::SwitchOn(device.clone())]);
    assert!(!switched[0].is_visible(&off(&[&device])) && switched[0].is_visible(&off(&[])));
    let without_cable = off(&[&device, "eth0"]);
    assert_eq!(plan(&held, &Record::default(), &without_cable, true), []);
}

#[test]
fn a_device_that_cannot_be_made_or_unmade_is_what_is_wrong_with_its_addresses() {
    let with_mac = Holding {
        virtual_mac: true,
        ..holding(&[10])
    };
    let device = with_mac.own_device().unwrap();
    let name = device.name.clone();
    for step in [Step::Make(device), Step::Unmake(name.clone())] {
        let errors = [(step, "no".to_owned())].into();
        assert_eq!(error_of_device(&errors, &name), Some(&"no".to_owned()));
        assert_eq!(error_of_device(&errors, "eth0"), None);
    }
}
