//! A switch that floods: what is for one host reaches all, and no director forwards what is for another.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::vrrp::{HOSTS, Pair, config, main_entry};
use xtask::lab::wait_for;

const DATAGRAMS: u64 = 300;

fn counter(pair: &Pair, director: usize, name: &str) -> Result<u64> {
    let text = pair.directors[director].check(&["stats", "--json"])?;
    let stats: Value = serde_json::from_str(&text)?;
    let all = stats["counters"].as_array().context("no counters")?;
    let found = all.iter().find(|it| it["name"] == name);
    let packets = found.and_then(|it| it["packets"].as_u64());
    packets.with_context(|| format!("no counter {name}"))
}

/// What both have counted.
fn both(pair: &Pair, name: &str) -> Result<u64> {
    Ok(counter(pair, 0, name)? + counter(pair, 1, name)?)
}

fn flooded(fields: &str) -> Result<()> {
    let fields = format!("advert_interval: 100ms, {fields}");
    let configs = [200, 100].map(|priority| config(2, &[main_entry(priority, &fields)]));
    let pair = Pair::new(2, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    pair.wait_for_vip(0, "192.0.2.10", true)?;
    let fabric = pair.lab.host("fabric");
    for name in HOSTS {
        fabric.ip(&["link", "set", name, "type", "bridge_slave", "flood", "on"])?;
    }
    let vip: SocketAddr = (pair.lab.vip(), 7).into();
    let client = pair.lab.host("client");
    wait_for("requests to be answered", SOON, || {
        let web = (pair.lab.vip(), 80).into();
        Ok(pair.lab.client().get(web, "/").ok())
    })?;
    // Nobody knows any more where the backend is, and all get what is for it.
    pair.lab.set_cables(pair.lab.host("backend1"), false)?;
    let before = both(&pair, "forwarded")?;
    let seen = both(&pair, "other_host")?;
    client.run(|| -> Result<()> {
        // Each from a port of its own, so that half of them are for the backend that is gone.
        for _ in 0..DATAGRAMS {
            UdpSocket::bind("198.51.100.10:0")?.send_to(b"?", vip)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;
    wait_for("all datagrams to pass the director", SOON, || {
        Ok((both(&pair, "forwarded")? >= before + DATAGRAMS).then_some(()))
    })?;
    // A frame that went round would do so for as long as it may.
    std::thread::sleep(Duration::from_millis(500));
    let forwarded = both(&pair, "forwarded")? - before;
    // The kernel's own traffic, of requests that went before, may be among them.
    ensure!(
        forwarded < DATAGRAMS + 50,
        "{forwarded} of {DATAGRAMS} were forwarded"
    );
    let others = both(&pair, "other_host")? - seen;
    ensure!(others > DATAGRAMS / 4, "only {others} were flooded");
    Ok(())
}

#[test]
fn what_a_switch_floods_is_forwarded_once() -> Result<()> {
    flooded("")
}

#[test]
fn what_a_switch_floods_is_forwarded_once_with_virtual_mac_addresses() -> Result<()> {
    flooded("virtual_mac: true")
}
