//! Answers about remembered flows, as people read them.

use comfy_table::Cell;

use crate::{
    cli::tables::{duration, table},
    director::view::{
        FlowCountView, FlowView, FlowsView, ForgottenView, SlotView, WhereaboutsView,
    },
};

pub(in crate::cli) fn list(view: &FlowsView) -> String {
    let mut lines = Vec::new();
    if !view.flows.is_empty() {
        lines.push(rows(&view.flows));
    } else if view.whereabouts.is_none() {
        lines.push("no such flow is remembered".into());
    }
    let shown = u64::try_from(view.flows.len()).unwrap_or(u64::MAX);
    if view.total > shown {
        let more = view.total - shown;
        lines.push(format!(
            "and {more} more, {} in all: --limit shows more, `xdp-lb flow count` counts them",
            view.total
        ));
    }
    if let Some(of) = &view.whereabouts {
        lines.push(whereabouts(of, view.flows.is_empty()));
    }
    lines.extend(notes(&view.notes));
    lines.join("\n")
}

fn rows(flows: &[FlowView]) -> String {
    let mut table = table(&["SERVICE", "BACKEND", "STATE", ">SILENT", "ID"]);
    for flow in flows {
        table.add_row(vec![
            Cell::new(&flow.service),
            Cell::new(flow.backend),
            Cell::new(&flow.state),
            Cell::new(silence(flow.silent_milliseconds)),
            Cell::new(&flow.id),
        ]);
    }
    table.trim_fmt()
}

/// About how long.
fn silence(milliseconds: u64) -> String {
    let (seconds, tenths) = (milliseconds / 1000, milliseconds % 1000 / 100);
    if seconds < 60 {
        format!("~{seconds}.{tenths}s")
    } else {
        format!("~{}", duration(seconds))
    }
}

/// What there is to say of one flow besides its entry.
fn whereabouts(of: &WhereaboutsView, is_unknown: bool) -> String {
    let WhereaboutsView {
        flow,
        service,
        connection_tracking: tracking,
        slot,
    } = of;
    let mut text = String::new();
    if is_unknown {
        text = format!("no such flow: service `{service}` does not remember {flow}");
        let state = slot.as_ref().map_or("", |slot| &slot.state);
        text += match (tracking.as_str(), state) {
            ("adaptive", "settled") => {
                " (with connection_tracking: adaptive, flows on settled slots are not remembered)"
            }
            ("adaptive", "mixed") => {
                " (with connection_tracking: adaptive, a flow that is where its slot leads is not remembered)"
            }
            ("off", _) => " (with connection_tracking: off, no flow is remembered)",
            _ => "",
        };
        text.push('\n');
    }
    let slot = slot.as_ref().map_or_else(
        || format!("service `{service}` has no backend that gets connections"),
        leads_to,
    );
    text + &slot
}

fn leads_to(slot: &SlotView) -> String {
    let SlotView {
        number,
        state,
        current,
        previous,
    } = slot;
    let current = current.map_or_else(|| "no backend".into(), |address| address.to_string());
    match previous {
        Some(previous) => format!(
            "its slot, {number}, is moving: new connections go to {current}, others that are not remembered to {previous}"
        ),
        None => format!("its slot, {number}, is {state} and leads to {current}"),
    }
}

pub(in crate::cli) fn count(view: &FlowCountView) -> String {
    if view.backends.is_empty() {
        let none = ["no such flow is remembered".to_owned()].into_iter();
        let lines: Vec<_> = none.chain(notes(&view.notes)).collect();
        return lines.join("\n");
    }
    let mut table = table(&[
        "SERVICE", "BACKEND", ">OPEN", ">OPENING", ">CLOSING", ">FLOWS",
    ]);
    let [mut open, mut opening, mut closing] = [0; 3];
    for sum in &view.backends {
        open += sum.open;
        opening += sum.opening;
        closing += sum.closing;
        table.add_row(vec![
            Cell::new(&sum.service),
            Cell::new(sum.backend),
            Cell::new(sum.open),
            Cell::new(sum.opening),
            Cell::new(sum.closing),
            Cell::new(sum.total),
        ]);
    }
    table.add_row(vec![
        Cell::new("all"),
        Cell::new(""),
        Cell::new(open),
        Cell::new(opening),
        Cell::new(closing),
        Cell::new(view.total),
    ]);
    let lines: Vec<_> = [table.trim_fmt()]
        .into_iter()
        .chain(notes(&view.notes))
        .collect();
    lines.join("\n")
}

pub(in crate::cli) fn forgotten(view: &ForgottenView) -> String {
    match view.forgotten {
        0 => "no such flow is remembered".into(),
        1 => "1 flow forgotten".into(),
        flows => format!("{flows} flows forgotten"),
    }
}

fn notes(notes: &[String]) -> impl Iterator<Item = String> {
    notes.iter().map(|note| format!("note: {note}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::view::FlowSumView;

    fn flow(last: u8, silent_milliseconds: u64) -> FlowView {
        FlowView {
            service: "web".into(),
            backend: [10, 0, 0, last].into(),
            state: "open".into(),
            silent_milliseconds,
            id: "00002a-0000abc".into(),
        }
    }

    fn one(tracking: &str, state: &str, previous: Option<u8>) -> FlowsView {
        let slot = SlotView {
            number: 7,
            state: state.into(),
            current: Some([10, 0, 0, 12].into()),
            previous: previous.map(|last| [10, 0, 0, last].into()),
        };
        let whereabouts = WhereaboutsView {
            flow: "tcp 198.51.100.7:40000 -> 192.0.2.10:80".into(),
            service: "web".into(),
            connection_tracking: tracking.into(),
            slot: Some(slot),
        };
        FlowsView {
            whereabouts: Some(whereabouts),
            ..FlowsView::default()
        }
    }

    #[test]
    fn a_list_says_how_many_it_leaves_out() {
        let view = FlowsView {
            flows: vec![flow(11, 128), flow(12, 61_000)],
            total: 5,
            ..FlowsView::default()
        };
        assert_eq!(
            list(&view),
            "SERVICE  BACKEND    STATE  SILENT  ID\n\
             web      10.0.0.11  open    ~0.1s  00002a-0000abc\n\
             web      10.0.0.12  open   ~1m 1s  00002a-0000abc\n\
             and 3 more, 5 in all: --limit shows more, `xdp-lb flow count` counts them"
        );
        let none = FlowsView {
            notes: vec!["so it is".into()],
            ..FlowsView::default()
        };
        assert_eq!(list(&none), "no such flow is remembered\nnote: so it is");
    }

    #[test]
    fn a_flow_that_is_not_remembered_has_a_slot_all_the_same() {
        assert_eq!(
            list(&one("adaptive", "settled", None)),
            "no such flow: service `web` does not remember tcp 198.51.100.7:40000 -> 192.0.2.10:80 \
             (with connection_tracking: adaptive, flows on settled slots are not remembered)\n\
             its slot, 7, is settled and leads to 10.0.0.12"
        );
        assert_eq!(
            list(&one("full", "moving", Some(11))),
            "no such flow: service `web` does not remember tcp 198.51.100.7:40000 -> 192.0.2.10:80\n\
             its slot, 7, is moving: new connections go to 10.0.0.12, others that are not remembered to 10.0.0.11"
        );
        let known = FlowsView {
            flows: vec![flow(11, 0)],
            total: 1,
            ..one("full", "mixed", None)
        };
        let text = list(&known);
        assert!(!text.contains("no such flow"), "{text}");
        assert!(text.ends_with("is mixed and leads to 10.0.0.12"), "{text}");
    }

    #[test]
    fn counts_have_a_sum() {
        let sum = |last: u8, open, closing| FlowSumView {
            service: "web".into(),
            backend: [10, 0, 0, last].into(),
            open,
            opening: 0,
            closing,
            total: open + closing,
        };
        let view = FlowCountView {
            backends: vec![sum(11, 3, 20), sum(12, 4, 0)],
            total: 27,
            notes: Vec::new(),
        };
        assert_eq!(
            count(&view),
            "SERVICE  BACKEND    OPEN  OPENING  CLOSING  FLOWS\n\
             web      10.0.0.11     3        0       20     23\n\
             web      10.0.0.12     4        0        0      4\n\
             all                    7        0       20     27"
        );
    }
}
