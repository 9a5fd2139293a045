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

/// What is known of the ways to the backends.
#[derive(Clone, Copy)]
pub(super) struct Reach<'a> {
    pub(super) hops: &'a NextHops,
    /// The program is attached wherever it is to be: packets can leave by every interface.
    pub(super) is_complete: bool,
}

impl Reach<'_> {
    /// True while it is neither known that a backend can serve, nor that it cannot. What a check says of one
    /// that cannot be reached counts for nothing.
    fn leaves_open(self, address: IpAddr, backend: &DesiredBackend) -> bool {
        if backend.way.is_ok() {
            return matches!(backend.health, Health::Undecided { .. });
        }
        let is_given_up = match self.hops.get(&address) {
            None => false,
            Some(HopState::Unknown { is_given_up, .. }) => *is_given_up,
            // The way is none that packets may take.
            Some(HopState::Known(_)) => true,
        };
        !(is_given_up && self.is_complete)
    }
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
    pub(super) fn assume(
        &self,
        desired: &mut [DesiredService],
        config: &[Service],
        reach: Reach<'_>,
        now: Instant,
    ) {
        for (desired, service) in desired.iter_mut().zip(config) {
            if let Some(fresh) = self.services.get(&desired.name) {
                let is_late = fresh.is_late(self.timeout, now);
                desired.assumed = Some(fresh.assumed(desired, service, reach, is_late));
            }
        }
    }

    /// Lets those services go that are known by now, once `desired` has been applied. Returns what the
    /// director still waits for, and whether it is ready now and was not before.
    pub(super) fn conclude(
        &mut self,
        desired: &[DesiredService],
        reach: Reach<'_>,
        now: Instant,
    ) -> (Vec<Awaited>, bool) {
        let mut all = BTreeSet::new();
        for service in desired {
            let Some(fresh) = self.services.get(&service.name) else {
                self.awaited.remove(&service.name);
                continue;
            };
            let unknown = fresh.unknown(service, reach);
            let unknown: Vec<_> = unknown
                .map(|(backend, it)| awaited(service, backend, it))
                .collect();
            if fresh.is_late(self.timeout, now) || unknown.is_empty() {
                self.services.remove(&service.name);
                self.awaited.remove(&service.name);
            } else if self.awaited.contains(&service.name) {
                all.extend(unknown);
            }
        }
        let services = desired.iter().map(|service| service.name.as_str());
        let services: BTreeSet<&str> = services.collect();
        self.awaited.retain(|name| services.contains(name.as_str()));
        let is_new = !self.is_ready && all.is_empty();
        self.is_ready |= is_new;
        (all.into_iter().collect(), is_new)
    }

    /// When the waiting for a fresh service ends, whatever is still unknown then.
    pub(super) fn due(&self) -> Option<Instant> {
        let services = self.services.values();
        services.map(|fresh| fresh.since + self.timeout).min()
    }

    /// What nothing is known of though it is late.
    pub(super) fn given_up(
        &self,
        desired: &[DesiredService],
        reach: Reach<'_>,
        now: Instant,
    ) -> BTreeSet<Awaited> {
        let mut given_up = BTreeSet::new();
        for service in desired {
            let fresh = self.services.get(&service.name);
            if let Some(fresh) = fresh.filter(|fresh| fresh.is_late(self.timeout, now)) {
                let unknown = fresh.unknown(service, reach);
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
        reach: Reach<'a>,
    ) -> impl Iterator<Item = (IpAddr, &'a DesiredBackend)> {
        self.backends(service)
            .filter(move |(address, it)| reach.leaves_open(*address, it))
    }

    /// The backends that the service's connections may be at: those that can serve, and those of which that is
    /// not known. Of those of which it is not known when it is late (`is_late`), one whose check has said
    /// nothing at all keeps what it may have, and the others are given up.
    fn assumed(
        &self,
        desired: &DesiredService,
        service: &Service,
        reach: Reach<'_>,
        is_late: bool,
    ) -> Vec<Candidate> {
        let (addresses, facts): (Vec<_>, Vec<_>) = self
            .backends(desired)
            .map(|(address, backend)| {
                let is_open = reach.leaves_open(address, backend)
                    && match backend.health {
                        _ if !is_late => true,
                        Health::Undecided { has_failed, .. } => backend.way.is_ok() && !has_failed,
                        _ => false,
                    };
                let facts = Facts {
                    tier: backend.tier,
                    can_be_reached: is_open || backend.way.is_ok(),
                    // It may have been drained since.
                    is_wanted: true,
                    is_healthy: is_open || backend.health.is_up(),
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
