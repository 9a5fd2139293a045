//! A backend added, one drained and removed, while long downloads run.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::screen::{Screen, grouped, percent};
use super::stage::{SOON, Stage, WEIGHTS, address};
use crate::lab::{Downloads, wait_for};

const DOWNLOADS: usize = 50;
/// The backend that stood by, and the weight that it gets.
const NEW: (usize, u64) = (6, 100);
/// The backend that is drained and removed.
const OLD: usize = 1;

/// Shows that no download breaks and how few slots move.
pub(super) fn show(screen: &Screen, stage: &Stage) -> Result<()> {
    screen.step(&format!(
        "Changes while {DOWNLOADS} downloads of 64 MiB run"
    ));
    let downloads = stage
        .client()
        .download(stage.vip(), "/download?rate=8m", DOWNLOADS)?;
    downloads.wait_until_running(SOON)?;
    let total: u64 = WEIGHTS.iter().sum();
    let old = WEIGHTS[OLD - 1];

    screen.header("change                          slots moved   of all    ideal");
    let row = |what: &str, (moved, size): (u64, u64), part: u64, whole: u64| {
        let ideal = percent(part, whole);
        let (got, moved) = (percent(moved, size), grouped(moved));
        screen.line(&format!(
            "{what:<30} {moved:>12}   {got:>4.1} %   {ideal:>4.1} %"
        ));
        let few = got <= ideal * 1.25 + 0.1;
        ensure!(
            few,
            "{what} moved {got:.1} % of the slots instead of {ideal:.1} %"
        );
        Ok(())
    };
    let weight = NEW.1.to_string();
    let added = change(stage, "add", NEW.0, &["--weight", &weight])?;
    let what = format!("add {} with weight {weight}", address(NEW.0));
    row(&what, added, NEW.1, total + NEW.1)?;
    let shares = screen.work("sending requests: the new one gets its share", || {
        stage.request(400)
    })?;
    ensure!(
        shares.contains_key("backend6"),
        "the new backend gets no requests"
    );

    let drained = change(stage, "drain", OLD, &[])?;
    row(
        &format!("drain {}", address(OLD)),
        drained,
        old,
        total + NEW.1,
    )?;
    let shares = screen.work("sending requests: the drained one gets none", || {
        stage.request(400)
    })?;
    ensure!(
        !shares.contains_key("backend1"),
        "the drained backend gets new requests"
    );

    let left = screen.work("waiting for the drained one's last download", || {
        last(&downloads)
    })?;
    let removed = change(stage, "remove", OLD, &[])?;
    row(&format!("remove {}", address(OLD)), removed, 0, total)?;
    screen.good(&format!(
        "it was removed when its {left} downloads had ended"
    ));

    let ended = screen.work("waiting for all downloads", || downloads.wait(SOON * 3))?;
    let broken = ended.iter().find(|it| !it.is_complete());
    ensure!(broken.is_none(), "a download broke: {broken:?}");
    screen.good(&format!(
        "{DOWNLOADS} of {DOWNLOADS} downloads complete, 800 of 800 new requests answered"
    ));
    Ok(())
}

/// Changes a backend; returns how many slots moved, and how many there are.
fn change(stage: &Stage, what: &str, number: usize, more: &[&str]) -> Result<(u64, u64)> {
    let address = address(number);
    let before = moving(stage)?;
    let answer = stage.json(&[&["backend", what, "web", &address], more].concat())?;
    let told = &answer["services"]["web"];
    if let (Some(moved), Some(size)) = (told["slots_moved"].as_u64(), told["table_size"].as_u64()) {
        return Ok((moved, size));
    }
    // A backend takes its slots when it has answered ARP, which may be after the answer.
    stage.wait_until_active()?;
    let (after, size) = moving(stage)?;
    Ok((after.saturating_sub(before.0), size))
}

/// The slots that remember where they moved from, and all slots.
fn moving(stage: &Stage) -> Result<(u64, u64)> {
    let services: Value = stage.json(&["service", "list"])?;
    let number = |name: &str| {
        services[0][name]
            .as_u64()
            .with_context(|| format!("no {name}"))
    };
    Ok((number("moving_slots")?, number("table_size")?))
}

/// Waits until the drained backend serves nothing any more; returns how many it served.
fn last(downloads: &Downloads) -> Result<usize> {
    let name = format!("backend{OLD}");
    wait_for("the drained backend's downloads to end", SOON * 3, || {
        let all = downloads.progress();
        let own = || all.iter().filter(|it| it.backend.as_deref() == Some(&name));
        Ok(own().all(|it| it.end.is_some()).then(|| own().count()))
    })
}
