//! Servers that answer as no server should: each is down, with its cause, and the daemon goes on.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::identity::Identity;
use xdp_lb_tests::lab::{Rig, SOON};
use xdp_lb_tests::misbehave::{Manner, Server};
use xtask::lab::{Lab, LabConfig, wait_for};

/// Each with its port, more fields of its check, and what its cause begins with; none: it is up.
fn servers() -> Result<Vec<(u16, Manner, &'static str, &'static str)>> {
    let (expired, _) = Identity::self_signed(&["www.example.com"], [2019, 2020])?;
    let (good, _) = Identity::self_signed(&["www.example.com"], [2019, 2099])?;
    let timeout = "timeout after 300ms while waiting for the answer";
    let pause = std::time::Duration::from_secs(1);
    Ok(vec![
        (8001, Manner::Hangs, "type: http", timeout),
        (8002, Manner::Slow(pause), "type: http", timeout),
        (8003, Manner::ResetsRequests, "type: http", "http: reset"),
        (
            8004,
            Manner::Closes,
            "type: http",
            "http: closed before the answer was whole",
        ),
        (
            8005,
            Manner::EndlessHeaders,
            "type: http",
            "http: a head of more than 16 KiB",
        ),
        (
            8006,
            Manner::EndlessInterim,
            "type: http",
            "timeout after 300ms",
        ),
        (
            8007,
            Manner::EndlessBody,
            "type: http, body: needle",
            "body: the pattern is not in its first 64 KiB",
        ),
        (8008, Manner::EndlessBody, "type: http", ""),
        (
            8009,
            Manner::Says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
            "type: http",
            "status 503",
        ),
        (
            8010,
            Manner::Says(b"SSH-2.0-OpenSSH_9.2\r\n"),
            "type: http",
            "http: the answer is not HTTP",
        ),
        (
            8011,
            Manner::Tls(expired),
            "type: https, host: www.example.com",
            "tls: certificate expired ",
        ),
        (
            8012,
            Manner::Tls(good.clone()),
            "type: https, host: www.example.com",
            "tls: certificate of an issuer that is not trusted",
        ),
        (
            8013,
            Manner::Tls(good),
            "type: https, host: www.example.com, tls: { verify: false }",
            "",
        ),
        (
            8014,
            Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "type: tls, tls: { verify: false }",
            "tls: the answer is not TLS",
        ),
        (
            8015,
            Manner::Hangs,
            "type: tls",
            "timeout after 300ms while shaking hands (TLS)",
        ),
        (8016, Manner::Hangs, "type: tcp", ""),
        (
            8017,
            Manner::Hangs,
            "type: grpc",
            "timeout after 300ms while waiting for the answer",
        ),
        (
            8018,
            Manner::Says(b"HTTP/1.1 200 OK\r\n\r\n"),
            "type: grpc",
            "grpc: the answer is not HTTP/2",
        ),
    ])
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// Whether a row of `health list` is down with this cause; up, where there is none.
fn is_as_expected(row: &Value, cause: &str) -> bool {
    let told = row["last_failure"]["cause"].as_str().unwrap_or_default();
    if cause.is_empty() {
        row["state"] == "up"
    } else {
        row["state"] == "down" && told.starts_with(cause)
    }
}

#[test]
fn each_is_down_with_its_cause_and_the_daemon_goes_on() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let backend = lab.host("backend1").clone();
    let mut yaml = "interfaces: [eth0]\nservices:\n".to_owned();
    let mut running = Vec::new();
    let all = servers()?;
    for (port, manner, fields, _) in &all {
        let any = std::net::Ipv4Addr::UNSPECIFIED.into();
        running.push(Server::start(
            backend.namespace(),
            any,
            *port,
            manner.clone(),
        )?);
        let _ = writeln!(
            yaml,
            "- {{ name: s{port}, vip: 192.0.2.10, protocol: tcp, port: {port}, table_size: 251, \
             backends: [10.0.0.11], health_check: {{ {fields}, interval: 300ms, timeout: 300ms, \
             fall: 2 }} }}"
        );
    }
    let rig = Rig::in_lab(lab, &yaml)?;
    let pid = rig.director.pid().context("the daemon is stopped")?;
    let mut before = None;
    // Up to ten rounds and up to forty: what grows shows.
    for rounds in [10, 40] {
        wait_for("many checks of each", SOON * 2, || {
            let health = rig.json(&["health", "list"])?;
            let rows = health.as_array().context("not a list")?;
            let count = |row: &Value| {
                let failed = row["failed"].as_object().into_iter().flatten();
                let failed: u64 = failed.filter_map(|(_, count)| count.as_u64()).sum();
                failed + row["passed"].as_u64().unwrap_or(0)
            };
            Ok(rows.iter().all(|row| count(row) >= rounds).then_some(()))
        })?;
        let now = resident_kib(pid)?;
        let before = *before.get_or_insert(now);
        println!("after {rounds} rounds the daemon holds {now} KiB");
        ensure!(
            now < before + 16 * 1024,
            "it has grown from {before} to {now} KiB"
        );
    }
    // On a busy machine a check may run out of time at another point once in a while.
    let mut odd = String::new();
    let mut open: Vec<_> = all.iter().collect();
    let seen = wait_for("each to be seen as it is", SOON, || {
        odd.clear();
        let health = rig.json(&["health", "list"])?;
        let rows = health.as_array().context("not a list")?;
        open.retain(|(port, manner, _, cause)| {
            let service = format!("s{port}");
            let row = rows.iter().find(|row| row["service"] == *service);
            let is_seen = row.is_some_and(|row| is_as_expected(row, cause));
            if !is_seen {
                let _ = writeln!(odd, "{manner:?}: {row:?}");
            }
            !is_seen
        });
        Ok(open.is_empty().then_some(()))
    });
    seen.with_context(|| odd)?;
    Ok(())
}
