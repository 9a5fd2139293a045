//! The daemon under test: `xdp-lb run` on a director, and its command line.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use super::host::Host;
use super::process::{Process, wait_for};

/// Where the daemon pins its maps: the lab's hosts have a bpffs each, so that the default fits.
const PIN_DIR: &str = "/sys/fs/bpf/xdp-lb";
/// A daemon loads and verifies its programs before it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A daemon on a director; killed when dropped, which leaves its pins and its XDP program.
///
/// Those live in the host's bpffs, until the lab goes: another daemon on the same host finds them.
#[derive(Debug)]
pub struct Director {
    host: Arc<Host>,
    program: PathBuf,
    dir: PathBuf,
    /// `None` while stopped.
    process: Option<Process>,
}

impl Director {
    /// Starts the daemon on `host`, its files below `lab_dir`, and waits until it answers.
    pub(super) fn start(
        host: &Arc<Host>,
        lab_dir: &Path,
        program: &Path,
        config: &str,
    ) -> Result<Self> {
        let program = program
            .canonicalize()
            .with_context(|| format!("no daemon at {}; build it first", program.display()))?;
        let dir = lab_dir.join(host.name());
        let state = dir.join("state");
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        let mut director = Self {
            host: Arc::clone(host),
            program,
            dir,
            process: None,
        };
        director.write_config(config)?;
        director.restart()?;
        Ok(director)
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Where the daemon pins its maps, as seen from the director's namespace.
    pub fn pin_dir(&self) -> &'static Path {
        Path::new(PIN_DIR)
    }

    /// The config file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.yaml")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("xdp-lb.sock")
    }

    /// The log of all daemons that ran on this host, one after another.
    pub fn log(&self) -> Result<String> {
        let log = self.dir.join("xdp-lb.log");
        fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))
    }

    /// The daemon's process id; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Replaces the config file; the daemon reads it when it is told to, or at its next start.
    pub fn write_config(&self, config: &str) -> Result<()> {
        let path = self.config();
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Runs `xdp-lb --socket SOCKET ARGS` on the director, whatever its exit code.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        self.host
            .namespace()
            .output(command.arg("--socket").arg(self.socket()).args(args))
    }

    /// As [`Director::cli`], for commands that must succeed; returns what they print.
    pub fn check(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        self.host
            .namespace()
            .check(command.arg("--socket").arg(self.socket()).args(args))
    }

    /// Halts the daemon (SIGSTOP): it hangs.
    pub fn halt(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a halted daemon go on.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref();
        process.context("the daemon is stopped")?.signal(signal)
    }

    /// Kills the daemon (SIGKILL): a crash.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process
            .take()
            .context("the daemon is stopped already")?
            .kill()
    }

    /// Ends the daemon (SIGTERM): a regular stop.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut process = self
            .process
            .take()
            .context("the daemon is stopped already")?;
        let outcome = process.terminate(STOP_PATIENCE);
        outcome.map_err(|error| anyhow!("{error:#}; {}", process.log_tail()))
    }

    /// Removes what is pinned, and with it the data plane, as a boot does; the daemon is not to run.
    pub fn unpin(&self) -> Result<()> {
        let remove = || match fs::remove_dir_all(PIN_DIR) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        };
        let removed = self.host.run(remove);
        removed.with_context(|| format!("cannot remove {PIN_DIR} on {}", self.host.name()))
    }

    /// Starts the daemon again, with another binary from now on.
    pub fn upgrade(&mut self, program: &Path) -> Result<()> {
        program.clone_into(&mut self.program);
        self.restart()
    }

    /// Starts the daemon, after ending the one that runs, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.terminate()?;
        }
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config").arg(self.config());
        command.arg("--socket").arg(self.socket());
        command.arg("--pin-dir").arg(PIN_DIR);
        command.arg("--state-dir").arg(self.dir.join("state"));
        let log = self.dir.join("xdp-lb.log");
        let mut process = Process::start(self.host.namespace(), &mut command, &log)?;

        let what = format!("the daemon on {} to answer", self.host.name());
        wait_for(&what, START_PATIENCE, || {
            if let Some(status) = process.exited()? {
                bail!("the daemon on {} ended: {status}", self.host.name());
            }
            Ok(self.cli(&["status"])?.status.success().then_some(()))
        })
        .map_err(|error| anyhow!("{error:#}; {}", process.log_tail()))?;
        self.process = Some(process);
        Ok(())
    }
}
