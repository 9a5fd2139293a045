//! Changes of the backends under running downloads: none breaks.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use xdp_lb_tests::lab::{Rig, SOON, config, served, wait_until_all_go_on};
use xtask::lab::DOWNLOAD_BYTES;

/// Slots moved, and slots in all, of an answer to a change.
fn moved(change: &Value) -> Result<(u64, u64)> {
    let moved = &change["services"]["web"];
    let number = |name: &str| {
        moved[name]
            .as_u64()
            .with_context(|| format!("no {name}: {change}"))
    };
    Ok((number("slots_moved")?, number("table_size")?))
}

#[test]
fn adding_draining_and_removing_breaks_none_of_a_hundred_downloads() -> Result<()> {
    let rig = Rig::with_config(5, &config(1..=4))?;
    let downloads = rig.download(100)?;
    let serving = served(&downloads);
    assert_eq!(serving.len(), 4, "{serving:?}");

    rig.change("add", 5, &[])?;
    rig.wait_for_state(5, "active")?;
    assert_eq!(rig.shares(200)?.len(), 5);
    wait_until_all_go_on(&downloads)?;

    rig.change("drain", 1, &[])?;
    assert!(!rig.shares(60)?.contains_key("backend1"));
    wait_until_all_go_on(&downloads)?;

    // It came after the downloads, so it serves none of them.
    rig.change("remove", 5, &[])?;
    let shares = rig.shares(60)?;
    assert!(
        !shares.contains_key("backend5") && !shares.contains_key("backend1"),
        "{shares:?}"
    );
    wait_until_all_go_on(&downloads)?;

    rig.change("set", 2, &["--weight", "10"])?;
    rig.change("enable", 1, &[])?;
    assert!(rig.shares(100)?.contains_key("backend1"));
    wait_until_all_go_on(&downloads)?;
    assert_eq!(
        served(&downloads),
        serving,
        "a download changed its backend"
    );
    Ok(())
}

#[test]
fn each_change_tells_how_many_slots_it_moves_and_moves_few() -> Result<()> {
    let rig = Rig::with_config(5, &config(1..=4))?;
    // A fifth of the slots moves to the new one, and little else.
    let (slots, size) = moved(&rig.change("add", 5, &[])?)?;
    assert!(slots >= size / 5 && slots < size / 4, "{slots} of {size}");
    let (slots, size) = moved(&rig.change("drain", 1, &[])?)?;
    assert!(slots >= size / 5 && slots < size / 3, "{slots} of {size}");
    let (slots, size) = moved(&rig.change("remove", 5, &[])?)?;
    assert!(slots >= size / 4 && slots < size / 3, "{slots} of {size}");
    Ok(())
}

#[test]
fn a_drained_backend_finishes_what_it_began() -> Result<()> {
    let rig = Rig::new(2)?;
    let client = rig.lab.client();
    let downloads = client.download(rig.vip(), "/download?rate=16m", 8)?;
    downloads.wait_until_running(SOON)?;
    assert!(served(&downloads).contains_key("backend1"));

    rig.change("drain", 1, &[])?;
    assert_eq!(
        rig.shares(60)?,
        BTreeMap::from([("backend2".to_owned(), 60)])
    );
    for download in downloads.wait(SOON * 2)? {
        assert!(download.is_complete(), "{download:?}");
        assert_eq!(download.received, DOWNLOAD_BYTES);
    }
    Ok(())
}

#[test]
fn many_changes_in_a_row_break_no_download() -> Result<()> {
    let rig = Rig::with_config(6, &config(1..=3))?;
    let downloads = rig.download(30)?;
    for number in 4..=6 {
        rig.change("add", number, &[])?;
        rig.wait_for_state(number, "active")?;
        rig.change("set", 1, &["--weight", &(number * 10).to_string()])?;
    }
    for number in (4..=6).rev() {
        rig.change("remove", number, &[])?;
        rig.change("drain", number - 3, &[])?;
        rig.get(20).or_else(|error| {
            // With all three drained nobody is left for new requests.
            if number == 4 {
                Ok(Vec::new())
            } else {
                Err(error)
            }
        })?;
    }
    wait_until_all_go_on(&downloads)?;
    let refused = rig.failure();
    assert!(refused.contains("refused"), "{refused}");
    wait_until_all_go_on(&downloads)
}

#[test]
fn requests_go_on_without_failure_while_backends_change() -> Result<()> {
    let rig = Rig::with_config(4, &config(1..=3))?;
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| rig.get_at_most(6000, 8));
        while !requests.is_finished() {
            // Weight 0 sends no new ones there; those that run go on.
            for (what, number, more) in [
                ("add", 4, &[][..]),
                ("drain", 2, &[]),
                ("set", 1, &["--weight", "37"]),
                ("enable", 2, &[]),
                ("drain", 4, &[]),
                ("set", 1, &["--weight", "100"]),
            ] {
                rig.change(what, number, more)?;
            }
            // Short requests on it are over when its last connection is.
            std::thread::sleep(std::time::Duration::from_millis(300));
            rig.change("remove", 4, &[])?;
        }
        let responses = requests.join().expect("the requests' thread")?;
        assert_eq!(responses.len(), 6000);
        Ok(())
    })
}

#[test]
fn a_changed_file_moves_new_requests_and_breaks_no_download() -> Result<()> {
    let rig = Rig::with_config(3, &config(1..=2))?;
    let downloads = rig.download(20)?;
    let weighted = config(1..=3).replace("- 10.0.0.11", "- { address: 10.0.0.11, weight: 0 }");
    rig.director.write_config(&weighted)?;
    rig.json(&["config", "reload"])?;
    rig.wait_for_state(3, "active")?;
    let shares = rig.shares(100)?;
    assert!(shares.keys().eq(["backend2", "backend3"]), "{shares:?}");
    wait_until_all_go_on(&downloads)
}
