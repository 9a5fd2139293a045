//! `cargo xtask lab`: up, status, exec, down, and what happens when something dies in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::xtask_program;
use xtask::lab::wait_for;

const SOON: Duration = Duration::from_secs(10);

/// A lab name of this test process; ends the lab when dropped.
struct Name(String);

impl Name {
    fn new(of: &str) -> Self {
        Self(format!("{of}-{}", std::process::id()))
    }

    fn dir(&self) -> PathBuf {
        Path::new("/run/xdp-lb-lab").join(&self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Fails where the lab is down already, as it should be.
        let _ = xtask(&["down", &self.0]);
    }
}

fn xtask(args: &[&str]) -> Result<Output> {
    Command::new(xtask_program()?)
        .arg("lab")
        .args(args)
        .output()
        .context("cannot run xtask")
}

/// Runs `xtask lab ARGS`, which must succeed; returns what it prints.
fn check(args: &[&str]) -> Result<String> {
    let output = xtask(args)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{args:?}: {}: {stderr}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The entry of a lab in `status --json`.
fn status(name: &Name) -> Result<Option<Value>> {
    let labs: Vec<Value> = serde_json::from_str(&check(&["status", "--json"])?)?;
    Ok(labs.into_iter().find(|lab| lab["name"] == *name.0))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_lab_goes_up_works_and_goes_down() -> Result<()> {
    let name = Name::new("whole");
    let up = check(&["up", "--name", &name.0, "--backends", "2", "--no-director"])?;
    assert!(up.contains("backend2") && up.contains("192.0.2.10"), "{up}");
    assert!(check(&["status"])?.contains(&name.0));
    let lab = status(&name)?.context("not in the list")?;
    assert_eq!(
        (&lab["ready"], &lab["kind"]),
        (&true.into(), &"kept".into())
    );

    // Its own interfaces, its own /sys, the caller's folder; and the exit code comes through.
    let there = ["exec", &name.0, "backend2", "--", "sh", "-c"];
    let seen = check(
        &[
            &there[..],
            &["ip -br addr show eth0; ls /sys/class/net; pwd"],
        ]
        .concat(),
    )?;
    assert!(seen.contains("10.0.0.12/24"), "{seen}");
    assert!(seen.ends_with(&format!(
        "eth0\nlo\n{}\n",
        std::env::current_dir()?.display()
    )));
    assert_eq!(
        xtask(&[&there[..], &["exit 7"]].concat())?.status.code(),
        Some(7)
    );

    let again = xtask(&["up", "--name", &name.0])?;
    assert!(
        !again.status.success() && stderr(&again).contains("is up already"),
        "{again:?}"
    );
    let unknown = xtask(&["exec", &name.0, "backend9", "--", "true"])?;
    assert!(
        stderr(&unknown).contains("no host backend9, only: fabric, client"),
        "{unknown:?}"
    );

    check(&["down", &name.0])?;
    assert!(status(&name)?.is_none() && !name.dir().exists());
    let gone = xtask(&["down", &name.0])?;
    assert!(stderr(&gone).contains("no lab named"), "{gone:?}");
    Ok(())
}

#[test]
fn what_runs_in_a_lab_ends_with_it() -> Result<()> {
    let name = Name::new("visited");
    check(&["up", "--name", &name.0, "--backends", "1", "--no-director"])?;
    let mut visitor = Command::new(xtask_program()?)
        .args(["lab", "exec", &name.0, "client", "--", "sleep", "60"])
        .spawn()?;
    let command_line = format!("/proc/{}/cmdline", visitor.id());
    wait_for("the visitor to be inside", SOON, || {
        Ok((fs::read(&command_line)?.starts_with(b"sleep")).then_some(()))
    })?;
    check(&["down", &name.0])?;
    let ended = wait_for("the visitor to end", SOON, || Ok(visitor.try_wait()?))?;
    assert!(!ended.success());
    Ok(())
}

#[test]
fn the_remains_of_a_killed_keeper_are_noticed_and_removed() -> Result<()> {
    let name = Name::new("killed");
    check(&["up", "--name", &name.0, "--backends", "1", "--no-director"])?;
    let pid = status(&name)?.context("not in the list")?["pid"].to_string();
    let killed = Command::new("sh")
        .args(["-c", "kill -9 \"$0\"", &pid])
        .status()?;
    assert!(killed.success());
    wait_for("the keeper to be gone", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
    })?;
    // Tests beside this one look at the registry as well, and may have removed it already.
    xtask(&["status"])?;
    assert!(!name.dir().exists());
    check(&["up", "--name", &name.0, "--backends", "1", "--no-director"])?;
    Ok(())
}

#[test]
fn an_interrupted_up_leaves_nothing() -> Result<()> {
    let name = Name::new("interrupted");
    let never_ready = std::env::temp_dir().join(&name.0);
    fs::write(
        &never_ready,
        "#!/bin/sh\n[ \"$1\" = run ] && exec sleep 60\n",
    )?;
    fs::set_permissions(&never_ready, fs::Permissions::from_mode(0o755))?;
    let mut up = Command::new(xtask_program()?)
        .args(["lab", "up", "--backends", "1", "--name", &name.0, "--bin"])
        .arg(&never_ready)
        .spawn()?;
    wait_for("the lab to begin", SOON, || {
        Ok(name.dir().join("state.json").exists().then_some(()))
    })?;
    up.kill()?;
    up.wait()?;
    wait_for("the lab to be gone", SOON, || {
        Ok((!name.dir().exists()).then_some(()))
    })?;
    fs::remove_file(&never_ready)?;
    Ok(())
}

#[test]
fn a_failed_up_says_why_and_leaves_nothing() -> Result<()> {
    let name = Name::new("failed");
    let output = xtask(&["up", "--name", &name.0, "--bin", "/bin/false"])?;
    let message = stderr(&output);
    assert!(
        !output.status.success() && message.contains("--no-director"),
        "{message}"
    );
    assert!(!name.dir().exists());
    let output = xtask(&["up", "--name", "no/name", "--no-director"])?;
    assert!(
        stderr(&output).contains("is no name for a lab"),
        "{}",
        stderr(&output)
    );
    Ok(())
}

#[test]
fn a_lab_goes_up_with_tunnels_through_a_gateway_and_tags() -> Result<()> {
    let name = Name::new("far");
    let program = xdp_lb_tests::lab::program();
    let program = program.to_str().context("an odd path")?;
    let kind = ["--farm", "routed", "--tag", "100", "--forwarding", "gue"];
    let up = ["up", "--name", &name.0, "--backends", "1", "--bin", program];
    let up = check(&[&up[..], &kind].concat())?;
    assert!(up.contains("gateway2") && up.contains("10.0.2.11"), "{up}");
    // Its backend is active when its gateway's address is known.
    wait_for("an answer through the VIP", SOON, || {
        let there = ["exec", &name.0, "client", "--", "bash", "-c"];
        let request = "exec 3<>/dev/tcp/192.0.2.10/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 \
                       && cat <&3";
        let output = xtask(&[&there[..], &[request]].concat())?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(answer.contains("backend=backend1").then_some(()))
    })
}
