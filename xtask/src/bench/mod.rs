//! `cargo xtask bench`: how long things take, measured on this machine.
//!
//! The XDP program and lookup tables are measured by the program `xdp-lb-bench`, which runs as root and knows nothing
//! of files: what it finds comes as a [`report`].

mod chart;
pub mod churn;
mod docs;
mod failover;
mod figures;
mod health;
mod picture;
pub mod report;
mod requests;
pub mod table;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

use self::report::Report;
use crate::build::{self, Profile};
use crate::cargo::{self, Artifact};
use crate::{root, setup};

/// The program that measures the XDP program, and its package.
const PACKAGE: &str = "xdp-lb-bench";
/// The program that goes through connections in virtual time.
const CHURN: &str = "xdp-lb-churn";

/// What is measured by other means.
const OTHERS: [&str; 4] = ["health", "failover", "requests", "churn"];

/// What to measure, and where to.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Parts of benchmark names (maglev, l2/ipv4/full); all benchmarks when there is none. `health`
    /// alone measures health checks, `failover` alone how long nobody forwards when a director dies.
    /// `requests` measures requests a second through directors of several kinds; parts of their names
    /// may follow it. `churn` counts, in virtual time, what becomes of a million connections when their
    /// backends change.
    filters: Vec<String>,
    /// Measure little: shows that it works, the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Services that the XDP program is measured with, 1 to 250 [default: 100]: what many flows cost is a matter of
    /// how much memory their lookup tables take, 64 KiB each.
    #[arg(long, value_name = "N", conflicts_with_all = ["write_docs", "from"])]
    services: Option<u8>,
    /// Packets for the XDP program are computed in the processor's registers, and do not come from a list in memory: all
    /// caches are the program's then, and the floors wait for nothing.
    #[arg(long, conflicts_with_all = ["write_docs", "from"])]
    computed: bool,
    /// Rounds that each case of the XDP program is measured in, 1 to 1000 [default: 15]. Where the machine is shared and
    /// noisy, more of them find the moments that are quiet.
    #[arg(long, value_name = "N", conflicts_with = "from")]
    rounds: Option<u32>,
    /// Where to write what was measured of the XDP program, bench.json in cargo's target folder when
    /// not given; or what `requests` or `churn` found.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show what an earlier run has written with --json of the XDP program, instead of measuring it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "quick", "filters"])]
    from: Option<PathBuf>,
    /// The daemon that `health`, `failover` and `requests` measure [default: built first].
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,
    /// Put table and chart into docs/performance.md and beside it.
    #[arg(long, conflicts_with = "quick")]
    write_docs: bool,
    /// Print nothing but JSON: for the process that started this one as root.
    #[arg(long, hide = true)]
    raw: bool,
}

/// Runs benchmarks and prints what they find.
///
/// # Errors
///
/// If setup, the build or a benchmark fails.
pub fn run(options: &Options) -> Result<()> {
    let others = |first: &&String| OTHERS.contains(&first.as_str());
    if let Some(other) = options.filters.first().filter(others) {
        ensure!(
            options.services.is_none(),
            "--services is for the XDP program: `{other}` has services of its own"
        );
        ensure!(
            options.rounds.is_none(),
            "--rounds is for the XDP program: `{other}` has rounds of its own"
        );
        ensure!(
            !options.computed,
            "--computed is for the XDP program: `{other}` has packets of its own"
        );
    }
    match options.filters.as_slice() {
        [only] if only == "health" => return daemon(options, health::run),
        [only] if only == "failover" => return daemon(options, failover::run),
        [first, ways @ ..] if first == "requests" => return requests(options, ways),
        [only] if only == "churn" => return churn(options),
        _ => {}
    }
    ensure_all(options, &options.filters)?;
    if let Some(path) = &options.from {
        return show_again(path, options);
    }
    setup::run()?;
    let program = build(PACKAGE)?;
    let report = packets(&program, options)?;
    if report.cases.is_empty() && report.tables.is_empty() {
        return Ok(());
    }
    println!("\n{}", table::text(&report));
    // TARGET/release/PROGRAM
    let target = program.ancestors().nth(2).unwrap_or(&program);
    let path = options.json.clone();
    write_json(&report, &path.unwrap_or_else(|| target.join("bench.json")))?;
    if options.write_docs {
        docs::write(&report)?;
    }
    Ok(())
}

/// Shows an earlier report.
fn show_again(path: &Path, options: &Options) -> Result<()> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no report of the XDP program", path.display()))?;
    println!("{}", table::text(&report));
    if options.write_docs {
        docs::write(&report)?;
    }
    Ok(())
}

/// The page has room for all figures, and not for some of them.
fn ensure_all(options: &Options, filters: &[String]) -> Result<()> {
    ensure!(
        !options.write_docs || filters.is_empty(),
        "--write-docs is for all of these benchmarks: leave {} out",
        filters.join(" ")
    );
    Ok(())
}

/// Builds, becomes root where needed, and measures the daemon at work.
fn daemon(options: &Options, measure: fn(&Path, bool) -> Result<()>) -> Result<()> {
    ensure!(
        !options.write_docs && options.json.is_none(),
        "this benchmark writes no files"
    );
    let program = daemon_program(options)?;
    if root::is_root() {
        return measure(&program, options.quick);
    }
    let status = again_as_root(options, &program)?.status();
    let status = status.context("cannot run sudo")?;
    ensure!(status.success(), "the benchmark failed; see above");
    Ok(())
}

/// Measures requests a second. Only what measures is root: files are written by who has asked for them.
fn requests(options: &Options, ways: &[String]) -> Result<()> {
    ensure_all(options, ways)?;
    requests::check_names(ways)?;
    let program = daemon_program(options)?;
    let report = if root::is_root() {
        requests::measure(&program, options.quick, ways)?
    } else {
        found(again_as_root(options, &program)?.arg("--raw"))?
    };
    if options.raw {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("\n{}", report.text());
    if let Some(path) = &options.json {
        write_json(&report, path)?;
    }
    if options.write_docs {
        docs::write_requests(&report)?;
    }
    Ok(())
}

/// The daemon to measure.
fn daemon_program(options: &Options) -> Result<PathBuf> {
    match &options.bin {
        Some(program) => Ok(program.clone()),
        None => Ok(build::run(Profile::Release)?.binary),
    }
}

/// This command once more, with what was built: cargo must not run as root for another user.
fn again_as_root(options: &Options, program: &Path) -> Result<Command> {
    let this = env::current_exe().context("cannot find the path of this program")?;
    let mut command = root::command(&this, &[], "the benchmark takes network namespaces")?;
    command.arg("bench").args(&options.filters);
    if options.quick {
        command.arg("--quick");
    }
    command.arg("--bin").arg(program);
    Ok(command)
}

/// Goes through connections in virtual time.
fn churn(options: &Options) -> Result<()> {
    setup::run()?;
    let mut command = Command::new(build(CHURN)?);
    if options.quick {
        command.arg("--quick");
    }
    let report: churn::Report = found(&mut command)?;
    println!("\n{}", report.text());
    if let Some(path) = &options.json {
        write_json(&report, path)?;
    }
    if options.write_docs {
        docs::write_churn(&report)?;
    }
    Ok(())
}

/// Builds one of the programs that measure; returns its path.
fn build(program: &str) -> Result<PathBuf> {
    let artifacts = cargo::build(&["build", "--locked", "--release", "--package", PACKAGE])?;
    let found = artifacts.into_iter().find_map(|artifact| match artifact {
        Artifact::Binary { name, path } if name == program => Some(path),
        _ => None,
    });
    found.with_context(|| format!("cargo does not say where {program} is"))
}

/// Measures the XDP program, and lookup tables.
fn packets(program: &Path, options: &Options) -> Result<Report> {
    let mut command = root::command(program, &[], "the benchmark loads XDP programs")?;
    if options.quick {
        command.arg("--quick");
    }
    if let Some(services) = options.services {
        command.arg(format!("--services={services}"));
    }
    if options.computed {
        command.arg("--computed");
    }
    if let Some(rounds) = options.rounds {
        command.arg(format!("--rounds={rounds}"));
    }
    found(command.arg("--").args(&options.filters))
}

/// Runs a program that measures; returns what it reports.
fn found<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let program = command.get_program().to_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "the benchmark failed; see above");
    serde_json::from_slice(&output.stdout).context("the benchmark's report cannot be read")
}

fn write_json(report: &impl Serialize, path: &Path) -> Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("all rounds are in {}", path.display());
    Ok(())
}
