//! What is told of health checks, and what a restart makes of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xdp_lb_tests::health::{config, while_asking};
use xdp_lb_tests::lab::{Rig, SOON};
use xdp_lb_tests::misbehave::{GOOD, Manner, Server};
use xtask::lab::{Lab, LabConfig, wait_for};

const SLOW: &str =
    "health_check: { type: http, path: /healthz, interval: 1h, timeout: 1s, fall: 1 }";
const CHECK: &str =
    "health_check: { type: http, path: /healthz, interval: 200ms, timeout: 200ms, fall: 2 }";

#[test]
fn a_check_can_be_had_at_once() -> Result<()> {
    let mut rig = Rig::with_config(2, &config(1..=2, &[SLOW]))?;
    rig.wait_for_health(1, "up")?;
    rig.wait_for_health(2, "up")?;
    let text = rig
        .director
        .check(&["health", "check", "10.0.0.11", "--now"])?;
    assert!(text.contains("ok in "), "{text}");
    rig.servers.remove(0).kill()?;
    // With an interval of an hour nobody else finds out.
    let output = rig
        .director
        .cli(&["health", "check", "10.0.0.11", "--now", "--json"])?;
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(told[0]["result"]["cause"], "connect: refused", "{told}");
    assert_eq!(told[0]["state"], "down", "{told}");
    rig.wait_for_state(1, "down")?;
    let text = rig.director.check(&["health", "list"])?;
    assert!(text.contains("connect: refused"), "{text}");
    let text = rig.director.check(&["health", "show", "10.0.0.11"])?;
    assert!(text.contains("down  connect: refused"), "{text}");
    assert!(rig.director.log()?.contains("connect: refused"));

    let output = rig
        .director
        .cli(&["health", "check", "10.0.0.99", "--now"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("no health check asks 10.0.0.99 for any service"),
        "{error}"
    );
    let output = rig.director.cli(&["health", "list", "wbe"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("no service `wbe`; there are: web"),
        "{error}"
    );
    let (head, body) = rig.call("POST", "/v1/health/check", "{\"backend\": \"x\"}")?;
    assert!(head.starts_with("HTTP/1.1 400"), "{head} {body}");
    Ok(())
}

#[test]
fn metrics_tell_of_health() -> Result<()> {
    let mut rig = Rig::with_config(2, &config(1..=2, &[CHECK]))?;
    rig.wait_for_health(1, "up")?;
    rig.servers.remove(1).kill()?;
    rig.wait_for_health(2, "down")?;
    rig.wait_for_state(2, "down")?;
    let (_, metrics) = rig.call("GET", "/metrics", "")?;
    for line in [
        "xdp_lb_health_up{service=\"web\",backend=\"10.0.0.11\"} 1",
        "xdp_lb_health_up{service=\"web\",backend=\"10.0.0.12\"} 0",
        "xdp_lb_backend_state{service=\"web\",backend=\"10.0.0.12\",state=\"down\"} 1",
        "xdp_lb_service_panic{service=\"web\"} 0",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    for beginning in [
        "xdp_lb_health_checks_total{service=\"web\",backend=\"10.0.0.12\",result=\"refused\"} ",
        "xdp_lb_health_check_seconds{service=\"web\",backend=\"10.0.0.11\"} 0.0",
    ] {
        assert!(metrics.contains(beginning), "no {beginning} in {metrics}");
    }
    Ok(())
}

#[test]
fn a_new_daemon_goes_on_with_the_backends_that_were_in_use() -> Result<()> {
    let mut rig = Rig::with_config(3, &config(1..=3, &[CHECK]))?;
    for number in 1..=3 {
        rig.wait_for_health(number, "up")?;
    }
    rig.servers.remove(2).kill()?;
    rig.wait_for_state(3, "down")?;
    let slots = |rig: &Rig| -> Result<Vec<Option<u64>>> {
        (1..=3)
            .map(|number| Ok(rig.backend(number)?["slots"].as_u64()))
            .collect()
    };
    let before = slots(&rig)?;
    rig.director.kill()?;
    rig.director.restart()?;
    let ((), asked) = while_asking(&rig, || {
        assert_eq!(slots(&rig)?, before);
        assert_eq!(rig.backend(1)?["state"], "active");
        assert_eq!(rig.backend(3)?["state"], "down");
        rig.wait_for_health(3, "down")?;
        Ok(())
    })?;
    let failed: Vec<_> = asked.iter().filter(|it| it.answer.is_err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let log = rig.director.log()?;
    let since = log
        .rfind("adopted the maps")
        .context("nothing was adopted")?;
    assert!(!log[since..].contains("health changed"), "{log}");
    Ok(())
}

#[test]
fn another_check_or_name_moves_no_slot() -> Result<()> {
    let rig = Rig::with_config(2, &config(1..=2, &[CHECK]))?;
    rig.wait_for_health(1, "up")?;
    rig.wait_for_health(2, "up")?;
    let other = config(1..=2, &[&CHECK.replace("200ms", "300ms")]);
    for yaml in [other.clone(), other.replace("name: web", "name: www")] {
        rig.director.write_config(&yaml)?;
        let ((), asked) = while_asking(&rig, || {
            let change = rig.json(&["config", "reload"])?;
            assert_eq!(change["services"], serde_json::json!({}), "{change}");
            Ok(())
        })?;
        let failed: Vec<_> = asked.iter().filter(|it| it.answer.is_err()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let backends = rig.json(&["backend", "list"])?;
        let all = backends.as_array().context("not a list")?;
        assert!(all.iter().all(|it| it["state"] == "active"), "{backends}");
    }
    Ok(())
}

#[test]
fn services_with_the_same_check_share_it() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let any = Ipv4Addr::UNSPECIFIED.into();
    let namespace = lab.host("backend1").namespace();
    let server = Server::start(namespace, any, 8080, Manner::Says(GOOD))?;
    let mut yaml =
        "interfaces: [eth0]\ndefaults:\n  table_size: 251\n  health_check: { type: http, \
                    port: 8080, via: backend, interval: 200ms, timeout: 200ms }\nservices:\n"
            .to_owned();
    for number in 1..=20 {
        yaml += &format!(
            "- {{ name: s{number}, vip: 192.0.2.10, protocol: tcp, port: {number}, backends: [10.0.0.11] }}\n"
        );
    }
    let rig = Rig::in_lab(lab, &yaml)?;
    wait_for("all to be up", SOON, || {
        let rows = rig.json(&["health", "list"])?;
        let rows = rows.as_array().context("not a list")?;
        assert_eq!(rows.len(), 20);
        Ok(rows.iter().all(|row| row["state"] == "up").then_some(()))
    })?;
    let checks = |rig: &Rig| -> Result<u64> {
        rig.json(&["health", "list", "s1"])?[0]["passed"]
            .as_u64()
            .context("no count")
    };
    let (before, accepted) = (checks(&rig)?, server.accepted());
    std::thread::sleep(Duration::from_secs(2));
    let (after, accepted_after) = (checks(&rig)?, server.accepted());
    let (checks, connections) = (after - before, (accepted_after - accepted) as u64);
    println!("{checks} checks, {connections} connections for 20 services");
    // They are looked at one after another.
    assert!(
        connections <= checks + 2 && checks >= 3,
        "{checks} checks, {connections} connections"
    );
    Ok(())
}

#[test]
fn a_backend_that_is_added_gets_connections_once_its_check_succeeds() -> Result<()> {
    let rig = Rig::with_config(2, &config(1..=1, &[CHECK]))?;
    rig.wait_for_health(1, "up")?;
    let change = rig.change("add", 2, &[])?;
    let notes = change["notes"].to_string();
    rig.wait_for_state(2, "active")?;
    println!("{notes}");
    assert_eq!(rig.shares(100)?.len(), 2);
    rig.change("remove", 2, &[])?;
    let rows = rig.json(&["health", "list"])?;
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    Ok(())
}
