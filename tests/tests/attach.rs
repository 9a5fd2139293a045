//! Where the program attaches, and what happens where it cannot.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::{Rig, SOON, config, program, stderr};
use xtask::lab::{Lab, LabConfig, wait_for};

/// A lab whose director has its address on a macvlan, which takes XDP in generic mode only.
fn lab_with_macvlan() -> Result<Lab> {
    let lab = Lab::new(LabConfig::with_backends(2))?;
    let director = lab.host("director");
    // Only mv0 shall answer ARP for its address, not eth0 below it.
    director.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    director.ip_batch(
        "addr del 10.0.0.2/24 dev eth0\n\
         link add mv0 link eth0 type macvlan mode bridge\n\
         link set mv0 up\n\
         addr add 10.0.0.2/24 dev mv0\n\
         route add default via 10.0.0.1\n",
    )?;
    lab.host("router").ip(&["neigh", "flush", "dev", "eth1"])?;
    Ok(lab)
}

fn config_on(interface: &str) -> String {
    config(1..=2).replace("[eth0]", &format!("[{interface}]"))
}

#[test]
fn where_native_does_not_work_generic_does_and_the_reason_is_told() -> Result<()> {
    let rig = Rig::in_lab(lab_with_macvlan()?, &config_on("mv0"))?;
    let status = rig.json(&["status"])?;
    let interface = &status["interfaces"][0];
    assert_eq!(
        (&interface["name"], &interface["mode"]),
        (&"mv0".into(), &"generic".into())
    );
    let reason = interface["fallback"].as_str().unwrap_or_default();
    assert!(reason.contains("native XDP"), "{interface}");
    assert!(rig.director.log()?.contains("attached in generic mode"));
    assert!(rig.director.check(&["status"])?.contains("fallback"));
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn where_native_is_asked_for_and_does_not_work_the_daemon_says_so() -> Result<()> {
    let lab = lab_with_macvlan()?;
    let yaml = config_on("{ name: mv0, mode: native }");
    let error = format!("{:#}", lab.start_director(&program(), &yaml).unwrap_err());
    assert!(
        error.contains("cannot attach to interface `mv0`: native XDP"),
        "{error}"
    );
    assert!(error.contains("exit status: 1"), "{error}");
    Ok(())
}

#[test]
fn generic_mode_balances_where_it_is_asked_for() -> Result<()> {
    let rig = Rig::with_config(2, &config_on("{ name: eth0, mode: generic }"))?;
    let status = rig.json(&["status"])?;
    assert_eq!(status["interfaces"][0]["mode"], "generic");
    assert_eq!(status["interfaces"][0]["fallback"], Value::Null);
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn a_restart_may_change_the_mode() -> Result<()> {
    let mut rig = Rig::new(2)?;
    for mode in ["generic", "native"] {
        let interface = format!("{{ name: eth0, mode: {mode} }}");
        rig.director.write_config(&config_on(&interface))?;
        rig.director.restart()?;
        let status = rig.json(&["status"])?;
        assert_eq!(status["interfaces"][0]["mode"], mode, "{status}");
        assert_eq!(status["maps"], "adopted");
        rig.wait_until_active()?;
        assert_eq!(rig.shares(100)?.len(), 2);
    }
    Ok(())
}

/// Waits until `status` says that the program is attached to exactly these interfaces.
fn wait_for_attached(rig: &Rig, expected: &[&str]) -> Result<Value> {
    wait_for(&format!("{expected:?} to be attached"), SOON, || {
        let status = rig.json(&["status"])?;
        let all = status["interfaces"].as_array().context("no interfaces")?;
        let names: Vec<_> = all.iter().filter_map(|it| it["name"].as_str()).collect();
        Ok((names == expected).then(|| status.clone()))
    })
}

#[test]
fn an_interface_that_is_missing_is_named_and_waited_for() -> Result<()> {
    let yaml = config(1..=1).replace("[eth0]", "[eth0, eth7]");
    let rig = Rig::with_config(1, &yaml)?;
    let missing = &rig.json(&["status"])?["missing_interfaces"];
    let expected = "interface `eth7` does not exist; `ip link` lists those that do";
    assert_eq!(missing["eth7"], expected);
    assert!(
        rig.director
            .check(&["status"])?
            .contains("eth7 NOT ATTACHED")
    );
    // What is there works.
    assert_eq!(rig.get(20)?.len(), 20);
    let host = rig.director.host();
    host.ip(&[
        "link", "add", "eth7", "type", "veth", "peer", "name", "far7",
    ])?;
    wait_for_attached(&rig, &["eth0", "eth7"])?;
    host.ip(&["link", "del", "eth7"])?;
    let status = wait_for_attached(&rig, &["eth0"])?;
    assert_eq!(status["missing_interfaces"]["eth7"], expected);
    assert_eq!(rig.get(20)?.len(), 20);
    Ok(())
}

#[test]
fn an_interface_that_is_made_anew_gets_the_program_again() -> Result<()> {
    for mode in ["native", "generic"] {
        let yaml = config(1..=2).replace("[eth0]", &format!("[{{ name: eth0, mode: {mode} }}]"))
            + "    health_check: { type: http, path: /healthz, interval: 300ms }\n";
        let mut rig = Rig::with_config(2, &yaml)?;
        let before = rig.director.host().ifindex("eth0")?;
        for turn in 0..3 {
            let host = Arc::clone(rig.director.host());
            rig.lab.remake_interface(&host, "eth0")?;
            let after = host.ifindex("eth0")?;
            ensure!(turn > 0 || after != before, "it has the same index");
            wait_for("the new interface to be attached", SOON, || {
                let status = rig.json(&["status"])?;
                Ok((status["interfaces"][0]["ifindex"] == after).then_some(()))
            })?;
            rig.wait_for_state(1, "active")?;
            rig.wait_for_state(2, "active")?;
            // The switch learns where it is now.
            wait_for("requests to be answered", SOON, || {
                Ok(rig.lab.client().get(rig.vip(), "/").ok())
            })?;
            assert_eq!(rig.shares(100)?.len(), 2);
            let pins = rig.pins();
            let links: Vec<_> = pins.iter().filter(|it| it.starts_with("link-")).collect();
            assert_eq!(links, [&format!("link-{after}-{mode}")]);
        }
    }
    Ok(())
}

#[test]
fn a_link_that_somebody_takes_away_is_made_again() -> Result<()> {
    let rig = Rig::new(1)?;
    let pin_dir = rig.director.pin_dir();
    let pins = rig.pins();
    let link = pins.iter().find(|it| it.starts_with("link-"));
    let link = pin_dir.join(link.context("no link")?);
    rig.director.host().run(|| std::fs::remove_file(&link))?;
    wait_for("the log to say so", SOON, || {
        let log = rig.director.log()?;
        Ok(log
            .contains("the program is not attached any more")
            .then_some(()))
    })?;
    wait_for("the program to be attached", SOON, || {
        Ok(rig.is_attached()?.then_some(()))
    })?;
    assert_eq!(rig.get(20)?.len(), 20);
    Ok(())
}

#[test]
fn detach_leaves_what_others_have_put_beside_the_pins() -> Result<()> {
    let rig = Rig::new(1)?;
    let other = rig.director.pin_dir().join("other");
    rig.director.host().run(|| std::fs::create_dir(&other))?;
    let said = rig.director.check(&["detach"])?;
    assert!(
        said.contains("left in place") && said.contains("/other"),
        "{said}"
    );
    assert_eq!(rig.pins(), ["other"]);
    assert!(!rig.is_attached()?);
    wait_for("the daemon to end", SOON, || {
        let ended = rig.director.cli(&["status"])?;
        Ok((!ended.status.success()).then_some(()))
    })
}

#[test]
fn a_second_daemon_on_the_same_pins_is_refused_and_the_first_goes_on() -> Result<()> {
    let rig = Rig::new(2)?;
    let output = rig.output(&mut rig.run_command("second", rig.director.pin_dir()))?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another daemon uses it") && said.contains("--pin-dir"),
        "{said}"
    );
    assert!(rig.director.cli(&["status"])?.status.success());
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() -> Result<()> {
    let rig = Rig::new(2)?;
    let mut command = std::process::Command::new(program());
    command
        .arg("run")
        .arg("--config")
        .arg(rig.director.config());
    command.arg("--socket").arg(rig.director.socket());
    command.args(["--pin-dir", "/sys/fs/bpf/other"]);
    command.arg("--state-dir").arg(rig.file("second.state"));
    let output = rig.output(&mut command)?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another daemon answers") && said.contains("--socket"),
        "{said}"
    );
    assert!(rig.director.cli(&["status"])?.status.success());
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_interface_is_refused_and_the_first_goes_on() -> Result<()> {
    let rig = Rig::new(2)?;
    let mut command = rig.run_command("second", "/sys/fs/bpf/other".as_ref());
    let output = rig.output(&mut command)?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("eth0") && said.contains("another XDP program"),
        "{said}"
    );
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn two_labs_with_daemons_do_not_disturb_each_other() -> Result<()> {
    let (one, other) = (Rig::new(2)?, Rig::new(3)?);
    let before = other.counter("forwarded")?;
    assert_eq!(one.shares(200)?.len(), 2);
    assert_eq!(other.counter("forwarded")?, before);
    one.director.check(&["detach"])?;
    wait_for("the first to be detached", SOON, || {
        Ok((!one.is_attached()?).then_some(()))
    })?;
    assert_eq!(other.shares(200)?.len(), 3);
    Ok(())
}
