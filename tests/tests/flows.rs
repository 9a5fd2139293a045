//! Remembered flows of real connections: listed, counted, found by their 5-tuple, and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::{Rig, SOON, address, config, served, stderr, wait_until_all_go_on};
use xtask::lab::{Downloads, LabConfig, wait_for};

const DOWNLOADS: usize = 24;

/// Two backends, and a second service at the same addresses that nobody connects to.
fn rig(tracking: &str) -> Result<Rig> {
    let idle =
        "  - { name: idle, vip: 192.0.2.11, protocol: udp, port: 53, backends: [10.0.0.11] }\n";
    let config =
        config(1..=2) + idle + &format!("defaults: {{ connection_tracking: {tracking} }}\n");
    let lab = LabConfig {
        vips: vec![[192, 0, 2, 10].into(), [192, 0, 2, 11].into()],
        ..LabConfig::with_backends(2)
    };
    Rig::in_lab(xtask::lab::Lab::new(lab)?, &config)
}

/// How many flows `xdp-lb flow count FILTER` tells.
fn count(rig: &Rig, filter: &[&str]) -> Result<usize> {
    let counted = rig.json(&[&["flow", "count"], filter].concat())?;
    let total = counted["total"].as_u64().context("no total")?;
    let backends = counted["backends"].as_array().context("no backends")?;
    let sum: u64 = backends.iter().filter_map(|it| it["total"].as_u64()).sum();
    ensure!(sum == total, "{counted}");
    Ok(usize::try_from(total)?)
}

/// The rows of `xdp-lb flow list FILTER`.
fn list(rig: &Rig, filter: &[&str]) -> Result<Vec<Value>> {
    let listed = rig.json(&[&["flow", "list"], filter].concat())?;
    Ok(listed["flows"].as_array().context("no flows")?.clone())
}

fn flush(rig: &Rig, filter: &[&str]) -> Result<usize> {
    let flushed = rig.json(&[&["flow", "flush"], filter].concat())?;
    Ok(usize::try_from(
        flushed["forgotten"].as_u64().context("no number")?,
    )?)
}

/// The options that tell one connection to the VIP.
fn tuple(rig: &Rig, client: SocketAddr) -> Vec<String> {
    [
        "--protocol",
        "tcp",
        "--source",
        &client.to_string(),
        "--destination",
        &rig.vip().to_string(),
    ]
    .map(str::to_owned)
    .into()
}

/// Each download's end of its connection, and the address of the backend that serves it.
fn ends(downloads: &Downloads) -> Result<BTreeMap<SocketAddr, String>> {
    let ends = downloads.progress().into_iter().map(|it| {
        let backend = it.backend.context("no backend")?;
        let number = backend.trim_start_matches("backend").parse()?;
        Ok((it.local.context("no end")?, address(number).to_string()))
    });
    ends.collect()
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn flows_of_running_connections_are_listed_counted_and_found() -> Result<()> {
    let rig = rig("full")?;
    assert_eq!(count(&rig, &["--state", "open"])?, 0);
    let downloads = rig.download(DOWNLOADS)?;
    let (served, ends) = (served(&downloads), ends(&downloads)?);
    wait_for("all flows to be remembered", SOON, || {
        Ok((count(&rig, &["--state", "open"])? == DOWNLOADS).then_some(()))
    })?;
    assert_eq!(count(&rig, &["--service", "web"])?, DOWNLOADS);
    assert_eq!(count(&rig, &["--service", "idle"])?, 0);
    for number in 1..=2 {
        let of = served[&format!("backend{number}")];
        let address = address(number).to_string();
        assert_eq!(count(&rig, &["--backend", &address])?, of);
        let rows = list(&rig, &["--backend", &address, "--service", "web"])?;
        assert_eq!(rows.len(), of);
        assert!(
            rows.iter().all(|row| row["backend"] == *address),
            "{rows:?}"
        );
    }
    let some = rig.json(&["flow", "list", "--limit", "5"])?;
    assert_eq!(some["flows"].as_array().map(Vec::len), Some(5));
    assert_eq!(some["total"], DOWNLOADS);
    let text = rig.director.check(&["flow", "list", "--limit", "5"])?;
    assert!(
        text.contains(&format!("and {} more", DOWNLOADS - 5)),
        "{text}"
    );

    let (_, metrics) = rig.call("GET", "/metrics", "")?;
    let sample = format!("xdp_lb_service_flows{{service=\"web\",state=\"open\"}} {DOWNLOADS}\n");
    assert!(metrics.contains(&sample), "{metrics}");

    let mut ids = BTreeSet::new();
    for (client, backend) in &ends {
        let rows = list(&rig, &words(&tuple(&rig, *client)))?;
        assert_eq!(rows.len(), 1, "{client}: {rows:?}");
        assert_eq!(rows[0]["backend"], **backend, "{client}: {rows:?}");
        let silent = rows[0]["silent_milliseconds"].as_u64();
        assert!(silent < Some(5_000), "{rows:?}");
        ids.insert(rows[0]["id"].to_string());
    }
    assert_eq!(ids.len(), DOWNLOADS);
    wait_until_all_go_on(&downloads)
}

#[test]
fn flows_that_are_forgotten_go_on_where_their_slots_lead() -> Result<()> {
    let rig = rig("full")?;
    // Connections that have ended, whose flows live for a while.
    rig.get(20)?;
    let downloads = rig.download(DOWNLOADS)?;
    wait_for("all flows to be remembered", SOON, || {
        Ok((count(&rig, &["--state", "open"])? == DOWNLOADS).then_some(()))
    })?;
    assert!(flush(&rig, &["--state", "closing"])? >= 20);
    assert_eq!(count(&rig, &["--state", "closing"])?, 0);
    assert_eq!(flush(&rig, &["--service", "idle"])?, 0);
    // No slot has moved, so each is remembered anew at its backend.
    assert_eq!(flush(&rig, &["--all"])?, DOWNLOADS);
    wait_until_all_go_on(&downloads)?;
    wait_for("all flows to be remembered again", SOON, || {
        Ok((count(&rig, &["--service", "web"])? == DOWNLOADS).then_some(()))
    })?;
    // Now they have.
    rig.change("drain", 1, &[])?;
    let at_first = served(&downloads)["backend1"];
    let first = address(1).to_string();
    assert_eq!(count(&rig, &["--backend", &first])?, at_first);
    wait_until_all_go_on(&downloads)?;
    drop(downloads);
    wait_for("the connections to end", SOON, || {
        Ok((count(&rig, &["--state", "open"])? == 0).then_some(()))
    })
}

#[test]
fn silence_is_known_after_a_restart_without_a_packet() -> Result<()> {
    let mut rig = rig("full")?;
    rig.get(20)?;
    let closing = ["--state", "closing"];
    wait_for("the connections to end", SOON, || {
        Ok((count(&rig, &closing)? >= 20).then_some(()))
    })?;
    let known = count(&rig, &closing)?;
    std::thread::sleep(Duration::from_secs(3));
    rig.director.restart()?;
    let rows = list(&rig, &closing)?;
    assert_eq!(rows.len(), known);
    for row in rows {
        let silent = row["silent_milliseconds"].as_u64().context("no time")?;
        assert!((500..40_000).contains(&silent), "{row}");
    }
    Ok(())
}

#[test]
fn a_flow_that_is_not_remembered_is_told_where_it_goes() -> Result<()> {
    let rig = rig("adaptive")?;
    let downloads = rig.download(4)?;
    for (client, backend) in ends(&downloads)? {
        let of = tuple(&rig, client);
        let args = [&["flow", "list"], &words(&of)[..]].concat();
        let text = rig.director.check(&args)?;
        assert!(text.contains("no such flow: service `web`"), "{text}");
        assert!(text.contains("connection_tracking: adaptive"), "{text}");
        assert!(text.contains(&format!("leads to {backend}")), "{text}");
        let json = rig.json(&args)?;
        assert_eq!(json["whereabouts"]["slot"]["current"], *backend);
        assert_eq!(flush(&rig, &words(&of))?, 0);
    }
    let text = rig.director.check(&["flow", "count"])?;
    assert!(text.contains("note: "), "{text}");
    wait_until_all_go_on(&downloads)
}

#[test]
fn wrong_questions_about_flows_are_refused_with_a_reason() -> Result<()> {
    let rig = rig("full")?;
    let tuple = |destination| {
        let start = [
            "flow",
            "list",
            "--protocol",
            "tcp",
            "--source",
            "198.51.100.7:1",
        ];
        [&start[..], &["--destination", destination]].concat()
    };
    for (args, code, reason) in [
        (
            vec!["flow", "list", "--service", "nope"],
            1,
            "no service `nope`; there are: web, idle",
        ),
        (
            vec!["flow", "flush", "--backend", "10.0.0.99"],
            1,
            "no service has a backend 10.0.0.99",
        ),
        (
            vec![
                "flow",
                "count",
                "--service",
                "web",
                "--backend",
                "10.0.0.99",
            ],
            1,
            "service `web` has no backend 10.0.0.99",
        ),
        (
            tuple("192.0.2.10:81"),
            1,
            "no service takes tcp to 192.0.2.10:81",
        ),
        (tuple("[2001:db8::1]:80"), 2, "two address families"),
        (vec!["flow", "flush"], 2, "--all"),
        (
            vec!["flow", "flush", "--all", "--service", "web"],
            2,
            "--all",
        ),
    ] {
        let output = rig.director.cli(&args)?;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(reason), "{args:?}: {said}");
    }
    for (method, path, body, status) in [
        ("GET", "/v1/flows?state=closed", "", 400),
        ("GET", "/v1/flows?servce=web", "", 400),
        ("GET", "/v1/flows/count?limit=1", "", 400),
        ("GET", "/v1/flows?source=198.51.100.7%3A1", "", 400),
        ("GET", "/v1/flows?service=nope", "", 404),
        ("POST", "/v1/flows/flush", "{}", 400),
        (
            "POST",
            "/v1/flows/flush",
            "{\"filter\": {\"servce\": \"web\"}}",
            400,
        ),
        (
            "POST",
            "/v1/flows/flush",
            "{\"filter\": {\"service\": \"web\"}}",
            200,
        ),
    ] {
        let (head, answer) = rig.call(method, path, body)?;
        let expected = format!("HTTP/1.1 {status}");
        assert!(
            head.starts_with(&expected),
            "{path} {body}: {head} {answer}"
        );
        assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
    }
    Ok(())
}
