//! Requests a second, through the director and straight to a backend.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::screen::Screen;
use super::stage::{Stage, address};

const CONNECTIONS: usize = 64;
const TIME: Duration = Duration::from_secs(3);

/// Measures both ways and compares.
pub(super) fn show(screen: &Screen, stage: &Stage) -> Result<()> {
    screen.step(&format!(
        "Speed: wrk with {CONNECTIONS} connections, {} s each",
        TIME.as_secs()
    ));
    // Both ways end at the same server, so that they differ by the director alone.
    for number in [3, 4, 5, 6] {
        stage.json(&["backend", "drain", "web", &address(number)])?;
    }
    let backend: SocketAddr = (stage.lab.host("backend2").v4(), 80).into();
    let straight = measure(screen, stage, "straight to a backend", backend)?;
    let through = measure(screen, stage, "through the director", stage.vip())?;
    let most = straight.max(through);
    for (what, rate) in [
        ("straight to backend2", straight),
        ("through the director", through),
    ] {
        let bar = screen.bar(rate, most);
        screen.line(&format!("{what}   {rate:>8.0} requests/s  {bar}"));
    }
    let ratio = through / straight * 100.0;
    screen.good(&format!(
        "through the director, backend2 serving alone: {ratio:.0} % of the straight way"
    ));
    screen.line("All hosts share this machine's processors, so this compares; it is no benchmark.");
    Ok(())
}

fn measure(screen: &Screen, stage: &Stage, what: &str, to: SocketAddr) -> Result<f64> {
    let load = screen.work(&format!("measuring {what}"), || {
        stage.client().wrk(to, CONNECTIONS, TIME)
    })?;
    let errors = load
        .report
        .lines()
        .find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    ensure!(
        errors.is_none(),
        "wrk {what}: {}",
        errors.unwrap_or_default().trim()
    );
    ensure!(
        load.requests_per_second > 100.0,
        "wrk {what}: {}",
        load.report
    );
    Ok(load.requests_per_second)
}
