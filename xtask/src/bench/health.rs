//! What health checks cost a director: thousands of backends, all of them in one namespace, asked each
//! second.
//!
//! The daemon and the network stack of its namespace have the first processor to themselves, and everything
//! else has the second one, so that the first one's load is what a director would have.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::{Director, Host, Lab, LabConfig, wait_for};

/// Backends that are asked, and how long it is measured.
struct Size {
    backends: u16,
    time: Duration,
}

/// Kinds of checks: the name, the field of the config, the forwarding mode.
const KINDS: [(&str, &str, &str); 4] = [
    ("tcp, via backend", "type: tcp, via: backend", "ipip"),
    ("tcp, via vip, ipip", "type: tcp, via: vip", "ipip"),
    (
        "http, via backend",
        "type: http, path: /healthz, via: backend",
        "ipip",
    ),
    (
        "http, via vip, ipip",
        "type: http, path: /healthz, via: vip",
        "ipip",
    ),
];

/// Until all backends have been found to be up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The processor of the daemon, and that of everybody else.
const OURS: usize = 0;
const OTHERS: usize = 1;

struct Measured {
    checks_per_second: f64,
    /// Of one processor.
    load: Load,
    up: usize,
    resident_mib: f64,
}

/// Parts of a processor's time.
#[derive(Clone, Copy)]
struct Load {
    user: f64,
    system: f64,
    /// The network stack, for what comes in.
    softirq: f64,
}

impl Load {
    fn sum(self) -> f64 {
        self.user + self.system + self.softirq
    }
}

/// Measures, and prints a table. `program` is the daemon.
pub(super) fn run(program: &Path, is_quick: bool) -> Result<()> {
    let processors = thread::available_parallelism()?.get();
    ensure!(
        processors >= 2,
        "this takes two processors: one for the daemon, and one for the backends"
    );
    // Servers that are started from here have it too.
    pin(Pid::this(), OTHERS)?;
    let size = if is_quick {
        Size {
            backends: 100,
            time: Duration::from_secs(2),
        }
    } else {
        Size {
            backends: 5000,
            time: Duration::from_secs(15),
        }
    };
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "check",
            "up",
            "checks/s",
            "load",
            "user",
            "system",
            "softirq",
            "µs/check",
            "MiB",
        ]);
    for (name, check, forwarding) in KINDS {
        eprintln!("measuring {name}: {} backends", size.backends);
        let measured = measure(program, check, forwarding, &size)?;
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        let load = measured.load;
        table.add_row([
            name.to_owned(),
            measured.up.to_string(),
            format!("{:.0}", measured.checks_per_second),
            percent(load.sum()),
            percent(load.user),
            percent(load.system),
            percent(load.softirq),
            format!("{:.1}", load.sum() / measured.checks_per_second * 1e6),
            format!("{:.0}", measured.resident_mib),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "{} backends, each asked every second by one daemon. The load is that of a processor which has the \
         daemon and its host's network stack to do, and nothing else.\n\n{table}",
        size.backends
    );
    Ok(())
}

fn measure(program: &Path, check: &str, forwarding: &str, size: &Size) -> Result<Measured> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let backend = lab.host("backend1");
    // One host has all addresses.
    backend.ip(&["route", "add", "local", "10.8.0.0/16", "dev", "lo"])?;
    let gateway = backend.v4().to_string();
    lab.host("director")
        .ip(&["route", "add", "10.8.0.0/16", "via", &gateway])?;
    lab.decapsulate(program)?;
    let _server = lab.start_http(backend)?;
    let mut yaml = format!(
        "interfaces: [eth0]\nservices:\n- name: web\n  vip: {}\n  protocol: tcp\n  port: 80\n  \
         forwarding: {forwarding}\n  table_size: 65537\n  health_check: {{ {check}, interval: 1s }}\n  \
         backends:\n",
        lab.vip()
    );
    for number in 0..size.backends {
        let [high, low] = (number + 256).to_be_bytes();
        let _ = writeln!(yaml, "  - {}", Ipv4Addr::new(10, 8, high, low));
    }
    let director = lab.start_director(program, &yaml)?;
    let pid = director.pid().context("the daemon is stopped")?;
    pin(Pid::from_raw(pid.try_into()?), OURS)?;
    receive_on(lab.host("director"), OURS)?;
    for name in ["fabric", "backend1"] {
        receive_on(lab.host(name), OTHERS)?;
    }
    let expected = usize::from(size.backends);
    let all_up = wait_for("all backends to be up", PATIENCE, || {
        Ok((health(&director)?.0 == expected).then_some(()))
    });
    if all_up.is_err() {
        // A machine that is too slow for so many shows in the figures.
        eprintln!("not all of them are up");
    }
    let (_, checks) = health(&director)?;
    let before = times()?;
    thread::sleep(size.time);
    let after = times()?;
    let (up, checks_after) = health(&director)?;
    let time = size.time.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown rounded")]
    let count = (checks_after - checks) as f64;
    Ok(Measured {
        checks_per_second: count / time,
        load: Load {
            user: (after.user - before.user) / time,
            system: (after.system - before.system) / time,
            softirq: (after.softirq - before.softirq) / time,
        },
        up,
        resident_mib: resident_mib(pid)?,
    })
}

/// Has all threads of a process run on one processor, and those that they start.
fn pin(process: Pid, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok());
        sched_setaffinity(
            Pid::from_raw(id.context("a thread without a number")?),
            &set,
        )?;
    }
    Ok(())
}

/// Has a processor do what comes in by all interfaces of a host (receive packet steering).
fn receive_on(host: &Host, processor: usize) -> Result<()> {
    let mask = format!("{:x}", 1 << processor);
    host.run(|| {
        for interface in fs::read_dir("/sys/class/net")? {
            let file = interface?.path().join("queues/rx-0/rps_cpus");
            if file.exists() {
                fs::write(&file, &mask)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        Ok(())
    })
}

/// Seconds that the daemon's processor has spent so far.
fn times() -> Result<Load> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{OURS} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let ticks: Vec<f64> = line
        .context("no such processor")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq, …: proc_stat(5). In units of USER_HZ, which is the
    // same everywhere.
    let seconds = |fields: &[usize]| -> f64 {
        let ticks = fields.iter().filter_map(|field| ticks.get(*field));
        ticks.sum::<f64>() / 100.0
    };
    Ok(Load {
        user: seconds(&[0, 1]),
        system: seconds(&[2]),
        softirq: seconds(&[5, 6]),
    })
}

/// How many backends are up, and how many checks there have been.
fn health(director: &Director) -> Result<(usize, u64)> {
    let rows: Value = serde_json::from_str(&director.check(&["health", "list", "--json"])?)?;
    let rows = rows.as_array().context("not a list")?;
    let up = rows.iter().filter(|row| row["state"] == "up").count();
    let checks = rows.iter().map(|row| {
        let failed = row["failed"].as_object().into_iter().flatten();
        let failed: u64 = failed.filter_map(|(_, count)| count.as_u64()).sum();
        failed + row["passed"].as_u64().unwrap_or(0)
    });
    Ok((up, checks.sum()))
}

/// Memory that a process holds, less what it shares with others: the maps of the data plane.
fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number.context("no RssAnon")?.parse()?;
    ensure!(kib > 0.0, "a process without memory");
    Ok(kib / 1024.0)
}
