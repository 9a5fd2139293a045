//! How a lab ends, and how the daemon in it does: nothing outlives its process.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::lab::{Forwarding, Lab, LabConfig, Namespace, wait_for};

const SOON: Duration = Duration::from_secs(10);

fn lab(backends: usize) -> Lab {
    Lab::new(LabConfig::with_backends(backends)).expect("a lab")
}

/// Does what the lab expects of a daemon, but for balancing.
const STAND_IN: &str = r#"#!/bin/sh
case "$1" in
run)
    trap 'rm -f "$5"; echo ended; exit 0' TERM
    mkdir -p "$7" && echo $$ > "$5" && echo started
    i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done ;;
--socket)
    kill -0 "$(cat "$2")" && echo "$3" ;;
esac
"#;

fn script(folder: &Path, text: &str) -> Result<PathBuf> {
    let path = folder.join("stand-in");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn pins_of_a_killed_daemon_stay_for_the_next() -> Result<()> {
    let lab = lab(1);
    let program = script(lab.dir(), STAND_IN)?;
    let mut director = lab.start_director(&program, &lab.director_config(Forwarding::L2))?;
    assert_eq!(director.check(&["backend", "list"])?, "backend\n");

    director.kill()?;
    assert!(!director.cli(&["status"])?.status.success());
    // Not on this machine's bpffs: in the director's own.
    assert!(director.host().run(|| director.pin_dir().is_dir()));
    assert!(!lab.host("client").run(|| director.pin_dir().is_dir()));

    director.restart()?;
    assert!(director.terminate()?.success());
    assert_eq!(director.log()?, "started\nstarted\nended\n");
    Ok(())
}

#[test]
fn a_daemon_that_ends_at_once_is_an_error_with_its_log() -> Result<()> {
    let lab = lab(1);
    let program = script(lab.dir(), "#!/bin/sh\necho no such map >&2; exit 1\n")?;
    let error = format!("{:#}", lab.start_director(&program, "").unwrap_err());
    assert!(
        error.contains("no such map") && error.contains("exit status: 1"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_panic_in_a_namespace_goes_on_in_the_caller() -> Result<()> {
    let lab = lab(1);
    let (dir, namespaces) = (lab.dir().to_owned(), namespaces_of(&lab));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        lab.host("client").run(|| panic!("on purpose"));
    }));
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(
        lab.host("client").run(|| 1 + 1),
        2,
        "the namespace still works"
    );
    drop(lab);
    assert!(!dir.exists());
    assert_all_gone(&namespaces)
}

#[test]
fn processes_die_with_their_namespace() -> Result<()> {
    let namespace = Namespace::new("short")?;
    let mut child = namespace.spawn(Command::new("sleep").arg("60"))?;
    assert!(child.try_wait()?.is_none());
    drop(namespace);
    assert_eq!(child.wait()?.signal(), Some(9));
    Ok(())
}

/// The other half of the next test: runs in a process of its own, which is killed.
#[test]
#[ignore = "run by a_killed_process_leaves_nothing, in a process to be killed"]
fn holds_a_lab_until_killed() {
    if std::env::var_os("LAB_TO_BE_KILLED").is_none() {
        return;
    }
    let lab = lab(1);
    let _server = lab.start_http(lab.host("backend1")).expect("nginx");
    let namespaces: Vec<String> = namespaces_of(&lab).into_iter().collect();
    println!("\nholding {} {}", lab.dir().display(), namespaces.join(" "));
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--ignored",
            "--exact",
            "holds_a_lab_until_killed",
            "--nocapture",
        ])
        .env("LAB_TO_BE_KILLED", "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    let mut lines = output.lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.strip_prefix("holding ").map(str::to_owned));
    child.kill()?;
    child.wait()?;
    let line = line.context("the process made no lab")?;
    let mut words = line.split(' ').map(str::to_owned);
    let dir = words.next().context("no folder")?;
    assert_all_gone(&words.collect())?;

    // What is left is a folder, which the next look at the registry removes.
    let name = dir.rsplit('/').next().context("no name")?;
    xtask::lab::registry::labs()?;
    assert!(!Path::new(&dir).exists(), "{name} is still there");
    Ok(())
}

/// The network namespaces of a lab, as `/proc` names them: `net:[4026532000]`.
fn namespaces_of(lab: &Lab) -> HashSet<String> {
    let paths = lab.hosts().iter().map(|host| host.namespace().net_path());
    paths
        .map(|path| {
            fs::read_link(path)
                .expect("a namespace")
                .display()
                .to_string()
        })
        .collect()
}

/// Waits until no thread of the machine is in any of `namespaces`, and none is mounted anywhere.
fn assert_all_gone(namespaces: &HashSet<String>) -> Result<()> {
    assert!(namespaces.len() >= 5, "{namespaces:?}");
    wait_for("the namespaces to go", SOON, || {
        Ok(inhabited()?.is_disjoint(namespaces).then_some(()))
    })?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(namespaces.iter().all(|it| !mounts.contains(it.as_str())));
    Ok(())
}

fn inhabited() -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for process in fs::read_dir("/proc")? {
        // Processes come and go.
        let Ok(threads) = fs::read_dir(process?.path().join("task")) else {
            continue;
        };
        for thread in threads.map_while(Result::ok) {
            if let Ok(link) = fs::read_link(thread.path().join("ns/net")) {
                found.insert(link.display().to_string());
            }
        }
    }
    Ok(found)
}
