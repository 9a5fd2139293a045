//! The HTTP interface, spoken to by hand: JSON over the UNIX socket, metrics there and over TCP.

use anyhow::{Context, Result};
use serde_json::Value;
use xdp_lb_tests::lab::{Rig, config};

fn rig_with_metrics() -> Result<Rig> {
    let yaml = format!(
        "metrics: {{ address: \"10.0.0.2:9090\" }}\n{}",
        config(1..=2)
    );
    Rig::with_config(2, &yaml)
}

/// The value of a sample, by its name with labels.
fn sample(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.with_context(|| format!("no {name} in:\n{text}"))?;
    Ok(value.parse()?)
}

/// Checks the shape of `OpenMetrics`: metadata before samples, every sample a number, the end.
fn assert_openmetrics(text: &str) {
    let body = text.strip_suffix("# EOF\n");
    let body = body.unwrap_or_else(|| panic!("no end: {text}"));
    let mut families = Vec::new();
    for line in body.lines() {
        if let Some(words) = line.strip_prefix("# TYPE ") {
            let (name, kind) = words.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "info"].contains(&kind), "{line}");
            assert!(!families.contains(&name), "twice: {line}");
            families.push(name);
        } else if !line.starts_with("# ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let family = families.last().expect("metadata first");
            assert!(name.starts_with(*family), "{line} below {family}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(families.len() > 5, "{families:?}");
}

#[test]
fn metrics_are_told_on_the_socket_and_over_tcp_and_go_up_with_traffic() -> Result<()> {
    let rig = rig_with_metrics()?;
    let (client, tcp) = (rig.lab.client(), "10.0.0.2:9090".parse()?);
    let forwarded = "xdp_lb_packets_total{verdict=\"forward\",reason=\"forwarded\"}";
    let before = client.get(tcp, "/metrics")?;
    assert_eq!(before.status, 200);
    assert_openmetrics(&before.body);
    rig.get(100)?;
    let after = client.get(tcp, "/metrics")?;
    // At least SYN, ACK, request, FIN.
    let more = sample(&after.body, forwarded)? - sample(&before.body, forwarded)?;
    assert!(more >= 400, "{more}");

    let (head, body) = rig.call("GET", "/metrics", "")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert_openmetrics(&body);
    assert!(sample(&body, forwarded)? >= sample(&after.body, forwarded)?);
    let state = "xdp_lb_backend_state{service=\"web\",backend=\"10.0.0.11\",state=\"active\"}";
    assert_eq!(sample(&body, state)?, 1);
    Ok(())
}

#[test]
fn nothing_can_be_changed_over_tcp() -> Result<()> {
    let rig = rig_with_metrics()?;
    let tcp = "10.0.0.2:9090".parse()?;
    for path in ["/v1/status", "/v1/detach", "/v1/backends"] {
        assert_eq!(rig.lab.client().get(tcp, path)?.status, 404, "{path}");
    }
    rig.get(20)?;
    Ok(())
}

#[test]
fn the_calls_of_the_api_answer_in_json() -> Result<()> {
    let rig = Rig::new(2)?;
    let get = |path: &str| -> Result<Value> {
        let (head, body) = rig.call("GET", path, "")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(serde_json::from_str(&body)?)
    };
    assert_eq!(get("/v1/status")?["backends"], 2);
    assert_eq!(get("/v1/services")?[0]["name"], "web");
    assert_eq!(get("/v1/backends?service=web")?[1]["address"], "10.0.0.12");
    assert!(get("/v1/stats")?["counters"].is_array());
    Ok(())
}

#[test]
fn changes_through_the_api_take_effect() -> Result<()> {
    let rig = Rig::new(2)?;
    let path = "/v1/services/web/backends/10.0.0.11";
    let (head, body) = rig.call("PATCH", path, "{\"draining\": true}")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
    let change: Value = serde_json::from_str(&body)?;
    assert!(
        change["services"]["web"]["slots_moved"].as_u64() > Some(0),
        "{body}"
    );
    assert_eq!(rig.shares(50)?.len(), 1);
    let (head, _) = rig.call("DELETE", path, "")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (head, _) = rig.call(
        "POST",
        "/v1/services/web/backends",
        "{\"address\": \"10.0.0.11\"}",
    )?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    rig.wait_until_active()?;
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn wrong_calls_get_a_fitting_status_and_a_reason() -> Result<()> {
    let rig = Rig::new(1)?;
    let backends = "/v1/services/web/backends";
    for (method, path, body, status, reason) in [
        ("GET", "/v1/nothing", "", 404, "docs/api.md"),
        (
            "GET",
            "/v1/backends?service=nope",
            "",
            404,
            "there are: web",
        ),
        (
            "POST",
            backends,
            "{\"address\": \"10.0.0.11\"}",
            409,
            "already",
        ),
        (
            "POST",
            backends,
            "{\"address\": \"10.0.0.11\", \"color\": 1}",
            400,
            "color",
        ),
        ("POST", backends, "not json", 400, ""),
        (
            "POST",
            backends,
            "{\"address\": \"127.0.0.1\"}",
            422,
            "loopback",
        ),
        (
            "DELETE",
            "/v1/services/web/backends/10.0.0.99",
            "",
            404,
            "10.0.0.99",
        ),
        (
            "PATCH",
            "/v1/services/web/backends/10.0.0.11",
            "{}",
            400,
            "weight",
        ),
    ] {
        let (head, answer) = rig.call(method, path, body)?;
        let expected = format!("HTTP/1.1 {status}");
        assert!(
            head.starts_with(&expected),
            "{method} {path} {body}: {head} {answer}"
        );
        let answer: Value = serde_json::from_str(&answer)?;
        let said = answer["error"].as_str().context("no reason")?;
        assert!(said.contains(reason), "{method} {path}: {said}");
    }
    rig.get(20)?;
    Ok(())
}
