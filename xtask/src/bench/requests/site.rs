//! A lab for one way, and requests by it.
//!
//! Each way has a lab of its own, and all labs are alike but for what the director runs. Those that wait for
//! their turn cost nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::peers::Balancer;
use super::pinning::pin_host;
use super::proof::Counts;
use super::report::Round;
use super::{BACKENDS, Kind, PORT, VIPS, Way, cost};
use crate::lab::wrk::{Counted, Order, Wrk};
use crate::lab::{Farm, HttpServer, Lab, LabConfig, wait_for};

/// Until requests are answered.
const PATIENCE: Duration = Duration::from_secs(20);
const PATH: &str = "/page";

/// A way, ready to be taken. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Site {
    way: Way,
    /// Where requests go: as many places as there are backends.
    targets: Vec<SocketAddr>,
    processors: Vec<usize>,
    balancer: Balancer,
    servers: Vec<HttpServer>,
    lab: Lab,
}

impl Site {
    /// Sets it up, and waits until requests are answered.
    pub(super) fn new(way: Way, program: &Path, processors: &[usize]) -> Result<Self> {
        let mut lab = Lab::new(LabConfig {
            backends: BACKENDS,
            vips: VIPS.to_vec(),
            farm: Farm::Cabled,
            ..LabConfig::default()
        })?;
        if way != Way::XdpLbNative {
            lab.unprepare_cables();
        }
        let mut servers = Vec::new();
        for (backend, processor) in lab.backends().zip(processors.iter().cycle()) {
            pin_host(backend, &[*processor])?;
            servers.push(lab.start_http(backend)?);
        }
        // A new connection takes a new port, for which a second suffices to be new again.
        for host in [lab.host("client"), lab.host("director")] {
            host.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            host.sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
        }
        let balancer = Balancer::start(way, &lab, program, processors)?;
        let addresses: Vec<IpAddr> = match way {
            Way::Straight | Way::Routed => lab.backends().map(|it| it.v4().into()).collect(),
            _ => VIPS.map(IpAddr::from).to_vec(),
        };
        let mut site = Self {
            way,
            targets: addresses.iter().map(|it| (*it, PORT).into()).collect(),
            processors: processors.to_vec(),
            balancer,
            servers,
            lab,
        };
        site.wait_until_answered()?;
        site.check_mode()?;
        Ok(site)
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// One round. Fails if a single request does, or if any goes another way.
    pub(super) fn measure(
        &mut self,
        kind: Kind,
        connections: usize,
        time: Duration,
    ) -> Result<Round> {
        let before = Counts::read(&self.lab, &self.balancer)?;
        let (begin, spent_before) = (Instant::now(), self.spent()?);
        let idle_before = cost::idle(&self.processors)?;
        let share = connections / self.processors.len() / self.targets.len();
        let running = self.start_clients(kind, share, time)?;
        let at_once = u64::try_from(share * running.len())?;
        let mut sum = Counted::default();
        for wrk in running {
            let counted = wrk.finish()?;
            sum.requests += counted.requests;
            sum.per_second += counted.per_second;
            sum.errors += counted.errors;
        }
        let (time, spent) = (begin.elapsed(), self.spent()?.saturating_sub(spent_before));
        let idle = cost::idle(&self.processors)?.saturating_sub(idle_before);
        let requests = sum.requests;
        ensure!(
            sum.errors == 0,
            "{} of {requests} requests failed",
            sum.errors
        );
        let counts = Counts::read(&self.lab, &self.balancer)?.since(&before);
        counts.check(self.way, kind, requests, at_once)?;
        self.check_alive()?;
        #[expect(clippy::cast_precision_loss, reason = "few of either")]
        let (requests, processors) = (requests as f64, self.processors.len() as f64);
        Ok(Round {
            per_second: sum.per_second,
            micros: spent.as_secs_f64() * 1e6 / requests,
            busy: spent.as_secs_f64() / time.as_secs_f64() / processors,
            idle: idle.as_secs_f64() / time.as_secs_f64() / processors,
        })
    }

    /// From each processor to each target, so that connections within one processor and between two are as many by
    /// all ways.
    fn start_clients(&self, kind: Kind, connections: usize, time: Duration) -> Result<Vec<Wrk>> {
        let client = self.lab.host("client");
        let mut running = Vec::new();
        for &processor in &self.processors {
            pin_host(client, &[processor])?;
            for &to in &self.targets {
                let order = Order {
                    to,
                    path: PATH,
                    connections,
                    keep_alive: kind == Kind::Kept,
                    time,
                };
                running.push(Wrk::start(client, &order)?);
            }
        }
        Ok(running)
    }

    /// Processor time spent so far on requests by this way, but for that of clients that still run.
    fn spent(&self) -> Result<Duration> {
        let servers = self.servers.iter().map(HttpServer::pid);
        cost::spent(servers.chain(self.balancer.processes()))
    }

    /// Waits until all targets answer, and all backends have done so.
    fn wait_until_answered(&mut self) -> Result<()> {
        let client = self.lab.client();
        let mut backends = BTreeSet::new();
        let answered = wait_for("all backends to answer", PATIENCE, || {
            self.check_alive()?;
            // The first requests may come before the balancer listens, or knows its backends.
            let answers: Vec<_> = self
                .targets
                .iter()
                .filter_map(|target| client.get(*target, PATH).ok())
                .filter(|answer| answer.status == 200)
                .collect();
            let all = answers.len() == self.targets.len();
            backends.extend(answers.into_iter().filter_map(|it| it.backend));
            Ok((all && backends.len() == BACKENDS).then_some(()))
        });
        answered.with_context(|| self.logs())
    }

    /// Fails unless our program is where the driver is.
    fn check_mode(&self) -> Result<()> {
        let Balancer::XdpLb(director) = &self.balancer else {
            return Ok(());
        };
        let status: serde_json::Value =
            serde_json::from_str(&director.check(&["status", "--json"])?)?;
        let interfaces = status["interfaces"].as_array().context("no interfaces")?;
        ensure!(!interfaces.is_empty(), "the program is attached to nothing");
        let wanted = self.way.mode().unwrap_or_default();
        for interface in interfaces {
            let (name, mode) = (&interface["name"], &interface["mode"]);
            ensure!(
                mode == wanted,
                "the program is attached to {name} in mode {mode}, not {wanted}"
            );
        }
        Ok(())
    }

    /// Fails if a proxy has ended: another one would have done its work.
    fn check_alive(&mut self) -> Result<()> {
        let Balancer::Proxies(processes) = &mut self.balancer else {
            return Ok(());
        };
        for process in processes {
            let exited = process.exited()?;
            ensure!(exited.is_none(), "it has ended; {}", process.log_tail());
        }
        Ok(())
    }

    fn logs(&self) -> String {
        match &self.balancer {
            Balancer::Proxies(all) => all.iter().map(|it| it.log_tail() + "\n").collect(),
            Balancer::XdpLb(director) => director.log().unwrap_or_default(),
            Balancer::Kernel | Balancer::Nftables => "no answer".to_owned(),
        }
    }
}
