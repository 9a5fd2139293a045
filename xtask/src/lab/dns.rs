//! DNS: a dnsmasq on each backend that knows one name, and `kdig` from a host.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::host::Host;
use super::process::{Process, wait_for};
use crate::setup::Tools;

/// The name whose TXT record is the name of the host that answers.
const NAME: &str = "who.lab";
const START_PATIENCE: Duration = Duration::from_secs(10);

/// A dnsmasq on a host, on port 53 of all its addresses; killed when dropped.
#[derive(Debug)]
pub struct DnsServer {
    _process: Process,
}

impl DnsServer {
    /// Starts dnsmasq on `host`, its files below `lab_dir`, and waits until it answers.
    pub(super) fn start(host: &Arc<Host>, lab_dir: &Path) -> Result<Self> {
        let dir = lab_dir.join(host.name());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut command = Tools::new()?.command("dnsmasq")?;
        command.args(["--keep-in-foreground", "--conf-file=/dev/null"]);
        command.args(["--log-facility=-", "--pid-file"]);
        // It answers for itself alone, and runs as who started it: there may be no other user.
        command.args(["--no-resolv", "--no-hosts", "--user=root", "--group="]);
        command.arg(format!("--txt-record={NAME},{}", host.name()));
        let log = dir.join("dnsmasq.log");
        let mut process = Process::start(host.namespace(), &mut command, &log)?;
        let what = format!("dnsmasq on {} to answer", host.name());
        wait_for(&what, START_PATIENCE, || {
            if let Some(status) = process.exited()? {
                let tail = process.log_tail();
                bail!("dnsmasq on {} ended ({status}); {tail}", host.name());
            }
            Ok(ask(host, host.v4().into(), 1, Duration::from_secs(1)).ok())
        })?;
        Ok(Self { _process: process })
    }
}

/// Asks the server at `to` by UDP, `count` times and each from a source port of its own, who it is; fails
/// if a question stays without an answer for `patience`, in whole seconds.
pub(super) fn ask(
    host: &Host,
    to: IpAddr,
    count: usize,
    patience: Duration,
) -> Result<Vec<String>> {
    let mut command = Tools::new()?.command("kdig")?;
    let seconds = patience.as_secs().max(1);
    command.args(["+short", "+retry=0", &format!("+timeout={seconds}")]);
    command.arg(format!("@{to}"));
    for _ in 0..count {
        command.args(["-t", "TXT", "-q", NAME]);
    }
    let printed = host.namespace().check(&mut command)?;
    let answers: Vec<String> = printed
        .lines()
        .filter_map(|line| Some(line.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
        .collect();
    ensure!(
        answers.len() == count,
        "{} of {count} questions were answered by {to}:\n{printed}",
        answers.len()
    );
    Ok(answers)
}
