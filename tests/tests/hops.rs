//! Backends that change their MAC address, move, vanish and come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::{Rig, SOON, address, config, program};
use xdp_lb_tests::silence::Silence;
use xtask::lab::{Lab, LabConfig, wait_for};

/// A rig whose director's kernel finds out within seconds that a neighbour is gone.
fn quick_rig(backends: usize, config: &str) -> Result<Rig> {
    let lab = Lab::new(LabConfig::with_backends(backends))?;
    let director = lab.host("director");
    for (key, value) in [
        ("base_reachable_time_ms", "1000"),
        ("delay_first_probe_time", "1"),
        ("retrans_time_ms", "200"),
    ] {
        director.sysctl(&format!("net/ipv4/neigh/eth0/{key}"), value)?;
    }
    Rig::in_lab(lab, config)
}

/// Waits until the daemon knows this MAC address for a backend.
fn wait_for_mac(rig: &Rig, number: usize, mac: &str) -> Result<()> {
    let what = format!("the MAC address {mac} of backend{number}");
    wait_for(&what, SOON, || {
        Ok((rig.backend(number)?["mac"] == mac).then_some(()))
    })
}

#[test]
fn a_changed_mac_address_is_followed_and_nothing_goes_to_the_old_one() -> Result<()> {
    let rig = quick_rig(2, &config(1..=2))?;
    rig.get(50)?;
    let backend = rig.lab.host("backend1");
    // Says so itself, as real ones do at a failover.
    backend.sysctl("net/ipv4/conf/eth0/arp_notify", "1")?;
    let new = "02:00:5e:00:53:01";
    backend.ip(&["link", "set", "eth0", "address", new])?;
    backend.ip(&["route", "replace", "default", "via", "10.0.0.1"])?;
    wait_for_mac(&rig, 1, new)?;
    // What went to the old address would be lost, and its request with it.
    let shares = rig.shares(400)?;
    assert_eq!(shares.len(), 2, "{shares:?}");
    Ok(())
}

#[test]
fn an_address_that_moves_to_another_host_is_followed() -> Result<()> {
    let rig = quick_rig(3, &config(1..=2))?;
    assert_eq!(rig.shares(100)?.len(), 2);
    let moving = format!("{}/24", address(1));
    rig.lab
        .host("backend1")
        .ip(&["addr", "del", &moving, "dev", "eth0"])?;
    rig.lab
        .host("backend3")
        .ip(&["addr", "add", &moving, "dev", "eth0"])?;
    wait_for_mac(&rig, 1, &rig.lab.host("backend3").mac("eth0")?)?;
    let shares = rig.shares(200)?;
    assert!(shares.keys().eq(["backend2", "backend3"]), "{shares:?}");
    Ok(())
}

#[test]
fn a_backend_that_vanishes_is_left_out_and_taken_in_again() -> Result<()> {
    let rig = quick_rig(3, &config(1..=3))?;
    let backend = rig.lab.host("backend1");
    backend.ip(&["link", "set", "eth0", "down"])?;
    rig.wait_for_state(1, "unreachable")?;
    let reason = rig.backend(1)?["reason"].clone();
    let reason = reason.as_str().context("no reason")?;
    assert!(reason.contains("ARP") || reason.contains("MAC"), "{reason}");
    let shares = rig.shares(200)?;
    assert!(shares.keys().eq(["backend2", "backend3"]), "{shares:?}");

    backend.ip(&["link", "set", "eth0", "up"])?;
    backend.ip(&["route", "replace", "default", "via", "10.0.0.1"])?;
    rig.wait_for_state(1, "active")?;
    assert_eq!(rig.shares(200)?.len(), 3);
    Ok(())
}

#[test]
fn with_no_backend_left_the_directors_kernel_refuses_at_once() -> Result<()> {
    let rig = quick_rig(2, &config(1..=2))?;
    for number in [1, 2] {
        let backend = rig.lab.host(&format!("backend{number}"));
        backend.ip(&["link", "set", "eth0", "down"])?;
        rig.wait_for_state(number, "unreachable")?;
    }
    let before = rig.counter("no_backend")?;
    let refused = rig.failure();
    assert!(refused.contains("refused"), "{refused}");
    assert!(rig.counter("no_backend")? > before);
    Ok(())
}

#[test]
fn a_flushed_neighbour_table_fails_no_request() -> Result<()> {
    let rig = quick_rig(2, &config(1..=2))?;
    let director = rig.lab.host("director");
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| rig.get_at_most(3000, 8));
        while !requests.is_finished() {
            // `ip` gives up where the kernel makes entries anew as fast as it removes them. Then
            // some were removed all the same.
            if let Err(error) = director.ip(&["neigh", "flush", "dev", "eth0"]) {
                eprintln!("not flushed as a whole: {error:#}");
            }
            rig.wait_until_active()?;
            std::thread::sleep(Duration::from_millis(300));
        }
        requests.join().expect("the requests' thread").map(drop)
    })
}

#[test]
fn a_backend_with_another_mac_address_is_found_by_its_health_check() -> Result<()> {
    let yaml = config(1..=2)
        + "    health_check: { type: http, path: /healthz, interval: 500ms, timeout: 300ms }\n";
    let rig = Rig::with_config(2, &yaml)?;
    rig.wait_for_state(1, "active")?;
    let host = &rig.servers[0].host();
    let before = host.mac("eth0")?;
    // It says nothing by itself.
    host.ip_batch("link set eth0 address 02:00:00:00:77:01\n")?;
    ensure!(host.mac("eth0")? != before);
    wait_for("the director to learn of it", SOON, || {
        Ok((rig.backend(1)?["mac"] == "02:00:00:00:77:01").then_some(()))
    })?;
    rig.wait_for_state(1, "active")?;
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn two_thousand_backends_on_one_link_are_all_found_and_found_again() -> Result<()> {
    const BACKENDS: u16 = 2_000;
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let all: Vec<_> = (1..=BACKENDS)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("10.7.{high}.{low}")
        })
        .collect();
    let backend = lab.host("backend1");
    let add = |address: &String| format!("addr add {address}/32 dev eth0\n");
    backend.ip_batch(&all.iter().map(add).collect::<String>())?;
    let director = lab.host("director");
    director.ip(&["route", "add", "10.7.0.0/16", "dev", "eth0"])?;
    let yaml = format!(
        "interfaces: [eth0]\nservices:\n- {{ name: web, vip: 192.0.2.10, protocol: tcp, port: 80, backends: [{}] }}\n",
        all.join(", ")
    );
    let daemon = lab.start_director(&program(), &yaml)?;
    let wait = |state: &str| {
        wait_for(&format!("all backends to be {state}"), SOON * 3, || {
            let text = daemon.check(&["backend", "list", "--json"])?;
            let list: Value = serde_json::from_str(&text)?;
            let all = list.as_array().context("not a list")?;
            let count = all.iter().filter(|it| it["state"] == state).count();
            Ok((count == usize::from(BACKENDS)).then_some(()))
        })
    };
    wait("active")?;
    for _ in 0..2 {
        let silence = Silence::of_arp(&lab, backend, &[director])?;
        // At once, where the kernel would find out one after the other.
        director.ip(&["neigh", "flush", "dev", "eth0"])?;
        wait("unreachable")?;
        // Nobody waits for them any more, and they are asked all the same.
        std::thread::sleep(Duration::from_secs(10));
        drop(silence);
        wait("active")?;
    }
    Ok(())
}
