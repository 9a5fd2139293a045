//! Processor time that a way takes, of all who have to do with it: unlike requests a second, it hardly depends on
//! what else the machine has to do. And what it leaves unused: the rest is what others had.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// In units of USER_HZ, which is the same everywhere.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of processes, of the children of this process that have ended, and of the kernel's threads for
/// packets. What a process does for packets that come in meanwhile counts as its own.
pub(super) fn spent(processes: impl IntoIterator<Item = u32>) -> Result<Duration> {
    let ended = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ended = (ended.user_time() + ended.system_time()).num_microseconds();
    let mut ticks = 0;
    for process in processes.into_iter().chain(packet_threads()?) {
        ticks += ticks_of(process)?;
    }
    Ok(Duration::from_micros(ended.try_into()?) + TICK * ticks)
}

/// How long some processors have been idle so far, in all.
pub(super) fn idle(processors: &[usize]) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks = parse_idle(&stat, processors);
    Ok(TICK * ticks.with_context(|| format!("no times of {processors:?} in:\n{stat}"))?)
}

/// Idle, and waiting for disks: proc_stat(5).
fn parse_idle(stat: &str, processors: &[usize]) -> Option<u32> {
    let mut sum = 0;
    for processor in processors {
        let name = format!("cpu{processor} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        let fields: Vec<u32> = line
            .split_whitespace()
            .map_while(|it| it.parse().ok())
            .collect();
        sum += fields.get(3)? + fields.get(4)?;
    }
    Some(sum)
}

/// The kernel's threads `ksoftirqd/N`, which handle packets where there are too many of them.
fn packet_threads() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let name = fs::read_to_string(entry.path().join("comm"));
        if name.is_ok_and(|name| name.starts_with("ksoftirqd/")) {
            found.push(number);
        }
    }
    Ok(found)
}

fn ticks_of(process: u32) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.with_context(|| format!("process {process} has ended"))?;
    parse_stat(&stat).with_context(|| format!("no times in {stat}"))
}

/// User and system time: proc_pid_stat(5).
fn parse_stat(stat: &str) -> Option<u32> {
    // The second field is the program's name in brackets, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_behind_any_name() {
        let stat = "14 (a) b) S 2 0 0 0 -1 69238848 0 0 0 0 3 5188 7 9 20 0 1 0 14 0 0";
        assert_eq!(parse_stat(stat), Some(5191));
        assert_eq!(parse_stat("14 (a"), None);
    }

    #[test]
    fn idle_times_of_the_named_processors_add_up() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 0 2 30 4 0 0 0 0 0\ncpu1 1 0 2 500 60 0 0 0 0 0\n";
        assert_eq!(parse_idle(stat, &[0, 1]), Some(594));
        assert_eq!(parse_idle(stat, &[1]), Some(560));
        assert_eq!(parse_idle(stat, &[2]), None);
    }

    #[test]
    fn this_process_has_taken_time_and_its_kernel_has_threads() {
        spent([std::process::id()]).unwrap();
    }
}
