//! `cargo xtask bench`: how long things take, measured on this machine.

use anyhow::{Result, ensure};

use crate::{cargo, setup};

/// Runs the benchmarks whose names contain one of `filters`; all when there is none.
///
/// # Errors
///
/// If setup, the build or a benchmark fails.
pub fn run(filters: &[String]) -> Result<()> {
    setup::run()?;
    let status = cargo::command()
        .args(["bench", "--package", "xdp-lb", "--bench", "lookup", "--"])
        .args(filters)
        .status()?;
    ensure!(
        status.success(),
        "benchmarks failed; repeat with `cargo xtask bench`"
    );
    Ok(())
}
