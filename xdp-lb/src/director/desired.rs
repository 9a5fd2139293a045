//! What the data plane should be: (config + runtime changes) × next hops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use serde::Serialize;
use xdp_lb_common::{abi::ServiceEntry, hash::Affinity};

use super::{
    keys::{Key, keys},
    overrides::Overrides,
    ways::{Way, Ways},
};
use crate::{
    config::{Config, ConnectionTracking, Protocol, Service},
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
}

/// One backend, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DesiredBackend {
    /// As configured or set at run time.
    pub(super) weight: u32,
    pub(super) draining: bool,
    pub(super) origin: Origin,
    /// Where its frames go, or why it cannot be reached.
    pub(super) way: Result<Way, String>,
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
            .filter(|(_, backend)| backend.way.is_ok() && !backend.draining && backend.weight > 0)
            .map(|(&address, backend)| Candidate {
                address,
                weight: backend.weight,
            })
            .collect()
    }
}

/// The services that `config` and `overrides` ask for, with what is known of the ways there.
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
                origin: effective.origin,
                way: ways.to(address, service.forwarding, &config.tunnel),
            };
            (address, backend)
        })
        .collect();
    DesiredService {
        name: service.name.clone(),
        keys: keys(service),
        flags: flags(service),
        idle_timeout: match service.protocol {
            Protocol::Tcp => service.idle_timeout.tcp,
            Protocol::Udp => service.idle_timeout.udp,
        },
        scheduler: service.scheduler,
        table_size: service.table_size,
        backends,
    }
}

fn flags(service: &Service) -> u32 {
    let mut flags = 0;
    if service.connection_tracking == ConnectionTracking::Full {
        flags |= ServiceEntry::FLAG_TRACK;
    }
    if service.affinity == Affinity::Source {
        flags |= ServiceEntry::FLAG_SOURCE_AFFINITY;
    }
    flags
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
