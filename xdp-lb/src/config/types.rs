//! The configuration as the rest of the daemon sees it: plain values, defaults filled in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use xdp_lb_common::hash::{Affinity, HashKey};

use super::Scheduler;
use super::duration;
use super::health_check::{Health, HealthCheck};
use super::tunnel::Tunnel;
use super::vip::Vip;
use super::vrrp::VirtualRouter;

/// The weight of a backend for which none is written.
pub const DEFAULT_WEIGHT: u32 = 100;

/// A whole configuration in which every rule holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Where the program is attached; at least one, each name once.
    pub interfaces: Vec<Interface>,
    /// Key of the flow hash. Not shown: who knows it can choose slots.
    #[serde(skip)]
    pub hash_key: HashKey,
    /// Sizes of the maps.
    pub limits: Limits,
    /// Where metrics are served over TCP, if they are.
    pub metrics: Option<SocketAddr>,
    /// Where tunnels to the backends begin.
    pub tunnel: Tunnel,
    /// What health checks have in common.
    pub health: Health,
    /// How long a director that begins waits for its backends, before it takes part in VRRP.
    #[serde(serialize_with = "duration::serialize")]
    pub ready_timeout: Duration,
    /// In the order of the file; may be empty.
    pub services: Vec<Service>,
    /// In the order of the file; may be empty.
    pub vrrp: Vec<VirtualRouter>,
}

/// An interface that packets for VIPs arrive at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name, as the kernel knows it.
    pub name: String,
    /// How the program is attached to it.
    pub mode: AttachMode,
    /// Which frames are taken.
    pub frames: FramesTaken,
}

words! {
    /// Which frames of an interface are taken, by the MAC address that they are to.
    FramesTaken {
        /// Those to this host.
        #[default]
        Own "own",
        /// All of them.
        Any "any",
    }
}

words! {
    /// Where in the receive path the program runs.
    AttachMode {
        /// In the driver if it can, otherwise in the generic path.
        #[default]
        Auto "auto",
        /// In the driver, or not at all.
        Native "native",
        /// In the kernel's generic path: works everywhere, and is slower.
        Generic "generic",
    }
}

words! {
    /// The transport protocol of a service.
    Protocol {
        /// TCP.
        #[default]
        Tcp "tcp",
        /// UDP.
        Udp "udp",
    }
}

words! {
    /// How a packet reaches its backend.
    Forwarding {
        /// New MAC addresses only: the backend is on a network of the director.
        #[default]
        L2 "l2",
        /// Inside an IP packet.
        Ipip "ipip",
        /// Inside a UDP packet (generic UDP encapsulation).
        Gue "gue",
    }
}

words! {
    /// Whether flows are remembered.
    ConnectionTracking {
        /// Flows are remembered where a change of the table puts them at risk.
        #[default]
        Adaptive "adaptive",
        /// Every flow keeps its backend while it is remembered.
        Full "full",
        /// Every packet goes by its slot.
        Off "off",
    }
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Sizes of the maps, which are fixed when the program is loaded, and rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Triples of VIP, protocol and port that services may have together: 1..=65535.
    pub services: u32,
    /// Backends that services may have together, each counted once a service: 1..=65534.
    pub backends: u32,
    /// Slots for all lookup tables, of four bytes each; at least three times the sum of
    /// the services' `table_size`.
    pub slots: u32,
    /// Flows that are remembered at once, rounded up to a power of two.
    pub flows: u32,
    /// Flow entries that one CPU may make in a second.
    pub new_flows_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 4096,
            backends: 65_000,
            slots: 1 << 23,
            flows: 1_000_000,
            new_flows_per_second: 100_000,
        }
    }
}

/// What is balanced: every pair of a VIP and a port, with one protocol and one set of backends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    /// 1 to 64 letters, digits, `.`, `_` and `-`; no other service has it.
    pub name: String,
    /// At least one, each once.
    pub vips: Vec<Vip>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// At least one, each once; 0 stands alone and means every port.
    pub ports: Vec<u16>,
    /// What a flow's slot is chosen by.
    #[serde(serialize_with = "serialize_affinity")]
    pub affinity: Affinity,
    /// How packets reach the backends.
    pub forwarding: Forwarding,
    /// What fills the lookup table.
    pub scheduler: Scheduler,
    /// Slots of the lookup table; prime where the scheduler is `maglev`.
    pub table_size: u32,
    /// Whether flows are remembered.
    pub connection_tracking: ConnectionTracking,
    /// How long silent flows are remembered.
    pub idle_timeout: IdleTimeout,
    /// What tells whether a backend can serve; None: nothing does, and it is taken to.
    pub health_check: Option<Arc<HealthCheck>>,
    /// In percent: when more than this share of the backends that are wanted is down, all are used;
    /// None: never.
    pub panic_threshold: Option<u8>,
    /// By tier, the last one also for all further tiers: with fewer healthy backends than this, the
    /// next tier is used too. At least one.
    pub tier_minimums: Vec<u32>,
    /// How long the weight of a backend grows that came up; zero: it does not.
    #[serde(serialize_with = "duration::serialize")]
    pub slow_start: Duration,
    /// In the order of the file, each address once; may be empty.
    pub backends: Vec<Backend>,
}

/// How long a silent flow is remembered: 1 second to 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IdleTimeout {
    /// Of a TCP flow.
    #[serde(serialize_with = "duration::serialize")]
    pub tcp: Duration,
    /// Of a UDP flow.
    #[serde(serialize_with = "duration::serialize")]
    pub udp: Duration,
}

impl Default for IdleTimeout {
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(15 * 60),
            udp: Duration::from_secs(2 * 60),
        }
    }
}

/// A real server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its share of new flows relative to the others: 0..=65535; 0: drained.
    pub weight: u32,
    /// It is used when tiers of lower numbers have too few healthy backends: 0..=255.
    pub tier: u8,
}

/// The word for an affinity in the configuration.
pub(super) const fn affinity_word(affinity: Affinity) -> &'static str {
    match affinity {
        Affinity::Flow => "flow",
        Affinity::Source => "source",
    }
}

fn serialize_affinity<S: Serializer>(
    affinity: &Affinity,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(affinity_word(*affinity))
}
