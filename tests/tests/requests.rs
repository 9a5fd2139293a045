//! `cargo xtask bench requests`: that it measures, sees which way requests took, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::{SOON, program, xtask_program};
use xtask::lab::wait_for;
use xtask::{root, test::libtest::SKIPPED};

/// The shortest run, as a command.
fn bench(ways: &[&str]) -> Result<Command> {
    let mut command = Command::new(xtask_program()?);
    command.args(["bench", "requests"]).args(ways);
    command.arg("--quick").arg("--bin").arg(program());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn can_run() -> bool {
    if !root::is_root() {
        println!("{SKIPPED}a lab takes root");
        return false;
    }
    if xdp_lb::dataplane::OBJECT.is_empty() {
        println!("{SKIPPED}built without the XDP program; `cargo xtask build` builds it");
        return false;
    }
    true
}

/// How many folders labs of a process have.
fn labs_of(process: u32) -> Result<usize> {
    let prefix = format!("pid-{process}-");
    let mut count = 0;
    for entry in fs::read_dir("/run/xdp-lb-lab")? {
        let name = entry?.file_name();
        count += usize::from(name.to_string_lossy().starts_with(&prefix));
    }
    Ok(count)
}

#[test]
fn each_way_that_is_named_is_measured_and_the_straight_one() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("requests.json");
    let bench = bench(&["xdp-lb"])?.arg("--json").arg(&file).spawn()?;
    let process = bench.id();
    let output = bench.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // What went another way would be an error.
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("of the straight way's requests"), "{table}");

    let report: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let measured = report["measured"].as_array().context("no list")?;
    let ways: Vec<_> = measured
        .iter()
        .map(|it| (it["way"].as_str(), it["kind"].as_str()))
        .collect();
    let expected = [
        ("straight", "new"),
        ("xdp-lb", "new"),
        ("xdp-lb-native", "new"),
        ("straight", "kept"),
        ("xdp-lb", "kept"),
        ("xdp-lb-native", "kept"),
    ];
    assert_eq!(ways, expected.map(|(way, kind)| (Some(way), Some(kind))));
    for it in measured {
        assert!(it["rounds"][0]["per_second"].as_f64() > Some(1.0), "{it}");
    }
    assert_eq!(labs_of(process)?, 0);
    Ok(())
}

#[test]
fn an_interrupt_leaves_nothing() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let mut bench = bench(&["haproxy", "stream"])?.spawn()?;
    let process = bench.id();
    wait_for("the labs to be there", SOON, || {
        Ok((Path::new("/run/xdp-lb-lab").is_dir() && labs_of(process)? == 3).then_some(()))
    })?;
    let kill = format!("kill -INT {process}");
    let kill = Command::new("sh").args(["-c", &kill]).status()?;
    ensure!(kill.success(), "no process {process}");
    let status = wait_for("the benchmark to end", SOON, || Ok(bench.try_wait()?))?;
    assert_eq!(status.code(), Some(130));
    assert_eq!(labs_of(process)?, 0);
    Ok(())
}

#[test]
fn a_way_that_is_not_known_is_refused() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let output = bench(&["ipvs"])?.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("nftables DNAT"), "{stderr}");
    Ok(())
}
