//! What lowers a priority, and what that does.

use std::fs;

use anyhow::{Result, ensure};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::vrrp::{Pair, config, main_entry};
use xtask::lab::{Lab, LabConfig, wait_for};

/// Two directors of which the first is active, if nothing is wrong with it.
fn pair(fields: &str) -> Result<Pair> {
    let lab = Lab::new(LabConfig::redundant(2))?;
    for name in ["director", "director2"] {
        lab.host(name).ip_batch(
            "link add up0 type veth peer name far0\nlink set up0 up\nlink set far0 up\n",
        )?;
    }
    let fields = format!("advert_interval: 100ms, {fields}");
    let configs = [200, 160].map(|priority| config(2, &[main_entry(priority, &fields)]));
    let pair = Pair::in_lab(lab, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    Ok(pair)
}

/// The first director has this priority for this reason, and the second one is active.
fn wait_until_lowered(pair: &Pair, priority: u8, what: &str) -> Result<()> {
    pair.wait_for_state(1, "active")?;
    pair.wait_for_state(0, "backup")?;
    let view = pair.view(0)?;
    ensure!(view["effective_priority"] == priority, "{view:#}");
    ensure!(view["lowered_by"][0]["what"] == what, "{view:#}");
    Ok(())
}

fn wait_until_raised(pair: &Pair) -> Result<()> {
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    ensure!(pair.view(0)?["effective_priority"] == 200);
    Ok(())
}

#[test]
fn an_interface_that_goes_down_counts() -> Result<()> {
    let pair = pair("track: { interfaces: [{ name: up0, weight: 50 }] }")?;
    pair.host(0).ip(&["link", "set", "up0", "down"])?;
    wait_until_lowered(&pair, 150, "interface up0 is down")?;
    pair.host(0).ip(&["link", "set", "up0", "up"])?;
    wait_until_raised(&pair)?;
    // One that is not there at all is as bad.
    pair.host(0).ip(&["link", "del", "up0"])?;
    wait_until_lowered(&pair, 150, "interface up0 is down")
}

#[test]
fn backends_that_cannot_be_reached_count() -> Result<()> {
    let pair = pair("track: { health: { services: web, delay: 100ms, weight: 100 } }")?;
    let block = |what: &str| {
        let lines = [11, 12].map(|last| format!("route {what} blackhole 10.0.0.{last}/32\n"));
        pair.host(0).ip_batch(&lines.concat())
    };
    block("add")?;
    wait_until_lowered(&pair, 100, "0 of 2 backends are healthy")?;
    block("del")?;
    wait_until_raised(&pair)
}

#[test]
fn a_gateway_that_does_not_answer_counts() -> Result<()> {
    let pair = pair(
        "track: { gateways: [{ address: 10.0.0.1, weight: 70, interval: 100ms, timeout: 100ms, \
         rise: 1 }] }",
    )?;
    let block = |what| {
        pair.host(0)
            .ip(&["route", what, "unreachable", "10.0.0.1/32"])
    };
    block("add")?;
    wait_until_lowered(&pair, 130, "gateway 10.0.0.1 does not answer")?;
    block("del")?;
    wait_until_raised(&pair)
}

#[test]
fn an_operator_has_one_give_way_and_a_restart_does_not_forget_it() -> Result<()> {
    let mut pair = pair("")?;
    pair.directors[0].check(&["vrrp", "demote", "main", "--by", "90"])?;
    wait_until_lowered(&pair, 110, "demoted by hand")?;
    pair.directors[0].restart()?;
    wait_until_lowered(&pair, 110, "demoted by hand")?;
    pair.directors[0].check(&["vrrp", "promote", "main"])?;
    wait_until_raised(&pair)?;
    pair.directors[0].check(&["vrrp", "pause", "main"])?;
    pair.wait_for_state(1, "active")?;
    pair.wait_for_state(0, "initialize")?;
    pair.wait_for_vip(0, "192.0.2.10", false)?;
    pair.directors[0].restart()?;
    pair.wait_for_state(0, "initialize")?;
    ensure!(pair.view(0)?["reason"] == "`main` was paused by hand");
    pair.directors[0].check(&["vrrp", "promote", "main"])?;
    wait_until_raised(&pair)?;
    let unknown = pair.directors[0].cli(&["vrrp", "pause", "other"])?;
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(
        error.contains("no virtual router `other`; there are: main"),
        "{error}"
    );
    ensure!(unknown.status.code() == Some(1));
    Ok(())
}

#[test]
fn a_program_is_told_of_each_state() -> Result<()> {
    let lab = Lab::new(LabConfig::redundant(1))?;
    let (script, told) = (lab.dir().join("notify.sh"), lab.dir().join("told"));
    let text = format!(
        "#!/bin/sh\necho \"$1 $XDP_LB_VRRP_NAME $XDP_LB_VRRP_FAMILY $XDP_LB_VRRP_STATE \
         $XDP_LB_VRRP_PRIORITY\" >> {}\n",
        told.display()
    );
    fs::write(&script, text)?;
    let notify = format!(
        "advert_interval: 100ms, notify: [/bin/sh, {}, word]",
        script.display()
    );
    let pair = Pair::in_lab(lab, &[config(1, &[main_entry(200, &notify)])])?;
    let wait_for_line = |line: &str| {
        wait_for(line, SOON, || {
            let text = fs::read_to_string(&told).unwrap_or_default();
            Ok((text.lines().last() == Some(line)).then_some(()))
        })
    };
    wait_for_line("word main ipv4 active 200")?;
    pair.directors[0].check(&["vrrp", "pause", "main"])?;
    wait_for_line("word main ipv4 initialize 200")
}

#[test]
fn entries_of_a_group_and_both_families_fail_over_together() -> Result<()> {
    let lab = Lab::new(LabConfig::redundant(1))?;
    for name in ["director", "director2"] {
        lab.host(name).ip_batch(
            "link add up0 type veth peer name far0\nlink set up0 up\nlink set far0 up\n",
        )?;
    }
    let configs = [200, 160].map(|priority| {
        let entry = |name: &str, vrid: u8, rest: &str| {
            format!(
                "name: {name}, interface: eth0, vrid: {vrid}, priority: {priority}, advert_interval: \
                 100ms, group: all, {rest}"
            )
        };
        config(
            1,
            &[
                entry("both", 51, "vips: [192.0.2.10, \"2001:db8:10::10\"]"),
                entry("more", 52, "vips: [192.0.2.11], track: { interfaces: [up0] }"),
            ],
        )
    });
    let pair = Pair::in_lab(lab, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    ensure!(pair.states(0)?.len() == 3);
    pair.host(0).ip(&["link", "set", "up0", "down"])?;
    pair.wait_for_state(1, "active")?;
    pair.wait_for_state(0, "backup")?;
    for vip in ["192.0.2.10", "2001:db8:10::10", "192.0.2.11"] {
        pair.wait_for_vip(0, vip, false)?;
        pair.wait_for_vip(1, vip, true)?;
    }
    ensure!(pair.lab.host("router").pings(pair.lab.vip6())?);
    Ok(())
}
