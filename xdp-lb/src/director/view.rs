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
    /// The interfaces of the config without the program, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing_interfaces: BTreeMap<String, String>,
    /// Whether each backend has been found able to serve or not since the start, or was given up.
    #[serde(default)]
    pub ready: bool,
    /// What it waits for, if it is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Number of services.
    pub services: usize,
    /// Number of backends, of all services.
    pub backends: usize,
    /// Number of backends that get new connections.
    pub active_backends: usize,
    /// Number of backends that differ from the config file.
    pub runtime_changes: usize,
    /// The fingerprint of all lookup tables: directors on which it is the same send every new
    /// connection to the same backend.
    pub fingerprint: String,
    /// The fingerprint of each service's table.
    pub fingerprints: BTreeMap<String, String>,
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
    /// `adaptive`, `full` or `off`.
    pub connection_tracking: String,
    /// Slots of its lookup table, as configured.
    pub table_size: u32,
    /// Slots that remember the backend they moved from.
    pub moving_slots: u32,
    /// Slots that moved some time ago, and whose remembered flows may be elsewhere.
    #[serde(default)]
    pub mixed_slots: u32,
    /// True where every slot is settled and the table is read in its short form.
    #[serde(default)]
    pub at_rest: bool,
    /// The table's fingerprint: 16 hexadecimal digits.
    pub fingerprint: String,
    /// Number of backends.
    pub backends: usize,
    /// Number of backends that get new connections.
    pub active_backends: usize,
    /// True where too many backends are down, so that those that are down are used as well.
    pub panic: bool,
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
    /// The weight that counts now: less than `weight` while it grows after the backend came up.
    pub weight_in_force: u32,
    /// Its tier.
    pub tier: u8,
    /// `active`, `draining`, `down` (by its health check), `standby` (its tier is not needed) or
    /// `unreachable`.
    pub state: String,
    /// Why it is unreachable or down.
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

/// One row of `GET /v1/health`: what a check tells about a backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub backend: IpAddr,
    /// What is asked: "http GET /healthz, port 80, via vip 192.0.2.10". Backends of several services
    /// with one check are asked once.
    pub check: String,
    /// `up`, `down`, `held` (down, for it went down too often) or `unchecked` (down, since no check has
    /// ended yet).
    pub state: String,
    /// Seconds since it has been so; absent where it was so before the daemon began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<u64>,
    /// Seconds for which it will be held down yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_seconds: Option<u64>,
    /// The last result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ResultView>,
    /// Why the last check failed that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
    /// Checks that succeeded.
    pub passed: u64,
    /// Checks that failed, by the kind of cause.
    pub failed: BTreeMap<String, u64>,
    /// The last changes between up and down, the newest last.
    pub history: Vec<EventView>,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultView {
    /// True if it succeeded.
    pub passed: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long it took, in microseconds.
    pub took_microseconds: u64,
    /// How many milliseconds ago it ended.
    pub ago_milliseconds: u64,
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// When: seconds since 1970.
    pub at: u64,
    /// Why.
    pub cause: String,
}

/// A change between up and down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// When: seconds since 1970.
    pub at: u64,
    /// `up` or `down`.
    pub to: String,
    /// Why it went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// One row of the answer to `POST /v1/health/check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedView {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub backend: IpAddr,
    /// What was asked.
    pub check: String,
    /// What came of it.
    pub result: ResultView,
    /// The state that follows: `up`, `down` or `held`.
    pub state: String,
}

/// `GET /v1/flows`: flows that are remembered and live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsView {
    /// The first of them by service, backend and silence.
    pub flows: Vec<FlowView>,
    /// How many there are in all.
    pub total: u64,
    /// Silence is known to one period, of so many milliseconds.
    pub period_milliseconds: u64,
    /// Where the flow goes that was asked for, if it was one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whereabouts: Option<WhereaboutsView>,
    /// What the operator should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A flow that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub backend: IpAddr,
    /// `open`, `opening` (nothing but a SYN has passed) or `closing` (a FIN or RST has passed).
    pub state: String,
    /// How long ago its last packet passed, to one period.
    pub silent_milliseconds: u64,
    /// Bucket and fingerprint, in hexadecimal digits. The table has nothing else of the flow's 5-tuple.
    pub id: String,
}

/// Where the packets of a flow go, if no entry says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhereaboutsView {
    /// The flow.
    pub flow: String,
    /// Name of its service.
    pub service: String,
    /// `adaptive`, `full` or `off`.
    pub connection_tracking: String,
    /// Its slot; absent where the service has no table, since no backend can serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotView>,
}

/// A slot of a lookup table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Which one of the table.
    pub number: u32,
    /// `settled`, `moving` or `mixed`.
    pub state: String,
    /// The backend that it leads to; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<IpAddr>,
    /// While it is moving: the backend that connections go to which are not new and not remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<IpAddr>,
}

/// `GET /v1/flows/count`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCountView {
    /// By service and backend.
    pub backends: Vec<FlowSumView>,
    /// All of them.
    pub total: u64,
    /// What the operator should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How many flows a backend has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSumView {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub backend: IpAddr,
    /// Flows that are open.
    pub open: u64,
    /// Of which nothing but a SYN has passed.
    pub opening: u64,
    /// Of which a FIN or RST has passed.
    pub closing: u64,
    /// All of them.
    pub total: u64,
}

/// The answer to `POST /v1/flows/flush`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenView {
    /// How many flows were forgotten that lived.
    pub forgotten: u64,
}
