//! Two directors that share VIPs by VRRP.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::lab::{Director, Host, HttpServer, Lab, LabConfig, wait_for};

use crate::lab::{SOON, address, program};

/// The names of the directors' hosts.
pub const HOSTS: [&str; 2] = ["director", "director2"];

/// A config with the service `web`, and with entries of `vrrp`, one a line.
#[must_use]
pub fn config(backends: usize, entries: &[String]) -> String {
    let backends: Vec<_> = (1..=backends).map(|it| address(it).to_string()).collect();
    let mut yaml = format!(
        "interfaces: [eth0]\nservices:\n- {{ name: web, vip: 192.0.2.10, protocol: tcp, port: 80, \
         backends: [{all}] }}\n- {{ name: echo, vip: 192.0.2.10, protocol: udp, port: 7, backends: \
         [{all}] }}\nvrrp:\n",
        all = backends.join(", ")
    );
    for entry in entries {
        yaml += &format!("- {{ {entry} }}\n");
    }
    yaml
}

/// An entry `main` with the lab's IPv4 VIP and `fields`.
#[must_use]
pub fn main_entry(priority: u8, fields: &str) -> String {
    format!(
        "name: main, interface: eth0, vrid: 51, priority: {priority}, vips: [192.0.2.10], {fields}"
    )
}

/// A lab with two directors.
#[derive(Debug)]
pub struct Pair {
    /// The daemons; first, so that they end first.
    pub directors: Vec<Director>,
    /// The backends' servers, in the order of their numbers.
    pub servers: Vec<HttpServer>,
    /// The lab.
    pub lab: Lab,
}

impl Pair {
    /// A lab with so many backends and a daemon with each of the configs; waits for nothing.
    pub fn new(backends: usize, configs: &[String]) -> Result<Self> {
        Self::in_lab(Lab::new(LabConfig::redundant(backends))?, configs)
    }

    /// As [`Pair::new`], in a lab that was made before.
    pub fn in_lab(lab: Lab, configs: &[String]) -> Result<Self> {
        let servers = lab.start_all_http()?;
        let mut directors = Vec::new();
        for (name, config) in HOSTS.iter().zip(configs) {
            directors.push(lab.start_director_on(lab.host(name), &program(), config)?);
        }
        Ok(Self {
            directors,
            servers,
            lab,
        })
    }

    /// The host of director 0 or 1.
    #[must_use]
    pub fn host(&self, director: usize) -> &Arc<Host> {
        self.lab.host(HOSTS[director])
    }

    /// The rows of `vrrp list` on a director.
    pub fn views(&self, director: usize) -> Result<Vec<Value>> {
        views(&self.directors[director])
    }

    /// The first row.
    pub fn view(&self, director: usize) -> Result<Value> {
        let views = self.views(director)?;
        views.into_iter().next().context("no virtual router")
    }

    /// The state of each virtual router of a director, in the order of `vrrp list`.
    pub fn states(&self, director: usize) -> Result<Vec<String>> {
        let views = self.views(director)?;
        Ok(views.iter().map(state).collect())
    }

    /// Waits until all virtual routers of a director are in a state.
    pub fn wait_for_state(&self, director: usize, expected: &str) -> Result<()> {
        wait_for_state(&self.directors[director], expected)
    }

    /// A counter of the first virtual router.
    pub fn counter(&self, director: usize, name: &str) -> Result<u64> {
        counter(&self.view(director)?, name)
    }

    /// Waits until the addresses are on a director's interface, or not.
    pub fn wait_for_vip(&self, director: usize, vip: &str, is_held: bool) -> Result<()> {
        wait_for_vip(self.host(director), vip, is_held)
    }

    /// Checks that the router sends packets for an address to this director.
    pub fn check_neighbour(&self, vip: impl Into<IpAddr>, director: usize) -> Result<()> {
        let found = neighbour(self.lab.host("router"), vip.into())?;
        let macs = [0, 1].map(|it| self.host(it).mac("eth0"));
        let expected = self.host(director).mac("eth0")?;
        ensure!(
            found.as_ref() == Some(&expected),
            "packets go to {found:?}, not to {expected}; the directors are {macs:?}"
        );
        Ok(())
    }
}

fn state(view: &Value) -> String {
    view["state"].as_str().unwrap_or_default().to_owned()
}

/// The rows of `vrrp list`.
pub fn views(director: &Director) -> Result<Vec<Value>> {
    let text = director.check(&["vrrp", "list", "--json"])?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

/// Waits until all virtual routers of a director are in a state.
pub fn wait_for_state(director: &Director, expected: &str) -> Result<()> {
    let name = director.host().name();
    let mut last = Value::Null;
    let waited = wait_for(&format!("{name} to be {expected}"), SOON, || {
        let views = views(director)?;
        let is_so = !views.is_empty() && views.iter().all(|view| view["state"] == expected);
        last = Value::Array(views);
        Ok(is_so.then_some(()))
    });
    waited.with_context(|| format!("it is {last:#}"))
}

/// A counter in a row of `vrrp list`.
pub fn counter(view: &Value, name: &str) -> Result<u64> {
    let counters = view["counters"].as_array().context("no counters")?;
    let found = counters.iter().find(|it| it["name"] == name);
    let packets = found.and_then(|it| it["packets"].as_u64());
    packets.with_context(|| format!("no counter {name}"))
}

/// Whether an address is on one of a host's interfaces.
pub fn has_address(host: &Host, address: &str) -> Result<bool> {
    let all = host.ip(&["-brief", "address", "show"])?;
    Ok(all
        .split_whitespace()
        .any(|word| word.split('/').next() == Some(address)))
}

/// Waits until an address is on one of a host's interfaces, or not.
pub fn wait_for_vip(host: &Host, vip: &str, is_held: bool) -> Result<()> {
    let what = format!("{vip} to be on {}: {is_held}", host.name());
    wait_for(&what, SOON, || {
        Ok((has_address(host, vip)? == is_held).then_some(()))
    })
}

/// The MAC address that a host sends packets for an address of the link to.
pub fn neighbour(host: &Host, address: IpAddr) -> Result<Option<String>> {
    let shown = host.ip(&["neighbour", "show", &address.to_string()])?;
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "lladdr");
    Ok(words.next().map(str::to_owned))
}
