//! HTTP as fast as it goes: one `wrk` with one thread, and what it says at its end.

use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::host::Host;
use crate::setup::Tools;

/// An answer may take longer than this machine can be held up; one that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The server.
    pub to: SocketAddr,
    /// The path on it.
    pub path: &'a str,
    /// Connections at once.
    pub connections: usize,
    /// Whether they are kept; else each request has a new one.
    pub keep_alive: bool,
    /// How long, in whole seconds.
    pub time: Duration,
}

/// A `wrk` that runs; killed when dropped.
#[derive(Debug)]
pub struct Wrk {
    /// `None` only at the end.
    child: Option<Child>,
}

/// What `wrk` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Answers that came in whole.
    pub requests: u64,
    /// Of them in a second.
    pub per_second: f64,
    /// Connections that failed, answers that broke off, came too late or were not of the kind 2xx.
    pub errors: u64,
}

impl Wrk {
    /// Starts it on a host, on the processors of the host's thread.
    pub fn start(host: &Host, order: &Order) -> Result<Self> {
        let mut command = Tools::new()?.command("wrk")?;
        command.args(["--threads", "1"]);
        command.arg(format!("--timeout={}s", PATIENCE.as_secs()));
        command.arg(format!("--connections={}", order.connections));
        command.arg(format!("--duration={}s", order.time.as_secs().max(1)));
        if !order.keep_alive {
            command.args(["--header", "Connection: close"]);
        }
        command.arg(format!("http://{}{}", order.to, order.path));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = Some(host.namespace().spawn(&mut command)?);
        Ok(Self { child })
    }

    /// Waits until it is done.
    pub fn finish(mut self) -> Result<Counted> {
        let child = self.child.take().context("it has ended before")?;
        let output = child.wait_with_output().context("cannot wait for wrk")?;
        let report = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("wrk: {}: {report}{stderr}", output.status);
        }
        let counted = parse(&report)?;
        ensure!(
            counted.requests > 0,
            "not one answer came; wrk says:\n{report}"
        );
        Ok(counted)
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn parse(report: &str) -> Result<Counted> {
    let mut counted = Counted::default();
    let (mut has_requests, mut has_rate) = (false, false);
    for line in report.lines().map(str::trim) {
        if let Some((requests, _)) = line.split_once(" requests in ") {
            counted.requests = number(requests, report)?;
            has_requests = true;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            counted.per_second = number(rate, report)?;
            has_rate = true;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            for part in errors.split(',') {
                let count = part.split_whitespace().last().unwrap_or_default();
                counted.errors += number::<u64>(count, report)?;
            }
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            counted.errors += number::<u64>(count, report)?;
        }
    }
    ensure!(
        has_requests && has_rate,
        "this is no report of wrk:\n{report}"
    );
    Ok(counted)
}

fn number<T: std::str::FromStr>(text: &str, report: &str) -> Result<T> {
    let number = text.trim().parse().ok();
    number.with_context(|| format!("{text:?} is no number, in the report of wrk:\n{report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 3s test @ http://192.0.2.10:80/page
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.42ms    1.21ms  20.11ms   71.43%
    Req/Sec     9.31k   512.20    10.20k    66.67%
  27801 requests in 3.00s, 33.62MB read
";

    #[test]
    fn a_report_without_errors() {
        let report = format!("{REPORT}Requests/sec:   9260.87\nTransfer/sec:     11.20MB\n");
        let expected = Counted {
            requests: 27801,
            per_second: 9260.87,
            errors: 0,
        };
        assert_eq!(parse(&report).unwrap(), expected);
    }

    #[test]
    fn errors_of_all_kinds_add_up() {
        let report = format!(
            "{REPORT}  Socket errors: connect 1, read 20, write 300, timeout 4000\n  \
             Non-2xx or 3xx responses: 50000\nRequests/sec:   9260.87\n"
        );
        assert_eq!(parse(&report).unwrap().errors, 54321);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(parse("unable to connect to 192.0.2.10:80 Connection refused\n").is_err());
        assert!(parse(REPORT).is_err());
        let report = format!("{REPORT}Requests/sec:   nan?\n");
        assert!(parse(&report).is_err());
    }
}
