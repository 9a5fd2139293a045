//! keepalived on a director, in place of our own daemon.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::host::Host;
use super::process::{Process, wait_for};
use crate::setup::Tools;

const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What a virtual router of keepalived is set up with.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Virtual router identifier.
    pub vrid: u8,
    /// Its priority.
    pub priority: u8,
    /// Milliseconds between advertisements.
    pub interval: u32,
    /// The addresses with the lengths of their prefixes, all of one family.
    pub vips: Vec<String>,
    /// Its own address and its peer's, unless it uses multicast.
    pub unicast: Option<(IpAddr, IpAddr)>,
    /// Whether it leaves others alone that have a lower priority.
    pub nopreempt: bool,
}

impl Instance {
    fn config(&self) -> String {
        let seconds = f64::from(self.interval) / 1000.0;
        let mut text = format!(
            "global_defs {{\n  router_id lab\n  vrrp_version 3\n}}\nvrrp_instance main {{\n  \
             interface eth0\n  state BACKUP\n  virtual_router_id {}\n  priority {}\n  advert_int \
             {seconds}\n",
            self.vrid, self.priority
        );
        if self.nopreempt {
            text += "  nopreempt\n";
        }
        if let Some((own, peer)) = self.unicast {
            let _ = write!(
                text,
                "  unicast_src_ip {own}\n  unicast_ttl 255\n  unicast_peer {{\n    {peer}\n  }}\n"
            );
        }
        text += "  virtual_ipaddress {\n";
        for vip in &self.vips {
            let _ = writeln!(text, "    {vip}");
        }
        text + "  }\n}\n"
    }
}

/// A keepalived; killed when dropped, which leaves its addresses.
#[derive(Debug)]
pub struct Keepalived {
    host: Arc<Host>,
    dir: PathBuf,
    /// None while stopped.
    process: Option<Process>,
}

impl Keepalived {
    /// Starts it on a host, its files below `lab_dir`.
    pub fn start(host: &Arc<Host>, lab_dir: &Path, instance: &Instance) -> Result<Self> {
        let dir = lab_dir.join(format!("keepalived-{}", host.name()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut keepalived = Self {
            host: Arc::clone(host),
            dir,
            process: None,
        };
        keepalived.restart(instance)?;
        Ok(keepalived)
    }

    /// Starts it anew, and waits until it takes part.
    pub fn restart(&mut self, instance: &Instance) -> Result<()> {
        if self.process.is_some() {
            self.terminate()?;
        }
        let file = |name: &str| self.dir.join(name);
        fs::write(file("keepalived.conf"), instance.config())?;
        let log = file("keepalived.log");
        // Those of an earlier one, which may have been killed.
        for name in ["keepalived.log", "keepalived.pid", "vrrp.pid"] {
            let _ = fs::remove_file(file(name));
        }
        let mut command = Tools::new()?.command("keepalived")?;
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(file("keepalived.conf"));
        command.arg("--pid").arg(file("keepalived.pid"));
        command.arg("--vrrp_pid").arg(file("vrrp.pid"));
        let process = Process::start(self.host.namespace(), &mut command, &log)?;
        let what = format!("keepalived on {} to take part", self.host.name());
        let waited = wait_for(&what, START_PATIENCE, || {
            let log = fs::read_to_string(&log)?;
            Ok(log.contains("BACKUP STATE").then_some(()))
        });
        waited.with_context(|| process.log_tail())?;
        self.process = Some(process);
        Ok(())
    }

    /// Its log since it was started last.
    pub fn log(&self) -> Result<String> {
        let log = self.dir.join("keepalived.log");
        fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))
    }

    /// Ends it (SIGTERM): it leaves.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let process = self.process.take();
        let mut process = process.context("keepalived is stopped already")?;
        process.terminate(STOP_PATIENCE)
    }

    /// Kills it, parent and child: it dies without a word.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take();
        let mut process = process.context("keepalived is stopped already")?;
        // The parent would start the child anew, and the child would leave cleanly when its parent ends.
        process.signal(Signal::SIGSTOP)?;
        let child = fs::read_to_string(self.dir.join("vrrp.pid"))?;
        super::process::kill(child.trim().parse()?)?;
        process.kill().map(drop)
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if self.process.is_some() {
            // It is over in either case.
            let _ = self.kill();
        }
    }
}
