//! Which backends are used when others are down: panic, tiers, slow start, flapping.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::health::config;
use xdp_lb_tests::lab::{Rig, SOON, wait_until_all_go_on};
use xtask::lab::wait_for;

const CHECK: &str = "health_check: { type: http, path: /healthz, interval: 200ms, timeout: 200ms, \
                     rise: 1, fall: 2, damping: off }";

fn kill(rig: &mut Rig, number: usize) -> Result<()> {
    let name = format!("backend{number}");
    let at = rig.servers.iter().position(|it| it.host().name() == name);
    rig.servers.remove(at.context("it has no server")?).kill()?;
    rig.wait_for_health(number, "down")?;
    Ok(())
}

fn revive(rig: &mut Rig, number: usize) -> Result<()> {
    let server = rig
        .lab
        .start_http(rig.lab.host(&format!("backend{number}")))?;
    rig.servers.push(server);
    rig.wait_for_health(number, "up")?;
    Ok(())
}

fn reload(rig: &Rig, config: &str) -> Result<()> {
    rig.director.write_config(config)?;
    rig.json(&["config", "reload"])?;
    Ok(())
}

fn panics(rig: &Rig) -> Result<bool> {
    let service = rig.json(&["service", "show", "web"])?;
    service["panic"].as_bool().context("no panic")
}

fn wait_for_slots(rig: &Rig, number: usize, any: bool) -> Result<()> {
    wait_for("the slots to follow", SOON, || {
        Ok((rig.backend(number)?["slots"].as_u64() > Some(0))
            .eq(&any)
            .then_some(()))
    })
}

#[test]
fn with_all_down_clients_fail_at_once_and_one_that_comes_back_serves_all() -> Result<()> {
    let mut rig = Rig::with_config(3, &config(1..=3, &[CHECK]))?;
    rig.wait_for_health(3, "up")?;
    for number in 1..=3 {
        kill(&mut rig, number)?;
        wait_for_slots(&rig, number, false)?;
    }
    let refused = rig.failure();
    assert!(refused.contains("refused"), "{refused}");
    revive(&mut rig, 2)?;
    rig.wait_for_state(2, "active")?;
    assert_eq!(
        rig.shares(50)?,
        BTreeMap::from([("backend2".to_owned(), 50)])
    );
    Ok(())
}

#[test]
fn when_too_many_are_down_all_are_used() -> Result<()> {
    let mut rig = Rig::with_config(3, &config(1..=3, &[CHECK, "panic_threshold: 50%"]))?;
    for number in 1..=3 {
        rig.wait_for_health(number, "up")?;
    }
    kill(&mut rig, 1)?;
    rig.wait_for_state(1, "down")?;
    assert!(!panics(&rig)?, "a third is not too many");
    kill(&mut rig, 2)?;
    wait_for("panic", SOON, || Ok(panics(&rig)?.then_some(())))?;
    for number in 1..=3 {
        let backend = rig.backend(number)?;
        assert_eq!(backend["state"], "active", "{backend}");
        assert!(backend["slots"].as_u64() > Some(10_000), "{backend}");
        let reason = backend["reason"].as_str().unwrap_or_default();
        assert_eq!(number != 3, reason.contains("too many"), "{backend}");
    }
    revive(&mut rig, 1)?;
    wait_for("the end of panic", SOON, || {
        Ok((!panics(&rig)?).then_some(()))
    })?;
    wait_for_slots(&rig, 2, false)?;
    let shares = rig.shares(60)?;
    assert!(shares.keys().eq(["backend1", "backend3"]), "{shares:?}");
    // Without a threshold a new daemon does not panic.
    reload(&rig, &config(1..=3, &[CHECK]))?;
    kill(&mut rig, 1)?;
    wait_for_slots(&rig, 1, false)?;
    assert!(!panics(&rig)?);
    Ok(())
}

#[test]
fn a_lower_tier_helps_out() -> Result<()> {
    let tiers = |minimum: &str| {
        config(1..=4, &[CHECK, minimum])
            .replace("- 10.0.0.13", "- { address: 10.0.0.13, tier: 1 }")
            .replace("- 10.0.0.14", "- { address: 10.0.0.14, tier: 2 }")
    };
    let mut rig = Rig::with_config(4, &tiers("tier_minimum: [2, 1]"))?;
    for number in 1..=4 {
        rig.wait_for_health(number, "up")?;
    }
    rig.wait_for_state(3, "standby")?;
    rig.wait_for_state(4, "standby")?;
    let downloads = rig.download(10)?;
    let users = |rig: &Rig| -> Result<Vec<String>> { Ok(rig.shares(60)?.into_keys().collect()) };
    assert_eq!(users(&rig)?, ["backend1", "backend2"]);
    // One is fewer than two: the next tier helps.
    rig.change("drain", 1, &[])?;
    rig.wait_for_state(3, "active")?;
    assert_eq!(users(&rig)?, ["backend2", "backend3"]);
    wait_until_all_go_on(&downloads)?;
    drop(downloads);
    kill(&mut rig, 2)?;
    wait_for_slots(&rig, 2, false)?;
    assert_eq!(users(&rig)?, ["backend3"]);
    // The last resort.
    kill(&mut rig, 3)?;
    rig.wait_for_state(4, "active")?;
    assert_eq!(users(&rig)?, ["backend4"]);
    rig.change("enable", 1, &[])?;
    revive(&mut rig, 2)?;
    rig.wait_for_state(4, "standby")?;
    assert_eq!(users(&rig)?, ["backend1", "backend2"]);
    Ok(())
}

#[test]
fn a_backend_that_comes_up_gets_its_share_step_by_step() -> Result<()> {
    let mut rig = Rig::with_config(3, &config(1..=3, &[CHECK, "slow_start: 3s"]))?;
    for number in 1..=3 {
        wait_for_weight(&rig, number, 100)?;
    }
    kill(&mut rig, 1)?;
    wait_for_slots(&rig, 1, false)?;
    let downloads = rig.download(20)?;
    revive(&mut rig, 1)?;
    let mut slots = Vec::new();
    wait_for("its whole weight", SOON, || {
        let backend = rig.backend(1)?;
        let now = backend["slots"].as_u64().context("no slots")?;
        if slots.last() != Some(&now) {
            slots.push(now);
        }
        Ok((backend["weight_in_force"] == 100).then_some(()))
    })?;
    println!("slots: {slots:?}");
    ensure!(slots.is_sorted(), "{slots:?}");
    ensure!(slots.len() >= 4, "{slots:?}");
    ensure!(slots.iter().all(|slots| *slots <= 21_900), "{slots:?}");
    wait_until_all_go_on(&downloads)
}

fn wait_for_weight(rig: &Rig, number: usize, weight: u64) -> Result<()> {
    wait_for("the weight", SOON, || {
        Ok((rig.backend(number)?["weight_in_force"] == weight).then_some(()))
    })
}

#[test]
fn a_backend_that_flaps_does_not_move_slots_each_time() -> Result<()> {
    const FLAPS: usize = 10;
    let check = "health_check: { type: tcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 1, \
                 damping: { free: 2, hold: 60s } }";
    let mut rig = Rig::with_config(2, &config(1..=2, &[check]))?;
    rig.wait_for_health(1, "up")?;
    let seen = |rig: &Rig, passed: bool| {
        wait_for("the next result", SOON, || {
            let last = rig.health(1)?["last"].clone();
            Ok((last["passed"] == passed).then_some(()))
        })
    };
    for _ in 0..FLAPS {
        let at = rig
            .servers
            .iter()
            .position(|it| it.host().name() == "backend1");
        rig.servers.remove(at.context("it has no server")?).kill()?;
        seen(&rig, false)?;
        let server = rig.lab.start_http(rig.lab.host("backend1"))?;
        rig.servers.push(server);
        seen(&rig, true)?;
    }
    let health = rig.wait_for_health(1, "held")?;
    let history = health["history"].as_array().context("no history")?;
    let downs = history.iter().filter(|it| it["to"] == "down").count();
    // Two are free, and the third is held.
    assert_eq!(downs, 3, "{health}");
    assert!(health["held_seconds"].as_u64() > Some(0), "{health}");
    let moves = rig.director.log()?.matches("health changed").count();
    println!("{FLAPS} flaps, {downs} times down, {moves} table changes");
    assert!(moves <= 6, "{moves} changes of the table");
    // All the while the other one serves.
    assert_eq!(
        rig.shares(20)?,
        BTreeMap::from([("backend2".to_owned(), 20)])
    );
    let reason: Value = rig.backend(1)?["reason"].clone();
    assert_eq!(reason, "held down: it went down too often");
    Ok(())
}
