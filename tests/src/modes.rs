//! Every forwarding mode at work in one lab: a service for HTTP and one for DNS each, on VIPs of its own.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::lab::{Host, Lab, LabConfig};

use crate::lab::program;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How packets get to the backends.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// The beginning of its services' names.
    pub name: &'static str,
    /// The word in the config.
    pub forwarding: &'static str,
    /// The family of the backends' addresses, and with it of the outer headers.
    pub outer: Family,
    /// The last number of its VIPs.
    pub last: u8,
}

/// IP in IP, over IPv4.
pub const IPIP: Mode = Mode::new("ipip4", "ipip", Family::V4, 11);
/// IP in IP, over IPv6.
pub const IPIP6: Mode = Mode::new("ipip6", "ipip", Family::V6, 12);
/// GUE over IPv4.
pub const GUE: Mode = Mode::new("gue4", "gue", Family::V4, 13);
/// GUE over IPv6.
pub const GUE6: Mode = Mode::new("gue6", "gue", Family::V6, 14);
/// New MAC addresses only.
pub const L2: Mode = Mode::new("l2", "l2", Family::V4, 10);
/// The same, for backends that are known by their IPv6 addresses.
pub const L2V6: Mode = Mode::new("l2v6", "l2", Family::V6, 15);

/// The modes for backends in a network of the director.
pub const ALL: &[Mode] = &[L2, L2V6, IPIP, IPIP6, GUE, GUE6];
/// The modes for backends behind routers.
pub const TUNNELS: &[Mode] = &[IPIP, IPIP6, GUE, GUE6];

impl Mode {
    const fn new(name: &'static str, forwarding: &'static str, outer: Family, last: u8) -> Self {
        Self {
            name,
            forwarding,
            outer,
            last,
        }
    }

    /// Its VIPs, one of each family.
    #[must_use]
    pub fn vips(&self) -> [IpAddr; 2] {
        [self.vip4().into(), self.vip6().into()]
    }

    /// Its IPv4 VIP.
    #[must_use]
    pub fn vip4(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.last)
    }

    /// Its IPv6 VIP.
    #[must_use]
    pub fn vip6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, self.last.into())
    }

    /// By which of a backend's addresses it is known.
    fn address(&self, backend: &Host) -> IpAddr {
        match self.outer {
            Family::V4 => backend.v4().into(),
            Family::V6 => backend.v6().into(),
        }
    }
}

/// The lab that these modes need, with `backends` backends.
#[must_use]
pub fn lab(modes: &[Mode], backends: usize) -> LabConfig {
    LabConfig {
        vips: modes.iter().map(Mode::vip4).collect(),
        vips6: modes.iter().map(Mode::vip6).collect(),
        ..LabConfig::with_backends(backends)
    }
}

/// The config for all of the director's interfaces and these modes' services.
#[must_use]
pub fn config(lab: &Lab, modes: &[Mode]) -> String {
    let interfaces = lab.host("director").interfaces();
    let names: Vec<&str> = interfaces.iter().map(|it| it.name.as_str()).collect();
    let mut yaml = format!("interfaces: [{}]\nservices:\n", names.join(", "));
    for mode in modes {
        let (name, forwarding, [v4, v6]) = (mode.name, mode.forwarding, mode.vips());
        let backends: Vec<String> = lab
            .backends()
            .map(|backend| format!("\"{}\"", mode.address(backend)))
            .collect();
        for (kind, protocol, port) in [("web", "tcp", 80), ("dns", "udp", 53)] {
            let _ = writeln!(
                yaml,
                "- {{ name: {name}-{kind}, vip: [{v4}, \"{v6}\"], protocol: {protocol}, \
                 port: {port}, forwarding: {forwarding}, backends: [{}] }}",
                backends.join(", ")
            );
        }
    }
    yaml
}

/// What `xdp-lb decap` counted on a backend.
pub fn decapsulated(backend: &Host, counter: &str) -> Result<u64> {
    let mut command = Command::new(program());
    command.args(["decap", "--interface", "eth0", "--show", "--json"]);
    let shown: Value = serde_json::from_str(&backend.namespace().check(&mut command)?)?;
    let counters = shown["counters"].as_array().context("no counters")?;
    let found = counters.iter().find(|it| it["name"] == counter);
    found
        .and_then(|it| it["packets"].as_u64())
        .with_context(|| format!("no counter {counter} in {shown}"))
}
