//! Two directors that share a VIP: one loses its power under traffic, comes back, and leaves.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::screen::{Screen, grouped};
use super::stage::{SOON, address};
use crate::lab::gap::{Echo, Meter};
use crate::lab::held::{Held, Opener};
use crate::lab::{Director, Downloads, HttpServer, Lab, LabConfig, wait_for};

const BACKENDS: usize = 3;
/// Of the two directors.
const PRIORITIES: [u8; 2] = [250, 240];
const NAMES: [&str; 2] = ["director", "director2"];
const DOWNLOADS: usize = 10;
const HELD: usize = 100;
/// Connections opened a second.
const OPENED: u32 = 300;
const ECHO_PORT: u16 = 7;
/// For how long traffic runs between two events.
const CALM: Duration = Duration::from_millis(700);

/// Fields are dropped in this order.
struct Pair {
    directors: [Director; 2],
    _servers: Vec<HttpServer>,
    _echoes: Vec<Echo>,
    lab: Lab,
}

/// What happens to the first director.
#[derive(Clone, Copy, Debug)]
enum Event {
    LosesPower,
    Boots,
    Leaves,
}

impl Event {
    const ALL: [Self; 3] = [Self::LosesPower, Self::Boots, Self::Leaves];

    fn text(self) -> &'static str {
        match self {
            Self::LosesPower => "director loses its power: director2 takes over",
            Self::Boots => "director boots and has the better priority: it takes over",
            Self::Leaves => "the daemon on director stops: it hands over",
        }
    }

    /// Who is active after it.
    fn next_active(self) -> usize {
        match self {
            Self::LosesPower | Self::Leaves => 1,
            Self::Boots => 0,
        }
    }
}

/// Shows that clients notice nothing but a short silence.
pub(super) fn show(screen: &Screen, program: &Path) -> Result<()> {
    screen.step("Two directors share the VIP by VRRP, advertisements every 100 ms");
    let what = "building another lab and starting two daemons";
    let mut pair = screen.work(what, || Pair::new(program))?;
    let fingerprints = pair.fingerprints()?;
    let [first, second] = &fingerprints;
    ensure!(first == second, "the tables differ: {first}, {second}");
    screen.good(&format!(
        "both fill the same tables, without talking about it: fingerprint {first}"
    ));
    for (name, director) in NAMES.iter().zip(&pair.directors) {
        screen.line(&format!("{name}$ xdp-lb vrrp list"));
        let list = director.check(&["vrrp", "list"])?;
        list.lines().for_each(|line| screen.line(line));
    }
    let client = pair.lab.host("client").clone();
    let downloads = pair
        .lab
        .client()
        .download(pair.vip(80), "/download?rate=200k", DOWNLOADS)?;
    downloads.wait_until_running(SOON)?;
    let held = Held::open(&client, pair.vip(80), HELD)?;
    let opener = Opener::start(&client, pair.vip(80), OPENED)?;
    for event in Event::ALL {
        let gap = screen.work(event.text(), || pair.measure(event))?;
        screen.good(&format!(
            "{}, {:.1} ms without an answer",
            event.text(),
            gap.as_secs_f64() * 1e3
        ));
    }
    let opened = opener.finish()?;
    ensure!(opened.failures.is_empty(), "{:?}", opened.failures);
    ensure!(held.check()? == HELD, "a connection that was held broke");
    check_that_they_go_on(&downloads)?;
    screen.good(&format!(
        "{} connections opened meanwhile, {HELD} held idle and {DOWNLOADS} downloads: none broke",
        grouped(opened.count.try_into()?)
    ));
    screen.work("taking this lab away, too", || pair.end())
}

fn check_that_they_go_on(downloads: &Downloads) -> Result<()> {
    let before = downloads.progress();
    wait_for("the downloads to go on", SOON, || {
        let now = downloads.progress();
        let broken = now.iter().find(|it| it.end.is_some() && !it.is_complete());
        ensure!(broken.is_none(), "a download broke: {broken:?}");
        let mut pairs = now.iter().zip(&before);
        let go_on = pairs.all(|(now, before)| now.is_complete() || now.received > before.received);
        Ok(go_on.then_some(()))
    })
}

impl Pair {
    fn new(program: &Path) -> Result<Self> {
        let lab = Lab::new(LabConfig::redundant(BACKENDS))?;
        let servers = lab.start_all_http()?;
        let at = (lab.vip(), ECHO_PORT).into();
        let echoes = lab.backends().map(|host| Echo::start(host, at));
        let echoes = echoes.collect::<Result<_>>()?;
        let [first, second] = PRIORITIES.map(|priority| config(lab.vip(), priority));
        let start = |name, config: &str| lab.start_director_on(lab.host(name), program, config);
        let pair = Self {
            directors: [start(NAMES[0], &first)?, start(NAMES[1], &second)?],
            _servers: servers,
            _echoes: echoes,
            lab,
        };
        pair.wait_until_active(0)?;
        wait_for("both to reach all backends", SOON, || {
            let [first, second] = pair.fingerprints()?;
            Ok((first == second).then_some(()))
        })?;
        Ok(pair)
    }

    /// Takes everything away, and makes sure of it.
    fn end(self) -> Result<()> {
        let dir = self.lab.dir().to_owned();
        drop(self);
        ensure!(!dir.exists(), "{} is still there", dir.display());
        Ok(())
    }

    fn vip(&self, port: u16) -> SocketAddr {
        (self.lab.vip(), port).into()
    }

    fn fingerprints(&self) -> Result<[String; 2]> {
        let [first, second] = &self.directors;
        Ok([fingerprint(first)?, fingerprint(second)?])
    }

    /// Waits until a director is active, and the other is not.
    fn wait_until_active(&self, active: usize) -> Result<()> {
        for (number, director) in self.directors.iter().enumerate() {
            if director.pid().is_none() {
                continue;
            }
            let state = if number == active { "active" } else { "backup" };
            wait_for(&format!("{} to be {state}", NAMES[number]), SOON, || {
                let list = json(director, &["vrrp", "list"])?;
                Ok((list[0]["state"] == state).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Has something happen to the first director, and returns the longest time without an answer.
    fn measure(&mut self, event: Event) -> Result<Duration> {
        let meter = Meter::start(self.lab.host("client"), self.vip(ECHO_PORT))?;
        wait_until_answered(&meter)?;
        thread::sleep(CALM);
        let first = &mut self.directors[0];
        match event {
            Event::LosesPower => self.lab.lose_power(first)?,
            Event::Boots => self.lab.boot(first)?,
            Event::Leaves => drop(first.terminate()?),
        }
        self.wait_until_active(event.next_active())?;
        wait_until_answered(&meter)?;
        thread::sleep(CALM);
        Ok(meter.finish()?.longest())
    }
}

/// Waits until datagrams are answered from now on.
fn wait_until_answered(meter: &Meter) -> Result<()> {
    let before = meter.answered();
    wait_for("datagrams to be answered", SOON, || {
        Ok((meter.answered() > before + 100).then_some(()))
    })
}

fn json(director: &Director, args: &[&str]) -> Result<Value> {
    let text = director.check(&[args, &["--json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("{args:?} printed no JSON: {text}"))
}

fn fingerprint(director: &Director) -> Result<String> {
    let status = json(director, &["status"])?;
    let fingerprint = status["fingerprint"].as_str();
    Ok(fingerprint.context("no fingerprint")?.to_owned())
}

fn config(vip: Ipv4Addr, priority: u8) -> String {
    let mut yaml = "interfaces: [eth0]\nservices:\n".to_owned();
    let backends: Vec<_> = (1..=BACKENDS).map(address).collect();
    let backends = backends.join(", ");
    for (name, protocol, port) in [("web", "tcp", 80), ("echo", "udp", ECHO_PORT)] {
        let _ = writeln!(
            yaml,
            "- {{ name: {name}, vip: {vip}, protocol: {protocol}, port: {port}, backends: [{backends}] }}"
        );
    }
    let _ = writeln!(
        yaml,
        "vrrp:\n- {{ name: main, interface: eth0, vrid: 51, priority: {priority}, \
         advert_interval: 100ms, vips: [{vip}] }}"
    );
    yaml
}
