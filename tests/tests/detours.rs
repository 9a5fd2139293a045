//! Ways to the backends that change while requests run: routes, neighbours, links. The new way is taken,
//! requests go on, and nothing is sent the old way any more.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use xdp_lb_tests::lab::{Rig, SOON, config, program};
use xdp_lb_tests::modes::{self, IPIP};
use xtask::lab::{Farm, Host, Lab, LabConfig, Tally, wait_for};

/// Requests that must all come by the new way.
const REQUESTS: usize = 200;

/// Runs requests to the service `web` during `work`; all must be answered.
fn under_requests(rig: &Rig, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                rig.get_at_most(50, 4)?;
            }
            Ok(())
        });
        let outcome = work();
        over.store(true, Ordering::Relaxed);
        let answered = requests.join().expect("the requests' thread");
        outcome.and(answered)
    })
}

/// Waits until frames for a backend of the service `service` go to this MAC address.
fn wait_for_mac(rig: &Rig, service: &str, backend: &str, mac: &str) -> Result<()> {
    wait_for(&format!("{mac} to be the way to {backend}"), SOON, || {
        let backends = rig.json(&["backend", "list", service])?;
        let all = backends.as_array().context("not a list")?;
        let row = all.iter().find(|it| it["address"] == *backend);
        let row = row.with_context(|| format!("no {backend} in {backends}"))?;
        Ok((row["mac"] == *mac).then_some(()))
    })
}

/// A rig with two backends whose addresses 10.9.0.N both networks lead to; the director takes the one
/// of its `eth1`, and that of its `eth0` where that one is not there.
fn two_ways() -> Result<Rig> {
    let lab = Lab::new(LabConfig::with_backends(2).farm(Farm::Both))?;
    let director = lab.host("director");
    for (address, backend) in ["10.9.0.1/32", "10.9.0.2/32"].iter().zip(lab.backends()) {
        for (interface, metric) in [("eth0", "20"), ("eth1", "10")] {
            backend.ip(&["addr", "add", address, "dev", interface])?;
            director.ip(&["route", "add", address, "dev", interface, "metric", metric])?;
        }
    }
    let yaml = config(1..=2)
        .replace("10.0.0.11", "10.9.0.1")
        .replace("10.0.0.12", "10.9.0.2")
        .replace("[eth0]", "[eth0, eth1]");
    Rig::in_lab(lab, &yaml)
}

/// All of the frames from now on that carry requests by an interface of a backend.
fn tally(rig: &Rig, backend: &Host, interface: &str) -> Result<Tally> {
    Tally::start(backend, interface, &backend.mac(interface)?, rig.lab.vip())
}

#[test]
fn a_route_by_another_interface_is_followed_and_nothing_goes_the_old_way() -> Result<()> {
    let rig = two_ways()?;
    let backend = rig.lab.host("backend1");
    wait_for_mac(&rig, "web", "10.9.0.1", &backend.mac("eth1")?)?;
    under_requests(&rig, || {
        let director = rig.lab.host("director");
        let better = ["route", "add", "10.9.0.1/32", "dev", "eth0", "metric", "5"];
        director.ip(&better)?;
        wait_for_mac(&rig, "web", "10.9.0.1", &backend.mac("eth0")?)?;
        let mut old = tally(&rig, backend, "eth1")?;
        let mut new = tally(&rig, backend, "eth0")?;
        let shares = rig.shares(REQUESTS)?;
        ensure!(shares.len() == 2, "{shares:?}");
        ensure!(new.frames()? > 0, "nothing came the new way");
        ensure!(old.frames()? == 0, "frames went on coming the old way");

        director.ip(&["route", "del", "10.9.0.1/32", "dev", "eth0", "metric", "5"])?;
        wait_for_mac(&rig, "web", "10.9.0.1", &backend.mac("eth1")?)
    })
}

/// Every way breaks at once here: what is on it then is lost, and what comes later is not.
#[test]
fn when_one_of_two_links_goes_down_the_other_is_taken() -> Result<()> {
    let rig = two_ways()?;
    rig.get(REQUESTS)?;
    let director = rig.lab.host("director");
    director.ip(&["link", "set", "eth1", "down"])?;
    for (address, backend) in ["10.9.0.1", "10.9.0.2"].iter().zip(rig.lab.backends()) {
        wait_for_mac(&rig, "web", address, &backend.mac("eth0")?)?;
    }
    let shares = rig.shares(REQUESTS)?;
    ensure!(shares.len() == 2, "{shares:?}");
    Ok(())
}

#[test]
fn after_a_change_of_mac_address_nothing_is_sent_to_the_old_one() -> Result<()> {
    let rig = Rig::new(2)?;
    let backend = rig.lab.host("backend1");
    // Says so itself, as real ones do at a failover.
    backend.sysctl("net/ipv4/conf/eth0/arp_notify", "1")?;
    let (old, new) = (backend.mac("eth0")?, "02:00:5e:00:53:01");
    under_requests(&rig, || {
        backend.ip(&["link", "set", "eth0", "address", new])?;
        wait_for_mac(&rig, "web", "10.0.0.11", new)?;
        // Whom nobody has any more: the bridge hands frames to it to all.
        let mut stale = Tally::start(backend, "eth0", &old, rig.lab.vip())?;
        let mut fresh = tally(&rig, backend, "eth0")?;
        let shares = rig.shares(REQUESTS)?;
        ensure!(shares.len() == 2, "{shares:?}");
        ensure!(fresh.frames()? > 0, "nothing came to the new address");
        ensure!(stale.frames()? == 0, "frames went on going to {old}");
        Ok(())
    })
}

#[test]
fn tunnels_follow_a_route_to_another_gateway() -> Result<()> {
    let lab = Lab::new(modes::lab(&[IPIP], 1).farm(Farm::Routed))?;
    lab.decapsulate(&program())?;
    let yaml = modes::config(&lab, &[IPIP]);
    let rig = Rig::in_lab(lab, &yaml)?;
    let [one, two] = ["gateway1", "gateway2"].map(|name| rig.lab.host(name));
    let backend = rig.lab.host("backend1").v4();
    let address = backend.to_string();
    wait_for_mac(&rig, "ipip4-web", &address, &one.mac("eth0")?)?;
    under_requests(&rig, || {
        let director = rig.lab.host("director");
        director.ip(&["route", "change", "10.0.2.0/24", "via", "10.0.1.252"])?;
        wait_for_mac(&rig, "ipip4-web", &address, &two.mac("eth0")?)?;
        // Packets from another of the director's addresses, too: that of the other interface.
        let mut old = Tally::start(one, "eth0", &one.mac("eth0")?, backend)?;
        let mut new = Tally::start(two, "eth0", &two.mac("eth0")?, backend)?;
        rig.get(REQUESTS)?;
        ensure!(new.frames()? > 0, "nothing came by the new gateway");
        ensure!(old.frames()? == 0, "packets went on to the old gateway");

        two.sysctl("net/ipv4/conf/eth0/arp_notify", "1")?;
        two.ip(&["link", "set", "eth0", "address", "02:00:5e:00:53:02"])?;
        two.ip(&["route", "replace", "default", "via", "10.0.1.1"])?;
        wait_for_mac(&rig, "ipip4-web", &address, "02:00:5e:00:53:02")?;
        rig.get(REQUESTS).map(drop)
    })
}
