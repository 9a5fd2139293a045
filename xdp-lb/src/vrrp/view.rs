//! The shape of what is told of virtual routers: the same for the command line, the API and metrics.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A virtual router: one for each address family of an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VrrpView {
    /// The entry's name.
    pub name: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Where it advertises.
    pub interface: String,
    /// Virtual router identifier.
    pub vrid: u8,
    /// With which others it fails over.
    pub group: Option<String>,
    /// `initialize`, `backup` or `active`.
    pub state: String,
    /// Why it takes no part, if it does not.
    pub reason: Option<String>,
    /// How long it has been in this state, in seconds.
    pub since_seconds: u64,
    /// As configured.
    pub priority: u8,
    /// As advertised.
    pub effective_priority: u8,
    /// What makes the difference.
    pub lowered_by: Vec<LoweredView>,
    /// By how much it was demoted by hand; 0: it was not.
    pub demoted_by: u8,
    /// Whether it was paused by hand.
    pub paused: bool,
    /// How often it advertises while it is active, in milliseconds.
    pub advert_interval_milliseconds: u64,
    /// Who is active, as far as it knows: its own address if it is itself.
    pub active_router: Option<IpAddr>,
    /// The MAC address of the VIPs, if they have one of their own.
    pub virtual_mac: Option<String>,
    /// The addresses.
    pub vips: Vec<VipView>,
    /// Changes of state since it was set up.
    pub transitions: u64,
    /// Packets, by what became of them.
    pub counters: Vec<VrrpCounterView>,
}

/// Something that lowers a priority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoweredView {
    /// What is wrong.
    pub what: String,
    /// By how much.
    pub weight: u8,
}

/// An address of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// With the length of its prefix.
    pub address: String,
    /// Whether it is on this host's interface.
    pub held: bool,
    /// Why it could not be brought there, or taken away.
    pub error: Option<String>,
}

/// A counter of packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpCounterView {
    /// The word for it.
    pub name: String,
    /// What it counts.
    pub text: String,
    /// How many.
    pub packets: u64,
}
