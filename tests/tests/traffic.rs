//! Real requests through the VIP: none fails, all are shared out, replies do not pass the director.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use xdp_lb_tests::lab::{Rig, SOON, config};
use xtask::lab::{Host, HttpServer, Packets, wait_for};

#[test]
fn ten_thousand_requests_are_answered_directly_by_every_backend() -> Result<()> {
    let rig = Rig::new(3)?;
    let (client, director) = (rig.lab.host("client"), rig.lab.host("director"));
    let before = (Packets::of(client)?, Packets::of(director)?);
    let forwarded = rig.counter("forwarded")?;

    let mut shares = std::collections::BTreeMap::<String, usize>::new();
    for response in rig.get(10_000)? {
        let backend = response.backend.context("no backend named")?;
        let body = format!("backend={backend} client=198.51.100.10\n");
        assert_eq!(response.body, body);
        *shares.entry(backend).or_default() += 1;
    }
    assert_eq!(shares.values().sum::<usize>(), 10_000);
    // A third each; five standard deviations are 236.
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert!(
        shares.values().all(|&it| it.abs_diff(3333) < 240),
        "{shares:?}"
    );

    // The last packets may still be on their way.
    let forwarded = rig.counter("forwarded")? - forwarded;
    let (seen, passed) = (
        Packets::of(client)?.since(before.0),
        Packets::of(director)?.since(before.1),
    );
    // At the least a SYN, the request, an ACK and a FIN of each; a SYN with ACK, the answer and a FIN.
    assert!(seen.tx >= 40_000 && seen.rx >= 30_000, "{seen:?}");
    // ARP, and what two readings at two times differ by; one reply in a hundred would show.
    let slack = seen.rx / 100;
    assert!(passed.rx.abs_diff(seen.tx) < slack, "{passed:?} {seen:?}");
    assert!(passed.tx.abs_diff(seen.tx) < slack, "{passed:?} {seen:?}");
    assert!(forwarded.abs_diff(seen.tx) < slack, "{forwarded} {seen:?}");
    Ok(())
}

#[test]
fn the_access_logs_hold_the_clients_address_and_every_request() -> Result<()> {
    let rig = Rig::new(2)?;
    rig.get(500)?;
    let lines = wait_for("the access logs", SOON, || {
        let logs: Result<Vec<_>> = rig.servers.iter().map(HttpServer::requests).collect();
        let lines: Vec<String> = logs?.into_iter().flatten().collect();
        Ok((lines.len() >= 500).then_some(lines))
    })?;
    assert_eq!(lines.len(), 500);
    let odd = lines
        .iter()
        .find(|it| !it.starts_with("198.51.100.10 / 200 "));
    assert_eq!(odd, None);
    Ok(())
}

#[test]
fn a_heavier_backend_gets_a_larger_share() -> Result<()> {
    let yaml = config(1..=2).replace("- 10.0.0.11", "- { address: 10.0.0.11, weight: 300 }");
    let rig = Rig::with_config(2, &yaml)?;
    let shares = rig.shares(4000)?;
    // Three quarters; five standard deviations are 137.
    assert!(shares["backend1"].abs_diff(3000) < 140, "{shares:?}");
    Ok(())
}

#[test]
fn with_source_affinity_a_client_stays_with_one_backend() -> Result<()> {
    let yaml = config(1..=3).replace("    port: 80\n", "    port: 80\n    affinity: source\n");
    let rig = Rig::with_config(3, &yaml)?;
    let shares = rig.shares(200)?;
    assert_eq!(shares.len(), 1, "{shares:?}");
    Ok(())
}

#[test]
fn services_on_several_ports_and_vips_have_backends_of_their_own() -> Result<()> {
    let lab = xtask::lab::Lab::new(xtask::lab::LabConfig {
        backends: 2,
        vips: vec!["192.0.2.10".parse()?, "192.0.2.20".parse()?],
        ..xtask::lab::LabConfig::default()
    })?;
    let yaml = "interfaces: [eth0]\nservices:\n  \
        - { name: one, vip: 192.0.2.10, protocol: tcp, port: 80, backends: [10.0.0.11] }\n  \
        - { name: two, vip: 192.0.2.20, protocol: tcp, port: 80, backends: [10.0.0.12] }\n";
    let rig = Rig::in_lab(lab, yaml)?;
    for (vip, backend) in [("192.0.2.10", "backend1"), ("192.0.2.20", "backend2")] {
        let to = SocketAddr::new(vip.parse()?, 80);
        let responses = rig.lab.client().get_many(to, "/", 50, 8);
        let backends: HashSet<_> = responses
            .into_iter()
            .map(|it| it.map(|it| it.backend))
            .collect::<Result<_>>()?;
        assert_eq!(backends, HashSet::from([Some(backend.to_owned())]));
    }
    Ok(())
}

#[test]
fn the_director_itself_stays_reachable() -> Result<()> {
    let rig = Rig::new(2)?;
    let (client, director) = (rig.lab.host("client"), rig.lab.host("director"));
    assert!(rig.is_attached()?);
    assert!(client.pings(director.v4())?);
    assert!(client.pings(director.v6())?);
    assert!(client.pings(rig.lab.vip())?);

    // As sshd would: on its own address, on the VIP's other ports, and on the service's port.
    let own: IpAddr = director.v4().into();
    for (address, port) in [(own, 22), (rig.lab.vip().into(), 22), (own, 80)] {
        let to = SocketAddr::new(address, port);
        assert_eq!(greeting(director, client, to)?, "hello from the director");
    }
    let over_v6 = SocketAddr::new(director.v6().into(), 22);
    assert_eq!(
        greeting(director, client, over_v6)?,
        "hello from the director"
    );
    rig.get(50)?;
    Ok(())
}

/// Has `server` listen at `to`, connects from `client`, and returns what the server sends.
fn greeting(server: &Host, client: &Host, to: SocketAddr) -> Result<String> {
    let listener = server.run(|| TcpListener::bind(to)).context("listen")?;
    let served = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        Ok(stream.write_all(b"hello from the director")?)
    });
    let mut stream = client
        .run(|| TcpStream::connect_timeout(&to, SOON))
        .with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(SOON))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    served.join().expect("the server's thread")?;
    Ok(text)
}
