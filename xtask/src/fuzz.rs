//! `cargo xtask fuzz`: runs a fuzz target of the folder `fuzz` by libFuzzer, for a limited time.
//!
//! Stable Rust instruments programs for libFuzzer, too, if it is told with flags what cargo-fuzz would tell
//! it. cargo-fuzz (with `--sanitizer none` on stable) takes the same targets.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cargo::{self, Artifact};
use crate::paths;

/// Counts each branch taken, and what is compared with what.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// What is fuzzed, and for how long.
#[derive(Clone, Debug, Args)]
pub struct FuzzArgs {
    /// A fuzz target.
    #[arg(value_parser = ["vrrp_packet"])]
    target: String,
    /// Stop after so many seconds.
    #[arg(long, value_name = "N", default_value = "30")]
    seconds: u32,
}

/// Builds the target and runs it. What it has learnt stays in `target/fuzz/corpus`.
pub fn run(args: &FuzzArgs) -> Result<ExitCode> {
    let FuzzArgs { target, seconds } = args;
    ensure!(
        *seconds > 0,
        "--seconds 0 would never end; give a number of seconds"
    );
    let folder = paths::workspace().join("target/fuzz");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = cargo::command();
    command
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("CARGO_TARGET_DIR", &folder);
    // With a target, so that the flags are not for build scripts and macros.
    let arguments = [
        "build",
        "--release",
        "--locked",
        "--manifest-path=fuzz/Cargo.toml",
        "--target",
        &host,
        "--bin",
        target,
    ];
    let built = cargo::build_with(command, &arguments)
        .context("cannot build the fuzz target; it takes a C++ compiler (Debian: g++)")?;
    let program = built.into_iter().find_map(|artifact| match artifact {
        Artifact::Binary { name, path } if name == *target => Some(path),
        _ => None,
    });
    let program = program.with_context(|| format!("cargo has built no {target}"))?;
    let corpus = folder.join("corpus").join(target);
    let findings = folder.join("findings").join(target);
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let status = std::process::Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        // The longest advertisement, and what leads to it.
        .args(["-max_len=4200", "-print_final_stats=1"])
        .arg(&corpus)
        .status()
        .context("cannot run the fuzz target")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
