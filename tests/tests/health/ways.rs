//! Checks by way of the VIP find out what checks of the backend's own address do not.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xdp_lb_tests::lab::{Rig, SOON, program};
use xdp_lb_tests::modes::{self, Family, GUE, GUE6, IPIP, IPIP6, L2, L2V6, Mode};
use xtask::lab::{Farm, Host, Lab, LabConfig, wait_for};

/// The fields that all checks here have.
const PACE: &str = "type: http, path: /healthz, interval: 200ms, timeout: 200ms, rise: 1, fall: 2";

/// Services that ask backend 1 in several ways, by the same VIP and different ports.
fn config(lab: &Lab, modes: &[Mode], checks: &[(&str, &str)]) -> String {
    let interfaces = lab.host("director").interfaces();
    let names: Vec<&str> = interfaces.iter().map(|it| it.name.as_str()).collect();
    let mut yaml = format!("interfaces: [{}]\nservices:\n", names.join(", "));
    for mode in modes {
        let backend = lab.host("backend1");
        let (vip, address) = match mode.outer {
            Family::V4 => (mode.vip4().to_string(), backend.v4().to_string()),
            Family::V6 => (mode.vip6().to_string(), backend.v6().to_string()),
        };
        for (port, (name, fields)) in (80..).zip(checks) {
            let _ = writeln!(
                yaml,
                "- {{ name: {}-{name}, vip: \"{vip}\", protocol: tcp, port: {port}, \
                 forwarding: {}, backends: [\"{address}\"], \
                 health_check: {{ {PACE}, port: 80, {fields} }} }}",
                mode.name, mode.forwarding
            );
        }
    }
    yaml
}

fn wait_for_health(rig: &Rig, service: &str, state: &str) -> Result<String> {
    let what = format!("{service} to be {state}");
    let mut last = String::new();
    wait_for(&what, SOON, || {
        let health = rig.json(&["health", "list", service])?;
        last = health.to_string();
        Ok((health[0]["state"] == state).then_some(()))
    })
    .with_context(|| last.clone())?;
    let health = rig.json(&["health", "list", service])?;
    let cause = health[0]["last_failure"]["cause"].as_str();
    Ok(cause.unwrap_or_default().to_owned())
}

/// The services of each mode are in these states, by the names of their checks.
fn expect(rig: &Rig, modes: &[Mode], states: &[(&str, &str)]) -> Result<()> {
    for mode in modes {
        for (check, state) in states {
            let service = format!("{}-{check}", mode.name);
            let cause = wait_for_health(rig, &service, state)?;
            if *state == "down" {
                println!("{service}: {cause}");
                ensure!(
                    cause.starts_with("timeout after 200ms while"),
                    "{service}: {cause}"
                );
            }
        }
    }
    Ok(())
}

fn rig(modes: &[Mode], farm: Farm, checks: &[(&str, &str)]) -> Result<Rig> {
    let lab = Lab::new(LabConfig {
        farm,
        ..modes::lab(modes, 1)
    })?;
    lab.decapsulate(&program())?;
    let yaml = config(&lab, modes, checks);
    Rig::in_lab(lab, &yaml)
}

const BOTH: &[(&str, &str)] = &[("vip", "via: vip"), ("own", "via: backend")];

fn change_vips(host: &Host, modes: &[Mode], what: &str) -> Result<()> {
    for mode in modes {
        let vip = match mode.outer {
            Family::V4 => format!("{}/32", mode.vip4()),
            Family::V6 => format!("{}/128", mode.vip6()),
        };
        let more: &[&str] = if what == "add" && vip.contains(':') {
            &["nodad"]
        } else {
            &[]
        };
        host.ip(&[&["address", what, &vip, "dev", "lo"], more].concat())?;
    }
    Ok(())
}

#[test]
fn a_vip_that_is_missing_on_a_backend_is_noticed() -> Result<()> {
    const MODES: &[Mode] = &[L2, L2V6, IPIP, GUE6];
    let rig = rig(MODES, Farm::Shared, BOTH)?;
    let backend = rig.lab.host("backend1");
    expect(&rig, MODES, &[("vip", "up"), ("own", "up")])?;
    change_vips(backend, MODES, "del")?;
    expect(&rig, MODES, &[("vip", "down"), ("own", "up")])?;
    change_vips(backend, MODES, "add")?;
    expect(&rig, MODES, &[("vip", "up"), ("own", "up")])
}

#[test]
fn a_backend_that_does_not_decapsulate_is_noticed() -> Result<()> {
    const MODES: &[Mode] = &[IPIP, IPIP6, GUE, GUE6];
    let rig = rig(MODES, Farm::Shared, BOTH)?;
    let backend = rig.lab.host("backend1");
    expect(&rig, MODES, &[("vip", "up"), ("own", "up")])?;
    let mut detach = Command::new(program());
    detach.args(["decap", "--interface", "eth0", "--detach"]);
    backend.namespace().check(&mut detach)?;
    expect(&rig, MODES, &[("vip", "down"), ("own", "up")])?;
    rig.lab.decapsulate(&program())?;
    expect(&rig, MODES, &[("vip", "up"), ("own", "up")])
}

/// The gateways take packets of 1500 bytes, and pass on those of 1400 alone; nobody hears of it.
#[test]
fn a_way_that_takes_less_than_it_should_is_noticed_by_packets_of_full_size() -> Result<()> {
    const MODES: &[Mode] = &[IPIP, IPIP6, GUE, GUE6];
    let checks = [
        ("full", "via: vip"),
        ("small", "via: vip, full_size: false"),
    ];
    let rig = rig(MODES, Farm::Routed, &checks)?;
    expect(&rig, MODES, &[("full", "up"), ("small", "up")])?;
    let narrow = |mtu: &str| -> Result<()> {
        for gateway in ["gateway1", "gateway2"] {
            let host = rig.lab.host(gateway);
            for interface in &host.interfaces()[1..] {
                host.ip(&["link", "set", "dev", &interface.name, "mtu", mtu])?;
            }
        }
        Ok(())
    };
    narrow("1400")?;
    expect(&rig, MODES, &[("full", "down"), ("small", "up")])?;
    narrow("1500")?;
    expect(&rig, MODES, &[("full", "up"), ("small", "up")])
}
