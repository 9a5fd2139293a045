//! Both address families and both protocols, on real traffic through the VIP.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xdp_lb_tests::lab::{Rig, config};
use xtask::lab::{Host, Lab};

const BACKENDS: usize = 3;
const PORT: u16 = 5353;

/// A config with the service `web` on these VIPs, and these backends.
fn web(vips: &str, backends: &str) -> String {
    format!(
        "interfaces: [eth0]\nservices:\n- {{ name: web, vip: {vips}, protocol: tcp, port: 80, \
         backends: {backends} }}\n"
    )
}

const V6_BACKENDS: &str = "[\"2001:db8:2::11\", \"2001:db8:2::12\", \"2001:db8:2::13\"]";

/// Requests to `vip`; all must be answered, by every backend, which sees the client's own address.
fn requests_are_balanced(rig: &Rig, vip: IpAddr, client: &str) -> Result<()> {
    let mut shares = BTreeMap::new();
    let before = rig.lab.host("director").rx_packets("eth0")?;
    for response in rig.lab.client().get_many((vip, 80).into(), "/", 300, 16) {
        let response = response?;
        ensure!(response.status == 200, "status {}", response.status);
        let seen = response
            .body
            .trim()
            .rsplit_once("client=")
            .context("no client")?;
        ensure!(seen.1 == client, "the backend saw {}", seen.1);
        *shares.entry(response.backend).or_insert(0) += 1;
    }
    ensure!(shares.len() == BACKENDS, "{shares:?}");
    ensure!(shares.values().all(|&share| share > 50), "{shares:?}");
    // SYN, ACK, request, ACK of the answer, FIN: no more than the client's side of it.
    let received = rig.lab.host("director").rx_packets("eth0")? - before;
    ensure!(
        received < 300 * 8,
        "the director received {received} packets"
    );
    Ok(())
}

#[test]
fn ipv6_is_balanced_to_ipv6_backends() -> Result<()> {
    let rig = Rig::with_config(BACKENDS, &web("\"2001:db8:10::10\"", V6_BACKENDS))?;
    requests_are_balanced(&rig, rig.lab.vip6().into(), "2001:db8:1::10")
}

#[test]
fn a_service_with_vips_of_both_families_is_balanced_to_the_same_backends() -> Result<()> {
    let vips = "[192.0.2.10, \"2001:db8:10::10\"]";
    let rig = Rig::with_config(BACKENDS, &web(vips, "[10.0.0.11, 10.0.0.12, 10.0.0.13]"))?;
    requests_are_balanced(&rig, rig.lab.vip().into(), "198.51.100.10")?;
    requests_are_balanced(&rig, rig.lab.vip6().into(), "2001:db8:1::10")
}

#[test]
fn ipv6_downloads_survive_a_change() -> Result<()> {
    let rig = Rig::with_config(BACKENDS, &web("\"2001:db8:10::10\"", V6_BACKENDS))?;
    let vip = (rig.lab.vip6(), 80).into();
    let downloads = rig.lab.client().download(vip, "/download?rate=24m", 20)?;
    downloads.wait_until_running(Duration::from_secs(30))?;
    rig.json(&["backend", "drain", "web", "2001:db8:2::11"])?;
    rig.json(&["backend", "enable", "web", "2001:db8:2::11"])?;
    rig.json(&["backend", "set", "web", "2001:db8:2::12", "--weight", "1"])?;
    for download in downloads.wait(Duration::from_secs(60))? {
        ensure!(download.is_complete(), "{download:?}");
    }
    Ok(())
}

/// The client's network takes less than the backends'. The router says so to the VIP, and unless the
/// director hands that on to the right backend, nothing large ever reaches the client.
fn large_answers_arrive_through_a_narrow_network(rig: &Rig, vip: IpAddr) -> Result<()> {
    let router = rig.lab.host("router");
    router.ip(&["link", "set", "eth0", "mtu", "1400"])?;
    let before = rig.counter("icmp_error")?;
    let downloads = rig
        .lab
        .client()
        .download((vip, 80).into(), "/download", 6)?;
    for download in downloads.wait(Duration::from_secs(60))? {
        ensure!(download.is_complete(), "{download:?}");
    }
    ensure!(
        rig.counter("icmp_error")? > before,
        "no ICMP error passed the director"
    );
    Ok(())
}

#[test]
fn path_mtu_discovery_works_over_ipv4() -> Result<()> {
    let rig = Rig::new(BACKENDS)?;
    large_answers_arrive_through_a_narrow_network(&rig, rig.lab.vip().into())
}

#[test]
fn path_mtu_discovery_works_over_ipv6() -> Result<()> {
    let rig = Rig::with_config(BACKENDS, &web("\"2001:db8:10::10\"", V6_BACKENDS))?;
    large_answers_arrive_through_a_narrow_network(&rig, rig.lab.vip6().into())
}

#[test]
fn the_director_itself_stays_reachable_over_ipv6() -> Result<()> {
    let rig = Rig::with_config(1, &web("\"2001:db8:10::10\"", "[\"2001:db8:2::11\"]"))?;
    let director = rig.lab.host("director").v6();
    ensure!(rig.lab.host("client").pings(director)?);
    ensure!(
        rig.lab.host("client").pings(rig.lab.vip6())?,
        "the VIP answers"
    );
    Ok(())
}

/// Answers datagrams from the address that they came to, with the backend's name; ends with "end".
fn answer(host: &Host, address: SocketAddr) -> Result<JoinHandle<io::Result<()>>> {
    let name = host.name().to_owned();
    let socket = host.run(|| UdpSocket::bind(address))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    host.namespace().thread("udp", move || {
        let mut buffer = [0; 64];
        loop {
            let (length, client) = socket.recv_from(&mut buffer)?;
            if &buffer[..length] == b"end" {
                return Ok(());
            }
            socket.send_to(name.as_bytes(), client)?;
        }
    })
}

fn ask(socket: &UdpSocket, vip: SocketAddr, question: &[u8]) -> Result<String> {
    let mut buffer = [0; 64];
    socket.send_to(question, vip)?;
    let (length, from) = socket.recv_from(&mut buffer).context("no answer")?;
    ensure!(from == vip, "the answer came from {from}");
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// `count` sockets of the client.
fn sockets(lab: &Lab, any: &str, count: usize) -> Result<Vec<UdpSocket>> {
    lab.host("client").run(|| {
        (0..count)
            .map(|_| {
                let socket = UdpSocket::bind((any.parse::<IpAddr>()?, 0))?;
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                Ok(socket)
            })
            .collect()
    })
}

fn udp_is_balanced_and_flows_stay(rig: &Rig, vip: SocketAddr, any: &str) -> Result<()> {
    let servers: Vec<_> = rig
        .lab
        .backends()
        .map(|host| answer(host, vip))
        .collect::<Result<_>>()?;
    let sockets = sockets(&rig.lab, any, 120)?;
    let before = sockets
        .iter()
        .map(|socket| ask(socket, vip, b"who"))
        .collect::<Result<Vec<_>>>()?;
    let mut shares = BTreeMap::new();
    before
        .iter()
        .for_each(|name| *shares.entry(name).or_insert(0) += 1);
    ensure!(shares.len() == BACKENDS, "{shares:?}");
    rig.json(&["backend", "set", "dns", "10.0.0.11", "--weight", "1"])?;
    let after = sockets
        .iter()
        .map(|socket| ask(socket, vip, b"who"))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        before == after,
        "a flow changed its backend: {before:?}, {after:?}"
    );
    // Three fragments each; the client's kernel makes them.
    let large = [b'?'; 4000];
    let before = rig.counter("early_fragment")?;
    let in_fragments = sockets
        .iter()
        .map(|socket| ask(socket, vip, &large))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        in_fragments == after,
        "fragments went elsewhere: {in_fragments:?}, {after:?}"
    );
    ensure!(
        rig.counter("early_fragment")? == before,
        "fragments came early"
    );
    rig.json(&["backend", "set", "dns", "10.0.0.11", "--weight", "100"])?;
    for (host, server) in rig.lab.backends().zip(servers) {
        host.run(|| UdpSocket::bind((any, 0))?.send_to(b"end", vip))?;
        server.join().ok().context("the server panicked")??;
    }
    Ok(())
}

#[test]
fn udp_is_balanced_and_flows_keep_their_backend_in_both_families() -> Result<()> {
    let yaml = format!(
        "{}  - {{ name: dns, vip: [192.0.2.10, \"2001:db8:10::10\"], protocol: udp, port: {PORT}, \
         backends: [10.0.0.11, 10.0.0.12, 10.0.0.13] }}\n",
        config(1..=BACKENDS)
    );
    let rig = Rig::with_config(BACKENDS, &yaml)?;
    udp_is_balanced_and_flows_stay(&rig, (rig.lab.vip(), PORT).into(), "0.0.0.0")?;
    udp_is_balanced_and_flows_stay(&rig, (rig.lab.vip6(), PORT).into(), "::")
}
