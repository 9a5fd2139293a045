//! A director that boots does not know yet what the others do. It breaks no connection that they have kept: what
//! it does not know is no reason to send packets elsewhere, and it is not active before it knows enough.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::lab::{SOON, address, served, wait_until_all_go_on};
use xdp_lb_tests::silence::Silence;
use xdp_lb_tests::vrrp::{Pair, main_entry};
use xtask::lab::held::Held;
use xtask::lab::{Director, Lab, LabConfig, wait_for};

const BACKENDS: usize = 4;
const HELD: usize = 200;
const DOWNLOADS: usize = 20;

/// For how long after the boot, which takes two seconds then, a backend says nothing that is late: longer than the kernel
/// asks for it in one round, and than three advertisements.
const LATE: Duration = Duration::from_millis(2500);

/// What the director that boots does not learn at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ArpLate,
    ArpNever,
    CheckLate,
    CheckNever,
    /// One backend of each kind.
    All,
}

/// How the director that boots comes to be active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It has the better priority.
    Preempts,
    /// The other one dies while it is still finding out.
    OtherDies,
}

impl Fault {
    /// What is wrong with each backend, by its number.
    fn of(self, number: usize) -> Option<Self> {
        const ALL: [Fault; 4] = [
            Fault::ArpLate,
            Fault::CheckLate,
            Fault::ArpNever,
            Fault::CheckNever,
        ];
        match self {
            Self::All if number <= ALL.len() => Some(ALL[number - 1]),
            Self::All => None,
            one => (number == 1).then_some(one),
        }
    }

    fn is_late(self) -> bool {
        matches!(self, Self::ArpLate | Self::CheckLate)
    }
}

fn config(priority: u8, tracking: &str, backends: usize) -> String {
    let addresses: Vec<_> = (1..=backends).map(|it| address(it).to_string()).collect();
    let addresses = addresses.join(", ");
    let entry = main_entry(priority, "advert_interval: 100ms");
    format!(
        "interfaces: [eth0]\ndefaults: {{ connection_tracking: {tracking} }}\nservices:\n- {{ name: web, vip: \
         192.0.2.10, protocol: tcp, port: 80, backends: [{addresses}], health_check: {{ type: http, \
         path: /healthz, interval: 3s, timeout: 3s, fall: 2 }} }}\nvrrp:\n- {{ {entry} }}\n"
    )
}

fn status(director: &Director) -> Result<Value> {
    let text = director.check(&["status", "--json"])?;
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

fn silence(lab: &Lab, fault: Fault, number: usize, directors: &[usize]) -> Result<Vec<Silence>> {
    let backend = lab.host(&format!("backend{number}"));
    let all = ["director", "director2"].map(|name| lab.host(name));
    let others: Vec<_> = directors.iter().map(|&it| all[it]).collect();
    if !matches!(fault, Fault::ArpLate | Fault::ArpNever) {
        return Ok(vec![Silence::of_checks(lab, backend, &others)?]);
    }
    // Nor do they overhear what it asks others.
    let mut silences = vec![Silence::of_arp(lab, backend, &others)?];
    for other in others {
        silences.push(Silence::of_arp(lab, other, &[backend])?);
    }
    Ok(silences)
}

/// Boots a director beside one that has connections, and has it become active.
fn boots(fault: Fault, event: Event, tracking: &str) -> Result<()> {
    println!("{fault:?}, {event:?}, {tracking}");
    let backends = if fault == Fault::All { BACKENDS + 1 } else { 3 };
    // The one that boots is the first.
    let priorities = match event {
        Event::Preempts => [200, 100],
        Event::OtherDies => [100, 200],
    };
    let lab = Lab::new(LabConfig::redundant(backends))?;
    let faults: Vec<_> = (1..=backends)
        .filter_map(|number| Some((number, fault.of(number)?)))
        .collect();
    // What never answers does so for both.
    let mut never = Vec::new();
    for &(number, fault) in faults.iter().filter(|(_, fault)| !fault.is_late()) {
        never.extend(silence(&lab, fault, number, &[0, 1])?);
    }
    let configs = priorities.map(|priority| config(priority, tracking, backends));
    let mut pair = Pair::in_lab(lab, &configs)?;
    let vip: SocketAddr = (pair.lab.vip(), 80).into();
    for director in &pair.directors {
        wait_for("the directors to be ready", SOON * 2, || {
            Ok((status(director)?["ready"] == true).then_some(()))
        })?;
    }
    pair.lab.lose_power(&mut pair.directors[0])?;
    pair.wait_for_state(1, "active")?;
    let held = Held::open(pair.lab.host("client"), vip, HELD)?;
    let client = pair.lab.client();
    let downloads = client.download(vip, "/download?rate=50k", DOWNLOADS)?;
    downloads.wait_until_running(SOON)?;
    let serving = served(&downloads);

    let mut late = Vec::new();
    for &(number, fault) in faults.iter().filter(|(_, fault)| fault.is_late()) {
        late.extend(silence(&pair.lab, fault, number, &[0])?);
    }
    pair.lab.boot(&mut pair.directors[0])?;
    if event == Event::OtherDies {
        thread::sleep(Duration::from_secs(1));
        pair.lab.lose_power(&mut pair.directors[1])?;
        thread::sleep(LATE - Duration::from_secs(1));
    } else {
        thread::sleep(LATE);
    }
    if !faults.is_empty() && !late.is_empty() {
        let director = &pair.directors[0];
        let (states, status) = (pair.states(0)?, status(director)?);
        ensure!(
            states == ["initialize"] && status["ready"] == false,
            "{states:?}, ready: {}; {}",
            status["ready"],
            director.log()?
        );
    }
    drop(late);
    wait_for("the director to be active", SOON * 2, || {
        Ok((pair.states(0)? == ["active"]).then_some(()))
    })?;
    wait_until_all_go_on(&downloads)?;
    ensure!(served(&downloads) == serving, "downloads went elsewhere");
    ensure!(held.check()? == HELD);
    ensure!(pair.states(0)? == ["active"], "{:?}", pair.views(0)?);
    Ok(())
}

/// A test for each event and way of remembering.
macro_rules! booted {
    ($($name:ident: $fault:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                for tracking in ["adaptive", "full"] {
                    for event in [Event::Preempts, Event::OtherDies] {
                        boots(Fault::$fault, event, tracking)
                            .with_context(|| format!("{event:?}, {tracking}"))?;
                    }
                }
                Ok(())
            }
        )*
    };
}

booted! {
    a_backend_that_answers_arp_late_keeps_its_connections: ArpLate,
    one_that_never_answers_arp_takes_nobodys: ArpNever,
    a_backend_whose_check_is_late_keeps_its_connections: CheckLate,
    one_whose_check_never_succeeds_takes_nobodys: CheckNever,
    all_of_them_at_once_break_nothing: All,
}
