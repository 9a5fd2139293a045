//! A SYN flood while connections transfer data: none of them breaks, and the flood is not remembered.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use xdp_lb_common::abi::{FlowBucket, map};
use xdp_lb_tests::lab::{Rig, SOON, config, served, wait_until_all_go_on};
use xtask::lab::flood::{Flood, SOURCES};
use xtask::lab::wait_for;

/// SYNs, where the variable `XDP_LB_FLOOD` says nothing else.
const SYNS: u64 = 2_000_000;
const DOWNLOADS: usize = 200;

fn syns() -> Result<u64> {
    match std::env::var("XDP_LB_FLOOD") {
        Ok(count) => count.parse().context("XDP_LB_FLOOD is no number"),
        Err(_) => Ok(SYNS),
    }
}

/// How many flows the director remembers.
fn remembered(rig: &Rig) -> Result<usize> {
    let pinned = rig.director.pin_dir().join(map::FLOWS);
    rig.director.host().run(|| {
        let data = Map::Array(MapData::from_pin(&pinned)?);
        let buckets = Array::<_, FlowBucket>::try_from(data)?;
        let mut count = 0;
        for bucket in buckets.iter() {
            count += bucket?.iter().filter(|&&word| word != 0).count();
        }
        Ok(count)
    })
}

#[test]
fn a_syn_flood_breaks_no_connection_and_is_not_remembered() -> Result<()> {
    let config = config(1..=3) + "defaults: { connection_tracking: full }\n";
    let rig = Rig::with_config(3, &config)?;
    // Nobody has these addresses. Backends that answer would take most of the time of a machine
    // that all hosts share.
    let (network, length) = SOURCES;
    let nowhere = format!("{network}/{length}");
    for backend in rig.lab.backends() {
        backend.ip(&["route", "add", "blackhole", &nowhere])?;
    }
    let path = "/download?rate=20k";
    let downloads = rig.lab.client().download(rig.vip(), path, DOWNLOADS)?;
    downloads.wait_until_running(SOON)?;
    let serving = served(&downloads);
    // A flow is remembered by its first packet after the SYN.
    wait_for("all downloads' flows to be remembered", SOON, || {
        Ok((remembered(&rig)? >= DOWNLOADS).then_some(()))
    })?;
    let before = remembered(&rig)?;
    let forwarded = rig.counter("forwarded")?;

    let count = syns()?;
    // What comes after the router, which is not what is tested.
    let router = (rig.lab.host("router"), "eth1");
    let gateway = rig.lab.host("director").mac("eth0")?;
    let to = SocketAddrV4::new(rig.lab.vip(), 80);
    let flood = Flood::start(router, &gateway, to, count)?;
    while !flood.is_over() {
        wait_until_all_go_on(&downloads)?;
        let now = remembered(&rig)?;
        ensure!(now <= before, "from {before} to {now} flows");
    }
    let took = flood.wait()?;
    println!("{count} SYNs in {took:.1?}");
    wait_for("the SYNs to be forwarded", SOON, || {
        let more = rig.counter("forwarded")? - forwarded;
        Ok((more > count / 2).then_some(()))
    })?;
    wait_until_all_go_on(&downloads)?;
    ensure!(
        served(&downloads) == serving,
        "downloads changed their backends"
    );
    let after = remembered(&rig)?;
    ensure!(after == before, "from {before} to {after} flows");
    // And there is room for new connections.
    ensure!(rig.get(50)?.len() == 50);
    Ok(())
}
