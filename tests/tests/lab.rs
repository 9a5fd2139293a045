//! The lab itself: addresses, ways, offloads, servers and the client's side.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::Result;
use xtask::lab::flood::Flood;
use xtask::lab::{DOWNLOAD_BYTES, Farm, Lab, LabConfig, Tally, wait_for};

const SOON: Duration = Duration::from_secs(10);

fn lab(backends: usize) -> Lab {
    Lab::new(LabConfig::with_backends(backends)).expect("a lab")
}

#[test]
fn client_reaches_router_director_and_backends() -> Result<()> {
    let lab = lab(2);
    let client = lab.host("client");
    for host in ["router", "director", "backend1", "backend2"] {
        assert!(client.pings(lab.host(host).v4())?, "{host} over IPv4");
        assert!(client.pings(lab.host(host).v6())?, "{host} over IPv6");
    }
    Ok(())
}

#[test]
fn two_labs_at_once_have_nothing_in_common() -> Result<()> {
    let (one, other) = (lab(1), lab(1));
    assert_ne!(one.name(), other.name());
    let before = other.host("backend1").rx_packets("eth0")?;
    assert!(one.host("client").pings(one.host("backend1").v4())?);
    assert!(one.host("backend1").rx_packets("eth0")? > 0);
    assert_eq!(other.host("backend1").rx_packets("eth0")?, before);
    Ok(())
}

#[test]
fn what_goes_to_a_vip_comes_to_the_director() -> Result<()> {
    let lab = lab(1);
    // The kernel of the director owns the VIP and answers, since there is no daemon.
    assert!(lab.host("client").pings(lab.vip())?);
    assert!(lab.host("client").pings(lab.vip6())?);
    let refused = lab.client().get((lab.vip(), 80).into(), "/").unwrap_err();
    assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
    Ok(())
}

#[test]
fn backends_do_not_answer_arp_for_the_vip() -> Result<()> {
    let lab = lab(2);
    let (router, vip) = (lab.host("router"), lab.vip().to_string());
    router.ip(&["route", "add", &format!("{vip}/32"), "dev", "eth1"])?;
    // The control: the director does answer.
    assert!(router.pings(lab.vip())?);
    let neighbour = router.ip(&["neigh", "show", &vip])?;
    assert!(
        neighbour.contains(&lab.host("director").mac("eth0")?),
        "{neighbour}"
    );

    lab.host("director")
        .ip(&["addr", "del", &format!("{vip}/32"), "dev", "lo"])?;
    router.ip(&["neigh", "flush", "dev", "eth1"])?;
    assert!(!router.pings(lab.vip())?);
    let neighbour = router.ip(&["neigh", "show", &vip])?;
    assert!(!neighbour.contains("lladdr"), "{neighbour}");

    router.ip(&[
        "route",
        "add",
        &format!("{}/128", lab.vip6()),
        "dev",
        "eth1",
    ])?;
    assert!(!router.pings(lab.vip6())?);
    Ok(())
}

#[test]
fn offloads_suit_xdp() -> Result<()> {
    let lab = lab(1);
    let features = |host: &str, interface: &str| -> Result<String> {
        let mut command = xtask::setup::Tools::new()?.command("ethtool")?;
        lab.host(host)
            .namespace()
            .check(command.args(["-k", interface]))
    };
    for (host, interface) in [("client", "eth0"), ("router", "eth0"), ("router", "eth1")] {
        let features = features(host, interface)?;
        assert!(
            features.contains("tx-checksumming: off"),
            "{host} {interface}: {features}"
        );
        assert!(
            features.contains("tcp-segmentation-offload: off"),
            "{host}: {features}"
        );
    }
    // The far end of the director's cable, which takes what XDP transmits.
    let far_end = lab.host("fabric").ip(&["-d", "link", "show", "director"])?;
    assert!(far_end.contains("prog/xdp"), "{far_end}");
    Ok(())
}

#[test]
fn nginx_serves_on_own_addresses_and_on_the_vips() -> Result<()> {
    let lab = lab(2);
    let servers = lab.start_all_http()?;
    let (client, backend) = (lab.client(), lab.host("backend2"));
    let addresses: [(IpAddr, &str); 2] = [
        (backend.v4().into(), "198.51.100.10"),
        (backend.v6().into(), "2001:db8:1::10"),
    ];
    for (address, from) in addresses {
        let response = client.get((address, 80).into(), "/")?;
        assert_eq!(response.body, format!("backend=backend2 client={from}\n"));
        assert_eq!(
            (response.status, response.backend.as_deref()),
            (200, Some("backend2"))
        );
    }
    assert_eq!(
        client.get((backend.v4(), 80).into(), "/healthz")?.body,
        "ok\n"
    );
    wait_for("the access log", SOON, || {
        Ok((servers[1].requests()?.len() == 2).then_some(()))
    })?;

    // The router in the director's place: the answer comes back past it, from the VIP.
    let way = [
        format!("{}/32", lab.vip()),
        lab.host("backend1").v4().to_string(),
    ];
    lab.host("router")
        .ip(&["route", "add", &way[0], "via", &way[1]])?;
    let response = client.get((lab.vip(), 80).into(), "/")?;
    assert_eq!(response.body, "backend=backend1 client=198.51.100.10\n");
    Ok(())
}

#[test]
fn many_requests_have_many_source_ports() -> Result<()> {
    let lab = lab(1);
    let backend = lab.host("backend1");
    let server = lab.start_http(backend)?;
    let to: SocketAddr = (backend.v4(), 80).into();
    let responses: Vec<_> = lab
        .client()
        .get_many(to, "/", 500, 50)
        .into_iter()
        .collect::<Result<_>>()?;
    let ports: HashSet<u16> = responses.iter().map(|it| it.local.port()).collect();
    assert_eq!((responses.len(), ports.len()), (500, 500));

    server.kill()?;
    assert!(
        lab.client()
            .get_many(to, "/", 3, 2)
            .iter()
            .all(Result::is_err)
    );
    Ok(())
}

#[test]
fn downloads_run_to_their_end_or_break_with_their_server() -> Result<()> {
    let lab = lab(2);
    let mut servers = lab.start_all_http()?;
    let to = |server: &xtask::lab::HttpServer| SocketAddr::from((server.host().v4(), 80));

    let ran = lab
        .client()
        .download(to(&servers[0]), "/download", 3)?
        .wait(SOON * 3)?;
    for download in &ran {
        assert!(download.is_complete(), "{download:?}");
        assert_eq!(download.backend.as_deref(), Some("backend1"));
        assert_eq!(download.received, DOWNLOAD_BYTES);
    }

    let slow = lab
        .client()
        .download(to(&servers[1]), "/download?rate=100k", 3)?;
    slow.wait_until_running(SOON)?;
    servers.remove(1).kill()?;
    for download in slow.wait(SOON)? {
        assert!(
            !download.is_complete() && download.end.is_some(),
            "{download:?}"
        );
        assert!(
            download.received < DOWNLOAD_BYTES / 2,
            "not limited: {download:?}"
        );
    }
    Ok(())
}

#[test]
fn wrk_measures_a_rate() -> Result<()> {
    let lab = lab(1);
    let _server = lab.start_http(lab.host("backend1"))?;
    let to = (lab.host("backend1").v4(), 80).into();
    let load = lab.client().wrk(to, 8, Duration::from_secs(1))?;
    assert!(load.requests_per_second > 10.0, "{}", load.report);
    Ok(())
}

#[test]
fn hosts_reach_each_other_in_every_farm() -> Result<()> {
    for farm in [Farm::Apart, Farm::Cabled, Farm::Both, Farm::Routed] {
        let lab = Lab::new(LabConfig::with_backends(1).farm(farm))?;
        let (client, backend) = (lab.host("client"), lab.host("backend1"));
        for host in ["client", "director"] {
            let host = lab.host(host);
            assert!(host.pings(backend.v4())?, "{farm:?} over IPv4");
            assert!(host.pings(backend.v6())?, "{farm:?} over IPv6");
        }
        assert!(client.pings(lab.vip())? && client.pings(lab.vip6())?);
        if farm == Farm::Routed {
            let director = lab.host("director");
            director.ip(&["route", "change", "10.0.2.0/24", "via", "10.0.1.252"])?;
            assert!(director.pings(backend.v4())?, "over gateway2");
        }
    }
    Ok(())
}

#[test]
fn a_cable_that_is_pulled_carries_nothing_until_it_is_plugged_in() -> Result<()> {
    for farm in [Farm::Apart, Farm::Cabled] {
        let lab = Lab::new(LabConfig::with_backends(1).farm(farm))?;
        let (director, router) = (lab.host("director"), lab.host("router"));
        assert!(director.pings(router.v4())?, "{farm:?}");
        lab.set_cables(director, false)?;
        assert!(!director.pings(router.v4())?, "{farm:?}");
        lab.set_cables(director, true)?;
        wait_for("the cable to carry packets", SOON, || {
            Ok(director.pings(router.v4())?.then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn packets_on_a_tagged_cable_have_a_tag_that_kernels_do_not_see() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1).tagged(100))?;
    let (director, backend) = (lab.host("director"), lab.host("backend1"));
    assert!(director.pings(backend.v4())? && backend.pings(director.v6())?);
    // Unless it takes the tag away, the director's kernel sees it, and knows no such VLAN.
    let tc = |words: &[&str]| {
        let mut command = xtask::setup::Tools::new()?.command("tc")?;
        director.namespace().check(command.args(words))
    };
    tc(&["filter", "del", "dev", "eth0", "ingress"])?;
    assert!(!backend.pings(director.v4())?);
    Ok(())
}

#[test]
fn a_tally_counts_what_goes_to_an_address_and_nothing_else() -> Result<()> {
    let lab = lab(1);
    let (director, backend) = (lab.host("director"), lab.host("backend1"));
    let mac = backend.mac("eth0")?;
    let mut counted = Tally::start(backend, "eth0", &mac, backend.v4())?;
    let mut other = Tally::start(backend, "eth0", &mac, lab.vip())?;
    let mut stale = Tally::start(backend, "eth0", "02:00:00:00:00:01", backend.v4())?;
    assert!(director.pings(backend.v4())?);
    assert_eq!(counted.frames()?, 1);
    assert!(director.pings(backend.v4())?);
    assert_eq!(counted.frames()?, 2);
    assert_eq!((other.frames()?, stale.frames()?), (0, 0));
    // Nobody has that address: the bridge hands the frame to all.
    let neighbour = [
        "neigh",
        "replace",
        "10.0.0.11",
        "dev",
        "eth0",
        "lladdr",
        "02:00:00:00:00:01",
    ];
    director.ip(&neighbour)?;
    assert!(!director.pings(backend.v4())?);
    assert_eq!((counted.frames()?, stale.frames()?), (2, 1));
    Ok(())
}

#[test]
fn uploads_and_dns_are_answered() -> Result<()> {
    let lab = lab(1);
    let _servers = (lab.start_all_http()?, lab.start_all_dns()?);
    let (client, backend) = (lab.client(), lab.host("backend1"));
    let answer = client.post((backend.v4(), 80).into(), "/upload", vec![b'x'; 3_000_000])?;
    assert_eq!((answer.status, answer.body.as_str()), (200, "3000000"));
    for address in [IpAddr::from(backend.v4()), backend.v6().into()] {
        assert_eq!(client.ask_dns(address, 3)?, ["backend1"; 3]);
    }
    assert!(client.ask_dns(lab.host("router").v4().into(), 1).is_err());
    Ok(())
}

#[test]
fn a_flood_sends_as_many_syns_as_it_is_told() -> Result<()> {
    let lab = lab(1);
    let (client, backend) = (lab.host("client"), lab.host("backend1"));
    let gateway = lab.host("router").mac("eth0")?;
    // The router keeps only few packets while it asks for an address, and it would have something to
    // say about answers.
    assert!(client.pings(backend.v4())?);
    backend.ip(&["route", "add", "blackhole", "198.18.0.0/15"])?;
    let mut arrived = Tally::start(backend, "eth0", &backend.mac("eth0")?, backend.v4())?;
    let to = SocketAddrV4::new(backend.v4(), 80);
    Flood::start((client, "eth0"), &gateway, to, 100)?.wait()?;
    wait_for("all SYNs to arrive", SOON, || {
        Ok((arrived.frames()? == 100).then_some(()))
    })
}
