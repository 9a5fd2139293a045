//! The command line against a running daemon: answers, errors, exit codes.

use std::process::Command;

use anyhow::Result;
use xdp_lb_tests::lab::{Rig, config, program, stderr};

/// Runs a command that must fail; returns its exit code and what it says.
fn failure(rig: &Rig, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = rig.director.cli(args)?;
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout");
    Ok((output.status.code(), stderr(&output)))
}

#[test]
fn a_backends_life_from_add_to_remove_shows_in_the_list() -> Result<()> {
    let rig = Rig::with_config(3, &config(1..=2))?;
    rig.change("add", 3, &["--weight", "50"])?;
    rig.wait_for_state(3, "active")?;
    let added = rig.backend(3)?;
    assert_eq!(
        (&added["weight"], &added["origin"]),
        (&50.into(), &"runtime".into())
    );
    assert_eq!(
        added["share"].as_f64().map(|it| (it * 5.0).round()),
        Some(1.0),
        "{added}"
    );

    rig.change("set", 3, &["--weight", "200"])?;
    assert_eq!(rig.backend(3)?["weight"], 200);
    rig.change("drain", 3, &[])?;
    let drained = rig.backend(3)?;
    assert_eq!(
        (&drained["state"], &drained["slots"]),
        (&"draining".into(), &0.into())
    );
    rig.change("enable", 3, &[])?;
    assert_eq!(rig.backend(3)?["state"], "active");
    rig.change("remove", 3, &[])?;
    assert!(rig.backend(3).is_err());
    rig.change("set", 1, &["--weight", "7"])?;
    assert_eq!(rig.backend(1)?["origin"], "changed");
    assert_eq!(rig.json(&["status"])?["runtime_changes"], 1);
    Ok(())
}

#[test]
fn what_cannot_be_done_ends_with_1_and_says_why() -> Result<()> {
    let rig = Rig::new(2)?;
    for (args, reason) in [
        (
            &["service", "show", "nope"][..],
            "no service `nope`; there are: web",
        ),
        (
            &["backend", "list", "nope"],
            "no service `nope`; there are: web",
        ),
        (
            &["backend", "add", "nope", "10.0.0.13"],
            "no service `nope`; there are: web",
        ),
        (
            &["backend", "add", "web", "10.0.0.11"],
            "has the backend 10.0.0.11 already",
        ),
        (
            &["backend", "remove", "web", "10.0.0.99"],
            "no backend 10.0.0.99",
        ),
        (
            &["backend", "drain", "web", "10.0.0.99"],
            "no backend 10.0.0.99",
        ),
        (
            &["backend", "enable", "web", "10.0.0.99"],
            "no backend 10.0.0.99",
        ),
        (
            &["backend", "set", "web", "10.0.0.99", "--weight", "1"],
            "no backend 10.0.0.99",
        ),
        (
            &["backend", "set", "web", "10.0.0.11", "--weight", "65536"],
            "65536 is out of range",
        ),
        (
            &["backend", "add", "web", "10.0.0.13", "--weight", "70000"],
            "70000 is out of range",
        ),
        (
            &["backend", "add", "web", "::ffff:10.0.0.13"],
            "write 10.0.0.13",
        ),
        (
            &["backend", "add", "web", "192.0.2.10"],
            "is a vip of this service",
        ),
        (&["backend", "add", "web", "127.0.0.1"], "loopback"),
        (&["backend", "add", "web", "224.0.0.1"], "multicast"),
    ] {
        let (code, said) = failure(&rig, args)?;
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains(reason), "{args:?}: {said}");
    }
    // Nothing of it took effect.
    assert_eq!(rig.json(&["status"])?["runtime_changes"], 0);
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    for args in [
        &[][..],
        &["nonsense"],
        &["backend", "add", "web"],
        &["backend", "add", "web", "10.0.0.300"],
        &["backend", "set", "web", "10.0.0.11"],
        &["backend", "set", "web", "10.0.0.11", "--weight", "many"],
        &["backend", "set", "web", "10.0.0.11", "--weight", "-1"],
        &["flow", "flush"],
        &["flow", "flush", "--all", "--state", "open"],
        &["stats", "--watch", "--json"],
        &["run", "--nonsense"],
    ] {
        let output = Command::new(program()).args(args).output()?;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(!output.stderr.is_empty());
    }
    Ok(())
}

#[test]
fn without_a_daemon_commands_say_where_they_looked() -> Result<()> {
    let output = Command::new(program())
        .args(["--socket", "/nonexistent/xdp-lb.sock", "status"])
        .output()?;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("/nonexistent/xdp-lb.sock") && said.contains("xdp-lb run"),
        "{said}"
    );
    // Each cause once.
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    Ok(())
}

#[test]
fn every_question_has_an_answer_in_json_and_as_a_table() -> Result<()> {
    let rig = Rig::new(2)?;
    rig.get(50)?;
    for args in [
        &["status"][..],
        &["service", "list"],
        &["service", "show", "web"],
        &["backend", "list"],
        &["backend", "list", "web"],
        &["flow", "list"],
        &["flow", "count"],
        &["stats"],
        &["stats", "--all"],
    ] {
        let json = rig.json(args)?;
        assert!(json.is_object() || json.is_array(), "{args:?}");
        let text = rig.director.check(args)?;
        assert!(
            text.ends_with('\n') && !text.contains('\x1b'),
            "{args:?}: {text}"
        );
        assert!(
            text.lines().all(|line| line.trim_end() == line),
            "{args:?}:\n{text}"
        );
    }
    let stats = rig.director.check(&["stats"])?;
    assert!(stats.contains("forwarded"), "{stats}");
    Ok(())
}

#[test]
fn the_columns_of_a_table_are_aligned() -> Result<()> {
    let rig = Rig::with_config(
        3,
        &config(1..=3).replace("- 10.0.0.13", "- { address: 10.0.0.13, weight: 7 }"),
    )?;
    let table = rig.director.check(&["backend", "list"])?;
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    // Columns to the left and to the right.
    let (state, share) = (header.find("STATE"), header.find("SHARE").map(|at| at + 5));
    for line in lines {
        let at = line.find("active");
        assert_eq!(at, state, "\n{table}");
        assert_eq!(line.find(" %").map(|at| at + 2), share, "\n{table}");
    }
    assert_eq!(table.lines().count(), 4, "\n{table}");
    Ok(())
}

#[test]
fn completions_help_and_version_are_there() -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(program())
            .args(["completions", shell])
            .output()?;
        assert!(output.status.success(), "{shell}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("backend"),
            "{shell}"
        );
    }
    for option in ["--help", "--version"] {
        let output = Command::new(program()).arg(option).output()?;
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{option}"
        );
    }
    Ok(())
}
