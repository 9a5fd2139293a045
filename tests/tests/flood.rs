//! A SYN flood while connections transfer data: none of them breaks, and the flood is not remembered.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use xdp_lb_common::abi::{FlowEntry, FlowKey, map};
use xdp_lb_tests::lab::{Rig, SOON, served, wait_until_all_go_on};
use xtask::lab::flood::{Flood, SOURCES};
use xtask::lab::{Downloads, wait_for};

/// SYNs, where the variable `XDP_LB_FLOOD` says nothing else.
const SYNS: u64 = 2_000_000;
const DOWNLOADS: usize = 200;

fn syns() -> Result<u64> {
    match std::env::var("XDP_LB_FLOOD") {
        Ok(count) => count.parse().context("XDP_LB_FLOOD is no number"),
        Err(_) => Ok(SYNS),
    }
}

/// The clients of the flows that the director remembers.
fn remembered(rig: &Rig) -> Result<HashSet<SocketAddr>> {
    let pins = rig.director.pin_dir();
    rig.director
        .host()
        .run(|| clients(&pins.join(map::FLOWS_V4)))
}

fn clients(pinned: &Path) -> Result<HashSet<SocketAddr>> {
    let data = Map::LruHashMap(MapData::from_pin(pinned)?);
    let flows = HashMap::<_, FlowKey<[u8; 4]>, FlowEntry>::try_from(data)?;
    let client = |key: FlowKey<[u8; 4]>| {
        SocketAddr::new(
            IpAddr::from(key.source),
            u16::from_be_bytes(key.source_port_be),
        )
    };
    Ok(flows
        .keys()
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(client)
        .collect())
}

fn clients_of(downloads: &Downloads) -> HashSet<SocketAddr> {
    downloads
        .progress()
        .iter()
        .filter_map(|it| it.local)
        .collect()
}

#[test]
fn a_syn_flood_breaks_no_connection_and_is_not_remembered() -> Result<()> {
    let rig = Rig::new(3)?;
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
    let own = clients_of(&downloads);
    ensure!(own.len() == DOWNLOADS, "{} clients", own.len());
    // A flow is remembered by its first packet after the SYN.
    wait_for("all downloads' flows to be remembered", SOON, || {
        Ok(remembered(&rig)?.is_superset(&own).then_some(()))
    })?;
    let before = remembered(&rig)?.len();
    let forwarded = rig.counter("forwarded")?;

    let count = syns()?;
    // What comes after the router, which is not what is tested.
    let router = (rig.lab.host("router"), "eth1");
    let gateway = rig.lab.host("director").mac("eth0")?;
    let to = SocketAddrV4::new(rig.lab.vip(), 80);
    let flood = Flood::start(router, &gateway, to, count)?;
    while !flood.is_over() {
        wait_until_all_go_on(&downloads)?;
        let now = remembered(&rig)?.len();
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
    ensure!(after.is_superset(&own), "flows of downloads are forgotten");
    ensure!(
        after.len() <= before,
        "from {before} to {} flows",
        after.len()
    );
    // And there is room for new connections.
    ensure!(rig.get(50)?.len() == 50);
    Ok(())
}
