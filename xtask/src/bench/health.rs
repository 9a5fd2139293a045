//! What health checks cost the daemon: thousands of backends, all of them in one namespace, asked each
//! second.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use crate::lab::{Director, Lab, LabConfig, wait_for};

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

struct Measured {
    checks_per_second: f64,
    /// Of one CPU.
    user: f64,
    system: f64,
    up: usize,
    resident_mib: f64,
}

/// Measures, and prints a table. `program` is the daemon.
pub(super) fn run(program: &Path, is_quick: bool) -> Result<()> {
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
            "CPU",
            "user",
            "system",
            "µs/check",
            "MiB",
        ]);
    for (name, check, forwarding) in KINDS {
        eprintln!("measuring {name}: {} backends", size.backends);
        let measured = measure(program, check, forwarding, &size)?;
        let busy = measured.user + measured.system;
        table.add_row([
            name.to_owned(),
            measured.up.to_string(),
            format!("{:.0}", measured.checks_per_second),
            format!("{:.1} %", busy * 100.0),
            format!("{:.1} %", measured.user * 100.0),
            format!("{:.1} %", measured.system * 100.0),
            format!("{:.1}", busy / measured.checks_per_second * 1e6),
            format!("{:.0}", measured.resident_mib),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "{} backends, each asked every second by one daemon; CPU is that of the daemon, as a share of \
         one processor, and has the work of the kernel for both ends in it, as all hosts are here.\n\n{table}",
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
         forwarding: {forwarding}\n  table_size: 655373\n  health_check: {{ {check}, interval: 1s }}\n  \
         backends:\n",
        lab.vip()
    );
    for number in 0..size.backends {
        let [high, low] = (number + 256).to_be_bytes();
        let _ = writeln!(yaml, "  - {}", Ipv4Addr::new(10, 8, high, low));
    }
    let director = lab.start_director(program, &yaml)?;
    let expected = usize::from(size.backends);
    let all_up = wait_for("all backends to be up", PATIENCE, || {
        Ok((health(&director)?.0 == expected).then_some(()))
    });
    if all_up.is_err() {
        // A machine that is too slow for so many shows in the figures.
        eprintln!("not all of them are up");
    }
    let pid = director.pid().context("the daemon is stopped")?;
    let (_, checks) = health(&director)?;
    let (begun, used) = (Instant::now(), cpu(pid)?);
    std::thread::sleep(size.time);
    let (time, used_after) = (begun.elapsed().as_secs_f64(), cpu(pid)?);
    let (up, checks_after) = health(&director)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown rounded")]
    let count = (checks_after - checks) as f64;
    Ok(Measured {
        checks_per_second: count / begun.elapsed().as_secs_f64(),
        user: (used_after.0 - used.0) / time,
        system: (used_after.1 - used.1) / time,
        up,
        resident_mib: resident_mib(pid)?,
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

/// Seconds that a process has spent on a CPU: as itself, and in the kernel.
fn cpu(pid: u32) -> Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may have blanks; it ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')').context("no fields")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let seconds = |index: usize| -> Result<f64> {
        let ticks: f64 = fields.get(index).context("too few fields")?.parse()?;
        // USER_HZ, which is the same everywhere.
        Ok(ticks / 100.0)
    };
    Ok((seconds(11)?, seconds(12)?))
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
