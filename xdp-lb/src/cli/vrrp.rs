//! Virtual routers, as people read of them.

use comfy_table::{Cell, Color};

use super::tables::{duration, fields, table};
use crate::vrrp::view::VrrpView;

pub(super) fn list(views: &[VrrpView]) -> String {
    if views.is_empty() {
        return "no virtual routers in the config".into();
    }
    let mut table = table(&[
        "NAME",
        "FAMILY",
        "STATE",
        "SINCE",
        ">PRIORITY",
        "ACTIVE",
        "INTERFACE",
        ">VRID",
        ">VIPS",
        "REMARKS",
    ]);
    for view in views {
        let held = view.vips.iter().filter(|vip| vip.held).count();
        table.add_row(vec![
            Cell::new(&view.name),
            Cell::new(&view.family),
            state(&view.state),
            Cell::new(duration(view.since_seconds)),
            Cell::new(priority(view)),
            Cell::new(active(view)),
            Cell::new(&view.interface),
            Cell::new(view.vrid),
            Cell::new(format!("{held}/{}", view.vips.len())),
            Cell::new(remarks(view)),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn show(views: &[VrrpView]) -> String {
    let all: Vec<_> = views.iter().map(one).collect();
    all.join("\n\n")
}

fn one(view: &VrrpView) -> String {
    let mut lines = vec![
        ("name", format!("{} ({})", view.name, view.family)),
        (
            "router",
            format!("VRID {} on {}", view.vrid, view.interface),
        ),
        ("state", view.state.clone()),
        ("since", duration(view.since_seconds)),
        ("active router", active(view)),
        ("priority", priority(view)),
        (
            "advertises",
            format!("every {} ms", view.advert_interval_milliseconds),
        ),
        ("transitions", view.transitions.to_string()),
    ];
    if let Some(reason) = &view.reason {
        lines.insert(3, ("why", reason.clone()));
    }
    if let Some(group) = &view.group {
        lines.push(("group", group.clone()));
    }
    if let Some(mac) = &view.virtual_mac {
        lines.push(("virtual MAC", mac.clone()));
    }
    let mut text = fields(&lines);
    for lowered in &view.lowered_by {
        text += &format!("\n  priority -{:<3}  {}", lowered.weight, lowered.what);
    }
    for vip in &view.vips {
        let held = if vip.held { "here" } else { "not here" };
        let error = vip.error.as_deref().unwrap_or_default();
        text += format!("\n  {:<8}  {}  {error}", held, vip.address).trim_end();
    }
    for counter in view.counters.iter().filter(|counter| counter.packets > 0) {
        text += &format!(
            "\n  {:>10}  {:<14}  {}",
            counter.packets, counter.name, counter.text
        );
    }
    text
}

/// "150", "90 of 150".
fn priority(view: &VrrpView) -> String {
    if view.effective_priority == view.priority {
        view.priority.to_string()
    } else {
        format!("{} of {}", view.effective_priority, view.priority)
    }
}

fn active(view: &VrrpView) -> String {
    let active = view.active_router.map(|address| address.to_string());
    active.unwrap_or_else(|| "-".into())
}

fn remarks(view: &VrrpView) -> String {
    let reason = view.reason.iter().cloned();
    let lowered = view.lowered_by.iter().map(|lowered| lowered.what.clone());
    let errors = view.vips.iter().filter_map(|vip| vip.error.clone());
    let all: Vec<_> = reason.chain(lowered).chain(errors).collect();
    all.join("; ")
}

fn state(state: &str) -> Cell {
    let cell = Cell::new(state);
    if std::env::var_os("NO_COLOR").is_some() {
        return cell;
    }
    cell.fg(match state {
        "active" => Color::Green,
        "initialize" => Color::Red,
        _ => Color::Yellow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::view::{LoweredView, VipView, VrrpCounterView};

    fn view() -> VrrpView {
        VrrpView {
            name: "main".into(),
            family: "ipv4".into(),
            interface: "eth0".into(),
            vrid: 51,
            group: None,
            state: "active".into(),
            reason: None,
            since_seconds: 61,
            priority: 150,
            effective_priority: 90,
            lowered_by: vec![LoweredView {
                what: "interface eth1 is down".into(),
                weight: 60,
            }],
            demoted_by: 0,
            paused: false,
            advert_interval_milliseconds: 100,
            active_router: Some([10, 0, 0, 2].into()),
            virtual_mac: Some("00:00:5e:00:01:33".into()),
            vips: vec![VipView {
                address: "192.0.2.10/32".into(),
                held: true,
                error: None,
            }],
            transitions: 2,
            counters: vec![VrrpCounterView {
                name: "hops".into(),
                text: "Refused".into(),
                packets: 7,
            }],
        }
    }

    #[test]
    fn a_list_has_a_row_for_each() {
        let text = list(&[view(), view()]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("90 of 150"), "{text}");
        assert!(text.contains("1/1"), "{text}");
        assert!(text.contains("interface eth1 is down"), "{text}");
        assert_eq!(list(&[]), "no virtual routers in the config");
    }

    #[test]
    fn one_is_shown_with_all_that_is_known() {
        let text = show(&[view()]);
        for part in [
            "VRID 51 on eth0",
            "1m 1s",
            "every 100 ms",
            "00:00:5e:00:01:33",
            "priority -60   interface eth1 is down",
            "here      192.0.2.10/32",
            "7  hops",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
