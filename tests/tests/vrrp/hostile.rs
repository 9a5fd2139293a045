//! Advertisements that nobody should believe, and networks that part.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use xdp_lb_tests::forged::{Forger, advertisement, sign};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::random::Random;
use xdp_lb_tests::vrrp::{Pair, config, main_entry};
use xtask::lab::wait_for;

const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Two directors that listen to each other alone; the first is active.
fn pair() -> Result<Pair> {
    let fields = "advert_interval: 100ms, allow_from: [10.0.0.2, 10.0.0.3]";
    let configs = [200, 100].map(|priority| config(1, &[main_entry(priority, fields)]));
    let pair = Pair::new(1, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    Ok(pair)
}

/// States and transitions of both directors.
fn states(pair: &Pair) -> Result<Vec<(String, u64)>> {
    let state = |director| {
        let view = pair.view(director)?;
        let state = view["state"].as_str().context("no state")?.to_owned();
        Ok((
            state,
            view["transitions"].as_u64().context("no transitions")?,
        ))
    };
    [0, 1].into_iter().map(state).collect()
}

fn resident_kib(pair: &Pair, director: usize) -> Result<u64> {
    let pid = pair.directors[director].pid().context("it is stopped")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

#[test]
fn what_nobody_should_believe_is_counted_by_kind() -> Result<()> {
    let pair = pair()?;
    let forger = Forger::new(pair.lab.host("backend1"))?;
    let before = states(&pair)?;
    let good = advertisement(STRANGER, 255);
    let changed = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        sign(&mut message);
        message
    };
    let none = {
        let mut message = good[..8].to_vec();
        message[3] = 0;
        sign(&mut message);
        message
    };
    let mut damaged = good.clone();
    damaged[6] ^= 1;
    let kinds: [(&str, Ipv4Addr, u8, Vec<u8>); 12] = [
        ("hops", STRANGER, 254, good.clone()),
        ("hops", STRANGER, 1, good.clone()),
        ("length", STRANGER, 255, good[..7].to_vec()),
        ("length", STRANGER, 255, changed(3, 2)),
        ("length", STRANGER, 255, vec![0x31]),
        ("version", STRANGER, 255, changed(0, 0x21)),
        ("type", STRANGER, 255, changed(0, 0x32)),
        ("checksum", STRANGER, 255, damaged),
        ("interval", STRANGER, 255, changed(5, 0)),
        ("no_address", STRANGER, 255, none),
        ("other_router", STRANGER, 255, changed(1, 52)),
        // It would win, if it were allowed to speak.
        ("source", STRANGER, 255, good.clone()),
    ];
    for (kind, source, hops, message) in &kinds {
        let counts = || Ok::<_, anyhow::Error>([pair.counter(0, kind)?, pair.counter(1, kind)?]);
        let count = counts()?;
        for _ in 0..10 {
            forger.send(*source, *hops, message)?;
        }
        wait_for(&format!("{kind} to be counted"), SOON, || {
            let is_counted = counts()? == count.map(|count| count + 10);
            Ok(is_counted.then_some(()))
        })?;
    }
    // What the active router has said, said again by another: its kernel drops what has its own address,
    // and the backup hears no more than it does anyway.
    let replayed = advertisement(FIRST, 200);
    let heard = pair.counter(1, "received")?;
    for _ in 0..100 {
        forger.send(FIRST, 255, &replayed)?;
    }
    wait_for("the replay to be heard", SOON, || {
        Ok((pair.counter(1, "received")? >= heard + 100).then_some(()))
    })?;
    ensure!(
        states(&pair)? == before,
        "{before:?} → {:?}",
        states(&pair)?
    );
    Ok(())
}

#[test]
fn a_flood_of_nonsense_changes_nothing() -> Result<()> {
    /// How many: as fast as one host can send them.
    const PACKETS: usize = 1_000_000;
    let pair = pair()?;
    let forger = Forger::new(pair.lab.host("backend1"))?;
    let mut random = Random::new(0x5eed);
    let good = advertisement(STRANGER, 255);
    let memory =
        |pair: &Pair| Ok::<_, anyhow::Error>([resident_kib(pair, 0)?, resident_kib(pair, 1)?]);
    let send = |count: usize, random: &mut Random| -> Result<()> {
        for _ in 0..count {
            let mut message = good.clone();
            for _ in 0..random.below(4) {
                let at = random.below(message.len());
                message[at] = random.byte();
            }
            if random.once_in(4) {
                sign(&mut message);
            }
            if random.once_in(8) {
                message.truncate(random.below(message.len()));
            }
            let hops = if random.once_in(8) {
                random.byte()
            } else {
                255
            };
            // "No room" is as good as lost.
            let _ = forger.send(STRANGER, hops, &message);
        }
        Ok(())
    };
    let before = states(&pair)?;
    send(PACKETS / 10, &mut random)?;
    let memory_before = memory(&pair)?;
    send(PACKETS - PACKETS / 10, &mut random)?;
    let memory_after = memory(&pair)?;
    let mut counted = Vec::new();
    for director in [0, 1] {
        let view = pair.view(director)?;
        let counters = view["counters"].as_array().context("no counters")?;
        let packets = |it: &serde_json::Value| it["packets"].as_u64().unwrap_or(0);
        counted.push(counters.iter().map(packets).sum::<u64>());
    }
    println!(
        "{PACKETS} advertisements that are not: {counted:?} were looked at; memory {memory_before:?} → \
         {memory_after:?} KiB"
    );
    ensure!(
        states(&pair)? == before,
        "{before:?} → {:?}",
        states(&pair)?
    );
    for (before, after) in memory_before.iter().zip(memory_after) {
        ensure!(
            after < before + 8 * 1024,
            "it grew from {before} to {after} KiB"
        );
    }
    ensure!(counted.iter().all(|count| *count > 1000), "{counted:?}");
    Ok(())
}

#[test]
fn two_that_cannot_hear_each_other_are_both_active_until_they_can() -> Result<()> {
    let pair = pair()?;
    let fabric = pair.lab.host("fabric");
    let set = |flooding: &str| {
        let words = [
            "link",
            "set",
            "director2",
            "type",
            "bridge_slave",
            "mcast_flood",
        ];
        fabric.ip(&[&words[..], &[flooding]].concat()).map(drop)
    };
    set("off")?;
    pair.wait_for_state(1, "active")?;
    ensure!(pair.states(0)? == ["active"]);
    pair.wait_for_vip(1, "192.0.2.10", true)?;
    set("on")?;
    pair.wait_for_state(1, "backup")?;
    pair.wait_for_vip(1, "192.0.2.10", false)?;
    ensure!(pair.states(0)? == ["active"]);
    // The last to announce itself was the other one, which is put right.
    wait_for("the router to know who is active", SOON, || {
        pair.lab.client().get((pair.lab.vip(), 80).into(), "/")?;
        Ok(pair.check_neighbour(pair.lab.vip(), 0).ok())
    })
}
