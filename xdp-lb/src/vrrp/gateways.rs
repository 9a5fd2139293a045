//! Whether gateways answer: health checks like those of backends.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    config::{HealthCheck, Judgement, Pace, Probe, Start, TrackedGateway, Via, WhenDown},
    health::{Checks, Circumstances, Key, Wanted, probe::Target},
};

/// Pings that wait for an answer at once at most.
const AT_ONCE: u32 = 64;

/// Pings gateways. Those that have not been asked yet are taken to answer: a director that starts is not to
/// give way for that.
#[derive(Default)]
pub(super) struct Gateways {
    /// None as long as there is no gateway.
    checks: Option<Checks>,
    known: HashMap<TrackedGateway, Key>,
}

impl Gateways {
    /// Pings these from now on, and no others.
    ///
    /// # Errors
    ///
    /// If the kernel refuses what that takes.
    pub(super) fn want<'a>(
        &mut self,
        gateways: impl Iterator<Item = &'a TrackedGateway>,
    ) -> io::Result<()> {
        let wanted: HashSet<TrackedGateway> = gateways.cloned().collect();
        if self.checks.is_none() && !wanted.is_empty() {
            self.checks = Some(Checks::new(AT_ONCE)?);
        }
        // Keys are told apart by their place in memory: those that go on stay the same.
        self.known.retain(|gateway, _| wanted.contains(gateway));
        for gateway in wanted {
            let key = key(&gateway);
            self.known.entry(gateway).or_insert(key);
        }
        if let Some(checks) = &mut self.checks {
            let wanted = self.known.iter().map(|(gateway, key)| Wanted {
                key: key.clone(),
                circumstances: circumstances(gateway),
                is_in_use: false,
            });
            checks.want(wanted.collect());
        }
        Ok(())
    }

    /// Whether one answers.
    pub(super) fn answers(&self, gateway: &TrackedGateway) -> bool {
        let key = self.known.get(gateway);
        let check = key.and_then(|key| self.checks.as_ref()?.get(key));
        check.is_none_or(|check| check.is_up())
    }

    /// Waits until one has begun to answer, or stopped.
    pub(super) async fn changed(&mut self) {
        match &mut self.checks {
            Some(checks) => checks.changed().await,
            None => std::future::pending().await,
        }
    }
}

fn key(gateway: &TrackedGateway) -> Key {
    Key {
        check: Arc::new(HealthCheck {
            probe: Probe::Icmp,
            port: 0,
            via: Via::Backend,
            vips: [None; 2],
            full_size: false,
            pace: Pace {
                interval: gateway.interval,
                fast_interval: gateway.interval,
                timeout: gateway.timeout,
                jitter: 0,
            },
            judgement: Judgement {
                rise: gateway.rise,
                fall: gateway.fall,
                start: Start::Up,
                damping: None,
            },
            when_down: WhenDown::Keep,
        }),
        backend: gateway.address,
        forwarding: None,
    }
}

fn circumstances(gateway: &TrackedGateway) -> Circumstances {
    Circumstances {
        services: vec!["vrrp".into()],
        is_reachable: true,
        target: Ok(Target {
            address: SocketAddr::new(gateway.address, 0),
            vip: None,
            mark: None,
            source: None,
            mtu: None,
        }),
    }
}
