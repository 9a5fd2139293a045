//! A director dies, leaves and returns, under the traffic of clients that must not notice.

use std::time::Duration;

use anyhow::{Result, ensure};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::vrrp::{Pair, config, main_entry};
use xtask::lab::gap::{Echo, Gaps, Meter};
use xtask::lab::held::{Held, Opener};
use xtask::lab::wait_for;

const BACKENDS: usize = 3;
/// Connections that are held open.
const HELD: usize = 200;
/// Connections opened a second.
const OPENED: u32 = 500;
/// For how long traffic runs before something happens, and after it is over.
const CALM: Duration = Duration::from_secs(1);

/// Two directors of which the first is active, and servers that echo.
struct Failover {
    pair: Pair,
    _echoes: Vec<Echo>,
}

impl Failover {
    fn new(interval: &str) -> Result<Self> {
        let fields = format!("advert_interval: {interval}");
        let configs = [250, 240].map(|priority| config(BACKENDS, &[main_entry(priority, &fields)]));
        let pair = Pair::new(BACKENDS, &configs)?;
        let vip = pair.lab.vip();
        let echoes = pair
            .lab
            .backends()
            .map(|host| Echo::start(host, (vip, 7).into()));
        let echoes = echoes.collect::<Result<_>>()?;
        pair.wait_for_state(0, "active")?;
        pair.wait_for_state(1, "backup")?;
        Ok(Self {
            pair,
            _echoes: echoes,
        })
    }

    /// Has `event` happen under traffic, until the given director is active. Fails if a connection breaks.
    fn under_traffic(
        &mut self,
        what: &str,
        then_active: usize,
        event: impl FnOnce(&mut Pair) -> Result<()>,
    ) -> Result<Gaps> {
        let pair = &mut self.pair;
        let client = pair.lab.host("client").clone();
        let vip = pair.lab.vip();
        let downloads = pair
            .lab
            .client()
            .download((vip, 80).into(), "/download?rate=200k", 1)?;
        downloads.wait_until_running(SOON)?;
        let held = Held::open(&client, (vip, 80).into(), HELD)?;
        let opener = Opener::start(&client, (vip, 80).into(), OPENED)?;
        let meter = Meter::start(&client, (vip, 7).into())?;
        wait_for("datagrams to be answered", SOON, || {
            Ok((meter.answered() > 100).then_some(()))
        })?;
        std::thread::sleep(CALM);
        event(pair)?;
        pair.wait_for_state(then_active, "active")?;
        let before = meter.answered();
        wait_for("datagrams to be answered again", SOON, || {
            Ok((meter.answered() > before + 100).then_some(()))
        })?;
        std::thread::sleep(CALM);
        let gaps = meter.finish()?;
        let opened = opener.finish()?;
        println!(
            "{what}: the longest gap is {:.1} ms; {} of {} datagrams answered; {} connections opened, \
             the longest took {:.1} ms",
            gaps.longest().as_secs_f64() * 1e3,
            gaps.answered,
            gaps.sent,
            opened.count,
            opened.longest.as_secs_f64() * 1e3
        );
        ensure!(opened.failures.is_empty(), "{what}: {:?}", opened.failures);
        ensure!(held.check()? == HELD);
        let received: Vec<_> = downloads.progress();
        ensure!(
            received
                .iter()
                .all(|it| it.end.is_none() || it.is_complete()),
            "{what}: {received:?}"
        );
        let goes_on = |before: u64| {
            wait_for("the download to go on", SOON, || {
                let now = downloads.progress();
                let is_over = now.iter().all(xtask::lab::Download::is_complete);
                Ok((is_over || now.iter().all(|it| it.received > before)).then_some(()))
            })
        };
        goes_on(received.iter().map(|it| it.received).max().unwrap_or(0))?;
        Ok(gaps)
    }
}

fn die(interval: &str) -> Result<()> {
    let mut failover = Failover::new(interval)?;
    let what = format!("host killed, advertisements every {interval}");
    failover.under_traffic(&what, 1, |pair| {
        pair.lab.set_cables(pair.host(0), false)?;
        pair.directors[0].kill().map(drop)
    })?;
    Ok(())
}

#[test]
fn a_host_dies() -> Result<()> {
    die("100ms")
}

#[test]
fn a_host_dies_with_the_shortest_interval() -> Result<()> {
    die("10ms")
}

#[test]
fn a_director_leaves_and_returns() -> Result<()> {
    let mut failover = Failover::new("100ms")?;
    failover.under_traffic("clean leave", 1, |pair| {
        pair.directors[0].terminate().map(drop)
    })?;
    failover.under_traffic("return and preemption", 0, |pair| {
        pair.directors[0].restart()
    })?;
    failover.pair.wait_for_state(1, "backup")
}

#[test]
fn a_director_that_detaches_hands_over_first() -> Result<()> {
    let mut failover = Failover::new("100ms")?;
    failover.under_traffic("detach", 1, |pair| {
        pair.directors[0].check(&["detach"]).map(drop)
    })?;
    let link = failover.pair.host(0).ip(&["link", "show", "dev", "eth0"])?;
    ensure!(!link.contains("xdp"), "still attached: {link}");
    Ok(())
}
