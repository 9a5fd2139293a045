//! A host of the lab: a namespace with interfaces and addresses, and what one does on a host.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::namespace::Namespace;
use super::ping;
use crate::setup::Tools;

/// An interface of a host and its addresses, both with the prefix lengths /24 and /64.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// The interface's name inside the host.
    pub name: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// One machine of the lab.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    interfaces: Vec<Interface>,
}

impl Host {
    /// Makes a host with an empty namespace; cables and addresses are the topology's business.
    pub(super) fn new(name: &str, interfaces: Vec<Interface>) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::new(name)?,
            interfaces,
        })
    }

    /// The host's name: `client`, `router`, `director`, `backend1` …
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The host's namespace, to run code in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The host's interfaces, without loopback and the VIPs on it.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The IPv4 address of the host's first interface.
    ///
    /// # Panics
    /// On the fabric, which has no addresses.
    pub fn v4(&self) -> Ipv4Addr {
        self.interfaces
            .first()
            .expect("the fabric has no address")
            .v4
    }

    /// The IPv6 address of the host's first interface.
    ///
    /// # Panics
    /// On the fabric, which has no addresses.
    pub fn v6(&self) -> Ipv6Addr {
        self.interfaces
            .first()
            .expect("the fabric has no address")
            .v6
    }

    /// Runs `work` in the host's namespace; see [`Namespace::run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work)
    }

    /// Runs a program to its end on this host.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<Output> {
        self.namespace.output(Command::new(program).args(args))
    }

    /// Runs `ip ARGS` on this host and returns what it prints; fails if `ip` does.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.namespace
            .check(Tools::new()?.command("ip")?.args(args))
    }

    /// Runs a list of `ip` commands, one a line, without the word `ip`; stops at the first error.
    pub fn ip_batch(&self, script: &str) -> Result<()> {
        let mut command = Tools::new()?.command("ip")?;
        command.args(["-batch", "-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.namespace.spawn(&mut command)?;
        // Taken, so that it is closed at the end of the statement; `ip` may stop reading early.
        let written = child
            .stdin
            .take()
            .context("no pipe to ip")?
            .write_all(script.as_bytes());
        let output = child.wait_with_output().context("cannot wait for ip")?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "ip -batch on {}: {}\nof:\n{script}",
                self.name(),
                stderr.trim()
            );
        }
        written.with_context(|| format!("cannot write to ip on {}", self.name()))
    }

    /// Takes away the addresses that somebody has given its interfaces since the lab was built, and the
    /// interfaces on top of them.
    pub fn drop_other_addresses(&self) -> Result<()> {
        let mut script = String::new();
        for link in self.links()? {
            let Some(interface) = self.interfaces.iter().find(|it| it.name == link.ifname) else {
                if link.link.is_some() {
                    script += &format!("link del {}\n", link.ifname);
                }
                continue;
            };
            for Address { local, prefixlen } in link.addr_info {
                let is_link_local = matches!(local, IpAddr::V6(it) if it.is_unicast_link_local());
                let is_own = local == interface.v4 || local == interface.v6 || is_link_local;
                if !is_own {
                    script += &format!("addr del {local}/{prefixlen} dev {}\n", link.ifname);
                }
            }
        }
        self.ip_batch(&script)
    }

    /// Whether one of its interfaces has an address.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        let links = self.links()?;
        let mut all = links.iter().flat_map(|link| &link.addr_info);
        Ok(all.any(|it| it.local == address))
    }

    fn links(&self) -> Result<Vec<Link>> {
        let shown = self.ip(&["-json", "address", "show"])?;
        serde_json::from_str(&shown).with_context(|| format!("ip printed no addresses: {shown}"))
    }

    /// Switches offloads of an interface: pairs of a feature and `on` or `off`, as ethtool has it.
    pub fn offloads(&self, interface: &str, features: &[&str]) -> Result<()> {
        let mut command = Tools::new()?.command("ethtool")?;
        self.namespace
            .check(command.arg("-K").arg(interface).args(features))
            .map(drop)
    }

    /// Sets a kernel parameter of this host, by its path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value))
            .with_context(|| format!("cannot set {key} to {value} on {}", self.name()))
    }

    /// Whether the kernel has such a parameter.
    pub fn has_sysctl(&self, key: &str) -> bool {
        self.run(|| Path::new("/proc/sys").join(key).exists())
    }

    /// The packets that `interface` has received.
    pub fn rx_packets(&self, interface: &str) -> Result<u64> {
        self.read_number(interface, "statistics/rx_packets")
    }

    /// The packets that `interface` has sent.
    pub fn tx_packets(&self, interface: &str) -> Result<u64> {
        self.read_number(interface, "statistics/tx_packets")
    }

    /// The index of `interface`.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        u32::try_from(self.read_number(interface, "ifindex")?).context("ifindex out of range")
    }

    /// The MAC address of `interface`, as text.
    pub fn mac(&self, interface: &str) -> Result<String> {
        self.read(interface, "address")
    }

    /// Whether `address` answers an echo request of this host within a second.
    pub fn pings(&self, address: impl Into<IpAddr>) -> Result<bool> {
        let address = address.into();
        self.run(|| ping::answers(address, Duration::from_secs(1)))
            .with_context(|| format!("on {}", self.name()))
    }

    fn read_number(&self, interface: &str, file: &str) -> Result<u64> {
        let text = self.read(interface, file)?;
        text.parse()
            .with_context(|| format!("{file} of {interface} is no number: {text}"))
    }

    fn read(&self, interface: &str, file: &str) -> Result<String> {
        let text = self
            .run(|| fs::read_to_string(format!("/sys/class/net/{interface}/{file}")))
            .with_context(|| format!("cannot read {file} of {interface} on {}", self.name()))?;
        Ok(text.trim().to_owned())
    }
}

/// An interface as `ip -json` shows it.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    /// The interface that it is on top of.
    #[serde(default)]
    link: Option<String>,
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: IpAddr,
    prefixlen: u8,
}

/// A MAC address as `ip` prints it.
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .with_context(|| format!("{text} is no MAC address"))
}

/// Packets that an interface of a host has received and sent.
#[derive(Clone, Copy, Debug)]
pub struct Packets {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

impl Packets {
    /// Those of the interface `eth0` so far.
    pub fn of(host: &Host) -> Result<Self> {
        let (rx, tx) = (host.rx_packets("eth0")?, host.tx_packets("eth0")?);
        Ok(Self { rx, tx })
    }

    /// Those since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            rx: self.rx - before.rx,
            tx: self.tx - before.tx,
        }
    }
}
