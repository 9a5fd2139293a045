//! The fields of a check that only some types have.

use std::path::PathBuf;

use super::probe::{
    Command, Dns, Grpc, Http, Pattern, Payload, Probe, RecordType, Statuses, Tls, Udp,
};
use crate::config::reader::{Field, Fields};

/// What fits a datagram on any way.
const MOST_PAYLOAD: usize = 1200;

/// `true` and `false`.
pub(super) const SWITCH: &[(&str, bool)] = &[("true", true), ("false", false)];

/// Reads what a check of type `kind` asks.
pub(super) fn probe(fields: &Fields<'_>, kind: &str) -> Option<Probe> {
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
