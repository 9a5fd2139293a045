//! What health checks tell, as people read it.

use std::time::{Duration, SystemTime};

use comfy_table::{Cell, Color};

use super::tables::{duration, fields, table};
use crate::director::view::{CheckedView, HealthView, ResultView};

pub(super) fn list(views: &[HealthView]) -> String {
    if views.is_empty() {
        return "no backend has a health check; the field `health_check` of a service asks for it"
            .into();
    }
    let mut table = table(&[
        "SERVICE",
        "BACKEND",
        "STATE",
        "SINCE",
        ">LATENCY",
        "LAST CAUSE",
        "CHECK",
    ]);
    for view in views {
        table.add_row(vec![
            Cell::new(&view.service),
            Cell::new(view.backend),
            state(&view.state),
            Cell::new(since(view)),
            Cell::new(view.last.as_ref().map_or_else(|| "-".into(), latency)),
            Cell::new(
                view.last_failure
                    .as_ref()
                    .map_or("-", |failure| &failure.cause),
            ),
            Cell::new(&view.check),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn show(views: &[HealthView]) -> String {
    let all: Vec<_> = views.iter().map(one).collect();
    all.join("\n\n")
}

fn one(view: &HealthView) -> String {
    let mut lines = vec![
        ("service", view.service.clone()),
        ("backend", view.backend.to_string()),
        ("check", view.check.clone()),
        ("state", view.state.clone()),
        ("since", since(view)),
    ];
    if let Some(seconds) = view.held_seconds {
        lines.push(("held for", duration(seconds)));
    }
    let last = match &view.last {
        None => "none yet".into(),
        Some(last) => outcome(last),
    };
    lines.push(("last result", last));
    if let Some(failure) = &view.last_failure {
        lines.push((
            "last failure",
            format!("{}: {}", ago(failure.at), failure.cause),
        ));
    }
    let failed: u64 = view.failed.values().sum();
    let kinds: Vec<_> = view
        .failed
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let kinds = if kinds.is_empty() {
        String::new()
    } else {
        format!(" ({})", kinds.join(", "))
    };
    lines.push((
        "results",
        format!("{} succeeded, {failed} failed{kinds}", view.passed),
    ));
    let mut text = fields(&lines);
    for event in view.history.iter().rev() {
        let cause = event.cause.as_deref().unwrap_or_default();
        text += format!("\n  {:>12}  {:<4}  {cause}", ago(event.at), event.to).trim_end();
    }
    text
}

pub(super) fn checked(views: &[CheckedView]) -> String {
    let mut table = table(&["SERVICE", "BACKEND", "STATE", "RESULT", "CHECK"]);
    for view in views {
        table.add_row(vec![
            Cell::new(&view.service),
            Cell::new(view.backend),
            state(&view.state),
            Cell::new(outcome(&view.result)),
            Cell::new(&view.check),
        ]);
    }
    table.trim_fmt()
}

/// "ok in 0.41 ms", "status 503 after 1.2 ms".
fn outcome(result: &ResultView) -> String {
    match &result.cause {
        None => format!("ok in {}", latency(result)),
        Some(cause) => format!("{cause}, after {}", latency(result)),
    }
}

fn latency(result: &ResultView) -> String {
    let took = Duration::from_micros(result.took_microseconds).as_secs_f64() * 1e3;
    if took < 10.0 {
        format!("{took:.2} ms")
    } else {
        format!("{took:.0} ms")
    }
}

fn since(view: &HealthView) -> String {
    view.since_seconds.map_or_else(
        || "the start".into(),
        |seconds| format!("{} ago", duration(seconds)),
    )
}

/// How long ago a moment is, in seconds since 1970.
fn ago(at: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    format!("{} ago", duration(now.saturating_sub(at)))
}

/// A state in its colour, which is seen on a terminal alone.
fn state(state: &str) -> Cell {
    let cell = Cell::new(state);
    if std::env::var_os("NO_COLOR").is_some() {
        return cell;
    }
    cell.fg(match state {
        "up" => Color::Green,
        "down" => Color::Red,
        _ => Color::Yellow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::view::{EventView, FailureView};

    fn view() -> HealthView {
        HealthView {
            service: "web".into(),
            backend: [10, 0, 0, 11].into(),
            check: "tcp, port 80, via backend".into(),
            state: "down".into(),
            since_seconds: Some(61),
            held_seconds: None,
            last: Some(ResultView {
                passed: false,
                cause: Some("connect: refused".into()),
                took_microseconds: 412,
                ago_milliseconds: 3,
            }),
            last_failure: Some(FailureView {
                at: 0,
                cause: "connect: refused".into(),
            }),
            passed: 7,
            failed: [("refused".to_owned(), 3)].into(),
            history: vec![EventView {
                at: 0,
                to: "up".into(),
                cause: None,
            }],
        }
    }

    #[test]
    fn a_row_tells_state_and_cause() {
        assert_eq!(
            list(&[view()]),
            "SERVICE  BACKEND    STATE  SINCE      LATENCY  LAST CAUSE        CHECK\n\
             web      10.0.0.11  down   1m 1s ago  0.41 ms  connect: refused  tcp, port 80, via backend"
        );
        assert!(list(&[]).contains("health_check"));
    }

    #[test]
    fn one_backend_is_shown_with_its_history() {
        let text = show(&[view(), view()]);
        assert!(
            text.contains("last result   connect: refused, after 0.41 ms"),
            "{text}"
        );
        assert!(
            text.contains("results       7 succeeded, 3 failed (refused 3)"),
            "{text}"
        );
        assert!(
            text.lines()
                .any(|line| line.ends_with("up") && line.starts_with("  ")),
            "{text}"
        );
        assert_eq!(text.matches("service ").count(), 2);
    }
}
