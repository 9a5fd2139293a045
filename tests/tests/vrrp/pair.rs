//! Two daemons among themselves: election, leaving, coming back, dying, hanging.

use anyhow::{Result, ensure};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::vrrp::{Pair, config, main_entry};
use xtask::lab::wait_for;

/// Two directors, of which the first has the better priority.
fn pair(fields: &str) -> Result<Pair> {
    let configs = [200, 100].map(|priority| config(2, &[main_entry(priority, fields)]));
    let pair = Pair::new(2, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    Ok(pair)
}

fn get(pair: &Pair) -> Result<()> {
    let vip = (pair.lab.vip(), 80).into();
    for response in pair.lab.client().get_many(vip, "/", 20, 4) {
        ensure!(response?.status == 200, "not a good answer");
    }
    Ok(())
}

#[test]
fn the_better_one_is_active_and_the_other_takes_over_when_it_leaves() -> Result<()> {
    let mut pair = pair("advert_interval: 100ms")?;
    pair.wait_for_vip(0, "192.0.2.10", true)?;
    pair.wait_for_vip(1, "192.0.2.10", false)?;
    get(&pair)?;
    pair.check_neighbour(pair.lab.vip(), 0)?;
    wait_for("the active one to be heard", SOON, || {
        Ok((pair.view(1)?["active_router"] == "10.0.0.2").then_some(()))
    })?;
    // It leaves cleanly.
    pair.directors[0].terminate()?;
    pair.wait_for_vip(0, "192.0.2.10", false)?;
    pair.wait_for_state(1, "active")?;
    get(&pair)?;
    pair.check_neighbour(pair.lab.vip(), 1)?;
    // It comes back, and preempts.
    pair.directors[0].restart()?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    pair.wait_for_vip(1, "192.0.2.10", false)?;
    get(&pair)
}

#[test]
fn vips_that_vanish_come_back() -> Result<()> {
    let pair = pair("advert_interval: 100ms")?;
    pair.wait_for_vip(0, "192.0.2.10", true)?;
    pair.host(0)
        .ip(&["address", "del", "192.0.2.10/32", "dev", "eth0"])?;
    pair.wait_for_vip(0, "192.0.2.10", true)?;
    wait_for("the VIP to be told of", SOON, || {
        Ok((pair.view(0)?["vips"][0]["held"] == true).then_some(()))
    })?;
    ensure!(pair.view(0)?["transitions"] == 2, "{}", pair.view(0)?);
    get(&pair)
}
