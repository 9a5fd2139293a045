//! What the director tells about itself: the shapes of the API's answers, which the command line
//! reads back.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Packets and bytes of whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficView {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The config file that is in force.
    pub config: String,
    /// Where maps and links are pinned.
    pub pin_directory: String,
    /// `new` or `adopted`: whether the maps were there when it started.
    pub maps: String,
    /// ABI version of the maps.
    pub abi_version: u32,
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceView>,
    /// Number of services.
    pub services: usize,
    /// Number of backends, of all services.
    pub backends: usize,
    /// Number of backends that get new connections.
    pub active_backends: usize,
    /// Number of backends that differ from the config file.
    pub runtime_changes: usize,
    /// How much fits.
    pub limits: LimitsView,
}

/// An interface with the program attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: String,
    /// Why it is generic where native was tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// How many entries the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsView {
    /// Services.
    pub services: u32,
    /// Backends.
    pub backends: u32,
    /// Slots of all tables, with room to rebuild.
    pub slots: u32,
    /// Remembered flows.
    pub flows: u32,
}

/// One row of `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its VIPs, addresses and prefixes.
    pub vips: Vec<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Its ports; 0: every port.
    pub ports: Vec<u16>,
    /// `maglev`, `ring` or `modulo`.
    pub scheduler: String,
    /// `l2`.
    pub forwarding: String,
    /// `flow` or `source`.
    pub affinity: String,
    /// `full` or `off`.
    pub connection_tracking: String,
    /// Slots of its lookup table, as configured.
    pub table_size: u32,
    /// Slots that remember the backend they moved from.
    pub moving_slots: u32,
    /// Number of backends.
    pub backends: usize,
    /// Number of backends that get new connections.
    pub active_backends: usize,
    /// What was forwarded.
    pub forwarded: TrafficView,
}

/// One row of `GET /v1/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// Name of the service.
    pub service: String,
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u32,
    /// `active`, `draining` or `unreachable`.
    pub state: String,
    /// Why it is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Slots that send new connections to it.
    pub slots: u32,
    /// Its part of the table, 0 to 1.
    pub share: f64,
    /// MAC address of its next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// `config`, `changed` (at run time) or `runtime` (added at run time).
    pub origin: String,
    /// What was forwarded.
    pub forwarded: TrafficView,
}

/// `GET /v1/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsView {
    /// Every counter of the program.
    pub counters: Vec<CounterView>,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterView {
    /// Its name.
    pub name: String,
    /// `forward`, `pass`, `drop` or `event`.
    pub kind: String,
    /// What it counts.
    pub text: String,
    /// Packets, or events.
    pub packets: u64,
    /// Bytes; 0 for events.
    pub bytes: u64,
}

/// The answer to a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The services whose tables changed.
    pub services: BTreeMap<String, MovedView>,
    /// What the operator should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How much of a table moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedView {
    /// Slots that got another backend.
    pub slots_moved: u32,
    /// Slots of the table.
    pub table_size: u32,
}

/// The answer to what was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// The thing, the reason and the way out.
    pub error: String,
}
