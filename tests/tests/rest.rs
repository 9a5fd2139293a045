//! Connection tracking `adaptive` with real connections: a table that has changed comes to rest under traffic, and
//! nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::{Rig, SOON, config, served, wait_until_all_go_on};
use xtask::lab::wait_for;

const DOWNLOADS: usize = 24;

/// The only service.
fn service(rig: &Rig) -> Result<Value> {
    let services = rig.json(&["service", "list"])?;
    Ok(services.get(0).context("no service")?.clone())
}

fn wait_until_at_rest(rig: &Rig) -> Result<()> {
    wait_for("the table to come to rest", SOON, || {
        Ok((service(rig)?["at_rest"] == true).then_some(()))
    })
}

/// How many flows are remembered.
fn remembered(rig: &Rig) -> Result<u64> {
    let counted = rig.json(&["flow", "count"])?;
    counted["total"].as_u64().context("no total")
}

/// While it goes on, short requests never fail.
fn under_requests(rig: &Rig, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| -> Result<usize> {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                count += rig.get(20)?.len();
            }
            Ok(count)
        });
        let tested = test();
        is_over.store(true, Ordering::Relaxed);
        let count = requests.join().expect("the requests' thread")?;
        ensure!(count > 0, "no request was made");
        tested
    })
}

#[test]
fn a_changed_table_comes_to_rest_and_connections_do_not_notice() -> Result<()> {
    let config = config(1..=2) + "defaults: { idle_timeout: { tcp: 5s } }\n";
    let rig = Rig::with_config(3, &config)?;
    wait_until_at_rest(&rig)?;
    let downloads = rig.download(DOWNLOADS)?;
    let serving = served(&downloads);
    under_requests(&rig, || {
        assert_eq!(remembered(&rig)?, 0, "nothing is remembered at rest");
        rig.change("add", 3, &[])?;
        let changed = service(&rig)?;
        assert!(changed["moving_slots"].as_u64() > Some(0), "{changed}");
        assert_eq!(changed["at_rest"], false);
        wait_for("the slots to have moved", SOON, || {
            Ok((service(&rig)?["moving_slots"] == 0).then_some(()))
        })?;
        wait_until_all_go_on(&downloads)?;
        // The downloads that were on slots of the third backend now keep these from resting.
        let mixed = service(&rig)?;
        assert!(mixed["mixed_slots"].as_u64() > Some(0), "{mixed}");
        assert_eq!(mixed["at_rest"], false);
        assert!(remembered(&rig)? > 0);
        wait_until_all_go_on(&downloads)
    })?;
    assert_eq!(
        served(&downloads),
        serving,
        "a download has changed its backend"
    );
    under_requests(&rig, || {
        drop(downloads);
        wait_until_at_rest(&rig)?;
        let rests = service(&rig)?;
        assert_eq!(
            (&rests["moving_slots"], &rests["mixed_slots"]),
            (&0.into(), &0.into())
        );
        let text = rig.director.check(&["service", "show", "web"])?;
        assert!(text.contains("65537 slots, at rest"), "{text}");
        Ok(())
    })?;
    assert_eq!(rig.shares(60)?.len(), 3);
    Ok(())
}
