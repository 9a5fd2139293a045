//! `xdp-lb decap` at work: a backend on a cable of its own, and a director that sends packets by hand.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::{Command, Output},
};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use xdp_lb_tests::{
    lab::{SOON, program, stderr},
    packet::{DIRECTOR_MAC, ETHERNET, Frame, ROUTER_MAC},
    tunnel::{Tunnel, gue, ipip},
};
use xtask::lab::{Namespace, wait_for};

const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
const DIRECTOR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1));
const BACKEND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 2));
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// Where the client's packets come from and go to.
const PORTS: (u16, u16) = (40_000, 9_000);

/// Protocol of sockets by which whole packets are sent, IP header and all.
const IPPROTO_RAW: i32 = 255;

/// A director and a backend with the VIPs on its loopback, on one cable: `eth0` on both sides.
struct Cable {
    director: Namespace,
    backend: Namespace,
}

impl Cable {
    fn new() -> Result<Self> {
        let cable = Self {
            director: Namespace::new("director")?,
            backend: Namespace::new("backend")?,
        };
        let peer = cable.backend.net_path();
        let peer = peer.to_str().context("an odd path")?;
        ip(
            &cable.director,
            &format!("link add eth0 type veth peer name eth0 netns {peer}"),
        )?;
        for (namespace, v4, v6) in [
            (&cable.director, DIRECTOR, DIRECTOR6),
            (&cable.backend, BACKEND, BACKEND6),
        ] {
            ip(namespace, "link set lo up")?;
            ip(namespace, &format!("addr add {v4}/24 dev eth0"))?;
            ip(namespace, &format!("addr add {v6}/64 dev eth0 nodad"))?;
            ip(namespace, "link set eth0 up")?;
        }
        ip(&cable.backend, &format!("addr add {VIP} dev lo"))?;
        // Without this even the loopback's addresses are tentative for a moment.
        ip(&cable.backend, &format!("addr add {VIP6} dev lo nodad"))?;
        // The way back to the client, without which its packets are refused where rp_filter is on.
        ip(&cable.backend, &format!("route add default via {DIRECTOR}"))?;
        ip(
            &cable.backend,
            &format!("route add default via {DIRECTOR6}"),
        )?;
        Ok(cable)
    }

    /// `xdp-lb decap --interface INTERFACE MORE` on the backend.
    fn decap_on(&self, interface: &str, more: &[&str]) -> Result<Output> {
        let mut command = Command::new(program());
        command.args(["decap", "--interface", interface]).args(more);
        self.backend.output(&mut command)
    }

    /// The same on `eth0`, where it must succeed; returns what it prints.
    fn decap(&self, more: &[&str]) -> Result<String> {
        let mut command = Command::new(program());
        command.args(["decap", "--interface", "eth0"]).args(more);
        self.backend.check(&mut command)
    }

    /// What is attached, as JSON.
    fn shown(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.decap(&["--show", "--json"])?)?)
    }

    /// Packets that one of the counters counted.
    fn counter(&self, name: &str) -> Result<u64> {
        let shown = self.shown()?;
        let counters = shown["counters"].as_array().context("no counters")?;
        let found = counters.iter().find(|counter| counter["name"] == name);
        let packets = found.and_then(|counter| counter["packets"].as_u64());
        packets.with_context(|| format!("no counter {name} in {shown}"))
    }

    /// A server on the backend, at a VIP.
    fn server(&self, vip: impl Into<IpAddr>) -> Result<UdpSocket> {
        let address = SocketAddr::new(vip.into(), PORTS.1);
        let socket = self.backend.run(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket)
    }

    /// Has the director send a packet as it is, from its outer IP header on.
    fn send(&self, tunnel: Tunnel, to: IpAddr) -> Result<()> {
        let domain = if to.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let socket = || Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
        let frame = Frame::from(tunnel);
        let packet = &frame.bytes()[ETHERNET..];
        let sent = self.director.run(socket)?;
        sent.send_to(packet, &SocketAddr::new(to, 0).into())?;
        Ok(())
    }
}

fn ip(namespace: &Namespace, arguments: &str) -> Result<String> {
    namespace.check(Command::new("ip").args(arguments.split(' ')))
}

/// A client's packets that carry `text`, one of each family, and the VIPs that they are for.
fn questions(text: &str) -> [(Frame, IpAddr); 2] {
    let ethernet = || PacketBuilder::ethernet2(ROUTER_MAC, DIRECTOR_MAC);
    let packets = [
        ethernet().ipv4(CLIENT.octets(), VIP.octets(), 64),
        ethernet().ipv6(CLIENT6.octets(), VIP6.octets(), 64),
    ];
    let frames = packets.map(|packet| {
        let mut bytes = Vec::new();
        let packet = packet.udp(PORTS.0, PORTS.1);
        let written = packet.write(&mut bytes, text.as_bytes());
        written.expect("a packet that fits its length fields");
        Frame::new(bytes)
    });
    let [v4, v6] = frames;
    [(v4, VIP.into()), (v6, VIP6.into())]
}

/// Receives a packet; returns what is in it and who sent it.
fn received(server: &UdpSocket) -> Result<(String, IpAddr)> {
    let mut buffer = [0; 100];
    let (length, from) = server.recv_from(&mut buffer).context("nothing arrived")?;
    Ok((String::from_utf8(buffer[..length].to_vec())?, from.ip()))
}

#[test]
fn a_server_at_the_vip_gets_what_comes_by_tunnels() -> Result<()> {
    for mode in ["native", "generic"] {
        let cable = Cable::new()?;
        let servers = [cable.server(VIP)?, cable.server(VIP6)?];
        let said = cable.decap(&["--mode", mode])?;
        assert!(said.contains(&format!("{mode} mode")), "{said}");
        let mut sent = 0;
        for (from, to) in [(DIRECTOR, BACKEND), (DIRECTOR6, BACKEND6)] {
            for (kind, tunnel) in [("ipip", ipip as fn(_, _, _) -> _), ("gue", gue)] {
                let text = format!("{kind} from {from} in {mode} mode");
                for (server, (packet, vip)) in servers.iter().zip(questions(&text)) {
                    let tunnel: Tunnel = tunnel(from, to, packet);
                    cable.send(tunnel, to)?;
                    let client = match vip {
                        IpAddr::V4(_) => CLIENT.into(),
                        IpAddr::V6(_) => IpAddr::from(CLIENT6),
                    };
                    assert_eq!(
                        received(server).context(text.clone())?,
                        (text.clone(), client)
                    );
                    sent += 1;
                }
            }
        }
        assert_eq!(sent, 8);
        assert_eq!(cable.counter("decapsulated")?, sent, "{mode}");
    }
    Ok(())
}

#[test]
fn a_second_call_changes_the_settings_and_the_counters_go_on() -> Result<()> {
    let cable = Cable::new()?;
    let server = cable.server(VIP)?;
    let [(packet, _), _] = questions("hello");
    let hello = || ipip(DIRECTOR, BACKEND, &packet);
    assert!(cable.decap(&[])?.contains("--from"), "no word on sources");
    let first = cable.shown()?;
    assert_eq!(
        (&first["gue_port"], &first["from"]),
        (&6080.into(), &Value::Array(vec![]))
    );
    cable.send(hello(), BACKEND)?;
    received(&server)?;

    cable.decap(&[
        "--from",
        "10.9.0.9",
        "--from",
        "2001:db8:9::/64",
        "--gue-port",
        "7000",
    ])?;
    let second = cable.shown()?;
    let from = serde_json::json!(["10.9.0.9", "2001:db8:9::/64"]);
    assert_eq!(
        (&second["gue_port"], &second["from"]),
        (&7000.into(), &from)
    );
    cable.send(hello(), BACKEND)?;
    wait_for("the packet to be dropped", SOON, || {
        Ok((cable.counter("unknown_source")? == 1).then_some(()))
    })?;
    server.set_nonblocking(true)?;
    let nothing = server.recv(&mut [0; 100]).map_err(|error| error.kind());
    assert_eq!(nothing, Err(ErrorKind::WouldBlock));
    server.set_nonblocking(false)?;
    cable.send(gue(DIRECTOR6, BACKEND6, &packet).ports(1, 7000), BACKEND6)?;
    assert_eq!(received(&server)?.0, "hello");
    // One before the change, one after it.
    assert_eq!(cable.counter("decapsulated")?, 2);

    // Nor does another mode lose them.
    cable.decap(&["--mode", "generic"])?;
    assert_eq!(cable.shown()?["mode"], "generic");
    cable.send(hello(), BACKEND)?;
    received(&server)?;
    assert_eq!(cable.counter("decapsulated")?, 3);
    assert_eq!(cable.counter("unknown_source")?, 1);
    Ok(())
}

#[test]
fn detaching_takes_everything_away() -> Result<()> {
    let cable = Cable::new()?;
    cable.decap(&[])?;
    assert!(ip(&cable.backend, "link show eth0")?.contains("xdp"));
    assert!(cable.decap(&["--detach"])?.contains("detached from eth0"));
    assert!(!ip(&cable.backend, "link show eth0")?.contains("xdp"));
    assert!(cable.decap(&["--detach"])?.contains("nothing was attached"));
    let output = cable.decap_on("eth0", &["--show"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nothing is attached to eth0"));
    // The next one begins at zero.
    cable.decap(&[])?;
    assert_eq!(cable.counter("decapsulated")?, 0);
    Ok(())
}

#[test]
fn an_interface_of_a_vlan_has_a_dot_in_its_name() -> Result<()> {
    let cable = Cable::new()?;
    ip(&cable.backend, "link add eth0.100 type veth peer name far")?;
    let attached = cable.decap_on("eth0.100", &[])?;
    assert!(attached.status.success(), "{}", stderr(&attached));
    assert!(cable.decap_on("eth0.100", &["--show"])?.status.success());
    assert!(!cable.decap_on("eth0", &["--show"])?.status.success());
    Ok(())
}

#[test]
fn an_interface_that_was_made_anew_is_attached_anew() -> Result<()> {
    let cable = Cable::new()?;
    for _ in 0..2 {
        ip(&cable.backend, "link add v0 type veth peer name v1")?;
        assert!(!cable.decap_on("v0", &["--show"])?.status.success());
        let attached = cable.decap_on("v0", &[])?;
        assert!(attached.status.success(), "{}", stderr(&attached));
        assert!(ip(&cable.backend, "link show v0")?.contains("xdp"));
        assert!(cable.decap_on("v0", &["--show"])?.status.success());
        ip(&cable.backend, "link del v0")?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_done_ends_with_1_and_says_why() -> Result<()> {
    let cable = Cable::new()?;
    cable.decap(&[])?;
    for (interface, more, reason) in [
        ("nope", &[][..], "interface `nope` does not exist"),
        ("nope", &["--show"], "interface `nope` does not exist"),
        (
            "lo",
            &["--mode", "native"],
            "cannot attach to interface `lo`: native XDP",
        ),
        ("lo", &["--show"], "nothing is attached to lo"),
        (
            "eth0",
            &["--pin-dir", "/sys/fs/bpf/other"],
            "another XDP program",
        ),
        ("eth0", &["--pin-dir", "/tmp"], "not on a BPF file system"),
    ] {
        let output = cable.decap_on(interface, more)?;
        let said = stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{interface} {more:?}: {said}"
        );
        assert!(said.contains(reason), "{interface} {more:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    // And nothing is left behind of it.
    let pins = cable
        .backend
        .check(Command::new("ls").arg("/sys/fs/bpf/xdp-lb-decap"))?;
    assert_eq!(pins.trim(), "eth0");
    assert!(cable.decap(&["--show"])?.contains("eth0 native"));
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2() -> Result<()> {
    for args in [
        &[][..],
        &["--interface", "eth0", "--from", "10.0.0.1/24"],
        &["--interface", "eth0", "--from", "director"],
        &["--interface", "eth0", "--gue-port", "0"],
        &["--interface", "eth0", "--gue-port", "65536"],
        &["--interface", "eth0", "--mode", "fast"],
        &["--interface", "eth0", "--show", "--detach"],
        &["--interface", "eth0", "--show", "--from", "10.0.0.1"],
        &["--interface", "eth0", "--detach", "--mode", "native"],
    ] {
        let output = Command::new(program()).arg("decap").args(args).output()?;
        let code = output.status.code();
        assert_eq!(code, Some(2), "{args:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty());
    }
    Ok(())
}
