//! Processes that must not outlive what started them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Has the kernel kill the process when the *thread* that starts it ends, however it ends.
///
/// Use a command once: each call adds to what it does between fork and exec.
pub(crate) fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = Pid::this();
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || die_with(parent)) }
}

/// Between fork and exec.
fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above took effect.
    if getppid() == parent {
        Ok(())
    } else {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}
