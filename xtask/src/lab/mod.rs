//! A lab of network namespaces: a client, a router, directors and backends, without a machine.
//!
//! [`Lab::new`] builds it, dropping it takes it away, and so does the kernel if this process is
//! killed: nothing of a lab has a name outside of the process that owns it, apart from a
//! directory in the [`registry`]. Any number of labs can be up at once.
//!
//! | module | job |
//! |---|---|
//! | [`namespace`] | a namespace and the thread that holds it |
//! | [`config`], [`topology`], `wire`, `bpf`, [`host`] | what a lab consists of, how it is cabled, its hosts |
//! | [`process`] | processes, their logs, waiting |
//! | [`servers`], [`dns`], [`client`], [`download`] | HTTP and DNS, on the backends and from the client |
//! | [`wrk`] | requests as fast as they go |
//! | [`gap`], [`held`] | what clients notice of a failover |
//! | [`flood`], [`tally`], `packet_socket` | frames made by hand, and frames counted |
//! | [`director`], `power` | the daemon under test, and machines that die and boot |
//! | [`keepalived`] | another router, to fail over with |
//! | [`registry`], [`keeper`], [`cli`] | `cargo xtask lab` |
//!
//! Nothing here knows how xdp-lb works, beyond its command line.

mod bpf;
pub mod cli;
pub mod client;
pub mod config;
pub mod director;
pub mod dns;
pub mod download;
pub mod flood;
pub mod gap;
pub mod held;
pub mod host;
pub mod keepalived;
pub mod keeper;
pub mod namespace;
mod packet_socket;
mod ping;
mod power;
pub mod process;
pub mod registry;
pub mod servers;
pub mod tally;
pub mod topology;
mod wire;
pub mod wrk;

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use client::{Client, Load, Response};
pub use config::{Farm, Forwarding, LabConfig};
pub use director::Director;
pub use dns::DnsServer;
pub use download::{Download, Downloads, End};
pub use host::{Host, Packets};
pub use namespace::Namespace;
pub use process::{Process, wait_for};
pub use servers::{DOWNLOAD_BYTES, HttpServer, PAGE_BYTES};
pub use tally::Tally;

use registry::{Entry, Kind, LabState, Owner};
use wire::Wires;

/// A running lab; see [`topology`] for its hosts and addresses.
///
/// Servers, daemons and downloads hold their host: it goes when they and the lab are dropped.
#[derive(Debug)]
pub struct Lab {
    config: LabConfig,
    /// Before the hosts: their cables.
    wires: Vec<Wires>,
    hosts: Vec<Arc<Host>>,
    state: LabState,
    /// Last, so that the directory outlives the hosts.
    entry: Entry,
}

impl Lab {
    /// Builds a lab that lives as long as the value, and not longer than this process.
    pub fn new(config: LabConfig) -> Result<Self> {
        let mut lab = Self::begin(config, Kind::Owned)?;
        lab.set_ready()?;
        Ok(lab)
    }

    /// Builds the network; the lab shows as unfinished until [`Lab::set_ready`].
    pub(crate) fn begin(config: LabConfig, kind: Kind) -> Result<Self> {
        config.check()?;
        let owner = Owner::this()?;
        let v4 = config.vips.iter().map(|&vip| vip.into());
        let mut state = LabState {
            name: config
                .name
                .clone()
                .unwrap_or_else(|| unique_name(owner.pid)),
            owner,
            kind,
            created: SystemTime::now(),
            ready: false,
            vips: v4
                .chain(config.vips6.iter().map(|&vip| vip.into()))
                .collect(),
            hosts: Vec::new(),
        };
        raise_file_limit().context("cannot raise the limit on open files")?;
        let entry = Entry::register(&state)?;
        let hosts = topology::build(&config)
            .with_context(|| format!("cannot build the lab {}", state.name))?;
        state.set_hosts(hosts.iter().map(AsRef::as_ref));
        entry.write(&state)?;
        let mut lab = Self {
            config,
            wires: Vec::new(),
            hosts,
            state,
            entry,
        };
        let directors = lab
            .hosts
            .iter()
            .filter(|host| host.name().starts_with("director"));
        lab.wires = directors
            .map(|director| Wires::prepare(&lab, director, lab.config.tag))
            .collect::<Result<_>>()?;
        Ok(lab)
    }

    pub(crate) fn set_ready(&mut self) -> Result<()> {
        self.state.ready = true;
        self.entry.write(&self.state)
    }

    /// The lab's name in the registry.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The directory with the lab's files; removed with the lab.
    pub fn dir(&self) -> &Path {
        self.entry.dir()
    }

    /// All hosts, and the fabric.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// The host `name`: `fabric`, `client`, `router`, `director`, `director2`, `gateway1`, `backend1` …
    ///
    /// # Panics
    /// If the lab has no such host.
    pub fn host(&self, name: &str) -> &Arc<Host> {
        let host = self.hosts.iter().find(|host| host.name() == name);
        host.unwrap_or_else(|| panic!("the lab {} has no host {name}", self.name()))
    }

    /// The backends, in the order of their numbers.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Host>> {
        (1..=self.config.backends).map(|number| self.host(&format!("backend{number}")))
    }

    /// HTTP from the host `client`.
    pub fn client(&self) -> Client {
        Client::new(self.host("client"))
    }

    /// The first IPv4 VIP.
    ///
    /// # Panics
    /// If the lab's config has none.
    pub fn vip(&self) -> Ipv4Addr {
        *self.config.vips.first().expect("a lab without IPv4 VIPs")
    }

    /// The first IPv6 VIP.
    ///
    /// # Panics
    /// If the lab's config has none.
    pub fn vip6(&self) -> Ipv6Addr {
        *self.config.vips6.first().expect("a lab without IPv6 VIPs")
    }

    /// Starts nginx on `host`; see [`servers`] for what it answers.
    pub fn start_http(&self, host: &Arc<Host>) -> Result<HttpServer> {
        HttpServer::start(host, self.dir())
    }

    /// Starts nginx on every backend.
    pub fn start_all_http(&self) -> Result<Vec<HttpServer>> {
        self.backends().map(|host| self.start_http(host)).collect()
    }

    /// Starts dnsmasq on every backend; see [`dns`] for what it answers.
    pub fn start_all_dns(&self) -> Result<Vec<DnsServer>> {
        self.backends()
            .map(|host| DnsServer::start(host, self.dir()))
            .collect()
    }

    /// Starts the daemon `program` on the first director, with a config in YAML.
    pub fn start_director(&self, program: &Path, config: &str) -> Result<Director> {
        self.start_director_on(self.host("director"), program, config)
    }

    /// Starts the daemon `program` on a director, with a config in YAML.
    pub fn start_director_on(
        &self,
        host: &Arc<Host>,
        program: &Path,
        config: &str,
    ) -> Result<Director> {
        Director::start(host, self.dir(), program, config)
    }

    /// Has every backend take packets from the directors out of tunnels: `program` is the daemon's.
    pub fn decapsulate(&self, program: &Path) -> Result<()> {
        let directors = || {
            self.hosts
                .iter()
                .filter(|host| host.name().starts_with("director"))
        };
        for backend in self.backends() {
            let mut command = Command::new(program);
            command.args(["decap", "--interface", "eth0"]);
            for interface in directors().flat_map(|it| it.interfaces()) {
                command.args(["--from", &interface.v4.to_string()]);
                command.args(["--from", &interface.v6.to_string()]);
            }
            backend.namespace().check(&mut command)?;
        }
        Ok(())
    }

    /// Takes the programs away that the far ends of the directors' cables have for XDP; they would slow down
    /// what does without.
    pub fn unprepare_cables(&mut self) {
        self.wires.clear();
    }

    /// Makes an interface of a director anew, as a driver does that is loaded again: the old one goes, with all that
    /// was attached to it.
    pub fn remake_interface(&mut self, director: &Arc<Host>, name: &str) -> Result<()> {
        let fabric = Arc::clone(self.host(topology::FABRIC));
        topology::remake(&fabric, director, name, &self.config)?;
        self.wires
            .push(Wires::prepare(self, director, self.config.tag)?);
        Ok(())
    }

    /// Pulls the cables of a host, or plugs them in again.
    pub fn set_cables(&self, host: &Host, plugged_in: bool) -> Result<()> {
        let state = if plugged_in { "up" } else { "down" };
        for interface in host.interfaces() {
            let (far, port) = self.far_end(host, &interface.name);
            far.ip(&["link", "set", &port, state])?;
        }
        Ok(())
    }

    /// The other end of the cable of a host's interface: a host, or the fabric, and its interface.
    fn far_end(&self, host: &Host, interface: &str) -> (&Arc<Host>, String) {
        let (far, port) = topology::far_end(self.config.farm, host, interface);
        (self.host(far), port)
    }

    /// A config for the daemon: the service `web` on the IPv4 VIPs, with every backend.
    pub fn director_config(&self, forwarding: Forwarding) -> String {
        let interfaces: Vec<&str> = self
            .host("director")
            .interfaces()
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        let mut yaml = format!("interfaces: [{}]\n", interfaces.join(", "));
        yaml += "services:\n  - name: web\n";
        let vips: Vec<String> = self
            .config
            .vips
            .iter()
            .map(|vip| format!("\"{vip}\""))
            .collect();
        let _ = writeln!(
            yaml,
            "    vip: [{}]\n    protocol: tcp\n    port: 80\n    forwarding: {}",
            vips.join(", "),
            forwarding.word()
        );
        yaml += "    backends:\n";
        for backend in self.backends() {
            let _ = writeln!(yaml, "      - {}", backend.v4());
        }
        yaml
    }
}

/// A name for a lab that belongs to this process; several may.
fn unique_name(pid: i32) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("pid-{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Connections are open files; servers and clients inherit the limit.
fn raise_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
