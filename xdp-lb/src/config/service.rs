//! The fields of a service and of its backends.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use xdp_lb_common::hash::Affinity;

use super::options::{self, OPTIONS, Options};
use super::reader::{Field, Spot};
use super::rules;
use super::types::{Backend, DEFAULT_WEIGHT, Protocol, Service, affinity_word};
use super::vip::Vip;
use crate::lookup::MAX_WEIGHT;

/// The fields of a service that `defaults` does not have.
const FIELDS: &[&str] = &["name", "vip", "protocol", "port", "affinity", "backends"];

const AFFINITIES: &[(&str, Affinity)] = &[
    (affinity_word(Affinity::Flow), Affinity::Flow),
    (affinity_word(Affinity::Source), Affinity::Source),
];

/// A service, and where the parts came from that are compared with other services'.
pub(super) struct ServiceDraft {
    pub(super) service: Service,
    pub(super) name: Spot,
    /// One for each of the service's VIPs.
    pub(super) vips: Vec<Spot>,
    /// One for each of the service's ports.
    pub(super) ports: Vec<Spot>,
    /// One for each of the service's backends.
    pub(super) backends: Vec<Spot>,
}

/// Reads a service.
pub(super) fn read(field: &Field<'_>, defaults: &Options) -> Option<ServiceDraft> {
    let fields = field.mapping(&[FIELDS, OPTIONS].concat())?;
    let named = fields.require("name", "web");
    let named = named.and_then(|field| Some((name(field, "a service")?, field.spot())));
    let vips = fields.require("vip", "192.0.2.10").and_then(vips);
    let protocol = fields
        .require("protocol", "tcp")
        .and_then(|field| field.word(Protocol::WORDS));
    let ports = fields.require("port", "80").and_then(ports);
    let options = options::read(&fields, defaults);
    let affinity = fields.get_or("affinity", Affinity::Flow, |field| field.word(AFFINITIES));
    let backends = fields.require("backends", "[10.0.0.11]").and_then(backends);

    let (name, name_spot) = named?;
    let (vips, vip_spots) = vips?;
    let (ports, port_spots) = ports?;
    let (backends, backend_spots) = backends?;
    let protocol = protocol?;
    let health_check = match &options.health_check {
        Some(draft) => match draft.resolve(&vips, &ports, protocol) {
            Ok(check) => Some(Arc::new(check)),
            Err((spot, reason)) => return field.refuse_at(&spot, reason),
        },
        None => None,
    };
    let draft = ServiceDraft {
        service: Service {
            name,
            vips,
            protocol,
            ports,
            affinity,
            forwarding: options.forwarding,
            scheduler: options.scheduler,
            table_size: options.table_size,
            connection_tracking: options.connection_tracking,
            idle_timeout: options.idle_timeout,
            health_check,
            panic_threshold: options.panic_threshold,
            tier_minimums: options.tier_minimums,
            slow_start: options.slow_start,
            backends,
        },
        name: name_spot,
        vips: vip_spots,
        ports: port_spots,
        backends: backend_spots,
    };
    Some(draft)
}

/// A name. `what` has it: "a service".
pub(super) fn name(field: &Field<'_>, what: &str) -> Option<String> {
    field.parse("a name", |name| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(format!(
                "`{name}` cannot be the name of {what}, which is 1 to 64 letters, digits, `.`, \
                 `_` and `-`"
            ));
        }
        Ok(name.to_owned())
    })
}

/// One VIP, which is an address or a prefix, or a list.
fn vips(field: &Field<'_>) -> Option<(Vec<Vip>, Vec<Spot>)> {
    let items = field.one_or_more()?;
    let mut once = Once::default();
    let mut read = |item: &Field<'_>| {
        let vip = item.parse("an IP address", Vip::parse)?;
        once.check(vip, "vip", item)?;
        Some((vip, item.spot()))
    };
    all(items.iter().map(&mut read))
}

/// One port or a list.
fn ports(field: &Field<'_>) -> Option<(Vec<u16>, Vec<Spot>)> {
    let items = field.one_or_more()?;
    let mut once = Once::default();
    let mut read = |item: &Field<'_>| {
        let port = item.number("a port", 0..=65_535)?;
        let port = u16::try_from(port).ok()?;
        once.check(port, "port", item)?;
        if port == 0 && items.len() > 1 {
            return item.refuse("port 0 means every port; leave out the others, or it");
        }
        Some((port, item.spot()))
    };
    all(items.iter().map(&mut read))
}

fn backends(field: &Field<'_>) -> Option<(Vec<Backend>, Vec<Spot>)> {
    let items = field.items()?;
    let mut once = Once::default();
    let mut read = |item: &Field<'_>| {
        let (backend, spot) = backend(item)?;
        once.check(backend.address, "backend", item)?;
        Some((backend, spot))
    };
    all(items.iter().map(&mut read))
}

/// `10.0.0.11`, or the long form `{ address: 10.0.0.11, weight: 100 }`.
fn backend(field: &Field<'_>) -> Option<(Backend, Spot)> {
    if !field.is_mapping() {
        let address = backend_address(field)?;
        let backend = Backend {
            address,
            weight: DEFAULT_WEIGHT,
            tier: 0,
        };
        return Some((backend, field.spot()));
    }
    let fields = field.mapping(&["address", "weight", "tier"])?;
    let weight = fields.get_or("weight", DEFAULT_WEIGHT, |field| {
        field.number("a weight", 0..=MAX_WEIGHT)
    });
    let tier = fields.get_or("tier", 0, |field| {
        u8::try_from(field.number("a tier", 0..=255)?).ok()
    });
    let field = fields.require("address", "10.0.0.11")?;
    let backend = Backend {
        address: backend_address(field)?,
        weight,
        tier,
    };
    Some((backend, field.spot()))
}

fn backend_address(field: &Field<'_>) -> Option<IpAddr> {
    field.parse("an IP address", |text| {
        rules::parse_address(text, "backend")
    })
}

/// All values with their spots, or nothing if one of them is wrong. Reads them all first, so that
/// each problem is noted.
fn all<T>(items: impl Iterator<Item = Option<(T, Spot)>>) -> Option<(Vec<T>, Vec<Spot>)> {
    let items: Vec<Option<(T, Spot)>> = items.collect();
    items.into_iter().collect()
}

/// Refuses what comes a second time in a list.
struct Once<T>(HashMap<T, usize>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash + std::fmt::Display> Once<T> {
    fn check(&mut self, value: T, what: &str, field: &Field<'_>) -> Option<()> {
        if let Some(&line) = self.0.get(&value) {
            return field.refuse(format_args!(
                "{what} {value} is already listed in line {line}; list it once"
            ));
        }
        self.0.insert(value, field.line());
        Some(())
    }
}
