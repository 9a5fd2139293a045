//! Rules that span entries of `vrrp`, and the rest of the file.

use std::{collections::HashMap, net::IpAddr};

use super::{VirtualRouter, read::Draft};
use crate::config::{document, error::Problems, reader::Spot};

fn refuse(problems: &Problems<'_>, spot: &Spot, reason: impl std::fmt::Display) {
    problems.push(spot.at, &spot.field, reason);
}

/// Notes every problem with the entries of `draft`.
pub(in crate::config) fn check(draft: &document::Draft, problems: &Problems<'_>) {
    check_names(&draft.vrrp, problems);
    check_identifiers(&draft.vrrp, problems);
    check_vips(draft, problems);
    check_groups(&draft.vrrp, problems);
    check_services(draft, problems);
}

/// No two entries have one name.
fn check_names(drafts: &[Draft], problems: &Problems<'_>) {
    let mut lines = HashMap::new();
    for draft in drafts {
        let name = draft.entry.name.as_str();
        if let Some(line) = lines.get(name) {
            let reason =
                format_args!("an entry in line {line} has the name `{name}`; give it another");
            refuse(problems, &draft.name, reason);
        } else {
            lines.insert(name, draft.name.at.line);
        }
    }
}

/// No two entries are the same virtual router for others.
fn check_identifiers(drafts: &[Draft], problems: &Problems<'_>) {
    let mut lines = HashMap::new();
    for draft in drafts {
        let VirtualRouter {
            name,
            interface,
            vrid,
            ..
        } = &draft.entry;
        if let Some((other, line)) = lines.get(&(interface, vrid)) {
            let reason = format_args!(
                "vrid {vrid} on {interface} already belongs to `{other}` (line {line}); give one of \
                 the two another vrid"
            );
            refuse(problems, &draft.vrid, reason);
        } else {
            lines.insert((interface, vrid), (name, draft.vrid.at.line));
        }
    }
}

/// Each VIP belongs to one entry, and to nothing else that needs an address of its own.
fn check_vips(draft: &document::Draft, problems: &Problems<'_>) {
    let mut vips: HashMap<IpAddr, (&str, usize)> = HashMap::new();
    for of in &draft.vrrp {
        for (vip, spot) in of.entry.vips.iter().zip(&of.vips) {
            let address = vip.address;
            if let Some((other, line)) = vips.get(&address) {
                let reason = format_args!(
                    "{address} already belongs to `{other}` (line {line}); one entry alone has it"
                );
                refuse(problems, spot, reason);
            } else {
                vips.insert(address, (&of.entry.name, spot.at.line));
            }
        }
    }
    let mut others: HashMap<IpAddr, String> = HashMap::new();
    for of in &draft.services {
        for backend in &of.service.backends {
            let what = format!("a backend of service `{}`", of.service.name);
            others.insert(backend.address, what);
        }
    }
    let sources = draft.tunnel.source.iter().chain(&draft.health.source);
    others.extend(sources.map(|&source| (source, "a source address of this director".into())));
    for of in &draft.vrrp {
        let entry = &of.entry;
        let own = entry.source.iter().chain(&entry.peers);
        let own = own.chain(&entry.allow_from);
        others.extend(own.map(|&address| {
            (
                address,
                format!("an address of a router of `{}`", entry.name),
            )
        }));
    }
    for of in &draft.vrrp {
        for (vip, spot) in of.entry.vips.iter().zip(&of.vips) {
            if let Some(what) = others.get(&vip.address) {
                let address = vip.address;
                let reason = format_args!(
                    "{address} is {what}, too; a vip moves between directors and can be nothing else"
                );
                refuse(problems, spot, reason);
            }
        }
    }
}

/// Entries that fail over together agree on when.
fn check_groups(drafts: &[Draft], problems: &Problems<'_>) {
    let mut firsts: HashMap<&str, &VirtualRouter> = HashMap::new();
    for draft in drafts {
        let (Some(group), Some(spot)) = (&draft.entry.group, &draft.group) else {
            continue;
        };
        let entry = &draft.entry;
        let first = *firsts.entry(group).or_insert(entry);
        let differs = [
            ("priority", first.priority != entry.priority),
            (
                "advert_interval",
                first.advert_interval != entry.advert_interval,
            ),
            ("preempt", first.preempt != entry.preempt),
            ("preempt_delay", first.preempt_delay != entry.preempt_delay),
        ];
        if let Some((field, _)) = differs.into_iter().find(|(_, differs)| *differs) {
            let reason = format_args!(
                "`{field}` is not that of `{}`, with which it fails over; entries of one group \
                 agree on it",
                first.name
            );
            refuse(problems, spot, reason);
        }
    }
}

/// Services that are tracked are there.
fn check_services(draft: &document::Draft, problems: &Problems<'_>) {
    for of in &draft.vrrp {
        let health = of.entry.track.health.iter();
        let names = health.flat_map(|health| &health.services);
        for (name, spot) in names.zip(&of.services) {
            let mut services = draft.services.iter();
            if !services.any(|service| service.service.name == *name) {
                let reason = format_args!("there is no service `{name}`; name one of `services`");
                refuse(problems, spot, reason);
            }
        }
    }
}
