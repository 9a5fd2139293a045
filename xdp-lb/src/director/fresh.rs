//! What a director waits for before it is ready, and what it assumes meanwhile. No I/O, and the time is passed in.
//!
//! A service is *fresh* when this director has no table for it yet: the director has just booted, or a new
//! config has it. Other directors may have had it for long, and its connections are at backends that this one
//! has not heard of. What is not known is not history: until each backend is known, or given up, the service's
//! slots inherit from the table that it would have if those that are still unknown could serve. A backend that
//! is found unable to serve is taken out of that table, since others have found the same.
//!
//! A director that has begun with fresh services is *ready* once each of their backends has a next hop or
//! does not answer, and each check is decided; at the latest after `ready_timeout`. Until then it takes no
//! part in VRRP.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    desired::{DesiredBackend, DesiredService, Health},
    selection::{self, Facts},
};
use crate::{
    config::Service,
    lookup::Candidate,
    netlink::{HopState, NextHops},
};

/// The fresh services, and whether the director is ready.
#[derive(Debug)]
pub(super) struct Freshness {
    services: BTreeMap<String, Fresh>,
    timeout: Duration,
    /// Services that were fresh at the start and that it still waits for.
    awaited: BTreeSet<String>,
    is_ready: bool,
}

/// A service without a past here.
#[derive(Debug)]
struct Fresh {
    since: Instant,
    /// The backends that it has had from the beginning, and that were to be used.
    backends: BTreeSet<IpAddr>,
}

/// What the director waits for, of one backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// Its MAC address.
    NextHop { backend: IpAddr },
    /// A decision of its health check.
    Check { service: String, backend: IpAddr },
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NextHop { backend } => write!(f, "the next hop to {backend}"),
            Self::Check { service, backend } => {
                write!(f, "the health check of {backend} for service `{service}`")
            }
        }
    }
}

impl Freshness {
    /// Nothing is known to be fresh yet.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            services: BTreeMap::new(),
            timeout,
            awaited: BTreeSet::new(),
            is_ready: false,
        }
    }

    /// How long the director waits at the most, from now on.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Whether it has been ready.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Notes the services that have no table yet.
    pub(super) fn observe(
        &mut self,
        desired: &[DesiredService],
        is_known: impl Fn(&DesiredService) -> bool,
        now: Instant,
    ) {
        self.services
            .retain(|name, _| desired.iter().any(|service| service.name == *name));
        for service in desired.iter().filter(|service| !is_known(service)) {
            let backends = service.backends.iter();
            let wanted = backends.filter(|(_, backend)| backend.is_wanted());
            let fresh = Fresh {
                since: now,
                backends: wanted.map(|(&address, _)| address).collect(),
            };
            if !self.services.contains_key(&service.name) {
                self.services.insert(service.name.clone(), fresh);
                if !self.is_ready {
                    self.awaited.insert(service.name.clone());
                }
            }
        }
    }

    /// Fills in what is assumed of fresh services.
    pub(super) fn assume(&self, desired: &mut [DesiredService], config: &[Service], now: Instant) {
        for (desired, service) in desired.iter_mut().zip(config) {
            if let Some(fresh) = self.services.get(&desired.name) {
                let is_late = fresh.is_late(self.timeout, now);
                desired.assumed = Some(fresh.assumed(desired, service, is_late));
            }
        }
    }

    /// Lets those services go that are known by now, once `desired` has been applied. Returns what the
    /// director still waits for, and whether it is ready now and was not before.
    pub(super) fn conclude(
        &mut self,
        desired: &[DesiredService],
        hops: &NextHops,
        now: Instant,
    ) -> (Vec<Awaited>, bool) {
        let mut awaited = BTreeSet::new();
        for service in desired {
            let Some(fresh) = self.services.get(&service.name) else {
                self.awaited.remove(&service.name);
                continue;
            };
            if fresh.is_late(self.timeout, now) || fresh.unknown(service).next().is_none() {
                self.services.remove(&service.name);
                self.awaited.remove(&service.name);
            } else if self.awaited.contains(&service.name) {
                awaited.extend(fresh.awaited(service, hops));
            }
        }
        let services = desired.iter().map(|service| service.name.as_str());
        let services: BTreeSet<&str> = services.collect();
        self.awaited.retain(|name| services.contains(name.as_str()));
        let is_new = !self.is_ready && awaited.is_empty();
        self.is_ready |= is_new;
        (awaited.into_iter().collect(), is_new)
    }

    /// When the waiting for a fresh service ends, whatever is still unknown then.
    pub(super) fn due(&self) -> Option<Instant> {
        let services = self.services.values();
        services.map(|fresh| fresh.since + self.timeout).min()
    }

    /// What nothing is known of though it is late.
    pub(super) fn given_up(&self, desired: &[DesiredService], now: Instant) -> BTreeSet<Awaited> {
        let mut given_up = BTreeSet::new();
        for service in desired {
            let fresh = self.services.get(&service.name);
            if let Some(fresh) = fresh.filter(|fresh| fresh.is_late(self.timeout, now)) {
                let unknown = fresh.unknown(service);
                given_up.extend(unknown.map(|(backend, it)| awaited(service, backend, it)));
            }
        }
        given_up
    }
}

impl Fresh {
    fn is_late(&self, timeout: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= timeout
    }

    /// The backends that it has had from the beginning.
    fn backends<'a>(
        &'a self,
        service: &'a DesiredService,
    ) -> impl Iterator<Item = (IpAddr, &'a DesiredBackend)> {
        let all = service.backends.iter();
        all.filter(|(address, _)| self.backends.contains(address))
            .map(|(&address, backend)| (address, backend))
    }

    /// The backends that may yet turn out to be able to serve, or not.
    fn unknown<'a>(
        &'a self,
        service: &'a DesiredService,
    ) -> impl Iterator<Item = (IpAddr, &'a DesiredBackend)> {
        self.backends(service).filter(|(_, it)| is_unknown(it))
    }

    /// What of that is worth waiting for: who does not answer ARP may do so for ever.
    fn awaited(&self, service: &DesiredService, hops: &NextHops) -> Vec<Awaited> {
        let is_given_up = |backend: &IpAddr| {
            matches!(
                hops.get(backend),
                Some(HopState::Unknown {
                    is_given_up: true,
                    ..
                })
            )
        };
        self.unknown(service)
            .filter(|(backend, it)| it.way.is_ok() || !is_given_up(backend))
            .map(|(backend, it)| awaited(service, backend, it))
            .collect()
    }

    /// The backends that the service's connections may be at: those that can serve, and those of which that is
    /// not known. One that is late (`is_late`) and cannot be reached is given up; one whose check says
    /// nothing keeps what it may have.
    fn assumed(
        &self,
        desired: &DesiredService,
        service: &Service,
        is_late: bool,
    ) -> Vec<Candidate> {
        let (addresses, facts): (Vec<_>, Vec<_>) = self
            .backends(desired)
            .map(|(address, backend)| {
                let can_be_reached = backend.way.is_ok() || !is_late;
                let facts = Facts {
                    tier: backend.tier,
                    can_be_reached,
                    // It may have been drained since.
                    is_wanted: true,
                    is_healthy: backend.health.is_up() || (can_be_reached && is_unknown(backend)),
                };
                ((address, backend.weight), facts)
            })
            .unzip();
        let selected = selection::select(&facts, &service.tier_minimums, None);
        let chosen = addresses.into_iter().zip(selected.standings);
        chosen
            .filter(|(_, standing)| standing.is_in_use())
            .map(|((address, weight), _)| Candidate { address, weight })
            .collect()
    }
}

/// Neither known to be able to serve, nor not to be. What a check says of a backend that cannot be reached
/// counts for nothing.
fn is_unknown(backend: &DesiredBackend) -> bool {
    backend.way.is_err() || matches!(backend.health, Health::Undecided { .. })
}

fn awaited(service: &DesiredService, backend: IpAddr, it: &DesiredBackend) -> Awaited {
    if it.way.is_err() {
        Awaited::NextHop { backend }
    } else {
        Awaited::Check {
            service: service.name.clone(),
            backend,
        }
    }
}

#[cfg(test)]
mod tests;
