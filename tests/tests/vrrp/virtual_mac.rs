//! VIPs with a MAC address of their own: neighbours notice nothing of a failover.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use xdp_lb_tests::vrrp::{Pair, config, neighbour};

/// Two directors, of which the first has the better priority.
fn pair() -> Result<Pair> {
    let configs = [200, 100].map(|priority| {
        let entry = format!(
            "name: main, interface: eth0, vrid: 51, priority: {priority}, advert_interval: 100ms, \
             vips: [192.0.2.10, \"2001:db8:10::10\"], virtual_mac: true"
        );
        config(2, &[entry])
    });
    let pair = Pair::new(2, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    Ok(pair)
}

/// Checks that requests are answered, and that the router sends to the virtual MAC addresses.
fn check(pair: &Pair, director: usize) -> Result<()> {
    for vip in ["192.0.2.10", "2001:db8:10::10"] {
        pair.wait_for_vip(director, vip, true)?;
        pair.wait_for_vip(1 - director, vip, false)?;
    }
    let vip = (pair.lab.vip(), 80).into();
    for response in pair.lab.client().get_many(vip, "/", 20, 4) {
        ensure!(response?.status == 200, "not a good answer");
    }
    let router = pair.lab.host("router");
    for (vip, mac) in [
        ("192.0.2.10", "00:00:5e:00:01:33"),
        ("2001:db8:10::10", "00:00:5e:00:02:33"),
    ] {
        let vip: IpAddr = vip.parse()?;
        ensure!(router.pings(vip)?, "{vip} does not answer");
        let found = neighbour(router, vip)?;
        ensure!(found.as_deref() == Some(mac), "{vip} is at {found:?}");
    }
    Ok(())
}

#[test]
fn a_failover_changes_no_mac_address() -> Result<()> {
    let mut pair = pair()?;
    check(&pair, 0)?;
    let shown = pair.view(0)?["virtual_mac"].clone();
    ensure!(shown == "00:00:5e:00:01:33", "{shown}");
    pair.directors[0].terminate()?;
    pair.wait_for_state(1, "active")?;
    check(&pair, 1)?;
    pair.directors[0].restart()?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    check(&pair, 0)
}
