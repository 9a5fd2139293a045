//! The section `vrrp`: which addresses this director shares with others, and who has them.

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

use super::duration;
use crate::vrrp::{
    VirtualAddress,
    packet::{Checksum, Interval},
};

pub(super) mod read;
pub(super) mod validate;

/// The priority of an entry for which none is written (RFC 9568, section 5.2.4).
pub const DEFAULT_PRIORITY: u8 = 100;

/// An entry: a virtual router for each address family of its VIPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VirtualRouter {
    /// 1 to 64 letters, digits, `.`, `_` and `-`; no other entry has it.
    pub name: String,
    /// Where advertisements are exchanged, and the VIPs are.
    pub interface: String,
    /// Virtual router identifier: 1..=255; no other entry has it on this interface.
    pub vrid: u8,
    /// 1..=255; 255: the addresses are this director's own.
    pub priority: u8,
    /// How often the active router advertises: 10 ms to 40.95 s.
    #[serde(serialize_with = "interval")]
    pub advert_interval: Interval,
    /// Whether it takes over from an active router of a lower priority.
    pub preempt: bool,
    /// How long after its start it does so at the earliest.
    #[serde(serialize_with = "duration::serialize")]
    pub preempt_delay: Duration,
    /// At least one, each once; at most 255 of a family.
    pub vips: Vec<VirtualAddress>,
    /// The other routers, where multicast cannot reach them; empty: multicast.
    pub peers: Vec<IpAddr>,
    /// Whose advertisements are heard; empty: everybody's on the link, or the peers'.
    pub allow_from: Vec<IpAddr>,
    /// Where advertisements come from, at most one address of each family; a family that has none
    /// here takes the interface's own.
    pub source: Vec<IpAddr>,
    /// What the checksum of IPv4 advertisements covers; either is taken from others.
    pub checksum: Checksum,
    /// Whether the VIPs have a MAC address of their own (RFC 9568, section 7.3).
    pub virtual_mac: bool,
    /// Entries of one group fail over together.
    pub group: Option<String>,
    /// What lowers the priority.
    pub track: Track,
    /// A program that is started after each change of state, with its arguments.
    pub notify: Option<Vec<String>>,
}

/// What lowers the priority of a virtual router, each by its weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Track {
    /// Interfaces that are to be up.
    pub interfaces: Vec<TrackedInterface>,
    /// The share of backends that are to be healthy.
    pub health: Option<TrackedHealth>,
    /// Hosts that are to answer pings.
    pub gateways: Vec<TrackedGateway>,
}

/// An interface that is to be up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrackedInterface {
    /// Its name.
    pub name: String,
    /// What it counts while it is down: 1..=254.
    pub weight: u8,
}

/// A share of backends that are to be healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrackedHealth {
    /// Whose backends, by name; empty: all services'.
    pub services: Vec<String>,
    /// The share, in percent.
    pub below: u8,
    /// How long the share has to be below, or no longer below, before that counts.
    #[serde(serialize_with = "duration::serialize")]
    pub delay: Duration,
    /// What it counts: 1..=254.
    pub weight: u8,
}

/// A host that is to answer pings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TrackedGateway {
    /// Its address.
    pub address: IpAddr,
    /// What it counts while it does not answer: 1..=254.
    pub weight: u8,
    /// How often it is asked.
    #[serde(serialize_with = "duration::serialize")]
    pub interval: Duration,
    /// How long an answer is waited for.
    #[serde(serialize_with = "duration::serialize")]
    pub timeout: Duration,
    /// So many answers in a row, and it is there.
    pub rise: u32,
    /// So many unanswered pings in a row, and it is not.
    pub fall: u32,
}

fn interval<S: serde::Serializer>(interval: &Interval, serializer: S) -> Result<S::Ok, S::Error> {
    duration::serialize(&interval.duration(), serializer)
}
