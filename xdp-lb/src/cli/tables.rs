//! Answers as people read them.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::director::view::{
    BackendView, ChangeView, CounterView, ServiceView, StatsView, StatusView, TrafficView,
};

/// A table without lines. Columns whose names begin with `>` are numbers.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| name.trim_start_matches('>')));
    for (index, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            // The left edge stays free of blanks.
            column.set_padding((if index == 0 { 0 } else { 1 }, 1));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

pub(super) fn status(status: &StatusView) -> String {
    let mut lines = vec![
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("up", duration(status.uptime_seconds)),
        ("config", status.config.clone()),
        (
            "pins",
            format!(
                "{} ({} maps, ABI {})",
                status.pin_directory, status.maps, status.abi_version
            ),
        ),
    ];
    for interface in &status.interfaces {
        let fallback = interface.fallback.as_ref();
        let why = fallback
            .map(|reason| format!(" (fallback: {reason})"))
            .unwrap_or_default();
        lines.push((
            "interface",
            format!("{} {}{why}", interface.name, interface.mode),
        ));
    }
    let missing = status.missing_interfaces.iter();
    lines.extend(
        missing.map(|(name, reason)| ("interface", format!("{name} NOT ATTACHED: {reason}"))),
    );
    lines.push(("ready", ready(status)));
    let limits = &status.limits;
    lines.extend([
        (
            "services",
            format!(
                "{} (of {} VIPs and ports)",
                status.services, limits.services
            ),
        ),
        (
            "backends",
            format!(
                "{} ({} active; room for {})",
                status.backends, status.active_backends, limits.backends
            ),
        ),
        ("run-time changes", status.runtime_changes.to_string()),
        ("flow entries", format!("at most {}", limits.flows)),
        ("fingerprint", format!("{}  all tables", status.fingerprint)),
    ]);
    let services = status.fingerprints.iter();
    lines.extend(services.map(|(name, fingerprint)| ("", format!("{fingerprint}  {name}"))));
    fields(&lines)
}

fn ready(status: &StatusView) -> String {
    if status.ready {
        return "yes".into();
    }
    match &status.waits_for[..] {
        [] => "no".into(),
        [one] => format!("no, waits for {one}"),
        [one, more @ ..] => format!("no, waits for {one} and {} more", more.len()),
    }
}

pub(super) fn fields(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect();
    lines.join("\n")
}

pub(super) fn services(services: &[ServiceView]) -> String {
    if services.is_empty() {
        return "no services in the config".into();
    }
    let mut table = table(&[
        "NAME",
        "VIP",
        "PROTOCOL",
        "PORT",
        "SCHEDULER",
        ">ACTIVE",
        ">BACKENDS",
        ">PACKETS",
        ">BYTES",
    ]);
    for service in services {
        table.add_row(vec![
            Cell::new(&service.name),
            Cell::new(list(&service.vips)),
            Cell::new(&service.protocol),
            Cell::new(ports(&service.ports)),
            Cell::new(&service.scheduler),
            Cell::new(service.active_backends),
            Cell::new(service.backends),
            Cell::new(service.forwarded.packets),
            Cell::new(bytes(service.forwarded.bytes)),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn service(service: &ServiceView) -> String {
    let TrafficView {
        packets,
        bytes: count,
    } = service.forwarded;
    let mut lines = vec![
        ("name", service.name.clone()),
        ("vip", list(&service.vips)),
        ("protocol", service.protocol.clone()),
        ("port", ports(&service.ports)),
        ("forwarding", service.forwarding.clone()),
        ("affinity", service.affinity.clone()),
        ("connection tracking", service.connection_tracking.clone()),
        (
            "table",
            format!(
                "{}, {} slots, {}",
                service.scheduler,
                service.table_size,
                slots(service)
            ),
        ),
        ("fingerprint", service.fingerprint.clone()),
        ("forwarded", format!("{packets} packets, {}", bytes(count))),
    ];
    if service.panic {
        let text = "too many backends are down: all of them are used";
        lines.push(("panic", text.into()));
    }
    fields(&lines)
}

pub(super) fn backends(backends: &[BackendView]) -> String {
    if backends.is_empty() {
        return "no backends".into();
    }
    let columns = [
        "SERVICE", "ADDRESS", ">WEIGHT", "STATE", ">SHARE", ">SLOTS", ">PACKETS", ">BYTES", "MAC",
        "FROM",
    ];
    let mut table = table(&columns);
    for backend in backends {
        let state = match &backend.reason {
            Some(reason) => format!("{}: {reason}", backend.state),
            None => backend.state.clone(),
        };
        let weight = if backend.weight_in_force == backend.weight {
            backend.weight.to_string()
        } else {
            format!("{} of {}", backend.weight_in_force, backend.weight)
        };
        table.add_row(vec![
            Cell::new(&backend.service),
            Cell::new(backend.address),
            Cell::new(weight),
            Cell::new(state),
            Cell::new(format!("{:.2} %", backend.share * 100.0)),
            Cell::new(backend.slots),
            Cell::new(backend.forwarded.packets),
            Cell::new(bytes(backend.forwarded.bytes)),
            Cell::new(backend.mac.as_deref().unwrap_or("-")),
            Cell::new(&backend.origin),
        ]);
    }
    table.trim_fmt()
}

fn shown(counters: &[CounterView], all: bool) -> impl Iterator<Item = &CounterView> {
    counters
        .iter()
        .filter(move |counter| all || counter.packets > 0)
}

pub(super) fn stats(stats: &StatsView, all: bool) -> String {
    let mut table = table(&["COUNTER", "VERDICT", ">PACKETS", ">BYTES", "MEANING"]);
    for counter in shown(&stats.counters, all) {
        let is_event = counter.kind == "event";
        table.add_row(vec![
            Cell::new(&counter.name),
            Cell::new(&counter.kind),
            Cell::new(counter.packets),
            Cell::new(if is_event {
                "-".into()
            } else {
                bytes(counter.bytes)
            }),
            Cell::new(&counter.text),
        ]);
    }
    if table.is_empty() {
        "no packet yet; --all shows every counter".into()
    } else {
        table.trim_fmt()
    }
}

pub(super) fn rates(before: &StatsView, now: &StatsView, time: Duration, all: bool) -> String {
    let mut table = table(&["COUNTER", "VERDICT", ">PACKETS/S", ">BITS/S", ">PACKETS"]);
    let per_second = |now: u64, before: u64| {
        // Shown to people; the precision of a float is more than enough.
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown rounded")]
        let difference = now.saturating_sub(before) as f64;
        difference / time.as_secs_f64()
    };
    for counter in shown(&now.counters, all) {
        let earlier = before
            .counters
            .iter()
            .find(|other| other.name == counter.name);
        let (packets, bytes) = earlier.map_or((0, 0), |earlier| (earlier.packets, earlier.bytes));
        table.add_row(vec![
            Cell::new(&counter.name),
            Cell::new(&counter.kind),
            Cell::new(format!("{:.0}", per_second(counter.packets, packets))),
            Cell::new(format!("{:.0}", per_second(counter.bytes, bytes) * 8.0)),
            Cell::new(counter.packets),
        ]);
    }
    if table.is_empty() {
        "no packet yet".into()
    } else {
        table.trim_fmt()
    }
}

pub(super) fn change(done: &str, change: &ChangeView) -> String {
    let mut text = done.to_owned();
    for (service, moved) in &change.services {
        let part = f64::from(moved.slots_moved) / f64::from(moved.table_size.max(1)) * 100.0;
        text += &format!(
            "\n{service}: {} of {} slots moved ({part:.2} %)",
            moved.slots_moved, moved.table_size
        );
    }
    for note in &change.notes {
        text += &format!("\nnote: {note}");
    }
    text
}

pub(super) fn list(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// What states the slots are in.
fn slots(service: &ServiceView) -> String {
    let states = [
        (service.moving_slots, "moving"),
        (service.mixed_slots, "mixed"),
    ];
    let states: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} of them {state}"))
        .collect();
    match states.as_slice() {
        [] if service.at_rest => "at rest".into(),
        [] => "all of them settled".into(),
        states => states.join(", "),
    }
}

fn ports(ports: &[u16]) -> String {
    if ports == [0] {
        "every".into()
    } else {
        list(ports)
    }
}

/// Bytes in powers of 1024, three digits.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown rounded to three digits")]
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let decimals = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.decimals$} {unit}")
}

/// Seconds in the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_240, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_600, "1h 0m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn tables_align_and_have_no_blanks_at_their_ends() {
        let stats = StatsView {
            counters: vec![
                CounterView {
                    name: "forwarded".into(),
                    kind: "forward".into(),
                    text: "Sent.".into(),
                    packets: 7,
                    bytes: 448,
                },
                CounterView {
                    name: "no_service".into(),
                    kind: "pass".into(),
                    text: "Not ours.".into(),
                    packets: 1234,
                    bytes: 5000,
                },
                CounterView {
                    name: "not_ip".into(),
                    kind: "pass".into(),
                    text: "ARP.".into(),
                    packets: 0,
                    bytes: 0,
                },
            ],
        };
        assert_eq!(
            super::stats(&stats, false),
            "COUNTER     VERDICT  PACKETS     BYTES  MEANING\n\
             forwarded   forward        7     448 B  Sent.\n\
             no_service  pass        1234  4.88 KiB  Not ours."
        );
        assert!(super::stats(&stats, true).contains("not_ip"));
    }
}
