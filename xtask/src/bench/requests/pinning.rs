//! Which processors things run on: the same ones for all ways.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::Host;

/// How many processors all hosts of a lab share.
const MOST: usize = 2;

/// Has this thread, and what it starts, run on the first two processors that it may use; returns which.
pub(super) fn confine() -> Result<Vec<usize>> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("which processors may be used?")?;
    let processors: Vec<usize> = (0..CpuSet::count())
        .filter(|number| allowed.is_set(*number).unwrap_or(false))
        .take(MOST)
        .collect();
    sched_setaffinity(this, &set(&processors)?)?;
    Ok(processors)
}

/// Has what a host starts from now on run on some processors.
pub(super) fn pin_host(host: &Host, processors: &[usize]) -> Result<()> {
    let set = set(processors)?;
    // The host's thread starts its processes, which inherit from it.
    host.run(|| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("cannot pin {} to {processors:?}", host.name()))
}

fn set(processors: &[usize]) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor)?;
    }
    Ok(set)
}
