//! `cargo xtask vm`: the prog-run tests on other kernels, in virtual machines.
//!
//! qemu emulates the processor in software, which works on every machine and needs no root. Tests run
//! some fifty times slower than on the machine itself.

mod cpio;
mod initramfs;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, available_parallelism};
use std::time::Instant;

use anyhow::{Context, Result};

use self::initramfs::Contents;
use self::machine::{End, Machine};
use crate::cargo::{self, Artifact};
use crate::setup::kernels::{self, Unpacked};
use crate::setup::{
    self,
    vm::{Update, Vm},
};
use crate::test::{
    self,
    libtest::{Reader, Totals},
};

/// The test program that runs in the machines.
const TESTS: &str = "prog_run";

/// What to test, and on what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of kernels; the usual ones when empty.
    pub kernels: Vec<String>,
    /// Parts of names; all tests when empty.
    pub filters: Vec<String>,
    /// A skipped test is an error.
    pub ci: bool,
    /// Whether to look for newer kernels.
    pub update: Update,
}

/// Runs the tests on each kernel and prints the totals last; returns whether all is well.
pub fn run(options: &Options) -> Result<bool> {
    let chosen = kernels::choose(&options.kernels)?;
    let vm = setup::vm::run(&chosen, options.update)?;
    setup::run()?;
    let program = build()?;
    test::heading("kernels");
    let mut totals = Totals::default();
    let mut well = true;
    for (kernel, here) in on_kernels(&vm, &program, &options.filters)? {
        // A kernel on which nothing ran proves nothing, whatever the others did.
        well &= ran(&here) > 0;
        totals += named(here, kernel);
    }
    Ok(report(&totals, options) && well)
}

/// Runs the tests on each kernel. There is one machine more at a time than there are processors, of which each uses
/// one: else the last machine would leave the others idle.
fn on_kernels(vm: &Vm, program: &Path, filters: &[String]) -> Result<Vec<(&'static str, Totals)>> {
    let waiting = Mutex::new(vm.kernels.iter());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let work = || {
        let mut done = Vec::new();
        while let Some(kernel) = next() {
            let name = kernel.kernel.name;
            let started = Instant::now();
            let totals = on_kernel(vm, kernel, program, filters)?;
            let time = started.elapsed().as_secs_f32();
            println!("{name}: {totals} in {time:.0} s");
            done.push((name, totals));
        }
        Ok(done)
    };
    let machines = 1 + available_parallelism().map_or(1, usize::from);
    let done: Result<Vec<Vec<_>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..machines).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<_>>| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().map(join).collect()
    });
    Ok(done?.into_iter().flatten().collect())
}

/// Builds the test program so that it needs no libraries; returns its path.
///
/// Only the program itself is compiled for this: what it consists of is as `cargo xtask test` has it, and the standard
/// library has both kinds of C library with it.
fn build() -> Result<PathBuf> {
    eprintln!("building the tests without shared libraries …");
    let artifacts = cargo::build(&[
        "rustc",
        "--locked",
        "--package",
        "xdp-lb-tests",
        "--test",
        TESTS,
        "--",
        "-Ctarget-feature=+crt-static",
        // The file system is in memory. Names of functions stay, for backtraces.
        "-Cstrip=debuginfo",
    ])?;
    let program = artifacts.into_iter().find_map(|artifact| match artifact {
        Artifact::Test { name, path, .. } if name == TESTS => Some(path),
        _ => None,
    });
    program.with_context(|| format!("cargo does not say where {TESTS} is"))
}

/// Runs the tests in a machine with this kernel.
fn on_kernel(vm: &Vm, kernel: &Unpacked, program: &Path, filters: &[String]) -> Result<Totals> {
    // TARGET/debug/deps/PROGRAM
    let target = program.ancestors().nth(3).unwrap_or(program);
    let folder = target.join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = kernel.kernel.name;
    println!("{name}: {}", kernel.version);
    if kernel.is_old() {
        println!("{name}: fetched long ago; `cargo xtask vm --update` looks for a newer one");
    }
    let initramfs = folder.join(format!("{name}.cpio"));
    // One at a time: then the test is known at which a machine dies.
    let mut arguments = vec!["--test-threads=1".to_owned(), "--show-output".to_owned()];
    arguments.extend(filters.iter().cloned());
    let contents = Contents {
        program,
        arguments,
        busybox: &vm.busybox,
        modules: kernel.modules()?,
        tools: &vm.tools,
    };
    contents.write(&initramfs)?;
    let machine = Machine {
        name,
        qemu: vec![vm.tools.qemu()?.into()],
        image: kernel.image(),
        initramfs: &initramfs,
        console: &folder.join(format!("{name}.console.log")),
    };
    let mut reader = Reader::default();
    let end = machine.run(|line| {
        if let Some(text) = reader.line(line) {
            println!("{name}: {text}");
        }
    })?;
    Ok(judge(reader.finish(), &end, &machine))
}

/// Adds what the tests themselves do not tell: that the machine died, or they did.
fn judge(mut totals: Totals, end: &End, machine: &Machine<'_>) -> Totals {
    let failure = match end {
        End::Exit(0) => return totals,
        // Then there is a list of failed tests.
        End::Exit(_) if !totals.failed.is_empty() => return totals,
        End::Exit(code) => format!("{TESTS} ended with {code} and without a failed test"),
        End::NotUp(why) => why.clone(),
        End::Died { why, line } if line.is_empty() => why.clone(),
        End::Died { why, line } => format!("{why}; the last line: {line}"),
    };
    println!("{}: {failure}", machine.name);
    let words = machine.last_words();
    if !words.is_empty() {
        let console = machine.console.display();
        println!("the kernel's last words, all of them in {console}:\n{words}");
    }
    totals.failed.push(failure);
    totals
}

fn ran(totals: &Totals) -> usize {
    totals.passed + totals.failed.len() + totals.skipped.len() + totals.unsupported.len()
}

/// Puts the kernel's name in front of the tests' names.
fn named(totals: Totals, kernel: &str) -> Totals {
    let name = |test: String| format!("kernel {kernel}: {test}");
    let with_reasons = |tests: Vec<(String, String)>| {
        let named = tests.into_iter().map(|(test, reason)| (name(test), reason));
        named.collect()
    };
    Totals {
        failed: totals.failed.into_iter().map(name).collect(),
        skipped: with_reasons(totals.skipped),
        unsupported: with_reasons(totals.unsupported),
        ..totals
    }
}

/// Prints the totals, the closing line last; returns whether all is well.
fn report(totals: &Totals, options: &Options) -> bool {
    test::heading("totals");
    for (test, reason) in &totals.skipped {
        println!("skipped: {test}: {reason}");
    }
    for (test, reason) in &totals.unsupported {
        println!("not possible on this kernel: {test}: {reason}");
    }
    for failure in &totals.failed {
        println!("failed: {failure}");
    }
    if !totals.failed.is_empty() {
        println!("repeat one with: cargo xtask vm --kernel KERNEL TEST");
    }
    if ran(totals) == 0 {
        println!(
            "no test was run; is {:?} part of a test's name?",
            options.filters
        );
    }
    let skip_error = test::in_ci(options.ci) && !totals.skipped.is_empty();
    if skip_error {
        println!("a skipped test is an error in CI");
    }
    println!("{totals}");
    totals.failed.is_empty() && !skip_error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine<'static> {
        Machine {
            name: "6.1",
            qemu: Vec::new(),
            image: "/nonexistent/vmlinuz".into(),
            initramfs: Path::new("/nonexistent/cpio"),
            console: Path::new("/nonexistent/log"),
        }
    }

    fn failed(totals: &[&str], end: &End) -> Vec<String> {
        let totals = Totals {
            failed: totals.iter().map(|&name| name.to_owned()).collect(),
            ..Totals::default()
        };
        judge(totals, end, &machine()).failed
    }

    #[test]
    fn an_end_that_no_failed_test_explains_is_a_failure() {
        assert!(failed(&[], &End::Exit(0)).is_empty());
        assert_eq!(failed(&["a"], &End::Exit(101)), ["a"]);
        assert_eq!(failed(&[], &End::Exit(139)).len(), 1);
        assert_eq!(failed(&[], &End::NotUp("no".to_owned())), ["no"]);
        let (why, line) = ("gone".to_owned(), "test a ... ".to_owned());
        let died = failed(&["b"], &End::Died { why, line });
        assert_eq!(died, ["b", "gone; the last line: test a ... "]);
    }

    #[test]
    fn tests_are_named_after_their_kernel() {
        let totals = Totals {
            passed: 3,
            failed: vec!["a".to_owned()],
            repeated: Vec::new(),
            skipped: vec![("b".to_owned(), "why".to_owned())],
            unsupported: Vec::new(),
            ignored: 1,
        };
        let named = named(totals, "6.1");
        assert_eq!(named.failed, ["kernel 6.1: a"]);
        assert_eq!(
            named.skipped,
            [("kernel 6.1: b".to_owned(), "why".to_owned())]
        );
        assert_eq!(named.to_string(), "3 passed, 1 failed, 1 skipped");
    }
}
