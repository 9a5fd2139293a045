//! VIPs with a MAC address of their own: neighbours notice nothing of a failover.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use xdp_lb_tests::capture::Capture;
use xdp_lb_tests::vrrp::{Pair, config, neighbour};

/// How long what must not come is waited for.
const WHILE: Duration = Duration::from_secs(1);

/// Two directors, of which the first has the better priority.
fn pair() -> Result<Pair> {
    let configs = [200, 100].map(|priority| {
        let entry = format!(
            "name: main, interface: eth0, vrid: 51, priority: {priority}, advert_interval: 100ms, \
             vips: [192.0.2.10, \"2001:db8:10::10\"], virtual_mac: true"
        );
        config(2, &[entry])
    });
    let pair = Pair::new(2, &configs)?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    Ok(pair)
}

/// Checks that requests are answered, and that the router sends to the virtual MAC addresses.
fn check(pair: &Pair, director: usize) -> Result<()> {
    for vip in ["192.0.2.10", "2001:db8:10::10"] {
        pair.wait_for_vip(director, vip, true)?;
        pair.wait_for_vip(1 - director, vip, false)?;
    }
    let vip = (pair.lab.vip(), 80).into();
    for response in pair.lab.client().get_many(vip, "/", 20, 4) {
        ensure!(response?.status == 200, "not a good answer");
    }
    let router = pair.lab.host("router");
    for (vip, mac) in [
        ("192.0.2.10", "00:00:5e:00:01:33"),
        ("2001:db8:10::10", "00:00:5e:00:02:33"),
    ] {
        let vip: IpAddr = vip.parse()?;
        ensure!(
            router.pings(vip)?,
            "{vip} does not answer, which director {director} has"
        );
        let found = neighbour(router, vip)?;
        ensure!(found.as_deref() == Some(mac), "{vip} is at {found:?}");
    }
    Ok(())
}

#[test]
fn a_failover_changes_no_mac_address() -> Result<()> {
    let mut pair = pair()?;
    check(&pair, 0)?;
    let shown = pair.view(0)?["virtual_mac"].clone();
    ensure!(shown == "00:00:5e:00:01:33", "{shown}");
    pair.directors[0].terminate()?;
    pair.wait_for_state(1, "active")?;
    check(&pair, 1)?;
    pair.directors[0].restart()?;
    pair.wait_for_state(0, "active")?;
    pair.wait_for_state(1, "backup")?;
    check(&pair, 0)
}

/// The types of the records by which a host tells routers that it leaves multicast groups or joins them, of IGMP or MLD.
fn group_records(part: &Value) -> Vec<&Value> {
    match part {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match &**name {
                "icmpv6.mldr.mar.record_type" | "igmp.record_type" => vec![value],
                _ => group_records(value),
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(group_records).collect(),
        _ => Vec::new(),
    }
}

/// A frame with the virtual MAC address from who is not active any more would tell the switch that the address is at its
/// port: all for the VIPs would go there until the active director sends again.
#[test]
fn who_gives_way_does_not_draw_the_virtual_mac_addresses_to_itself() -> Result<()> {
    let mut pair = pair()?;
    pair.directors[0].terminate()?;
    pair.wait_for_state(1, "active")?;
    check(&pair, 1)?;
    let filter = "outbound and (ether src 00:00:5e:00:01:33 or ether src 00:00:5e:00:02:33)";
    let mut capture = Capture::start(pair.host(1), "eth0", filter, pair.lab.dir())?;
    pair.directors[0].restart()?;
    pair.wait_for_state(1, "backup")?;
    check(&pair, 0)?;
    thread::sleep(WHILE);
    capture.stop()?;
    let packets = capture.packets(&[])?;
    let is_advertisement = |it: &&Value| !it["vrrp"].is_null();
    ensure!(
        packets.iter().any(|it| is_advertisement(&it)),
        "nothing captured"
    );
    // 4, CHANGE_TO_EXCLUDE of no source, joins a group: while it is active. 3, CHANGE_TO_INCLUDE, leaves one.
    let left = packets
        .iter()
        .find(|it| group_records(it).iter().any(|&it| it != "4"));
    ensure!(left.is_none(), "{left:#?}");
    Ok(())
}
