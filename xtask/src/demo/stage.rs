//! The lab of the demo with everything that runs in it, and the questions that the steps ask.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{Client, Director, HttpServer, Lab, LabConfig, wait_for};

/// The weights of the backends that the config names; one more stands by.
pub(super) const WEIGHTS: [u64; 5] = [100, 100, 100, 50, 50];
/// Long enough for everything that happens at once.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) director: Director,
    servers: Vec<HttpServer>,
    pub(super) lab: Lab,
}

impl Stage {
    pub(super) fn new(program: &Path) -> Result<Self> {
        let lab = Lab::new(LabConfig::with_backends(WEIGHTS.len() + 1))?;
        let servers = lab.start_all_http()?;
        let director = lab.start_director(program, &config(lab.vip()))?;
        let stage = Self {
            director,
            servers,
            lab,
        };
        stage.wait_until_active()?;
        // Ends the demo at once, with the reason, where nothing works at all.
        stage.client().get(stage.vip(), "/")?;
        Ok(stage)
    }

    /// Takes everything away, and makes sure of it.
    pub(super) fn end(self) -> Result<()> {
        let dir = self.lab.dir().to_owned();
        self.director.check(&["detach"])?;
        drop(self);
        ensure!(!dir.exists(), "{} is still there", dir.display());
        Ok(())
    }

    pub(super) fn vip(&self) -> SocketAddr {
        (self.lab.vip(), 80).into()
    }

    pub(super) fn client(&self) -> Client {
        self.lab.client()
    }

    /// What `xdp-lb ARGS --json` answers.
    pub(super) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.director.check(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?} printed no JSON: {text}"))
    }

    /// Kills the server of backend `number`.
    pub(super) fn kill_server(&mut self, number: usize) -> Result<()> {
        let name = format!("backend{number}");
        let mut servers = self.servers.iter();
        let at = servers.position(|it| it.host().name() == name);
        self.servers
            .remove(at.context("it has no server")?)
            .kill()?;
        Ok(())
    }

    /// Starts the server of backend `number` again.
    pub(super) fn start_server(&mut self, number: usize) -> Result<()> {
        let host = self.lab.host(&format!("backend{number}"));
        self.servers.push(self.lab.start_http(host)?);
        Ok(())
    }

    /// Waits until every backend can be reached and is up.
    pub(super) fn wait_until_active(&self) -> Result<()> {
        wait_for("the daemon to reach all backends", SOON, || {
            let status = self.json(&["backend", "list"])?;
            let all = status.as_array().context("no list of backends")?;
            let missing = all.iter().any(|it| it["state"] != "active");
            Ok((!missing).then_some(()))
        })
    }

    /// How many of `count` requests through the VIP each backend answers; all must be answered.
    pub(super) fn request(&self, count: usize) -> Result<BTreeMap<String, u64>> {
        request(&self.client(), self.vip(), count)
    }
}

/// As [`Stage::request`], for other threads.
pub(super) fn request(
    client: &Client,
    vip: SocketAddr,
    count: usize,
) -> Result<BTreeMap<String, u64>> {
    let mut shares = BTreeMap::new();
    let mut left = count;
    // In parts, so that a service that does not answer is noticed soon.
    while left > 0 {
        let part = left.min(200);
        for response in client.get_many(vip, "/", part, 16) {
            let response = response.context("a request through the VIP failed")?;
            if response.status != 200 {
                bail!("a request through the VIP got status {}", response.status);
            }
            let backend = response.backend.context("an answer of no backend")?;
            *shares.entry(backend).or_default() += 1;
        }
        left -= part;
    }
    Ok(shares)
}

/// The address of backend `number`.
pub(super) fn address(number: usize) -> String {
    format!("10.0.0.{}", 10 + number)
}

fn config(vip: Ipv4Addr) -> String {
    let mut yaml = format!(
        "interfaces: [eth0]\nservices:\n  - name: web\n    vip: {vip}\n    protocol: tcp\n    \
         port: 80\n    health_check: {{ type: http, path: /healthz, interval: 300ms, timeout: 200ms }}\n    \
         backends:\n"
    );
    for (number, weight) in (1..).zip(WEIGHTS) {
        let address = address(number);
        let _ = writeln!(yaml, "      - {{ address: {address}, weight: {weight} }}");
    }
    yaml
}
