//! Health checks at work in a lab.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::wait_for;

use crate::lab::{Rig, SOON, address};

/// A pause between two requests of one client, so that a test does not keep a processor to itself.
const PAUSE: Duration = Duration::from_millis(2);

/// A config with the service `web` on the VIP's port 80, these backends by their numbers, and more fields,
/// each `name: value`.
#[must_use]
pub fn config(backends: RangeInclusive<usize>, fields: &[&str]) -> String {
    let mut yaml = "interfaces: [eth0]\nservices:\n  - name: web\n    vip: 192.0.2.10\n    \
                    protocol: tcp\n    port: 80\n"
        .to_owned();
    for field in fields {
        let _ = writeln!(yaml, "    {field}");
    }
    yaml += "    backends:\n";
    for number in backends {
        let _ = writeln!(yaml, "      - {}", address(number));
    }
    yaml
}

impl Rig {
    /// What `health list` tells of backend `number`.
    pub fn health(&self, number: usize) -> Result<Value> {
        let rows = self.json(&["health", "list", "web"])?;
        let rows = rows.as_array().context("not a list")?;
        let address = address(number).to_string();
        let row = rows.iter().find(|row| row["backend"] == *address);
        row.cloned()
            .with_context(|| format!("no health of {address} in {rows:?}"))
    }

    /// Waits until the checks of backend `number` say this: `up`, `down`, `held`.
    pub fn wait_for_health(&self, number: usize, state: &str) -> Result<Value> {
        let what = format!("backend{number} to be {state}");
        wait_for(&what, SOON, || {
            let health = self.health(number)?;
            Ok((health["state"] == state).then_some(health))
        })
    }

    /// Why the last check of backend `number` failed that did.
    pub fn cause(&self, number: usize) -> Result<String> {
        let health = self.health(number)?;
        let cause = health["last_failure"]["cause"].as_str();
        cause
            .map(str::to_owned)
            .with_context(|| format!("no cause: {health}"))
    }
}

/// What became of a request, and when it ended.
#[derive(Debug)]
pub struct Asked {
    /// When it was begun.
    pub begun: Instant,
    /// The backend that answered, or why none did.
    pub answer: Result<String, String>,
}

/// Sends one request after another while `work` goes on. Returns what `work` does, and what became of them.
pub fn while_asking<T>(rig: &Rig, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Asked>)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: ScopedJoinHandle<'_, Vec<Asked>> = scope.spawn(|| {
            let client = rig.lab.client();
            let mut asked = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = client.get(rig.vip(), "/");
                let answer = match answer {
                    Ok(response) => response.backend.ok_or("no backend named".to_owned()),
                    Err(error) => Err(format!("{error:#}")),
                };
                asked.push(Asked { begun, answer });
                thread::sleep(PAUSE);
            }
            asked
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("the thread of requests");
        Ok((done?, asked))
    })
}
