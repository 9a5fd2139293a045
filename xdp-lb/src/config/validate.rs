//! Rules that span fields of a service, services, and the limits.

use std::collections::HashMap;

use super::document::{Draft, MOST_SLOTS};
use super::error::Problems;
use super::reader::Spot;
use super::rules::RuleError;
use super::service::ServiceDraft;
use super::types::{Backend, Service};
use super::vip::Vip;
use super::vrrp;

/// Tables are rebuilt in a free region while the old one is in use, and the region that is free
/// may be in pieces: room for three times the tables always has one.
const ARENA_FACTOR: u64 = 3;

/// Notes every problem with the services of `draft` among themselves.
pub(super) fn check(draft: &Draft, problems: &Problems<'_>) {
    for service in &draft.services {
        check_backends(service, problems);
        check_reach(service, problems);
    }
    check_names(&draft.services, problems);
    // Past its limit the number of claims has no bound.
    if check_limits(draft, problems) {
        check_claims(&draft.services, problems);
    }
    check_vips(draft, problems);
    vrrp::validate::check(draft, problems);
}

fn refuse(problems: &Problems<'_>, spot: &Spot, reason: impl std::fmt::Display) {
    problems.push(spot.at, &spot.field, reason);
}

/// Each backend has a slot.
fn check_backends(draft: &ServiceDraft, problems: &Problems<'_>) {
    let service = &draft.service;
    let weighted = service.backends.iter().filter(|backend| backend.weight > 0);
    let weighted = weighted.count();
    if weighted as u64 > u64::from(service.table_size) {
        let (name, size) = (&service.name, service.table_size);
        let reason = format_args!(
            "table_size {size} of service `{name}` is too small for its {weighted} backends; set \
             a hundred times their number for even shares"
        );
        refuse(problems, &draft.name, reason);
    }
}

/// The director itself stays reachable.
fn check_reach(draft: &ServiceDraft, problems: &Problems<'_>) {
    let everything = draft.service.vips.iter().find(|vip| vip.is_everything());
    if let (Some(vip), [0], [spot]) = (everything, &draft.service.ports[..], &draft.ports[..]) {
        let protocol = draft.service.protocol;
        let reason = format_args!(
            "every port of {vip} is every {protocol} packet, those for the director itself \
             included; name ports, or longer prefixes"
        );
        refuse(problems, spot, reason);
    }
}

/// No two services have one name.
fn check_names(services: &[ServiceDraft], problems: &Problems<'_>) {
    let mut lines = HashMap::new();
    for draft in services {
        let name = draft.service.name.as_str();
        if let Some(line) = lines.get(name) {
            let reason =
                format_args!("a service in line {line} has the name `{name}`; give it another");
            refuse(problems, &draft.name, reason);
        } else {
            lines.insert(name, draft.name.at.line);
        }
    }
}

/// Everything finds room in the maps. True if the pairs of VIP and port do.
fn check_limits(draft: &Draft, problems: &Problems<'_>) -> bool {
    let sum = |count: fn(&Service) -> u64| -> u64 {
        let services = draft.services.iter();
        services.map(|draft| count(&draft.service)).sum()
    };
    let limits = &draft.limits;
    let spot = &draft.services_spot;
    let keys = sum(|service| service.vips.len() as u64 * service.ports.len() as u64);
    if keys > u64::from(limits.services) {
        let most = limits.services;
        let reason = format_args!(
            "the services have {keys} pairs of vip and port, and `limits.services` allows {most}; \
             raise it (up to 65535) or list fewer"
        );
        refuse(problems, spot, reason);
    }
    let backends = sum(|service| service.backends.len() as u64);
    if backends > u64::from(limits.backends) {
        let most = limits.backends;
        let reason = format_args!(
            "the services have {backends} backends, and `limits.backends` allows {most}; raise it \
             (up to 65534) or list fewer"
        );
        refuse(problems, spot, reason);
    }
    let slots = ARENA_FACTOR * sum(|service| service.table_size.into());
    if slots > u64::from(limits.slots) {
        let most = limits.slots;
        let way_out = if slots > u64::from(MOST_SLOTS) {
            "make `table_size` smaller".to_owned()
        } else {
            format!("set `limits.slots` to {slots} or more, or make `table_size` smaller")
        };
        let reason = format_args!(
            "the lookup tables need {slots} slots, three times the sum of their sizes, and \
             `limits.slots` allows {most}; {way_out}"
        );
        refuse(problems, spot, reason);
    }
    keys <= u64::from(limits.services)
}

/// No two services claim one VIP, protocol and port. Port 0 is a port of its own: a service for
/// every port stands behind those for single ports.
fn check_claims(services: &[ServiceDraft], problems: &Problems<'_>) {
    let mut claims = HashMap::new();
    for draft in services {
        let Service { name, protocol, .. } = &draft.service;
        for vip in &draft.service.vips {
            for (port, spot) in draft.service.ports.iter().zip(&draft.ports) {
                let Some((other, line)) = claims.get(&(vip, protocol, port)) else {
                    claims.insert((vip, protocol, port), (name, spot.at.line));
                    continue;
                };
                let reason = format_args!(
                    "{vip} {protocol} port {port} already belongs to service `{other}` (line \
                     {line}); give one of the two another vip or port"
                );
                refuse(problems, spot, reason);
            }
        }
    }
}

/// No backend has the address of a VIP: its packets would come back to the director. No tunnel and no
/// check begins at one: backends have the VIPs too, and drop what comes from an address of their own.
fn check_vips(draft: &Draft, problems: &Problems<'_>) {
    let mut vips: HashMap<Vip, (&str, usize)> = HashMap::new();
    for draft in &draft.services {
        for (vip, spot) in draft.service.vips.iter().zip(&draft.vips) {
            vips.entry(*vip)
                .or_insert((&draft.service.name, spot.at.line));
        }
    }
    let tunnels = draft.tunnel.source.iter().zip(&draft.tunnel_sources);
    let checks = draft.health.source.iter().zip(&draft.health_sources);
    for (source, spot) in tunnels.chain(checks) {
        if let Some((name, line)) = vips.get(&Vip::from(*source)) {
            let reason = format_args!(
                "{source} is a vip of service `{name}` (line {line}), and backends drop what comes \
                 from it; give an address of the director"
            );
            refuse(problems, spot, reason);
        }
    }
    for draft in &draft.services {
        for (&Backend { address, .. }, spot) in draft.service.backends.iter().zip(&draft.backends) {
            if draft.service.vips.contains(&address.into()) {
                refuse(problems, spot, RuleError::BackendIsVip { address });
            } else if let Some((name, line)) = vips.get(&Vip::from(address)) {
                let reason = format_args!(
                    "{address} is a vip of service `{name}` (line {line}); give the backend's own \
                     address"
                );
                refuse(problems, spot, reason);
            }
        }
    }
}
