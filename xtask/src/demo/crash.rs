//! The daemon killed and started again under traffic.

use anyhow::{Context, Result, ensure};

use super::screen::{Screen, grouped};
use super::stage::{SOON, Stage, request};
use crate::lab::wait_for;

const DOWNLOADS: usize = 20;
/// Before and while the daemon is gone, and after.
const REQUESTS: usize = 3000;

/// Shows that packets go on without the daemon, and flows with the next one.
pub(super) fn show(screen: &Screen, mut stage: Stage) -> Result<Stage> {
    screen.step("The daemon killed (-9) and started again under traffic");
    let (client, vip) = (stage.client(), stage.vip());
    let downloads = client.download(vip, "/download?rate=400k", DOWNLOADS)?;
    downloads.wait_until_running(SOON)?;
    let requests = std::thread::spawn(move || request(&client, vip, REQUESTS));

    stage.director.kill()?;
    let alone = screen.work("sending requests while there is no daemon", || {
        stage.request(1000)
    })?;
    let answered: u64 = alone.values().sum();
    ensure!(
        !stage.director.cli(&["status"])?.status.success(),
        "a daemon answers, although it was killed"
    );
    screen.good(&format!(
        "{} requests answered while there was no daemon",
        grouped(answered)
    ));

    screen.work("starting the daemon again", || stage.director.restart())?;
    let status = stage.json(&["status"])?;
    ensure!(
        status["maps"] == "adopted",
        "the new daemon did not adopt the maps: {status}"
    );
    screen.good("the new daemon adopted maps, flows and counters");

    let outcome = screen.work("sending requests on", || requests.join());
    let shares = outcome
        .ok()
        .context("the thread that sends requests broke")??;
    let answered = grouped(shares.values().sum());
    screen.good(&format!(
        "{answered} requests before, meanwhile and after: none failed"
    ));

    let before = downloads.progress();
    wait_for("the downloads to go on", SOON, || {
        let now = downloads.progress();
        let broken = now.iter().find(|it| it.end.is_some());
        ensure!(broken.is_none(), "a download broke: {broken:?}");
        let all = now
            .iter()
            .zip(&before)
            .all(|(now, before)| now.received > before.received);
        Ok(all.then_some(()))
    })?;
    screen.good(&format!("{DOWNLOADS} downloads went on all the time"));
    Ok(stage)
}
