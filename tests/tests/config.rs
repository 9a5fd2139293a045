//! Wrong config files: refused whole, with the place and the reason; what runs goes on running.

use std::fs;
use std::process::{Command, Output};

use anyhow::Result;
use xdp_lb_tests::lab::{Rig, SOON, config, program, stderr};
use xtask::lab::{Namespace, wait_for};

/// A mistake, and what must be said about it: place, field, and a part of the reason.
struct Mistake {
    /// Stands in the place of this text of a good config …
    instead_of: &'static str,
    wrong: &'static str,
    place: &'static str,
    field: &'static str,
    reason: &'static str,
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        instead_of: "    protocol: tcp",
        wrong: "    protocoll: tcp",
        place: ":5:5:",
        field: "protocoll",
        reason: "unknown",
    },
    Mistake {
        instead_of: "- 10.0.0.12",
        wrong: "- 10.0.0.300",
        place: ":9:9:",
        field: "services[0].backends[1]",
        reason: "`10.0.0.300` is not an IP address",
    },
    Mistake {
        instead_of: "- 10.0.0.12",
        wrong: "- { address: 10.0.0.12, weight: 70000 }",
        place: ":9:",
        field: "services[0].backends[1].weight",
        reason: "70000 is out of range",
    },
    Mistake {
        instead_of: "      - 10.0.0.12\n",
        wrong: "      - 10.0.0.12\n  - { name: other, vip: 192.0.2.10, protocol: tcp, port: 80, backends: [10.0.0.13] }\n",
        place: ":10:",
        field: "services[1].port",
        reason: "already belongs to service `web`",
    },
    Mistake {
        instead_of: "port: 80",
        wrong: "port: 65536",
        place: ":6:11:",
        field: "services[0].port",
        reason: "65536",
    },
    Mistake {
        instead_of: "interfaces: [eth0]\n",
        wrong: "",
        place: ":1:1:",
        field: "interfaces",
        reason: "missing",
    },
    Mistake {
        instead_of: "interfaces: [eth0]",
        wrong: "interfaces: [eth0",
        place: ":",
        field: "",
        reason: "",
    },
];

fn wrong(mistake: &Mistake) -> String {
    let good = config(1..=2);
    assert!(good.contains(mistake.instead_of), "{}", mistake.instead_of);
    good.replacen(mistake.instead_of, mistake.wrong, 1)
}

/// Checks what is said about a mistake in the file `name`.
fn assert_named(mistake: &Mistake, name: &str, said: &str) {
    for part in [
        &format!("{name}{}", mistake.place),
        mistake.field,
        mistake.reason,
    ] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
}

/// A namespace, so that a daemon that should not start cannot touch anything if it does.
struct Place {
    namespace: Namespace,
    folder: std::path::PathBuf,
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("xdp-lb-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let namespace = Namespace::new(name)?;
        Ok(Self { namespace, folder })
    }

    fn check(&self, file: &str) -> Result<Output> {
        let mut command = Command::new(program());
        command
            .args(["config", "check"])
            .arg(self.folder.join(file));
        self.namespace.output(&mut command)
    }

    fn run(&self, file: &str) -> Result<Output> {
        let mut command = Command::new(program());
        command
            .arg("run")
            .arg("--config")
            .arg(self.folder.join(file));
        command.arg("--socket").arg(self.folder.join("socket"));
        command.arg("--state-dir").arg(self.folder.join("state"));
        self.namespace.output(&mut command)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn check_names_place_field_and_reason_of_every_mistake() -> Result<()> {
    let place = Place::new("check")?;
    for mistake in MISTAKES {
        fs::write(place.folder.join("wrong.yaml"), wrong(mistake))?;
        let output = place.check("wrong.yaml")?;
        assert_eq!(output.status.code(), Some(2), "{}", mistake.wrong);
        assert_named(mistake, "wrong.yaml", &stderr(&output));
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

#[test]
fn a_daemon_does_not_start_with_a_wrong_file() -> Result<()> {
    let place = Place::new("run")?;
    for mistake in MISTAKES {
        fs::write(place.folder.join("wrong.yaml"), wrong(mistake))?;
        let output = place.run("wrong.yaml")?;
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert_named(mistake, "wrong.yaml", &stderr(&output));
    }
    assert!(!place.folder.join("socket").exists());
    Ok(())
}

#[test]
fn files_that_are_no_config_are_refused_by_check_and_run() -> Result<()> {
    let place = Place::new("none")?;
    fs::write(place.folder.join("empty"), "")?;
    fs::write(place.folder.join("list"), "- a\n- b\n")?;
    fs::write(place.folder.join("prose"), "this is: not: yaml\n")?;
    fs::write(place.folder.join("binary"), [0xff, 0xfe, 0x00, 0x80])?;
    for file in ["missing", "empty", "list", "prose", "binary", "."] {
        for output in [place.check(file)?, place.run(file)?] {
            assert_eq!(output.status.code(), Some(2), "{file}: {}", stderr(&output));
            assert!(
                stderr(&output).contains(file),
                "{file}: {}",
                stderr(&output)
            );
        }
    }
    Ok(())
}

#[test]
fn a_good_file_is_called_good() -> Result<()> {
    let place = Place::new("good")?;
    fs::write(place.folder.join("good.yaml"), config(1..=3))?;
    let output = place.check("good.yaml")?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("good.yaml: good: 1 service, 3 backends, on eth0"),
        "{said}"
    );
    assert!(said.contains("MAPS") && said.contains("total"), "{said}");
    Ok(())
}

#[test]
fn a_running_daemon_refuses_a_wrong_file_and_goes_on() -> Result<()> {
    let rig = Rig::new(2)?;
    let before = rig.json(&["service", "list"])?;
    for mistake in MISTAKES {
        rig.director.write_config(&wrong(mistake))?;
        let output = rig.director.cli(&["config", "reload"])?;
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert_named(mistake, "config.yaml", &stderr(&output));
        rig.get(20)?;
    }
    fs::remove_file(rig.director.config())?;
    assert!(!rig.director.cli(&["config", "reload"])?.status.success());
    let after = rig.json(&["service", "list"])?;
    assert_eq!(before[0]["backends"], after[0]["backends"]);
    assert_eq!(
        before.as_array().map(Vec::len),
        after.as_array().map(Vec::len)
    );
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}

#[test]
fn sighup_takes_a_good_file_and_refuses_a_wrong_one() -> Result<()> {
    let rig = Rig::with_config(3, &config(1..=2))?;
    rig.director.write_config(&wrong(&MISTAKES[1]))?;
    rig.hang_up()?;
    wait_for("the refusal in the log", SOON, || {
        let log = rig.director.log()?;
        Ok((log.contains("not taken") && log.contains("10.0.0.300")).then_some(()))
    })?;
    assert_eq!(rig.shares(100)?.len(), 2);

    rig.director.write_config(&config(1..=3))?;
    rig.hang_up()?;
    wait_for("the third backend", SOON, || {
        let list = rig.json(&["backend", "list"])?;
        Ok((list.as_array().map(Vec::len) == Some(3)).then_some(()))
    })?;
    rig.wait_until_active()?;
    assert_eq!(rig.shares(200)?.len(), 3);
    Ok(())
}

#[test]
fn a_reload_adds_and_removes_services() -> Result<()> {
    let rig = Rig::new(2)?;
    let two = format!(
        "{}  - {{ name: alt, vip: 192.0.2.10, protocol: tcp, port: 8080, backends: [10.0.0.11] }}\n",
        config(1..=2)
    );
    rig.director.write_config(&two)?;
    rig.json(&["config", "reload"])?;
    let list = rig.json(&["service", "list"])?;
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");

    rig.director.write_config("interfaces: [eth0]\n")?;
    rig.json(&["config", "reload"])?;
    assert_eq!(
        rig.json(&["service", "list"])?.as_array().map(Vec::len),
        Some(0)
    );
    let refused = rig.failure();
    assert!(refused.contains("refused"), "{refused}");
    Ok(())
}

#[test]
fn another_hash_key_is_refused_while_running() -> Result<()> {
    let rig = Rig::new(2)?;
    let other = format!(
        "hash_key: \"{}\"\n{}",
        "0123456789abcdef".repeat(2),
        config(1..=2)
    );
    rig.director.write_config(&other)?;
    let output = rig.director.cli(&["config", "reload"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("hash_key"), "{}", stderr(&output));
    rig.get(50)?;
    Ok(())
}
