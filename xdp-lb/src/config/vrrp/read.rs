//! The fields of an entry of `vrrp`.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use super::{
    DEFAULT_PRIORITY, Track, TrackedGateway, TrackedHealth, TrackedInterface, VirtualRouter,
};
use crate::{
    config::{
        document::interface_name,
        duration,
        health_check::percentage,
        reader::{Field, Fields, Spot},
        rules, service, tunnel,
    },
    vrrp::{
        VirtualAddress,
        packet::{Checksum, Interval},
    },
};

const FIELDS: &[&str] = &[
    "name",
    "interface",
    "vrid",
    "priority",
    "advert_interval",
    "preempt",
    "preempt_delay",
    "vips",
    "peers",
    "allow_from",
    "source",
    "checksum",
    "virtual_mac",
    "group",
    "track",
    "notify",
];

const CHECKSUMS: &[(&str, Checksum)] = &[
    ("plain", Checksum::Plain),
    ("pseudo_header", Checksum::PseudoHeader),
];

const YES_OR_NO: &[(&str, bool)] = &[("true", true), ("false", false)];

const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(40_950));
const DELAYS: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));
const PINGS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const DEFAULT_WEIGHT: u8 = 50;
/// In percent.
const DEFAULT_BELOW: u8 = 50;
/// Longer than directors differ in when they notice that a backend fails, by the checks' defaults.
const DEFAULT_HEALTH_DELAY: Duration = Duration::from_secs(5);

/// An entry, and where the parts came from that are compared with others.
pub(in crate::config) struct Draft {
    pub(in crate::config) entry: VirtualRouter,
    pub(in crate::config) name: Spot,
    pub(in crate::config) vrid: Spot,
    /// One for each VIP.
    pub(in crate::config) vips: Vec<Spot>,
    pub(in crate::config) group: Option<Spot>,
    /// The services that are tracked.
    pub(in crate::config) services: Vec<Spot>,
}

/// Reads the list.
pub(in crate::config) fn read(field: &Field<'_>) -> Option<Vec<Draft>> {
    let items = field.items()?;
    Some(items.iter().filter_map(entry).collect())
}

fn entry(field: &Field<'_>) -> Option<Draft> {
    let fields = field.mapping(FIELDS)?;
    let name = fields
        .require("name", "main")
        .and_then(|field| Some((service::name(field, "a virtual router")?, field.spot())));
    let interface = fields.require("interface", "eth0").and_then(interface_name);
    let vrid = fields.require("vrid", "51").and_then(|field| {
        Some((
            small(field, "a virtual router identifier", 1..=255)?,
            field.spot(),
        ))
    });
    let vips = fields.require("vips", "[192.0.2.10]").and_then(vips);
    let priority = fields.get_or("priority", DEFAULT_PRIORITY, |field| {
        small(field, "a priority", 1..=255)
    });
    let one_second = Interval::from_centiseconds(100)?;
    let advert_interval = fields.get_or("advert_interval", one_second, interval);
    let preempt = fields.get_or("preempt", true, |field| field.word(YES_OR_NO));
    let preempt_delay = span(&fields, "preempt_delay", Duration::ZERO, DELAYS);
    let peers = fields.get_or("peers", Vec::new(), |field| addresses(field, "peer"));
    let allow_from = fields.get_or("allow_from", Vec::new(), |field| addresses(field, "router"));
    let source = fields.get_or("source", Vec::new(), |field| {
        let sources = tunnel::sources(field, "advertisements")?;
        Some(sources.into_iter().map(|(address, _)| address).collect())
    });
    let checksum = fields.get_or("checksum", Checksum::default(), |field| {
        field.word(CHECKSUMS)
    });
    let virtual_mac = fields.get_or("virtual_mac", false, |field| field.word(YES_OR_NO));
    let group = fields
        .get("group")
        .map(|field| Some((service::name(field, "a group")?, field.spot())));
    let track = fields.get_or("track", Default::default(), track);
    let notify = fields.get("notify").map(notify);

    let (name, name_spot) = name?;
    let (vrid, vrid_spot) = vrid?;
    let (vips, vip_spots) = vips?.into_iter().unzip();
    let (group, group_spot) = match group {
        Some(group) => group.map(|(group, spot)| (Some(group), Some(spot)))?,
        None => (None, None),
    };
    let (track, services) = track;
    let entry = VirtualRouter {
        name,
        interface: interface?,
        vrid,
        priority,
        advert_interval,
        preempt,
        preempt_delay: preempt_delay?,
        vips,
        peers,
        allow_from,
        source,
        checksum,
        virtual_mac,
        group,
        track,
        notify: match notify {
            Some(notify) => Some(notify?),
            None => None,
        },
    };
    check(field, &fields, &entry)?;
    Some(Draft {
        entry,
        name: name_spot,
        vrid: vrid_spot,
        vips: vip_spots,
        group: group_spot,
        services,
    })
}

/// What has to hold between the fields of one entry.
fn check(field: &Field<'_>, fields: &Fields<'_>, entry: &VirtualRouter) -> Option<()> {
    let at = |name| fields.get(name).unwrap_or(field);
    if !entry.preempt && !entry.preempt_delay.is_zero() {
        return at("preempt_delay")
            .refuse("it does not preempt; leave out `preempt_delay`, or `preempt: false`");
    }
    if entry.priority == u8::MAX && entry.track != Track::default() {
        return at("track").refuse(
            "priority 255 says that the addresses are this director's own, and is never lowered; \
             set `priority` to 254 or less, or leave out `track`",
        );
    }
    for (is_ipv6, family) in [(false, "IPv4"), (true, "IPv6")] {
        let of_family = |address: &IpAddr| address.is_ipv6() == is_ipv6;
        let vips = entry.vips.iter().map(|vip| vip.address);
        let count = vips.filter(|vip| of_family(vip)).count();
        if count > 255 {
            return at("vips").refuse(format_args!(
                "{count} {family} addresses are more than an advertisement has room for, which is \
                 255; put some into an entry of their own"
            ));
        }
        let has_vips = count > 0;
        if has_vips && !entry.peers.is_empty() && !entry.peers.iter().any(of_family) {
            return at("peers").refuse(format_args!(
                "no peer has an {family} address, by which the {family} addresses of `vips` are \
                 advertised; add one, or put these addresses into an entry of their own"
            ));
        }
        for (name, list) in [("peers", &entry.peers), ("allow_from", &entry.allow_from)] {
            if !has_vips && list.iter().any(of_family) {
                return at(name).refuse(format_args!(
                    "`vips` has no {family} address, so nothing is advertised over {family}; leave \
                     the {family} addresses out"
                ));
            }
        }
        let allows = &entry.allow_from;
        if has_vips && !allows.is_empty() && !allows.iter().any(of_family) {
            return at("allow_from").refuse(format_args!(
                "no {family} address is allowed, so nobody would be heard over {family}; add the \
                 other directors' (over IPv6 their link-local ones, unless `peers` are set)"
            ));
        }
    }
    Some(())
}

fn vips(field: &Field<'_>) -> Option<Vec<(VirtualAddress, Spot)>> {
    let items = field.one_or_more()?;
    let mut lines = HashMap::new();
    let mut vips = Vec::with_capacity(items.len());
    for item in &items {
        let vip = item.parse("an IP address", virtual_address)?;
        if let Some(line) = lines.insert(vip.address, item.line()) {
            let address = vip.address;
            return item.refuse(format_args!(
                "vip {address} is already listed in line {line}; list it once"
            ));
        }
        vips.push((vip, item.spot()));
    }
    Some(vips)
}

/// `192.0.2.10`, or with the length of its network's prefix: `192.0.2.10/24`.
fn virtual_address(text: &str) -> Result<VirtualAddress, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address = rules::parse_address(address, "vip").map_err(|error| error.to_string())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(prefix) => prefix
            .parse()
            .ok()
            .filter(|prefix| (1..=most).contains(prefix))
            .ok_or_else(|| {
                format!("`{text}` has no length of a prefix; write it like {address}/{most}, or {address} alone")
            })?,
    };
    Ok(VirtualAddress { address, prefix })
}

fn addresses(field: &Field<'_>, role: &'static str) -> Option<Vec<IpAddr>> {
    let items = field.one_or_more()?;
    let mut lines = HashMap::new();
    let mut addresses = Vec::with_capacity(items.len());
    for item in &items {
        let address = item.parse("an IP address", |text| rules::parse_address(text, role))?;
        if let Some(line) = lines.insert(address, item.line()) {
            return item.refuse(format_args!(
                "{role} {address} is already listed in line {line}; list it once"
            ));
        }
        addresses.push(address);
    }
    Some(addresses)
}

fn interval(field: &Field<'_>) -> Option<Interval> {
    field.parse("a duration", |text| {
        let span = duration::within(text, "an interval of advertisements", INTERVALS)?;
        let centiseconds = u16::try_from(span.as_millis() / 10).unwrap_or(u16::MAX);
        let interval = Interval::from_centiseconds(centiseconds);
        interval
            .filter(|interval| interval.duration() == span)
            .ok_or_else(|| {
                format!("{text} is no multiple of 10ms, the unit in which advertisements tell it")
            })
    })
}

fn track(field: &Field<'_>) -> Option<(Track, Vec<Spot>)> {
    let fields = field.mapping(&["interfaces", "health", "gateways"])?;
    let interfaces = fields.get_or("interfaces", Vec::new(), |field| {
        let items = field.one_or_more()?;
        items.iter().map(tracked_interface).collect()
    });
    let gateways = fields.get_or("gateways", Vec::new(), |field| {
        let items = field.one_or_more()?;
        items.iter().map(tracked_gateway).collect()
    });
    let (health, services) = match fields.get("health") {
        Some(field) => {
            let (health, services) = tracked_health(field)?;
            (Some(health), services)
        }
        None => (None, Vec::new()),
    };
    let track = Track {
        interfaces,
        health,
        gateways,
    };
    Some((track, services))
}

/// `eth1`, or the long form `{ name: eth1, weight: 50 }`.
fn tracked_interface(field: &Field<'_>) -> Option<TrackedInterface> {
    if !field.is_mapping() {
        return Some(TrackedInterface {
            name: interface_name(field)?,
            weight: DEFAULT_WEIGHT,
        });
    }
    let fields = field.mapping(&["name", "weight"])?;
    Some(TrackedInterface {
        weight: weight(&fields),
        name: interface_name(fields.require("name", "eth1")?)?,
    })
}

/// `10.0.0.1`, or the long form `{ address: 10.0.0.1, weight: 50, … }`.
fn tracked_gateway(field: &Field<'_>) -> Option<TrackedGateway> {
    let is_short = !field.is_mapping();
    let fields = if is_short {
        field.no_fields()
    } else {
        field.mapping(&["address", "weight", "interval", "timeout", "rise", "fall"])?
    };
    let address = if is_short {
        *field
    } else {
        *fields.require("address", "10.0.0.1")?
    };
    let count = |name, default| {
        fields.get_or(name, default, |field| {
            field.number("a number of pings", 1..=100)
        })
    };
    let interval = span(&fields, "interval", Duration::from_secs(1), PINGS)?;
    let default = Duration::from_millis(500).min(interval);
    Some(TrackedGateway {
        address: address.parse("an IP address", |text| {
            rules::parse_address(text, "gateway")
        })?,
        weight: weight(&fields),
        interval,
        timeout: span(&fields, "timeout", default, (SHORTEST_TIMEOUT, interval))?,
        rise: count("rise", 2),
        fall: count("fall", 3),
    })
}

fn tracked_health(field: &Field<'_>) -> Option<(TrackedHealth, Vec<Spot>)> {
    let fields = field.mapping(&["services", "below", "delay", "weight"])?;
    let (services, spots) = fields
        .get_or("services", Vec::new(), |field| {
            let items = field.one_or_more()?;
            let name = |item: &Field<'_>| Some((service::name(item, "a service")?, item.spot()));
            items.iter().map(name).collect()
        })
        .into_iter()
        .unzip();
    let health = TrackedHealth {
        services,
        below: fields.get_or("below", DEFAULT_BELOW, |field| {
            field.parse("a percentage", |text| percentage(text, 100))
        }),
        delay: span(&fields, "delay", DEFAULT_HEALTH_DELAY, DELAYS)?,
        weight: weight(&fields),
    };
    Some((health, spots))
}

/// A program and its arguments, as a list or as the program alone.
fn notify(field: &Field<'_>) -> Option<Vec<String>> {
    let items = field.one_or_more()?;
    let word = |item: &Field<'_>| item.text("a word of a command").map(str::to_owned);
    let words: Vec<String> = items.iter().map(word).collect::<Option<_>>()?;
    match words.first() {
        Some(program) if program.starts_with('/') => Some(words),
        program => field.refuse(format_args!(
            "`{}` is no absolute path; write the program's whole path, then its arguments: \
             [/usr/local/bin/notify, vrrp]",
            program.map_or("", String::as_str)
        )),
    }
}

fn weight(fields: &Fields<'_>) -> u8 {
    fields.get_or("weight", DEFAULT_WEIGHT, |field| {
        small(field, "a weight", 1..=254)
    })
}

fn small(field: &Field<'_>, what: &str, range: std::ops::RangeInclusive<u32>) -> Option<u8> {
    u8::try_from(field.number(what, range)?).ok()
}

/// A duration within bounds.
fn span(
    fields: &Fields<'_>,
    name: &str,
    default: Duration,
    bounds: (Duration, Duration),
) -> Option<Duration> {
    let Some(field) = fields.get(name) else {
        return Some(default);
    };
    field.parse("a duration", |text| {
        duration::within(text, format_args!("`{name}` here"), bounds)
    })
}
