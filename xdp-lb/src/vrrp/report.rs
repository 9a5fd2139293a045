//! What is told of virtual routers.

use std::{collections::BTreeMap, time::Instant};

use super::{
    VirtualAddress,
    adjust::Adjustment,
    counters::Count,
    notify::family,
    ownership::Held,
    router::Router,
    team::Team,
    view::{LoweredView, VipView, VrrpCounterView, VrrpView},
};

/// All virtual routers.
pub(super) fn views(
    teams: &[Team],
    held: &BTreeMap<(usize, VirtualAddress), Held>,
    adjustment: impl Fn(&str) -> Adjustment,
    now: Instant,
) -> Vec<VrrpView> {
    let mut views = Vec::new();
    for team in teams {
        for router in &team.routers {
            let adjustment = adjustment(&router.entry.name);
            views.push(view(team, router, held, adjustment, now));
        }
    }
    views
}

fn view(
    team: &Team,
    router: &Router,
    held: &BTreeMap<(usize, VirtualAddress), Held>,
    adjustment: Adjustment,
    now: Instant,
) -> VrrpView {
    let entry = &router.entry;
    let lowered_by = team.lowered.iter().map(|lowered| LoweredView {
        what: lowered.what.clone(),
        weight: lowered.weight,
    });
    let vips = router.vips().map(|vip| {
        let held = held.get(&(router.id(), vip));
        VipView {
            address: vip.to_string(),
            held: held.is_some_and(|held| held.is_held),
            error: held.and_then(|held| held.error.clone()),
        }
    });
    let counters = Count::ALL.iter().map(|&count| VrrpCounterView {
        name: count.name().into(),
        text: count.text().into(),
        packets: router.counters.get(count),
    });
    VrrpView {
        name: entry.name.clone(),
        family: family(router.is_ipv6).into(),
        interface: entry.interface.clone(),
        vrid: entry.vrid,
        group: entry.group.clone(),
        state: router.state().name().into(),
        reason: team.reason.clone(),
        since_seconds: now.duration_since(router.since()).as_secs(),
        priority: entry.priority,
        effective_priority: team.priority,
        lowered_by: lowered_by.collect(),
        demoted_by: adjustment.demoted_by,
        paused: adjustment.is_paused,
        advert_interval_milliseconds: u64::from(entry.advert_interval.centiseconds()) * 10,
        active_router: match router.state() {
            super::machine::State::Active => router.source(),
            _ => router.active,
        },
        virtual_mac: router
            .virtual_mac()
            .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
        vips: vips.collect(),
        transitions: router.transitions,
        counters: counters.collect(),
    }
}
