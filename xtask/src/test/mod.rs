//! `cargo xtask test`: unit tests as the calling user, then integration tests as root.

pub mod libtest;

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::libtest::{Reader, Totals};
use crate::build::Built;
use crate::cargo::{self, Artifact};
use crate::{root, setup};

/// What is built and tested; the tests of the last one need root.
const PACKAGES: &[&str] = &[
    "xdp-lb-common",
    "xdp-lb",
    "xdp-lb-bench",
    "xtask",
    "xdp-lb-tests",
];
/// How long a program's output is waited for after its end: a process that a test left behind may
/// hold it open for ever.
const GRACE: Duration = Duration::from_secs(2);

/// Where more tests of a program fail than these, it is no accident, and none is tried again.
const MOST_REPEATED: usize = 3;

/// What to test.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Parts of names; all tests when empty.
    pub filters: Vec<String>,
    /// A skipped test is an error.
    pub ci: bool,
}

/// Runs the tests and prints the totals last; returns whether all is well.
pub fn run(options: &Options) -> Result<bool> {
    let filters = &options.filters;
    setup::run()?;
    let artifacts = step(
        "build",
        &["build", "--locked", "--bins", "--tests"],
        cargo::build,
    )?;
    let binary = Built::find(&artifacts)?.binary;
    let mut totals = Totals::default();

    heading("unit tests");
    for program in programs(&artifacts, Tier::Unit) {
        totals += program.run(Command::new(program.path), filters)?;
    }
    heading("examples in the documentation");
    totals += step(
        "documentation tests",
        &["test", "--locked", "--doc"],
        |arguments| {
            let mut command = cargo::command();
            command
                .args(arguments)
                .args(["--no-fail-fast", "--", "--show-output"])
                .args(filters);
            watch(&mut command, "documentation tests")
        },
    )?;
    heading("integration tests");
    for program in programs(&artifacts, Tier::Integration) {
        totals += program.run_as_root(&binary, filters)?;
    }
    Ok(report(&totals, options))
}

/// Prints the totals, the closing line last; returns whether all is well.
fn report(totals: &Totals, options: &Options) -> bool {
    heading("totals");
    for (test, reason) in &totals.skipped {
        println!("skipped: {test}: {reason}");
    }
    for (test, reason) in &totals.unsupported {
        println!("not possible on this kernel: {test}: {reason}");
    }
    for test in &totals.repeated {
        println!("failed at first and passed alone, which is worth a look: {test}");
    }
    for test in &totals.failed {
        println!("failed: {test}; repeat it with: cargo xtask test '{test}'");
    }
    if totals.ignored > 0 {
        println!("{} ignored: marked as not to be run", totals.ignored);
    }
    let none =
        totals.passed + totals.failed.len() + totals.skipped.len() + totals.unsupported.len() == 0;
    if none {
        println!(
            "no test was run; is {:?} part of a test's name?",
            options.filters
        );
    }
    let skip_error = in_ci(options.ci) && !totals.skipped.is_empty();
    if skip_error {
        println!("a skipped test is an error in CI");
    }
    println!("{totals}");
    totals.failed.is_empty() && !skip_error && !none
}

/// Says whether a skipped test is an error: when asked to, or where the environment says so.
pub(crate) fn in_ci(asked: bool) -> bool {
    asked || env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

pub(crate) fn heading(text: &str) {
    println!("\n=== {text} ===");
}

/// Has `run` do a step that is a call of cargo; an error names the step and how to repeat it.
///
/// All calls name the same packages, so that cargo chooses the same features and builds each once.
fn step<T>(name: &str, arguments: &[&str], run: impl FnOnce(&[&str]) -> Result<T>) -> Result<T> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    let arguments: Vec<&str> = arguments.iter().copied().chain(packages).collect();
    run(&arguments).with_context(|| {
        format!(
            "{name} failed; repeat it with: cargo {}",
            arguments.join(" ")
        )
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    Unit,
    Integration,
}

/// A test program that cargo built.
struct Program<'a> {
    name: &'a str,
    path: &'a Path,
    package: &'a Path,
}

impl Program<'_> {
    /// Runs it with `command`, as cargo would: in its package's folder.
    fn run(&self, mut command: Command, filters: &[String]) -> Result<Totals> {
        command
            .current_dir(self.package)
            .arg("--show-output")
            .args(filters);
        watch(&mut command, self.name)
    }

    /// Runs it as root; what fails is tried again, alone.
    ///
    /// These tests share the machine's processors with the packets that they wait for, and with whatever
    /// else there is: a test that fails alone, too, is a fault, and one that does not is told of.
    fn run_as_root(&self, binary: &Path, filters: &[String]) -> Result<Totals> {
        let why = "the tests attach XDP programs and make network namespaces";
        let variables = [("XDP_LB_BIN", binary.as_os_str())];
        let command = |threads: usize| -> Result<Command> {
            let mut command = root::command(self.path, &variables, why)?;
            command.arg(format!("--test-threads={threads}"));
            Ok(command)
        };
        // Few at once: they share the machine's cores with the packets they time.
        let mut totals = self.run(command(2)?, filters)?;
        if totals.failed.len() > MOST_REPEATED {
            return Ok(totals);
        }
        for test in std::mem::take(&mut totals.failed) {
            println!("once more, alone: {test}");
            let mut alone = command(1)?;
            alone.arg("--exact");
            let again = self.run(alone, std::slice::from_ref(&test))?;
            if again.passed == 1 && again.failed.is_empty() {
                totals.passed += 1;
                totals.repeated.push(test);
            } else {
                totals.failed.push(test);
            }
        }
        Ok(totals)
    }
}

fn programs(artifacts: &[Artifact], tier: Tier) -> impl Iterator<Item = Program<'_>> {
    artifacts.iter().filter_map(move |artifact| match artifact {
        Artifact::Test {
            name,
            path,
            package,
        } => {
            let integration = package.ends_with("tests");
            (integration == (tier == Tier::Integration)).then_some(Program {
                name,
                path,
                package,
            })
        }
        _ => None,
    })
}

/// Runs a test program, printing what matters of its output.
fn watch(command: &mut Command, name: &str) -> Result<Totals> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let lines = lines(&mut child)?;
    let mut reader = Reader::default();
    // Of a program that runs no test, not even the name is printed.
    let mut named = false;
    let status = follow(&mut child, &lines, |line| {
        if let Some(text) = reader.line(line) {
            if !named {
                println!("{name}:");
                named = true;
            }
            println!("{text}");
        }
    })?;
    let mut totals = reader.finish();
    // Killed by a signal, say: then there is no list of failed tests.
    if !status.success() && totals.failed.is_empty() {
        println!(
            "{name} ended with {status} and without a failed test; the command was {command:?}"
        );
        totals.failed.push(name.to_owned());
    }
    Ok(totals)
}

/// The lines of a program's output, as it writes them.
pub(crate) fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let output = child
        .stdout
        .take()
        .context("the test program has no output")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Hands on lines until the output ends, or the program has and [`GRACE`] is over.
fn follow(
    child: &mut Child,
    lines: &Receiver<String>,
    mut take: impl FnMut(&str),
) -> Result<ExitStatus> {
    let mut ended: Option<Instant> = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => take(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if ended.is_none() && child.try_wait()?.is_some() {
                    ended = Some(Instant::now());
                }
                if ended.is_some_and(|ended| ended.elapsed() > GRACE) {
                    println!(
                        "a process that a test started is still running and holds its output open"
                    );
                    break;
                }
            }
        }
    }
    Ok(child.wait()?)
}
