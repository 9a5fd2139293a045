//! Questions about downloads that run in the background.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use xtask::lab::{Download, Downloads, wait_for};

use super::SOON;

/// How many downloads each backend serves.
#[must_use]
pub fn served(downloads: &Downloads) -> BTreeMap<String, usize> {
    let mut served = BTreeMap::new();
    for backend in downloads.progress().into_iter().filter_map(|it| it.backend) {
        *served.entry(backend).or_default() += 1;
    }
    served
}

/// Waits until every download has received more than it has now; fails if one breaks.
pub fn wait_until_all_go_on(downloads: &Downloads) -> Result<()> {
    let before = downloads.progress();
    wait_for("every download to go on", SOON, || {
        let now = downloads.progress();
        let broken = now.iter().find(|it| it.end.is_some() && !it.is_complete());
        ensure!(broken.is_none(), "a download broke: {broken:?}");
        let go_on = |(now, before): (&Download, &Download)| {
            now.is_complete() || now.received > before.received
        };
        Ok(now.iter().zip(&before).all(go_on).then_some(()))
    })
}
