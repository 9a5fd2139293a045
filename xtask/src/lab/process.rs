//! Long-running processes of the lab, their logs, and waiting with a limit.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::namespace::Namespace;

const POLL: Duration = Duration::from_millis(20);

/// A process in a namespace whose output goes to a log file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in `namespace`, with stdout and stderr appended to the file `log`.
    pub fn start(namespace: &Namespace, command: &mut Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let open = || -> Result<File> {
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .with_context(|| format!("cannot open the log {}", log.display()))
        };
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let child = namespace.spawn(command)?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id out of range")?;
        signal::kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks the process to end (SIGTERM) and waits for at most `patience`, then fails.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let what = format!("{} to end after SIGTERM", self.name);
        wait_for(&what, patience, || self.exited())
    }

    /// Where the process's output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log, for an error message.
    pub fn log_tail(&self) -> String {
        match File::open(&self.log) {
            Ok(log) => tail(&self.log, log),
            Err(error) => format!("({} cannot be opened: {error})", self.log.display()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills a process that is nobody's child here; no error if it is gone.
pub(super) fn kill(pid: i32) -> Result<()> {
    match signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot kill process {pid}")),
    }
}

/// Asks `condition` again and again until it has a value; gives up after `patience`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        thread::sleep(POLL);
    }
}

/// The last 20 lines of a log, for an error message; `path` says where it is.
pub(super) fn tail(path: &Path, mut log: impl Read) -> String {
    let mut text = Vec::new();
    if let Err(error) = log.read_to_end(&mut text) {
        return format!("({} cannot be read: {error})", path.display());
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return format!("({} is empty)", path.display());
    }
    let end = &lines[lines.len().saturating_sub(20)..];
    format!("the end of {}:\n  {}", path.display(), end.join("\n  "))
}
