//! Programs that are run as checks.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xdp_lb::config::{Command, HealthCheck, Payload, Probe, Tls, Udp};
use xdp_lb::health::probe::Target;
use xdp_lb::health::{Cause, Kind};
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, ask_all, assert_failed, check, loopback, target,
};
use xtask::lab::wait_for;

/// A process runs few commands at once: the test that takes all the room has it for itself.
static ROOM: RwLock<()> = RwLock::new(());

fn command(words: &[&str], timeout: Duration) -> HealthCheck {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    let check = check(Probe::Command(Command { words }), timeout);
    HealthCheck { port: 80, ..check }
}

fn shell(script: &str, timeout: Duration) -> HealthCheck {
    command(&["/bin/sh", "-c", script], timeout)
}

fn backend() -> Target {
    target(([10, 0, 0, 11], 80))
}

fn run(check: &HealthCheck) -> Result<std::result::Result<(), Cause>> {
    run_at(check, &backend())
}

fn run_at(check: &HealthCheck, target: &Target) -> Result<std::result::Result<(), Cause>> {
    let _shared = ROOM.read().unwrap_or_else(PoisonError::into_inner);
    Ok(ask(&loopback()?, check, target))
}

/// A folder for what programs write.
fn folder() -> Result<(tempfile::TempDir, impl Fn(&str) -> PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    Ok((folder, move |name: &str| path.join(name)))
}

/// Waits until the processes are gone whose numbers a program has written down.
fn wait_until_gone(pids: &Path, count: usize) -> Result<()> {
    let text = fs::read_to_string(pids)?;
    assert_eq!(text.lines().count(), count, "{text}");
    wait_for("the processes to end", PATIENT, || {
        // A zombie is gone; whoever is its parent by now buries it.
        let lives = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        Ok((!text.lines().any(lives)).then_some(()))
    })
}

#[test]
fn the_exit_status_of_a_command_is_the_result() -> Result<()> {
    assert_eq!(run(&shell("exit 0", PATIENT))?, Ok(()));
    assert_eq!(run(&shell("echo fine; echo well >&2", PATIENT))?, Ok(()));
    for (script, text) in [
        ("exit 2", "exit status 2"),
        (
            "echo disk full; echo more; exit 1",
            "exit status 1: disk full",
        ),
        (
            "echo out; echo disk full >&2; exit 1",
            "exit status 1: disk full",
        ),
        ("printf '\\n\\n  late\\n'; exit 1", "exit status 1: late"),
        ("kill -9 $$", "killed by signal 9"),
        ("echo oh; kill -TERM $$", "killed by signal 15: oh"),
        (
            "printf '\\033[31mred\\007\\377'; exit 3",
            "exit status 3: [31mred\u{fffd}",
        ),
    ] {
        assert_failed(&run(&shell(script, PATIENT))?, Kind::Answer, text);
    }
    Ok(())
}

#[test]
fn commands_that_cannot_be_run_say_why() -> Result<()> {
    let (_folder, file) = folder()?;
    let text = file("text");
    fs::write(&text, "not a program")?;
    let result = run(&command(&["/nonexistent/check"], PATIENT))?;
    let cause = "command: /nonexistent/check: No such file or directory (os error 2)";
    assert_failed(&result, Kind::Answer, cause);
    let path = text.to_str().context("a path")?;
    let result = run(&command(&[path], PATIENT))?;
    let cause = format!("command: {path}: Permission denied (os error 13)");
    assert_failed(&result, Kind::Answer, &cause);
    let result = run(&command(&["/bin/sh", path, "more"], PATIENT))?;
    assert!(
        result
            .as_ref()
            .is_err_and(|cause| cause.text.starts_with("exit status 127: ")),
        "{result:?}"
    );
    Ok(())
}

#[test]
fn words_reach_a_command_as_they_are() -> Result<()> {
    let words = ["/usr/bin/test", "a b$HOME`x`\"'", "=", "a b$HOME`x`\"'"];
    assert_eq!(run(&command(&words, PATIENT))?, Ok(()));
    Ok(())
}

#[test]
fn commands_are_told_of_the_backend_and_of_nothing_else() -> Result<()> {
    let (_folder, file) = folder()?;
    let out = file("environment");
    let check = shell(
        &format!("env >{}; pwd; read line && exit 1; exit 0", out.display()),
        PATIENT,
    );
    assert_eq!(run(&check)?, Ok(()), "there is no input");
    let text = fs::read_to_string(&out)?;
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("PATH="))
        .collect();
    // The shell's own.
    lines.retain(|line| {
        !["PWD=", "OLDPWD=", "SHLVL=", "_="]
            .iter()
            .any(|own| line.starts_with(own))
    });
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["LANG=C.UTF-8", "XDP_LB_BACKEND=10.0.0.11", "XDP_LB_PORT=80"]
    );
    let other = Target {
        address: "[2001:db8::11]:80".parse()?,
        ..backend()
    };
    let script = "test $XDP_LB_VIP = 2001:db8::10 && test $XDP_LB_BACKEND = 2001:db8::11";
    let mut of_a_vip = shell(script, PATIENT);
    of_a_vip.vips[1] = Some("2001:db8::10".parse()?);
    assert_eq!(run_at(&of_a_vip, &other)?, Ok(()));
    Ok(())
}

#[test]
fn commands_inherit_no_files_of_the_daemon() -> Result<()> {
    let _shared = ROOM.read().unwrap_or_else(PoisonError::into_inner);
    let (_folder, file) = folder()?;
    let namespace = loopback()?;
    let _file = fs::File::create(file("open"))?;
    let silent = namespace.run(|| UdpSocket::bind((LOOPBACKS[0], 0)))?;
    let accepting = namespace.run(|| TcpListener::bind((LOOPBACKS[0], 0)))?;
    let question = Probe::Udp(Udp {
        send: Payload(b"ping".to_vec()),
        expect: None,
    });
    let out = file("out");
    let script = format!("sleep 0.3; ls -l /proc/$$/fd >{}", out.display());
    let results = ask_all(
        &namespace,
        &[
            (check(question, HASTY * 5), target(silent.local_addr()?)),
            (
                check(Probe::Tls(Tls::default()), HASTY * 5),
                target(accepting.local_addr()?),
            ),
            (shell(&script, PATIENT), backend()),
        ],
    );
    assert_eq!(results[2], Ok(()));
    for others in &results[..2] {
        let is_late = others
            .as_ref()
            .is_err_and(|cause| cause.kind == Kind::Timeout);
        assert!(is_late, "its socket was open meanwhile: {others:?}");
    }
    let text = fs::read_to_string(&out)?;
    assert!(text.contains("0 -> /dev/null"), "{text}");
    // What the test itself was started with may be pipes and files of others.
    for own in ["socket:", "anon_inode:", "/ns/", "/open", "/proc/sys"] {
        assert!(!text.contains(own), "{text}");
    }
    Ok(())
}

#[test]
fn commands_have_limits() -> Result<()> {
    let (_folder, file) = folder()?;
    let out = file("out");
    let script = format!(
        "for it in n c v t; do ulimit -H -$it; done >{}",
        out.display()
    );
    assert_eq!(run(&shell(&script, Duration::from_secs(20)))?, Ok(()));
    // Files, core dumps, memory in KiB, seconds.
    assert_eq!(fs::read_to_string(&out)?, "256\n0\n1048576\n22\n");
    Ok(())
}

#[test]
fn a_command_that_takes_too_long_ends_with_all_that_it_started() -> Result<()> {
    let (_folder, file) = folder()?;
    let pids = file("pids");
    let script = format!(
        "trap '' TERM INT HUP; for it in 1 2 3; do sh -c 'echo $$; exec sleep 1000' >>{0} & done; \
         echo $$ >>{0}; wait; wait; wait; wait",
        pids.display()
    );
    let result = run(&shell(&script, Duration::from_secs(1)))?;
    assert_failed(&result, Kind::Timeout, "timeout after 1s");
    wait_until_gone(&pids, 4)
}

#[test]
fn what_a_command_leaves_behind_neither_delays_nor_outlives_it() -> Result<()> {
    let (_folder, file) = folder()?;
    for (number, (end, ends)) in [
        ("exit 0", Ok(())),
        ("echo ill; exit 1", Err("exit status 1: ill")),
    ]
    .into_iter()
    .enumerate()
    {
        for (kind, silent) in [("open", ""), ("closed", ">/dev/null 2>&1")] {
            let pids = file(&format!("{kind}{number}"));
            let script = format!(
                "sleep 1000 {silent} & echo $! >{0}; echo $$ >>{0}; {end}",
                pids.display()
            );
            let result = run(&shell(&script, PATIENT))?;
            let text = result.as_ref().copied().map_err(|cause| &*cause.text);
            assert_eq!(text, ends, "{kind}");
            wait_until_gone(&pids, 2)?;
        }
    }
    Ok(())
}

#[test]
fn output_without_end_is_read_and_thrown_away() -> Result<()> {
    // From now on the peak is counted.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = peak()?;
    let result = run(&shell("exec yes", HASTY * 5))?;
    assert_failed(&result, Kind::Timeout, "timeout after 2s");
    let grown = peak()?.saturating_sub(before);
    // `yes` writes hundreds of megabytes in that time.
    assert!(grown < 32 << 20, "{grown} bytes were kept");
    // More than a pipe takes, on both ways.
    let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 0";
    assert_eq!(run(&shell(script, PATIENT))?, Ok(()));
    let script = "head -c 300000 /dev/zero | tr '\\0' x; exit 1";
    let result = run(&shell(script, PATIENT))?;
    let text = format!("exit status 1: {}", "x".repeat(100));
    assert_failed(&result, Kind::Answer, &text);
    Ok(())
}

/// Bytes of memory that this process has had at most.
fn peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(words.context("no VmHWM")?.parse::<u64>()? * 1024)
}

#[test]
fn commands_that_work_too_hard_are_ended() -> Result<()> {
    let script = "x=x; while true; do x=$x$x; done";
    let result = run(&shell(script, PATIENT))?;
    assert!(
        result
            .as_ref()
            .is_err_and(|cause| cause.kind == Kind::Answer),
        "it has too little memory for that: {result:?}"
    );
    Ok(())
}

#[test]
fn ended_commands_leave_no_zombies() -> Result<()> {
    let _all = ROOM.write().unwrap_or_else(PoisonError::into_inner);
    let pids = tempfile::NamedTempFile::new()?;
    let script = format!("echo $$ >>{}", pids.path().display());
    let checks = vec![(shell(&script, PATIENT), backend()); 50];
    for result in ask_all(&loopback()?, &checks) {
        assert_eq!(result, Ok(()));
    }
    let text = fs::read_to_string(pids.path())?;
    assert_eq!(text.lines().count(), 50);
    for pid in text.lines() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        let is_zombie = stat.is_ok_and(|stat| stat.contains(") Z "));
        assert!(!is_zombie, "{pid} was not buried");
    }
    Ok(())
}

#[test]
fn sixteen_commands_run_at_once_and_no_more() -> Result<()> {
    let _all = ROOM.write().unwrap_or_else(PoisonError::into_inner);
    let (_folder, file) = folder()?;
    let running = file("running");
    fs::create_dir(&running)?;
    // Each looks how many run beside it.
    let script = format!(
        "cd {}; : >$$; sleep 0.6; most=$(ls | wc -l); rm $$; test $most -le 16",
        running.display()
    );
    let checks = vec![(shell(&script, PATIENT), backend()); 40];
    for result in ask_all(&loopback()?, &checks) {
        assert_eq!(result, Ok(()));
    }
    Ok(())
}

#[test]
fn waiting_for_other_commands_tells_nothing_about_a_backend() -> Result<()> {
    let _all = ROOM.write().unwrap_or_else(PoisonError::into_inner);
    let hanging = vec![(shell("sleep 1000", HASTY * 5), backend()); 16];
    // One that has waited for longer than it may take, and one whose own time is yet to come.
    let late = (shell("exit 0", HASTY), backend());
    let patient = (shell("sleep 1.5", HASTY * 6), backend());
    let results = ask_all(&loopback()?, &[&hanging[..], &[late, patient]].concat());
    for result in &results[..16] {
        assert_failed(result, Kind::Timeout, "timeout after 2s");
    }
    let text = "command: too many others ran for 400ms";
    assert_failed(&results[16], Kind::Local, text);
    assert_eq!(results[17], Ok(()));
    Ok(())
}
