//! The fields of a health check.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    Damping, HealthCheck, Judgement, Pace, Start, Via, WhenDown,
    probe::{Command, Dns, Grpc, Http, Pattern, Payload, Probe, RecordType, Statuses, Tls, Udp},
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

const SWITCH: &[(&str, bool)] = &[("true", true), ("false", false)];

const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Of the interval while results and state disagree: a quarter of the interval, but not below this.
const FAST: Duration = Duration::from_millis(500);
/// In percent of the interval.
const DEFAULT_JITTER: u8 = 5;
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// What fits a datagram on any way.
const MOST_PAYLOAD: usize = 1200;

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
            vips: match via {
                Via::Vip => [of_family(false), of_family(true)],
                Via::Backend => [None; 2],
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

fn probe(fields: &Fields<'_>, kind: &str) -> Option<Probe> {
    Some(match kind {
        "tcp" => Probe::Tcp,
        "tls" => Probe::Tls(tls(fields)?),
        "http" => Probe::Http(http(fields, None)?),
        "https" => Probe::Http(http(fields, Some(tls(fields)?))?),
        "udp" => Probe::Udp(Udp {
            send: payload(fields.require("send", "ping")?)?,
            expect: pattern(fields, "expect")?,
        }),
        "dns" => Probe::Dns(Dns {
            name: fields
                .require("name", "example.com")?
                .parse("a name", dns_name)?,
            record: fields.get_or("record", RecordType::A, |field| {
                field.word(RecordType::WORDS)
            }),
            expect: pattern(fields, "expect")?,
        }),
        "grpc" => Probe::Grpc(Grpc {
            service: match fields.get("service") {
                Some(field) => field.text("the name of a gRPC service")?.to_owned(),
                None => String::new(),
            },
            tls: match fields.get("tls") {
                Some(_) => Some(tls(fields)?),
                None => None,
            },
        }),
        "icmp" => Probe::Icmp,
        _ => Probe::Command(command(
            fields.require("command", "[/usr/local/bin/check]")?,
        )?),
    })
}

fn http(fields: &Fields<'_>, tls: Option<Tls>) -> Option<Http> {
    let method = match fields.get("method") {
        Some(field) => field.parse("a method", |text| {
            let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
            is_token.then(|| text.to_owned()).ok_or_else(|| {
                format!("`{text}` is not an HTTP method; write it in capitals, like GET or HEAD")
            })
        })?,
        None => "GET".to_owned(),
    };
    let path = match fields.get("path") {
        Some(field) => field.parse("a path", |text| {
            let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
            is_path.then(|| text.to_owned()).ok_or_else(|| {
                format!(
                    "`{text}` is not a path; it begins with `/` and has no blanks, like /healthz"
                )
            })
        })?,
        None => "/".to_owned(),
    };
    Some(Http {
        method,
        path,
        host: name(fields, "host")?,
        status: match fields.get("status") {
            Some(field) => statuses(field)?,
            None => Statuses::default(),
        },
        body: pattern(fields, "body")?,
        tls,
    })
}

/// `200`, `200-299`, or a list of such.
fn statuses(field: &Field<'_>) -> Option<Statuses> {
    let items = field.one_or_more()?;
    let range = |item: &Field<'_>| {
        item.parse("a status", |text| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
            match (status(first), status(last)) {
                (Some(first), Some(last)) if first <= last => Ok((first, last)),
                _ => Err(format!(
                    "`{text}` is not a status or a range of them; write 200 or 200-299, from 100 to 599"
                )),
            }
        })
    };
    let ranges: Option<Vec<_>> = items.iter().map(range).collect();
    ranges.map(Statuses)
}

fn tls(fields: &Fields<'_>) -> Option<Tls> {
    let Some(field) = fields.get("tls") else {
        return Some(Tls::default());
    };
    let fields = field.mapping(&["verify", "server_name", "ca"])?;
    Some(Tls {
        verify: fields.get_or("verify", true, |field| field.word(SWITCH)),
        server_name: name(&fields, "server_name")?,
        ca: match fields.get("ca") {
            Some(field) => Some(PathBuf::from(absolute(field)?)),
            None => None,
        },
    })
}

/// A name of a host, or an address.
fn name(fields: &Fields<'_>, name: &str) -> Option<Option<String>> {
    let Some(field) = fields.get(name) else {
        return Some(None);
    };
    let name = field.parse("the name of a host", |text| {
        let is_name = !text.is_empty()
            && text.len() <= 255
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
        is_name.then(|| text.to_owned()).ok_or_else(|| {
            format!("`{text}` is not the name of a host; write it like www.example.com")
        })
    })?;
    Some(Some(name))
}

fn dns_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if text == "." || (name.len() <= 253 && name.split('.').all(is_label)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is not a domain name; write it like example.com"
    ))
}

/// Text, or `{ hex: 00ff }`.
fn payload(field: &Field<'_>) -> Option<Payload> {
    let bytes = if field.is_mapping() {
        let fields = field.mapping(&["hex"])?;
        fields
            .require("hex", "00ff")?
            .parse("hexadecimal digits", hex)?
    } else {
        field.text("text to send")?.as_bytes().to_vec()
    };
    if bytes.is_empty() || bytes.len() > MOST_PAYLOAD {
        return field.refuse(format_args!(
            "{} bytes cannot be sent; a datagram has 1 to {MOST_PAYLOAD}",
            bytes.len()
        ));
    }
    Some(Payload(bytes))
}

fn hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pair = |pair: &[u8]| match pair {
        &[high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    bytes.ok_or("expected pairs of hexadecimal digits, like 00ff17")
}

fn pattern(fields: &Fields<'_>, name: &str) -> Option<Option<Pattern>> {
    let Some(field) = fields.get(name) else {
        return Some(None);
    };
    let pattern = field.parse("a regular expression", |text| {
        Pattern::new(text).map_err(|error| {
            // The library draws a picture over several lines; the last one has the reason.
            let text = error.to_string();
            let reason = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            format!("this is not a regular expression: {reason}")
        })
    })?;
    Some(Some(pattern))
}

fn command(field: &Field<'_>) -> Option<Command> {
    let items = field.one_or_more()?;
    let mut words = vec![absolute(items.first()?)?];
    for item in &items[1..] {
        words.push(item.text("an argument")?.to_owned());
    }
    Some(Command { words })
}

fn absolute(field: &Field<'_>) -> Option<String> {
    field.parse("a path", |text| {
        text.starts_with('/').then(|| text.to_owned()).ok_or_else(|| {
            format!("`{text}` is not an absolute path; the daemon has no folder of its own to look in")
        })
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
