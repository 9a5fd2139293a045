//! What tshark makes of our advertisements.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xdp_lb_tests::capture::Capture;
use xdp_lb_tests::lab::{SOON, program};
use xdp_lb_tests::vrrp::{config, wait_for_state};
use xtask::lab::{Lab, LabConfig, wait_for};

/// How long advertisements are captured, of those that come every 100 ms.
const WHILE: Duration = Duration::from_secs(1);
/// What tshark is told of how the checksums of IPv4 advertisements are to be: without pseudo header, or with.
const CHECKSUMS: [(bool, &str); 2] = [
    (true, "vrrp.v3_checksum_as_in_v2:true"),
    (false, "vrrp.v3_checksum_as_in_v2:false"),
];

/// Virtual routers, by VRID: the rest of the entry, and how many addresses there are.
const ROUTERS: [(u8, &str, usize); 5] = [
    (51, "vips: [192.0.2.10]", 1),
    (52, "vips: [192.0.2.11, 192.0.2.12, 192.0.2.13]", 3),
    (53, "vips: [192.0.2.14], checksum: pseudo_header", 1),
    (54, "vips: [\"fe80::54/64\", \"2001:db8:10::10\"]", 2),
    (55, "vips: [192.0.2.15], virtual_mac: true", 1),
];

/// Whether tshark takes something in a part of a packet for worth a remark.
fn remark(part: &Value) -> Option<&Value> {
    match part {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match &**name {
            "_ws.expert" | "_ws.malformed" => Some(value),
            _ => remark(value),
        }),
        Value::Array(values) => values.iter().find_map(remark),
        _ => None,
    }
}

fn number(part: &Value, name: &str) -> Result<usize> {
    let text = part[name].as_str();
    let number = text.and_then(|text| text.parse().ok());
    number.with_context(|| format!("no number {name} in {part:#}"))
}

/// Checks a packet, and returns its VRID and priority.
fn check(packet: &Value) -> Result<(u8, usize)> {
    let vrrp = &packet["vrrp"];
    let vrid = u8::try_from(number(vrrp, "vrrp.virt_rtr_id")?)?;
    let (.., addresses) = ROUTERS
        .iter()
        .find(|(of, ..)| *of == vrid)
        .with_context(|| format!("whose is VRID {vrid}?"))?;
    let ip = packet.get("ip").or(packet.get("ipv6")).context("no IP")?;
    ensure!(remark(vrrp).is_none() && remark(ip).is_none(), "{packet:#}");
    let tree = &vrrp["vrrp.typever_tree"];
    ensure!(number(tree, "vrrp.version")? == 3 && number(tree, "vrrp.type")? == 1);
    ensure!(number(vrrp, "vrrp.addr_count")? == *addresses, "{vrrp:#}");
    // In hundredths of a second.
    ensure!(number(vrrp, "vrrp.short_adver_int")? == 10, "{vrrp:#}");
    // 1: it is good.
    ensure!(number(vrrp, "vrrp.checksum.status")? == 1, "{vrrp:#}");
    let (hops, to, mac) = match ip.get("ip.ttl") {
        Some(_) => ("ip.ttl", "224.0.0.18", "01:00:5e:00:00:12"),
        None => ("ipv6.hlim", "ff02::12", "33:33:00:00:00:12"),
    };
    ensure!(number(ip, hops)? == 255, "{ip:#}");
    let destination = ip.get("ip.dst").or(ip.get("ipv6.dst"));
    ensure!(destination.and_then(Value::as_str) == Some(to), "{ip:#}");
    let ethernet = &packet["eth"];
    ensure!(ethernet["eth.dst"] == mac, "{ethernet:#}");
    if vrid == 55 {
        ensure!(ethernet["eth.src"] == "00:00:5e:00:01:37", "{ethernet:#}");
    }
    Ok((vrid, number(vrrp, "vrrp.prio")?))
}

#[test]
fn tshark_decodes_our_advertisements_without_complaint() -> Result<()> {
    let lab = Lab::new(LabConfig::redundant(1))?;
    let filter = "proto 112 or ip6 proto 112";
    let mut capture = Capture::start(lab.host("director2"), "eth0", filter, lab.dir())?;
    let entry = |(vrid, rest, _): (u8, &str, usize)| {
        format!(
            "name: r{vrid}, interface: eth0, vrid: {vrid}, priority: 200, advert_interval: 100ms, {rest}"
        )
    };
    let config = config(1, &ROUTERS.map(entry));
    let mut director = lab.start_director_on(lab.host("director"), &program(), &config)?;
    wait_for_state(&director, "active")?;
    thread::sleep(WHILE);
    director.terminate()?;
    // The last words are on the link when the daemon is gone; tshark writes what it has.
    wait_for("all to have left", SOON, || {
        let packets = capture.packets(&[]).unwrap_or_default();
        let priority = |it: &Value| number(&it["vrrp"], "vrrp.prio").ok();
        let left = packets.iter().filter(|it| priority(it) == Some(0)).count();
        Ok((left == ROUTERS.len()).then_some(()))
    })?;
    capture.stop()?;
    let mut seen: BTreeMap<u8, BTreeMap<usize, usize>> = BTreeMap::new();
    for (as_plain, preference) in CHECKSUMS {
        for packet in capture.packets(&["-o", preference])? {
            // The checksum of IPv6 has a pseudo header in any case.
            let is_plain = !matches!(number(&packet["vrrp"], "vrrp.virt_rtr_id")?, 53 | 54);
            if is_plain == as_plain {
                let (vrid, priority) = check(&packet)?;
                *seen.entry(vrid).or_default().entry(priority).or_default() += 1;
            }
        }
    }
    println!("packets by VRID and priority: {seen:?}");
    for (vrid, ..) in ROUTERS {
        let of_priority = |priority| seen.get(&vrid).and_then(|it| it.get(&priority));
        ensure!(of_priority(200).is_some_and(|&count| count >= 3), "{vrid}");
        ensure!(of_priority(0) == Some(&1), "{vrid}");
    }
    Ok(())
}
