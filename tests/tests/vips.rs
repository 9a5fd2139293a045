//! Addresses of virtual routers on real interfaces: they come and go, others are left alone, and neighbours
//! hear of it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use xdp_lb::vrrp::ownership::{Holding, Wanted};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::vips::{
    Holder, addresses, check_addresses, check_answers, holding, wait_for_neighbours,
};
use xdp_lb_tests::vrrp::{has_address, neighbour, wait_for_vip};
use xtask::lab::{Host, Lab, LabConfig, wait_for};

fn lab() -> Result<Lab> {
    Lab::new(LabConfig::redundant(1))
}

fn record(lab: &Lab, host: &Host) -> PathBuf {
    lab.dir().join(format!("vips-{}.json", host.name()))
}

fn start(lab: &Lab, host: &Host) -> Result<Holder> {
    Holder::start(host, &record(lab, host))
}

/// A lab and something that has addresses on its first director.
fn director() -> Result<(Holder, Arc<Host>, Lab)> {
    let lab = lab()?;
    let host = Arc::clone(lab.host("director"));
    Ok((start(&lab, &host)?, host, lab))
}

/// One VIP of each family.
fn both() -> [Holding; 2] {
    [
        holding(&["192.0.2.10/32"]),
        holding(&["2001:db8:10::10/128"]),
    ]
}

fn with_virtual_mac() -> [Holding; 2] {
    both().map(|it| Holding {
        virtual_mac: true,
        ..it
    })
}

#[test]
fn addresses_come_and_go_and_ipv6_ones_are_no_source() -> Result<()> {
    let (holder, host, _lab) = director()?;
    for _ in 0..2 {
        holder.set(&both(), Wanted::Held);
        check_addresses(&host, &both(), true)?;
        let shown = host.ip(&["address", "show", "to", "2001:db8:10::10"])?;
        ensure!(shown.contains("nodad deprecated"), "{shown}");
        for address in addresses(&both()) {
            let held = holder.held(address)?;
            ensure!(held.is_held && held.error.is_none(), "{held:?}");
        }
        holder.set(&both(), Wanted::Released);
        check_addresses(&host, &both(), false)?;
        for address in addresses(&both()) {
            let held = holder.held(address)?;
            ensure!(!held.is_held && held.error.is_none(), "{held:?}");
        }
    }
    Ok(())
}

#[test]
fn addresses_that_are_flushed_come_back_and_are_announced() -> Result<()> {
    let (holder, host, lab) = director()?;
    holder.set(&both(), Wanted::Held);
    let router = lab.host("router");
    check_answers(router, &both())?;
    // Neighbours have come to believe something else.
    for address in addresses(&both()) {
        let (address, other) = (address.to_string(), "02:00:00:00:00:99");
        router.ip(&[
            "neigh", "replace", &address, "lladdr", other, "dev", "eth1", "nud", "stale",
        ])?;
    }
    host.ip(&["address", "flush", "dev", "eth0", "scope", "global"])?;
    for address in addresses(&both()) {
        wait_for_vip(&host, &address.to_string(), true)?;
    }
    wait_for_neighbours(router, &both(), &host.mac("eth0")?)
}

#[test]
fn addresses_that_were_there_before_stay() -> Result<()> {
    let lab = lab()?;
    let host = lab.host("director");
    let vip = "192.0.2.10/32";
    host.ip(&["address", "add", vip, "dev", "eth0"])?;
    let holder = start(&lab, host)?;
    let ours = [holding(&[vip, "192.0.2.11/32"])];
    holder.set(&ours, Wanted::Held);
    check_addresses(host, &ours, true)?;
    holder.set(&ours, Wanted::Released);
    ensure!(has_address(host, "192.0.2.10")?, "it was not ours");
    ensure!(!has_address(host, "192.0.2.11")?, "it was ours");
    let held = holder.held([192, 0, 2, 10].into())?;
    let error = held.error.context("nobody is told")?;
    ensure!(error.contains("was there before"), "{error}");
    Ok(())
}

#[test]
fn what_others_gave_up_is_ours_from_then_on() -> Result<()> {
    let lab = lab()?;
    let host = lab.host("director");
    let vip = "192.0.2.10/32";
    host.ip(&["address", "add", vip, "dev", "eth0"])?;
    let holder = start(&lab, host)?;
    let ours = [holding(&[vip])];
    holder.set(&ours, Wanted::Held);
    host.ip(&["address", "del", vip, "dev", "eth0"])?;
    wait_for_vip(host, "192.0.2.10", true)?;
    holder.set(&ours, Wanted::Released);
    check_addresses(host, &ours, false)
}

#[test]
fn another_prefix_is_another_address_and_goes_as_the_first_one_would() -> Result<()> {
    let (holder, host, _lab) = director()?;
    holder.all_known();
    holder.set(&both(), Wanted::Held);
    let wider = [
        holding(&["192.0.2.10/24"]),
        holding(&["2001:db8:10::10/64"]),
    ];
    holder.set(&wider, Wanted::Held);
    let shown = host.ip(&["-brief", "address", "show", "dev", "eth0"])?;
    for expected in ["192.0.2.10/24", "2001:db8:10::10/64"] {
        ensure!(shown.contains(expected), "{shown}");
    }
    ensure!(!shown.contains("/32") && !shown.contains("/128"), "{shown}");
    holder.set(&wider, Wanted::Released);
    check_addresses(&host, &wider, false)
}

#[test]
fn the_hosts_own_address_stays_when_a_vip_of_its_network_goes() -> Result<()> {
    let (holder, host, _lab) = director()?;
    let own = "10.0.0.2/24";
    host.ip(&["address", "del", own, "dev", "eth0"])?;
    let vip = [holding(&["10.0.0.100/24"])];
    holder.set(&vip, Wanted::Held);
    // The kernel takes an address that came later for one that depends on the first.
    host.ip(&["address", "add", own, "dev", "eth0"])?;
    holder.set(&vip, Wanted::Released);
    check_addresses(&host, &vip, false)?;
    ensure!(has_address(&host, "10.0.0.2")?, "the own address is gone");
    Ok(())
}

#[test]
fn neighbours_hear_at_once_who_has_the_addresses() -> Result<()> {
    let (first, host, lab) = director()?;
    let other = lab.host("director2");
    let second = start(&lab, other)?;
    let router = lab.host("router");
    first.set(&both(), Wanted::Held);
    check_answers(router, &both())?;
    wait_for_neighbours(router, &both(), &host.mac("eth0")?)?;
    first.set(&both(), Wanted::Released);
    second.set(&both(), Wanted::Held);
    wait_for_neighbours(router, &both(), &other.mac("eth0")?)?;
    check_answers(router, &both())?;
    // An interface that gets another MAC address is like another holder.
    let new = "02:00:5e:00:53:01";
    other.ip(&["link", "set", "eth0", "address", new])?;
    wait_for_neighbours(router, &both(), new)?;
    check_answers(router, &both())
}

#[test]
fn an_interface_that_vanishes_and_comes_back_gets_its_addresses_again() -> Result<()> {
    let (holder, host, _lab) = director()?;
    let there = Holding {
        interface: "cable".into(),
        ..holding(&["192.0.2.77/32"])
    };
    let vip = there.addresses[0].address;
    holder.set(std::slice::from_ref(&there), Wanted::Held);
    let error = holder.held(vip)?.error.context("no error")?;
    ensure!(error == "there is no interface cable", "{error}");
    for _ in 0..2 {
        host.ip(&[
            "link", "add", "cable", "type", "veth", "peer", "name", "end",
        ])?;
        holder.wait_for("the VIP to be held", vip, |it| {
            it.is_held && it.error.is_none()
        })?;
        wait_for_vip(&host, "192.0.2.77", true)?;
        host.ip(&["link", "del", "cable"])?;
        holder.wait_for("the VIP to be missed", vip, |it| {
            !it.is_held && it.error.is_some()
        })?;
    }
    // What cannot be held is nothing to be said of once it is not wanted.
    holder.set(&[there], Wanted::Released);
    ensure!(holder.held(vip)?.error.is_none());
    Ok(())
}

#[test]
fn leftovers_of_a_killed_daemon_stay_until_it_is_known_who_is_active() -> Result<()> {
    for holdings in [both(), with_virtual_mac()] {
        let (first, host, lab) = director()?;
        first.set(&holdings, Wanted::Held);
        drop(first);
        let second = start(&lab, &host)?;
        second.set(&holdings, Wanted::AsFound);
        second.all_known();
        check_addresses(&host, &holdings, true)?;
        drop(second);
        // The third one has another config: one of the VIPs is not in it.
        let [v4, v6] = &holdings;
        let third = start(&lab, &host)?;
        third.set(std::slice::from_ref(v6), Wanted::AsFound);
        check_addresses(&host, &holdings, true)?;
        third.all_known();
        check_addresses(&host, std::slice::from_ref(v4), false)?;
        check_addresses(&host, std::slice::from_ref(v6), true)?;
        third.set(std::slice::from_ref(v6), Wanted::Released);
        check_addresses(&host, &holdings, false)?;
        let links = host.ip(&["-brief", "link", "show", "type", "macvlan"])?;
        ensure!(links.is_empty(), "{links}");
    }
    Ok(())
}

#[test]
fn after_a_clean_end_an_address_may_be_anybodys() -> Result<()> {
    let (first, host, lab) = director()?;
    first.set(&both(), Wanted::Held);
    first.set(&both(), Wanted::Released);
    drop(first);
    host.ip(&["address", "add", "192.0.2.10/32", "dev", "eth0"])?;
    let second = start(&lab, &host)?;
    second.set(&both(), Wanted::Held);
    second.set(&both(), Wanted::Released);
    ensure!(has_address(&host, "192.0.2.10")?, "it was not ours");
    ensure!(!has_address(&host, "2001:db8:10::10")?, "it was ours");
    Ok(())
}

#[test]
fn a_record_that_cannot_be_read_is_kept_aside() -> Result<()> {
    let lab = lab()?;
    let host = lab.host("director");
    let record = record(&lab, host);
    fs::write(&record, "{ \"addresses\": [")?;
    let holder = start(&lab, host)?;
    holder.set(&both(), Wanted::Held);
    check_addresses(host, &both(), true)?;
    let kept = fs::read_to_string(record.with_extension("json.bad"))?;
    ensure!(kept == "{ \"addresses\": [", "{kept}");
    // A new one has begun.
    drop(holder);
    let holder = start(&lab, host)?;
    holder.set(&both(), Wanted::Released);
    check_addresses(host, &both(), false)
}

#[test]
fn a_virtual_mac_address_stays_the_same_whoever_has_it() -> Result<()> {
    let (first, host, lab) = director()?;
    let other = lab.host("director2");
    let second = start(&lab, other)?;
    let router = lab.host("router");
    let holdings = with_virtual_mac();
    let check = |holder: &Host| -> Result<()> {
        check_answers(router, &holdings)?;
        let [v4, v6] = [0, 1].map(|it| std::slice::from_ref(&holdings[it]));
        wait_for_neighbours(router, v4, "00:00:5e:00:01:33")?;
        wait_for_neighbours(router, v6, "00:00:5e:00:02:33")?;
        check_addresses(holder, &holdings, true)
    };
    first.set(&holdings, Wanted::Held);
    check(&host)?;
    // Nobody else answers for them, nor they for others.
    for _ in 0..5 {
        router.ip(&["neigh", "flush", "dev", "eth1"])?;
        check(&host)?;
        for own in [host.v4().into(), host.v6().into()] {
            ensure!(router.pings(own)?, "{own} does not answer");
            let mac = neighbour(router, own)?;
            ensure!(mac == Some(host.mac("eth0")?), "{own} is at {mac:?}");
        }
    }
    first.set(&holdings, Wanted::Released);
    check_addresses(&host, &holdings, false)?;
    let links = host.ip(&["-brief", "link", "show", "type", "macvlan"])?;
    ensure!(links.is_empty(), "{links}");
    second.set(&holdings, Wanted::Held);
    check(other)
}

#[test]
fn a_virtual_mac_address_is_repaired_and_can_be_given_up() -> Result<()> {
    let (holder, host, lab) = director()?;
    holder.all_known();
    let router = lab.host("router");
    let holdings = with_virtual_mac();
    holder.set(&holdings, Wanted::Held);
    check_answers(router, &holdings)?;
    let devices = host.ip(&["-brief", "link", "show", "type", "macvlan"])?;
    let devices: Vec<&str> = devices
        .lines()
        .filter_map(|line| line.split('@').next())
        .collect();
    ensure!(devices.len() == 2, "{devices:?}");
    // The addresses of both go with it, or the packets to them.
    for device in &devices {
        host.ip(&["link", "set", device, "down"])?;
    }
    wait_for("the VIPs to answer again", SOON, || {
        Ok(check_answers(router, &holdings).is_ok().then_some(()))
    })?;
    for device in &devices {
        host.ip(&["link", "del", device])?;
    }
    wait_for("the VIPs to answer again", SOON, || {
        Ok(check_answers(router, &holdings).is_ok().then_some(()))
    })?;
    // Another config: the addresses move to the interface itself.
    holder.set(&both(), Wanted::Held);
    wait_for_neighbours(router, &both(), &host.mac("eth0")?)?;
    check_answers(router, &both())?;
    let links = host.ip(&["-brief", "link", "show", "type", "macvlan"])?;
    ensure!(links.is_empty(), "{links}");
    Ok(())
}
