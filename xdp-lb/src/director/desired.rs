//! What the data plane should be: (config + runtime changes) × next hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use serde::Serialize;
use xdp_lb_common::{abi::ServiceEntry, hash::Affinity};

use super::{
    keys::{Key, keys},
    overrides::Overrides,
    selection::Standing,
    ways::{Way, Ways},
};
use crate::{
    config::{Config, ConnectionTracking, Protocol, Service, WhenDown},
    lookup::{Candidate, Scheduler},
};

/// One service, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DesiredService {
    pub(super) name: String,
    pub(super) keys: BTreeSet<Key>,
    pub(super) flags: u32,
    pub(super) idle_timeout: Duration,
    pub(super) scheduler: Scheduler,
    pub(super) table_size: u32,
    pub(super) backends: BTreeMap<IpAddr, DesiredBackend>,
    /// True where too many backends are down, so that those that are down are used as well.
    pub(super) is_panicking: bool,
    /// The backends that the connections of a fresh service may be at: see [`fresh`](super::fresh). None once
    /// they are all known.
    pub(super) assumed: Option<Vec<Candidate>>,
}

/// One backend, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DesiredBackend {
    /// As configured or set at run time.
    pub(super) weight: u32,
    pub(super) draining: bool,
    pub(super) tier: u8,
    pub(super) origin: Origin,
    /// Where its frames go, or why it cannot be reached.
    pub(super) way: Result<Way, String>,
    /// What health checks say.
    pub(super) health: Health,
    /// Whether it gets slots, or why not.
    pub(super) standing: Standing,
    /// The weight that counts: `weight`, or a part of it while it grows.
    pub(super) weight_in_force: u32,
}

/// What health checks say of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nobody asks.
    Unchecked,
    /// It can serve; since then, where it came up under this daemon.
    Up { since: Option<Instant> },
    /// Not decided yet: it gets no new connections, and keeps those that it has.
    Undecided {
        /// The last result, or that there is none.
        reason: String,
        /// Whether the last result was a failure.
        has_failed: bool,
    },
    /// It cannot, for this reason.
    Down {
        reason: String,
        /// What becomes of its connections.
        then: WhenDown,
    },
}

impl Health {
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Unchecked | Self::Up { .. })
    }
}

/// Where a backend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Origin {
    /// The config file.
    Config,
    /// The config file, and changed at run time.
    Changed,
    /// Added at run time.
    Runtime,
}

impl DesiredService {
    /// The backends that get slots.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        self.backends
            .iter()
            .filter(|(_, backend)| backend.standing.is_in_use())
            .map(|(&address, backend)| Candidate {
                address,
                weight: backend.weight_in_force,
            })
            .collect()
    }
}

impl DesiredBackend {
    /// True if nothing but its health may keep it from being used.
    pub(super) fn is_wanted(&self) -> bool {
        !self.draining && self.weight > 0
    }

    /// The way that packets to it take; None where none are to be sent.
    pub(super) fn served_way(&self) -> Option<&Way> {
        let is_left = matches!(
            self.health,
            Health::Down {
                then: WhenDown::Move,
                ..
            }
        ) && !self.standing.is_in_use();
        self.way.as_ref().ok().filter(|_| !is_left)
    }
}

/// The services that `config` and `overrides` ask for, with what is known of the ways there. What
/// depends on the backends' health is still open.
pub(super) fn desired(
    config: &Config,
    overrides: &Overrides,
    ways: Ways<'_>,
) -> Vec<DesiredService> {
    config
        .services
        .iter()
        .map(|service| desired_service(config, service, overrides, ways))
        .collect()
}

/// The addresses whose next hops are needed.
pub(super) fn addresses(config: &Config, overrides: &Overrides) -> BTreeSet<IpAddr> {
    config
        .services
        .iter()
        .flat_map(|service| overrides.effective(service))
        .map(|(address, _)| address)
        .collect()
}

fn desired_service(
    config: &Config,
    service: &Service,
    overrides: &Overrides,
    ways: Ways<'_>,
) -> DesiredService {
    let backends = overrides
        .effective(service)
        .map(|(address, effective)| {
            let backend = DesiredBackend {
                weight: effective.weight,
                draining: effective.draining,
                tier: effective.tier,
                origin: effective.origin,
                way: ways.to(address, service.forwarding, &config.tunnel),
                health: Health::Unchecked,
                standing: Standing::Down,
                weight_in_force: effective.weight,
            };
            (address, backend)
        })
        .collect();
    DesiredService {
        name: service.name.clone(),
        keys: keys(service),
        flags: flags(service.connection_tracking, service.affinity),
        idle_timeout: match service.protocol {
            Protocol::Tcp => service.idle_timeout.tcp,
            Protocol::Udp => service.idle_timeout.udp,
        },
        scheduler: service.scheduler,
        table_size: service.table_size,
        backends,
        is_panicking: false,
        assumed: None,
    }
}

/// The flags of a service's entry.
pub(super) fn flags(tracking: ConnectionTracking, affinity: Affinity) -> u32 {
    let tracking = match tracking {
        ConnectionTracking::Adaptive => ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_ADAPTIVE,
        ConnectionTracking::Full => ServiceEntry::FLAG_TRACK,
        ConnectionTracking::Off => 0,
    };
    let affinity = match affinity {
        Affinity::Source => ServiceEntry::FLAG_SOURCE_AFFINITY,
        Affinity::Flow => 0,
    };
    tracking | affinity
}

/// An address as the maps hold it.
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The opposite of [`mapped`].
pub(super) fn unmapped(bytes: [u8; 16]) -> IpAddr {
    std::net::Ipv6Addr::from(bytes).to_canonical()
}
