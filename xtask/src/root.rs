//! What needs root, through sudo where the caller is not root. cargo itself never runs as root for
//! another user: it would leave files in `target/` that the user cannot replace.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::paths;

/// Says whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// A command that runs `program` as root, with these variables and the caller's `PATH` and cache.
/// `why` completes the sentence "needs root: …"; it is printed when sudo is used.
pub fn command(program: &Path, variables: &[(&str, &OsStr)], why: &str) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    let sudo = paths::program("sudo").with_context(|| {
        format!("needs root: {why}; you are not root, and there is no sudo: run it in a root shell")
    })?;
    eprintln!("needs root: {why}; asking sudo");
    let mut command = Command::new(sudo);
    // sudo cleans the environment, so env sets it again behind sudo.
    command.arg("--").arg("env");
    for (name, value) in inherited()?
        .iter()
        .map(|(name, value)| (*name, value.as_os_str()))
        .chain(variables.iter().copied())
    {
        let mut assignment = OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// What root has to know of the caller.
fn inherited() -> Result<Vec<(&'static str, OsString)>> {
    let mut variables = Vec::new();
    for name in [
        "PATH",
        "CI",
        "RUST_BACKTRACE",
        "RUST_LOG",
        "NO_COLOR",
        "XDP_LB_FUZZ_PACKETS",
        "XDP_LB_FUZZ_SEED",
        "CARGO",
        "CARGO_TARGET_DIR",
        "RUSTUP_HOME",
        "CARGO_HOME",
    ] {
        variables.extend(env::var_os(name).map(|value| (name, value)));
    }
    // The programs are in the caller's cache, not in root's.
    if let Some(base) = paths::cache()?.parent() {
        variables.push(("XDG_CACHE_HOME", base.into()));
    }
    Ok(variables)
}

/// Returns when this process is root; otherwise runs the same command line through sudo in its place.
/// Call it after everything that calls cargo or writes to the cache.
pub fn ensure(why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let this = env::current_exe().context("cannot find the path of this program")?;
    let error = command(&this, &[], why)?
        .args(env::args_os().skip(1))
        .exec();
    Err(error).context("cannot run sudo")
}
