//! The fields of a health check.

use std::{net::IpAddr, time::Duration};

use super::{
    Damping, HealthCheck, Judgement, Pace, Start, Via, WhenDown,
    probe::Probe,
    read_probe::{SWITCH, probe},
};
use crate::config::{
    Protocol, Vip, duration,
    reader::{Field, Fields, Spot},
    rules,
};

/// The fields that every check has.
const COMMON: &[&str] = &[
    "type",
    "via",
    "vip",
    "port",
    "interval",
    "fast_interval",
    "timeout",
    "jitter",
    "rise",
    "fall",
    "start",
    "damping",
    "when_down",
];

/// The fields that only some types have.
const TYPES: &[(&str, &[&str])] = &[
    ("tcp", &[]),
    ("tls", &["tls"]),
    (
        "http",
        &["method", "path", "host", "status", "body", "full_size"],
    ),
    (
        "https",
        &[
            "method",
            "path",
            "host",
            "status",
            "body",
            "full_size",
            "tls",
        ],
    ),
    ("udp", &["send", "expect"]),
    ("dns", &["name", "record", "expect"]),
    ("grpc", &["service", "full_size", "tls"]),
    ("icmp", &["full_size"]),
    ("command", &["command"]),
];

/// The type that means that there is no check.
const NONE: &str = "none";

const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Of the interval while results and state disagree: a quarter of the interval, but not below this.
const FAST: Duration = Duration::from_millis(500);
/// In percent of the interval.
const DEFAULT_JITTER: u8 = 5;
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// A check as it is written: what depends on its service is still open.
#[derive(Clone, Debug)]
pub(in crate::config) struct Draft {
    probe: Probe,
    via: Option<Via>,
    vip: Option<IpAddr>,
    port: Option<u16>,
    full_size: Option<bool>,
    pace: Pace,
    judgement: Judgement,
    when_down: Option<WhenDown>,
    spot: Spot,
}

impl Draft {
    /// The check of a service with these VIPs and ports.
    ///
    /// # Errors
    ///
    /// Says where and why it cannot be one.
    pub(in crate::config) fn resolve(
        &self,
        vips: &[Vip],
        ports: &[u16],
        protocol: Protocol,
    ) -> Result<HealthCheck, (Spot, String)> {
        let refuse = |reason: String| Err((self.spot.clone(), reason));
        let port = match (&self.probe, self.port, ports) {
            (Probe::Icmp, ..) => 0,
            (_, Some(port), _) => port,
            (Probe::Command(_), None, [port, ..]) => *port,
            (_, None, [port, ..]) if *port != 0 => *port,
            _ => {
                return refuse(
                    "the service has every port; say with `port` which one is checked".into(),
                );
            }
        };
        let is_command = matches!(self.probe, Probe::Command(_));
        let via = match self.via {
            Some(Via::Vip) if is_command => {
                return refuse(
                    "a command finds its own way to the backend; leave out `via: vip`".into(),
                );
            }
            _ if is_command => Via::Backend,
            via => via.unwrap_or_default(),
        };
        if let Some(vip) = self.vip
            && !vips.iter().any(|known| known.contains(vip))
        {
            return refuse(format!(
                "{vip} is none of the service's VIPs; name one of them"
            ));
        }
        let of_family = |is_ipv6: bool| {
            let vips = self
                .vip
                .into_iter()
                .chain(vips.iter().map(|vip| vip.address()));
            // The first address of a prefix may be one that nobody can have.
            let is_usable = |vip: &IpAddr| rules::check_address(*vip, "vip").is_ok();
            vips.filter(is_usable).find(|vip| vip.is_ipv6() == is_ipv6)
        };
        Ok(HealthCheck {
            probe: self.probe.clone(),
            port,
            via,
            // A command is told of it.
            vips: if via == Via::Vip || is_command {
                [of_family(false), of_family(true)]
            } else {
                [None; 2]
            },
            full_size: self.full_size.unwrap_or(via == Via::Vip),
            pace: self.pace,
            judgement: self.judgement,
            when_down: self.when_down.unwrap_or(match protocol {
                Protocol::Tcp => WhenDown::Keep,
                Protocol::Udp => WhenDown::Move,
            }),
        })
    }
}

/// Reads a check: the name of a type, or a mapping with its fields. `Some(None)`: there is to be none.
pub(in crate::config) fn read(field: &Field<'_>) -> Option<Option<Draft>> {
    if !field.is_mapping() {
        let kind = kind(field)?;
        return if kind == NONE {
            Some(None)
        } else {
            // A type alone has its defaults, or says which field it lacks.
            let fields = field.no_fields();
            draft(field, &fields, kind).map(Some)
        };
    }
    let mut known = COMMON.to_vec();
    known.extend(TYPES.iter().flat_map(|(_, own)| own.iter()));
    known.sort_unstable();
    known.dedup();
    let fields = field.mapping(&known)?;
    let kind = kind(fields.require("type", "http")?)?;
    if kind == NONE {
        return Some(None);
    }
    draft(field, &fields, kind).map(Some)
}

fn kind<'a>(field: &Field<'a>) -> Option<&'static str> {
    let words: Vec<_> = TYPES
        .iter()
        .map(|&(name, _)| name)
        .chain([NONE])
        .map(|name| (name, name))
        .collect();
    field.word(&words)
}

fn draft(field: &Field<'_>, fields: &Fields<'_>, kind: &str) -> Option<Draft> {
    let own = TYPES
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or(&[][..], |(_, own)| *own);
    let mut is_right = true;
    for (name, field) in fields.all() {
        if !COMMON.contains(&name) && !own.contains(&name) {
            let types: Vec<_> = TYPES
                .iter()
                .filter(|(_, own)| own.contains(&name))
                .map(|(kind, _)| format!("`{kind}`"))
                .collect();
            field.refuse::<()>(format_args!(
                "a check of type `{kind}` has no `{name}`; it belongs to {}",
                types.join(", ")
            ));
            is_right = false;
        }
    }
    let pace = pace(fields);
    let judgement = judgement(fields);
    let probe = probe(fields, kind);
    let draft = Draft {
        via: fields.get("via").and_then(|field| field.word(Via::WORDS)),
        vip: fields.get("vip").and_then(|field| {
            field.parse("an IP address", |text| rules::parse_address(text, "vip"))
        }),
        port: fields
            .get("port")
            .and_then(|field| u16::try_from(field.number("a port", 1..=65_535)?).ok()),
        full_size: fields.get("full_size").and_then(|field| field.word(SWITCH)),
        when_down: fields
            .get("when_down")
            .and_then(|field| field.word(WhenDown::WORDS)),
        probe: probe?,
        pace: pace?,
        judgement: judgement?,
        spot: field.spot(),
    };
    is_right.then_some(draft)
}

fn pace(fields: &Fields<'_>) -> Option<Pace> {
    let interval = span(fields, "interval", DEFAULT_INTERVAL, INTERVALS)?;
    let fast = (interval / 4).max(FAST).min(interval);
    let fast_interval = span(fields, "fast_interval", fast, (INTERVALS.0, interval))?;
    let default = DEFAULT_TIMEOUT.min(interval);
    Some(Pace {
        interval,
        fast_interval,
        timeout: span(fields, "timeout", default, (SHORTEST_TIMEOUT, interval))?,
        jitter: fields.get_or("jitter", DEFAULT_JITTER, |field| {
            field.parse("a percentage", |text| percentage(text, 50))
        }),
    })
}

fn judgement(fields: &Fields<'_>) -> Option<Judgement> {
    let count = |name, default| {
        fields.get_or(name, default, |field| {
            field.number("a number of results", 1..=100)
        })
    };
    Some(Judgement {
        rise: count("rise", 2),
        fall: count("fall", 3),
        start: fields.get_or("start", Start::default(), |field| field.word(Start::WORDS)),
        damping: match fields.get("damping") {
            None => Some(Damping::default()),
            Some(field) if field.is_mapping() => Some(damping(field)?),
            Some(field) => field.word(&[("off", None), ("on", Some(Damping::default()))])?,
        },
    })
}

fn damping(field: &Field<'_>) -> Option<Damping> {
    let fields = field.mapping(&["free", "hold", "longest", "window"])?;
    let default = Damping::default();
    let hold = span(&fields, "hold", default.hold, HOLDS)?;
    Some(Damping {
        free: fields.get_or("free", default.free, |field| {
            field.number("a number of times", 0..=100)
        }),
        hold,
        longest: span(
            &fields,
            "longest",
            default.longest.max(hold),
            (hold, HOLDS.1),
        )?,
        window: span(&fields, "window", default.window, HOLDS)?,
    })
}

/// The whole number of percent, up to `most`, that `text` spells: `70%` or `70`.
pub(in crate::config) fn percentage(text: &str, most: u8) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|number| *number <= most).ok_or_else(|| {
        format!("`{text}` is out of range; expected a percentage from 0% to {most}%")
    })
}

/// A duration within bounds.
fn span(
    fields: &Fields<'_>,
    name: &str,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Option<Duration> {
    let Some(field) = fields.get(name) else {
        return Some(default);
    };
    field.parse("a duration", |text| {
        duration::within(text, format_args!("`{name}` here"), (least, most))
    })
}
