//! Backends that fail and come back, under traffic.

use std::time::Instant;

use anyhow::{Context as _, Result};
use xdp_lb_tests::health::{config, while_asking};
use xdp_lb_tests::lab::{Rig, served, wait_until_all_go_on};

const CHECK: &str = "health_check: { type: http, path: /healthz, interval: 200ms, timeout: 200ms, \
                     rise: 2, fall: 2 }";

fn server_of(rig: &mut Rig, number: usize) -> xtask::lab::HttpServer {
    rig.servers.remove(number - 1)
}

#[test]
fn a_killed_server_costs_a_few_requests_and_comes_back() -> Result<()> {
    let mut rig = Rig::with_config(3, &config(1..=3, &[CHECK]))?;
    for number in 1..=3 {
        rig.wait_for_health(number, "up")?;
    }
    let downloads = rig.download(30)?;
    let serving = served(&downloads);
    assert_eq!(serving.len(), 3, "{serving:?}");
    let slots =
        |rig: &Rig| -> Result<u64> { rig.backend(1)?["slots"].as_u64().context("no slots") };
    let before = slots(&rig)?;
    let server = server_of(&mut rig, 1);
    let ((killed, down), asked) = while_asking(&rig, || {
        let killed = Instant::now();
        server.kill()?;
        rig.wait_for_health(1, "down")?;
        rig.wait_for_state(1, "down")?;
        let down = Instant::now();
        rig.get(100)?;
        Ok((killed, down))
    })?;
    let failed: Vec<_> = asked.iter().filter(|it| it.answer.is_err()).collect();
    let last = failed.iter().map(|it| it.begun).max().unwrap_or(killed);
    println!(
        "{} of {} requests failed, the last one {:?} after the server was killed; \
         fall x interval + timeout is 600ms",
        failed.len(),
        asked.len(),
        last.saturating_duration_since(killed)
    );
    assert!(
        last < down,
        "a request failed when the backend was down already"
    );
    assert_eq!(rig.cause(1)?, "connect: refused");
    assert_eq!(slots(&rig)?, 0);

    // What others serve has not been touched.
    let broken: Vec<_> = downloads
        .progress()
        .into_iter()
        .filter(|it| it.end.is_some() && !it.is_complete())
        .collect();
    assert!(
        broken
            .iter()
            .all(|it| it.backend.as_deref() == Some("backend1")),
        "{broken:?}"
    );
    assert_eq!(broken.len(), serving["backend1"]);
    drop(downloads);

    let running = rig.download(30)?;
    let serving = served(&running);
    assert!(!serving.contains_key("backend1"), "{serving:?}");
    let _server = rig.lab.start_http(rig.lab.host("backend1"))?;
    let ((), asked) = while_asking(&rig, || {
        rig.wait_for_health(1, "up")?;
        rig.wait_for_state(1, "active")?;
        assert!(rig.shares(100)?.contains_key("backend1"));
        Ok(())
    })?;
    let failed = asked.iter().find(|it| it.answer.is_err());
    assert!(failed.is_none(), "{failed:?}");
    assert_eq!(slots(&rig)?, before, "it gets its share again");
    wait_until_all_go_on(&running)?;
    assert_eq!(served(&running), serving, "a download changed its backend");
    let health = rig.health(1)?;
    let history: Vec<_> = health["history"]
        .as_array()
        .context("no history")?
        .iter()
        .map(|it| it["to"].clone())
        .collect();
    assert_eq!(history, ["up", "down", "up"]);
    Ok(())
}
