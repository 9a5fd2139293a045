//! The fields of the file, but for those of a service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use xdp_lb_common::hash::HashKey;

use super::duration;
use super::health_check::{self, Health};
use super::options::{OPTIONS, Options, TABLE_SIZES, read as options};
use super::reader::{Field, Spot};
use super::service::{self, ServiceDraft};
use super::tunnel::{self, Tunnel};
use super::types::{AttachMode, Config, FramesTaken, Interface, Limits};
use super::vrrp;

/// Slots of the smallest table, three times: less is no use.
const LEAST_SLOTS: u32 = 3 * TABLE_SIZES.0;
/// Longer than health checks with the usual intervals take to decide.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// 1 GiB of slots.
pub(super) const MOST_SLOTS: u32 = 1 << 28;
const MOST_FLOWS: u32 = 1 << 27;
const MOST_NEW_FLOWS: u32 = 100_000_000;

/// A configuration, and where its parts came from.
pub(super) struct Draft {
    interfaces: Vec<Interface>,
    hash_key: HashKey,
    pub(super) limits: Limits,
    metrics: Option<SocketAddr>,
    pub(super) tunnel: Tunnel,
    /// One for each of the tunnels' sources.
    pub(super) tunnel_sources: Vec<Spot>,
    pub(super) health: Health,
    ready_timeout: Duration,
    /// One for each of the checks' sources.
    pub(super) health_sources: Vec<Spot>,
    pub(super) services: Vec<ServiceDraft>,
    /// Where there is something to say about all services together.
    pub(super) services_spot: Spot,
    pub(super) vrrp: Vec<vrrp::read::Draft>,
}

impl Draft {
    pub(super) fn into_config(self) -> Config {
        Config {
            interfaces: self.interfaces,
            hash_key: self.hash_key,
            limits: self.limits,
            metrics: self.metrics,
            tunnel: self.tunnel,
            health: self.health,
            ready_timeout: self.ready_timeout,
            services: self
                .services
                .into_iter()
                .map(|draft| draft.service)
                .collect(),
            vrrp: self.vrrp.into_iter().map(|draft| draft.entry).collect(),
        }
    }
}

/// Reads the whole file. What is wrong with one part does not keep the others from being read.
pub(super) fn read(root: Field<'_>) -> Option<Draft> {
    if root.is_null() {
        return root.refuse("the file is empty; it needs `interfaces` at least");
    }
    if !root.is_mapping() {
        return root.refuse("expected fields such as `interfaces: [eth0]` and `services:`");
    }
    let fields = root.mapping(&[
        "interfaces",
        "hash_key",
        "limits",
        "metrics",
        "tunnel",
        "health",
        "ready_timeout",
        "defaults",
        "services",
        "vrrp",
    ])?;
    let interfaces = fields
        .require("interfaces", "[eth0]")
        .and_then(interfaces)
        .unwrap_or_default();
    let hash_key = fields.get_or("hash_key", HashKey::DEFAULT, hash_key);
    let limits = fields.get_or("limits", Limits::default(), limits);
    let metrics = fields.get("metrics").and_then(metrics);
    let (tunnel, tunnel_sources) = fields.get_or("tunnel", Default::default(), tunnel::read);
    let (health, health_sources) =
        fields.get_or("health", Default::default(), health_check::section);
    let defaults = fields.get_or("defaults", Options::default(), defaults);
    Some(Draft {
        interfaces,
        hash_key,
        limits,
        metrics,
        tunnel,
        tunnel_sources,
        health,
        health_sources,
        ready_timeout: fields.get_or("ready_timeout", READY_TIMEOUT, |field| {
            field.parse("a duration", |text| {
                duration::within(text, "how long to wait for backends", READY_TIMEOUTS)
            })
        }),
        services: fields.get_or("services", Vec::new(), |field| services(field, &defaults)),
        services_spot: fields.get("services").unwrap_or(&root).spot(),
        vrrp: fields.get_or("vrrp", Vec::new(), vrrp::read::read),
    })
}

fn interfaces(field: &Field<'_>) -> Option<Vec<Interface>> {
    let items = field.items()?;
    if items.is_empty() {
        return field.refuse("the list is empty; name the interface that packets arrive at");
    }
    let mut lines = HashMap::new();
    let mut interfaces = Vec::with_capacity(items.len());
    for item in &items {
        let Some(interface) = interface(item) else {
            continue;
        };
        if let Some(line) = lines.insert(interface.name.clone(), item.line()) {
            let name = &interface.name;
            item.refuse::<()>(format_args!(
                "interface `{name}` is already listed in line {line}; list it once"
            ));
        }
        interfaces.push(interface);
    }
    Some(interfaces)
}

/// `eth0`, or the long form `{ name: eth0, mode: auto }`.
fn interface(field: &Field<'_>) -> Option<Interface> {
    let mode = AttachMode::default();
    if !field.is_mapping() {
        let name = interface_name(field)?;
        return Some(Interface {
            name,
            mode,
            frames: FramesTaken::default(),
        });
    }
    let fields = field.mapping(&["name", "mode", "frames"])?;
    Some(Interface {
        mode: fields.get_or("mode", mode, |field| field.word(AttachMode::WORDS)),
        frames: fields.get_or("frames", FramesTaken::default(), |field| {
            field.word(FramesTaken::WORDS)
        }),
        name: interface_name(fields.require("name", "eth0")?)?,
    })
}

/// A name that the kernel allows for an interface.
pub(super) fn interface_name(field: &Field<'_>) -> Option<String> {
    field.parse("the name of an interface", |name| {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            return Err(format!(
                "`{name}` cannot be the name of an interface, which is 1 to 15 bytes without \
                 blanks, `/` and `:`; see `ip link` for the names"
            ));
        }
        Ok(name.to_owned())
    })
}

/// 32 hexadecimal digits.
fn hash_key(field: &Field<'_>) -> Option<HashKey> {
    field.parse("32 hexadecimal digits", |text| {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten();
        number
            .map(|number| HashKey::from_bytes(number.to_be_bytes()))
            .ok_or("expected 32 hexadecimal digits; `openssl rand -hex 16` makes a key")
    })
}

fn limits(field: &Field<'_>) -> Option<Limits> {
    let fields = field.mapping(&[
        "services",
        "backends",
        "slots",
        "flows",
        "new_flows_per_second",
    ])?;
    let default = Limits::default();
    let number = |name, what, default, range| {
        fields.get_or(name, default, |field| field.number(what, range))
    };
    Some(Limits {
        services: number(
            "services",
            "a number of services",
            default.services,
            1..=65_535,
        ),
        // Index 0 is none, and 65535 marks a slot: see `Slot::MIXED`.
        backends: number(
            "backends",
            "a number of backends",
            default.backends,
            1..=65_534,
        ),
        slots: number(
            "slots",
            "a number of slots",
            default.slots,
            LEAST_SLOTS..=MOST_SLOTS,
        ),
        flows: number("flows", "a number of flows", default.flows, 1..=MOST_FLOWS),
        new_flows_per_second: number(
            "new_flows_per_second",
            "a number of flows",
            default.new_flows_per_second,
            1..=MOST_NEW_FLOWS,
        ),
    })
}

/// `{ address: "127.0.0.1:9090" }`.
fn metrics(field: &Field<'_>) -> Option<SocketAddr> {
    let fields = field.mapping(&["address"])?;
    let field = fields.require("address", "\"127.0.0.1:9090\"")?;
    field.parse("an address and a port", |text| {
        text.parse().map_err(|_| {
            format!(
                "`{text}` is not an IP address with a port; write it like \"127.0.0.1:9090\" or \
                 \"[::1]:9090\""
            )
        })
    })
}

fn defaults(field: &Field<'_>) -> Option<Options> {
    let fields = field.mapping(OPTIONS)?;
    Some(options(&fields, &Options::default()))
}

fn services(field: &Field<'_>, defaults: &Options) -> Option<Vec<ServiceDraft>> {
    let items = field.items()?;
    Some(
        items
            .iter()
            .filter_map(|item| service::read(item, defaults))
            .collect(),
    )
}
