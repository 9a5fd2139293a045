//! Backends that fail, each in its own way, and come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::screen::Screen;
use super::stage::{SOON, Stage, address};
use crate::lab::{Client, wait_for};

/// The backend whose server is killed, and the one whose VIP is taken away.
const KILLED: usize = 2;
const WITHOUT_VIP: usize = 3;

/// Shows that what fails is noticed, and gets its share again.
pub(super) fn show(screen: &Screen, stage: &mut Stage) -> Result<()> {
    screen.step("Backends that fail, with health checks by the way of clients' packets");
    let (client, vip) = (stage.client(), stage.vip());
    let is_over = AtomicBool::new(false);
    let (killed, failed, asked) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&client, vip, &is_over));
        let killed = Instant::now();
        let down = stage
            .kill_server(KILLED)
            .and_then(|()| wait_for_health(stage, KILLED, "down"));
        // What was under way when it went down has ended by then.
        thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::Relaxed);
        let asked = asking
            .join()
            .ok()
            .context("the thread that sends requests broke")?;
        down?;
        let failed: Vec<Instant> = asked
            .iter()
            .filter_map(|(at, failed)| failed.then_some(*at))
            .collect();
        anyhow::Ok((killed, failed, asked.len()))
    })?;
    let last = failed.iter().max().map_or(Duration::ZERO, |last| {
        last.saturating_duration_since(killed)
    });
    screen.good(&format!(
        "the server of {} killed: {} of {asked} requests failed, the last one after {} ms",
        address(KILLED),
        failed.len(),
        last.as_millis()
    ));
    let host = stage.lab.host(&format!("backend{WITHOUT_VIP}")).clone();
    let vip = format!("{}/32", stage.lab.vip());
    host.ip(&["address", "del", &vip, "dev", "lo"])?;
    wait_for_health(stage, WITHOUT_VIP, "down")?;
    screen.good(&format!(
        "the VIP missing on {}, which answers by its own address: noticed",
        address(WITHOUT_VIP)
    ));
    screen.header("backend     health  last cause");
    for row in rows(stage)? {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (backend, state) = (text(&row["backend"]), text(&row["state"]));
        let cause = text(&row["last_failure"]["cause"]);
        screen.line(&format!("{backend:<10}  {state:<6}  {cause}"));
    }
    let shares = stage.request(400)?;
    ensure!(
        !shares.contains_key("backend2") && !shares.contains_key("backend3"),
        "a backend that is down gets requests: {shares:?}"
    );
    host.ip(&["address", "add", &vip, "dev", "lo"])?;
    stage.start_server(KILLED)?;
    for number in [KILLED, WITHOUT_VIP] {
        wait_for_health(stage, number, "up")?;
    }
    stage.wait_until_active()?;
    let shares = stage.request(400)?;
    ensure!(
        shares.contains_key("backend2") && shares.contains_key("backend3"),
        "a backend that came back gets no requests: {shares:?}"
    );
    screen.good("both came back, and have their shares again");
    Ok(())
}

/// Sends one request after another. Returns when each was begun, and whether it failed.
fn ask(client: &Client, vip: std::net::SocketAddr, is_over: &AtomicBool) -> Vec<(Instant, bool)> {
    let mut asked = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        asked.push((begun, client.get(vip, "/").is_err()));
    }
    asked
}

fn wait_for_health(stage: &Stage, number: usize, state: &str) -> Result<()> {
    let address = address(number);
    wait_for(&format!("{address} to be {state}"), SOON, || {
        let rows = rows(stage)?;
        let row = rows.iter().find(|row| row["backend"] == *address);
        Ok(row.is_some_and(|row| row["state"] == state).then_some(()))
    })
}

fn rows(stage: &Stage) -> Result<Vec<Value>> {
    let rows = stage.json(&["health", "list"])?;
    rows.as_array().cloned().context("not a list")
}
