//! Asking a backend once: a file for each protocol.
//!
//! Nothing that a backend does may keep a check from ending in time, or grow the daemon's memory: each
//! has one deadline for everything, and a limit for whatever it reads.

mod command;
mod dns;
mod grpc;
mod http;
mod icmp;
mod socket;
mod tcp;
mod tls;
mod udp;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Cause, Kind};
use crate::config::{HealthCheck, Probe, format_duration};

/// Whom to ask, and by which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where sockets are connected to: the backend's own address, and the port that is asked.
    pub address: SocketAddr,
    /// The VIP that steered packets go to; None: they go to `address` as they are.
    pub vip: Option<IpAddr>,
    /// The mark of packets to be steered.
    pub mark: Option<u32>,
    /// The source address to take; None: the one that the kernel's route prefers.
    pub source: Option<IpAddr>,
    /// The largest IP packet that the way takes, in bytes, without outer headers; None: not known.
    pub mtu: Option<u16>,
}

impl Target {
    /// The address that the check is about: the VIP, else the backend's own.
    #[must_use]
    pub fn asked(&self) -> IpAddr {
        self.vip.unwrap_or(self.address.ip())
    }
}

/// What is being done, so that a check that ran out of time can say at what.
#[derive(Debug, Default)]
pub struct Stage(Mutex<&'static str>);

impl Stage {
    /// From now on it is this: "connecting".
    pub fn set(&self, stage: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn get(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks once, for no longer than the check's timeout. Returns the result, and how long it took.
///
/// Few programs run at once: the time of one that waits for others begins when it may run, and it waits for
/// as long as its timeout at most.
pub async fn run_in_time(check: &HealthCheck, target: &Target) -> (Result<(), Cause>, Duration) {
    let stage = Stage::default();
    let limit = check.pace.timeout;
    let _room = match &check.probe {
        Probe::Command(_) => match command::room(limit).await {
            Ok(room) => Some(room),
            Err(cause) => return (Err(cause), limit),
        },
        _ => None,
    };
    let begun = Instant::now();
    let result = match tokio::time::timeout(limit, run(check, target, &stage)).await {
        Ok(result) => result,
        Err(_) => Err(too_late(limit, stage.get())),
    };
    (result, begun.elapsed())
}

/// "timeout after 1s while connecting".
fn too_late(limit: Duration, stage: &str) -> Cause {
    let limit = format_duration(limit);
    let text = match stage {
        "" => format!("timeout after {limit}"),
        stage => format!("timeout after {limit} while {stage}"),
    };
    Cause::new(Kind::Timeout, text)
}

/// Asks once. The caller bounds the time, and the number of programs.
async fn run(check: &HealthCheck, target: &Target, stage: &Stage) -> Result<(), Cause> {
    match &check.probe {
        Probe::Tcp => tcp::ask(target, stage).await,
        Probe::Tls(settings) => {
            let stream = tcp::connect(target, stage).await?;
            let shaken = tls::handshake(stream, settings, None, &[], target, stage).await;
            shaken.map(drop)
        }
        Probe::Http(settings) => http::ask(check, settings, target, stage).await,
        Probe::Udp(udp) => udp::ask(udp, target, stage).await,
        Probe::Dns(dns) => dns::ask(dns, target, stage).await,
        Probe::Grpc(grpc) => grpc::ask(check, grpc, target, stage).await,
        Probe::Icmp => icmp::ask(check, target, stage).await,
        Probe::Command(command) => command::run(check, command, target).await,
    }
}
