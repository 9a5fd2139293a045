//! The daemon stops, crashes, and starts again; packets go on. `detach` ends that.

use anyhow::Result;
use xdp_lb_tests::lab::{Rig, config, served, wait_until_all_go_on};
use xtask::lab::Director;

/// Stops the daemon in a way, and checks everything that must go on without it and after it.
fn packets_go_on(stop: impl FnOnce(&mut Director) -> Result<()>) -> Result<()> {
    let mut rig = Rig::with_config(4, &config(1..=3))?;
    rig.change("set", 1, &["--weight", "300"])?;
    let downloads = rig.download(20)?;
    let serving = served(&downloads);
    let forwarded = rig.counter("forwarded")?;

    stop(&mut rig.director)?;
    assert!(!rig.director.cli(&["status"])?.status.success());
    assert_eq!(rig.shares(300)?.len(), 3);
    wait_until_all_go_on(&downloads)?;

    // The next daemon finds another file, so that slots move at its start already.
    let yaml = config(1..=4).replace("- 10.0.0.12", "- { address: 10.0.0.12, weight: 20 }");
    rig.director.write_config(&yaml)?;
    rig.director.restart()?;
    assert_eq!(rig.json(&["status"])?["maps"], "adopted");
    rig.wait_until_active()?;
    assert_eq!(rig.backend(1)?["weight"], 300);
    assert!(
        rig.counter("forwarded")? > forwarded,
        "the counters began anew"
    );
    assert_eq!(rig.shares(400)?.len(), 4);

    // A slot remembers one backend only; after several moves it is the flow entries that count.
    for weight in ["1", "200", "7", "100"] {
        rig.change("set", 3, &["--weight", weight])?;
    }
    rig.change("drain", 1, &[])?;
    assert!(!rig.shares(60)?.contains_key("backend1"));
    wait_until_all_go_on(&downloads)?;
    assert_eq!(served(&downloads), serving);
    Ok(())
}

#[test]
fn packets_go_on_after_a_crash_and_the_next_daemon_adopts_the_flows() -> Result<()> {
    packets_go_on(|director| {
        assert!(!director.kill()?.success());
        Ok(())
    })
}

#[test]
fn packets_go_on_after_a_stop_and_the_next_daemon_adopts_the_flows() -> Result<()> {
    packets_go_on(|director| {
        assert!(director.terminate()?.success());
        Ok(())
    })
}

#[test]
fn requests_go_on_without_failure_through_crashes_and_starts() -> Result<()> {
    let rig = Rig::new(3)?;
    let (client, vip) = (rig.lab.client(), rig.vip());
    let mut rig = rig;
    let director = &mut rig.director;
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| client.get_many(vip, "/", 8000, 8));
        while !requests.is_finished() {
            director.kill()?;
            director.restart()?;
        }
        for response in requests.join().expect("the requests' thread") {
            assert_eq!(response?.status, 200);
        }
        Ok(())
    })
}

#[test]
fn changes_made_at_run_time_survive_a_crash_and_a_stop() -> Result<()> {
    let mut rig = Rig::with_config(5, &config(1..=4))?;
    rig.change("add", 5, &["--weight", "70"])?;
    rig.change("drain", 1, &[])?;
    rig.change("set", 2, &["--weight", "33"])?;
    rig.change("remove", 3, &[])?;
    rig.wait_until_active()?;
    let before = rig.json(&["backend", "list", "web"])?;

    rig.director.kill()?;
    rig.director.restart()?;
    rig.director.terminate()?;
    rig.director.restart()?;
    rig.wait_until_active()?;
    let after = rig.json(&["backend", "list", "web"])?;
    for (before, after) in before
        .as_array()
        .into_iter()
        .flatten()
        .zip(after.as_array().into_iter().flatten())
    {
        for field in ["address", "weight", "state", "slots", "origin"] {
            assert_eq!(before[field], after[field], "{field}: {before} {after}");
        }
    }
    assert_eq!(after.as_array().map(Vec::len), Some(4), "{after}");
    assert_eq!(rig.backend(5)?["origin"], "runtime");
    assert_eq!(rig.backend(1)?["origin"], "changed");
    assert_eq!(rig.backend(4)?["origin"], "config");
    let shares = rig.shares(300)?;
    assert!(
        shares.keys().eq(["backend2", "backend4", "backend5"]),
        "{shares:?}"
    );
    Ok(())
}

/// Nothing of xdp-lb is left, and the director's kernel refuses what goes to the VIP.
fn assert_detached(rig: &Rig) -> Result<()> {
    assert_eq!(rig.pins(), Vec::<String>::new());
    assert!(!rig.is_attached()?);
    let refused = rig.failure();
    assert!(refused.contains("refused"), "{refused}");
    Ok(())
}

#[test]
fn detach_takes_all_away_and_ends_the_daemon() -> Result<()> {
    let mut rig = Rig::new(2)?;
    rig.get(20)?;
    assert!(rig.is_attached()? && !rig.pins().is_empty());
    let said = rig.director.check(&["detach"])?;
    assert!(said.contains("detached"), "{said}");
    assert_detached(&rig)?;
    // It ends by itself, and well.
    assert!(rig.director.terminate()?.success());
    assert!(!rig.director.cli(&["status"])?.status.success());

    rig.director.restart()?;
    assert_eq!(rig.json(&["status"])?["maps"], "new");
    rig.wait_until_active()?;
    rig.get(20)?;
    Ok(())
}

#[test]
fn detach_works_without_a_daemon_and_twice() -> Result<()> {
    let mut rig = Rig::new(2)?;
    rig.director.kill()?;
    rig.get(20)?;
    let said = rig.director.check(&["detach"])?;
    assert!(said.contains("detached"), "{said}");
    assert_detached(&rig)?;
    let again = rig.director.check(&["detach"])?;
    assert_eq!(again, "nothing was attached\n");
    Ok(())
}

#[test]
fn with_detach_on_exit_a_stop_takes_all_away() -> Result<()> {
    let mut rig = Rig::new(2)?;
    rig.director.terminate()?;
    let mut command = rig.run_command("leaving", rig.director.pin_dir());
    let mut daemon = rig.start("leaving", command.arg("--detach-on-exit"))?;
    rig.get(20)?;
    assert!(daemon.terminate(xdp_lb_tests::lab::SOON)?.success());
    assert_detached(&rig)
}

/// They need the whole of the program, of which the new daemon has one of its own.
#[test]
fn connections_that_open_on_moving_slots_go_on_while_a_daemon_takes_over() -> Result<()> {
    let mut rig = Rig::with_config(3, &config(1..=2))?;
    rig.change("add", 3, &[])?;
    for _ in 0..3 {
        let (client, vip) = (rig.lab.client(), rig.vip());
        let requests = std::thread::spawn(move || client.get_many(vip, "/", 3000, 8));
        rig.director.restart()?;
        for response in requests.join().expect("the requests' thread") {
            assert_eq!(response?.status, 200);
        }
    }
    Ok(())
}
