//! Health checks that are steered, by real sockets: a director, a backend that has the VIPs on its
//! loopback, and the kernel's TCP, UDP and ICMP between them.
//!
//! The director has the VIPs as well, and refuses packets that claim to come from them.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::util::KernelVersion;
use socket2::{Domain, Protocol, Socket, Type};
use xdp_lb::dataplane::check::{Hook, Steered, Steering, Way};
use xdp_lb_common::check::Target;
use xdp_lb_tests::{
    check::mapped,
    lab::{SOON, program},
    modes::{Family, decapsulated},
    tunnel::GUE_PORT,
};
use xtask::{
    lab::{Forwarding, Host, HttpServer, Lab, LabConfig},
    setup::Tools,
};

/// How long a connection is tried that is to fail.
const TRIED: Duration = Duration::from_secs(1);
/// What the cables take.
const MTU: u32 = 1500;
/// More than one packet can have.
const BODY: usize = 100_000;

/// A way of steering.
#[derive(Clone, Copy, Debug)]
struct Mode {
    flags: u16,
    family: Family,
    /// Bytes of all headers up to TCP's, that included.
    headers: u32,
    mark: u32,
}

const MODES: [Mode; 6] = [
    mode(0, Family::V4, 40, 0x1_0001),
    mode(0, Family::V6, 60, 0x1_0002),
    mode(Target::FLAG_IPIP, Family::V4, 60, 0x1_0003),
    mode(Target::FLAG_IPIP, Family::V6, 100, 0x1_0004),
    mode(Target::FLAG_GUE, Family::V4, 68, 0x1_0005),
    mode(Target::FLAG_GUE, Family::V6, 108, 0x1_0006),
];

const fn mode(flags: u16, family: Family, headers: u32, mark: u32) -> Mode {
    Mode {
        flags,
        family,
        headers,
        mark,
    }
}

/// A lab with one backend that has HTTP on all of its addresses.
struct Rig {
    lab: Lab,
    _server: HttpServer,
}

impl Rig {
    fn new() -> Result<Self> {
        let lab = Lab::new(LabConfig::with_backends(1))?;
        lab.decapsulate(&program())?;
        let _server = lab.start_http(lab.host("backend1"))?;
        for scope in ["all", "eth0"] {
            lab.host("director")
                .sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "1")?;
        }
        Ok(Self { lab, _server })
    }

    fn director(&self) -> &Host {
        self.lab.host("director")
    }

    fn backend(&self) -> &Host {
        self.lab.host("backend1")
    }

    fn vip(&self, mode: Mode) -> IpAddr {
        match mode.family {
            Family::V4 => self.lab.vip().into(),
            Family::V6 => self.lab.vip6().into(),
        }
    }

    fn address(&self, host: &Host, mode: Mode) -> IpAddr {
        match mode.family {
            Family::V4 => host.v4().into(),
            Family::V6 => host.v6().into(),
        }
    }

    /// Loads the programs, with the targets of all modes.
    fn load(&self) -> Result<Steering> {
        let mut steering = self.director().run(Steering::load)?;
        for mode in MODES {
            let target = Target {
                vip: mapped(self.vip(mode)),
                backend: mapped(self.address(self.backend(), mode)),
                tunnel_source: mapped(self.address(self.director(), mode)),
                flags: mode.flags,
                gue_port_be: GUE_PORT.to_be_bytes(),
                ..Target::default()
            };
            steering.set_target(mode.mark, &target)?;
        }
        Ok(steering)
    }

    fn attach(&self, steering: &mut Steering, hook: Hook) -> Result<()> {
        Ok(self.director().run(|| steering.attach_by("eth0", hook))?)
    }

    /// A socket of a check, connected to the backend's own address.
    fn connect(
        &self,
        kind: Type,
        mode: Mode,
        mark: Option<u32>,
        port: u16,
        patience: Duration,
    ) -> io::Result<Socket> {
        let local = SocketAddr::new(self.address(self.director(), mode), 0);
        let remote = SocketAddr::new(self.address(self.backend(), mode), port);
        self.director().run(|| {
            let protocol = (port == 0).then_some(match mode.family {
                Family::V4 => Protocol::ICMPV4,
                Family::V6 => Protocol::ICMPV6,
            });
            let socket = Socket::new(Domain::for_address(remote), kind, protocol)?;
            if let Some(mark) = mark {
                socket.set_mark(mark)?;
            }
            if kind == Type::STREAM {
                socket.set_tcp_mss(MTU - mode.headers)?;
            }
            socket.set_read_timeout(Some(SOON))?;
            socket.bind(&local.into())?;
            socket.connect_timeout(&remote.into(), patience)?;
            Ok(socket)
        })
    }

    /// The answer to an HTTP request to the backend's own address.
    fn http(&self, mode: Mode, mark: Option<u32>, request: &[u8]) -> Result<String> {
        let socket = self.connect(Type::STREAM, mode, mark, 80, SOON)?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(request)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn get(&self, mode: Mode, mark: Option<u32>) -> Result<()> {
        let request = b"GET / HTTP/1.1\r\nHost: check\r\nConnection: close\r\n\r\n";
        let answer = self.http(mode, mark, request)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "answered: {answer}");
        Ok(())
    }

    /// Sends a body of many segments, each as large as the cable takes.
    fn post(&self, mode: Mode) -> Result<()> {
        let mut request = format!(
            "POST /upload HTTP/1.1\r\nHost: check\r\nConnection: close\r\n\
             Content-Length: {BODY}\r\n\r\n"
        )
        .into_bytes();
        request.resize(request.len() + BODY, b'x');
        let answer = self.http(mode, Some(mode.mark), &request)?;
        ensure!(answer.ends_with(&BODY.to_string()), "answered: {answer}");
        Ok(())
    }

    /// A connection to a server that is at the VIP and nowhere else, which sees both ends.
    fn tcp(&self, mode: Mode) -> Result<()> {
        let at = SocketAddr::new(self.vip(mode), 9000);
        let server = self.backend().run(|| TcpListener::bind(at))?;
        let client = self.connect(Type::STREAM, mode, Some(mode.mark), 9000, SOON)?;
        let (stream, peer) = server.accept()?;
        ensure!(stream.local_addr()? == at, "for another address");
        ensure!(
            Some(peer) == client.local_addr()?.as_socket(),
            "from {peer}"
        );
        Ok(())
    }

    /// The same for a datagram and its answer, which the socket takes from the backend's own address only.
    fn udp(&self, mode: Mode) -> Result<()> {
        let at = SocketAddr::new(self.vip(mode), 9000);
        let server = self.backend().run(|| UdpSocket::bind(at))?;
        server.set_read_timeout(Some(SOON))?;
        let client = self.connect(Type::DGRAM, mode, Some(mode.mark), 9000, SOON)?;
        client.send(b"question")?;
        let mut buffer = [0; 100];
        let (length, peer) = server.recv_from(&mut buffer).context("no question")?;
        ensure!(&buffer[..length] == b"question", "another question");
        ensure!(
            Some(peer) == client.local_addr()?.as_socket(),
            "from {peer}"
        );
        server.send_to(b"answer", peer)?;
        let length = (&client).read(&mut buffer).context("no answer")?;
        ensure!(&buffer[..length] == b"answer", "another answer");
        Ok(())
    }

    /// An echo request and its reply.
    fn echo(&self, mode: Mode) -> Result<()> {
        let client = self.connect(Type::DGRAM, mode, Some(mode.mark), 0, SOON)?;
        let (request, reply) = match mode.family {
            Family::V4 => (8, 0),
            Family::V6 => (128, 129),
        };
        client.send(&[request, 0, 0, 0, 0, 0, 0, 1, b'?'])?;
        let mut buffer = [0; 100];
        let length = (&client).read(&mut buffer).context("no reply")?;
        ensure!(length == 9 && buffer[0] == reply, "{:?}", &buffer[..length]);
        Ok(())
    }

    /// All that a check can ask, in every mode; tells by the counts that it went the right way.
    fn all_is_steered(&self, steered: &Steered) -> Result<()> {
        for mode in MODES {
            self.one_is_steered(steered, mode)
                .with_context(|| format!("{mode:?}"))?;
        }
        Ok(())
    }

    fn one_is_steered(&self, steered: &Steered, mode: Mode) -> Result<()> {
        type Ask = fn(&Rig, Mode) -> Result<()>;
        let get: Ask = |rig, mode| rig.get(mode, Some(mode.mark));
        // How many packets each takes at least.
        let asks: [(&str, Ask, u64); 5] = [
            ("TCP", Self::tcp, 2),
            ("HTTP", get, 3),
            ("UDP", Self::udp, 1),
            ("echo", Self::echo, 1),
            // Several segments may be counted as one packet, which is cut later.
            ("a large request", Self::post, 4),
        ];
        for (what, ask, least) in asks {
            let unpacked = decapsulated(self.backend(), "decapsulated")?;
            let before = count(steered, mode)?;
            ask(self, mode).context(what)?;
            let packets = count(steered, mode)? - before;
            ensure!(packets >= least, "{what}: {packets} packets were steered");
            let unpacked = decapsulated(self.backend(), "decapsulated")? - unpacked;
            let is_right = match mode.flags {
                0 => unpacked == 0,
                _ => unpacked >= least,
            };
            ensure!(is_right, "{what}: {unpacked} packets came in tunnels");
        }
        Ok(())
    }

    /// `tc filter show` on the director.
    fn filters(&self, way: &str) -> Result<String> {
        let mut command = Tools::new()?.command("tc")?;
        command.args(["filter", "show", "dev", "eth0", way]);
        self.director().namespace().check(&mut command)
    }
}

fn count(steered: &Steered, mode: Mode) -> Result<u64> {
    steered.packets(mode.mark)?.context("no such target")
}

/// With this hook, from the moment on at which it is attached until it is dropped.
fn steered_by(rig: &Rig, hook: Hook) -> Result<()> {
    let mut steering = rig.load()?;
    let steered = steering.steered();
    rig.attach(&mut steering, hook)?;
    rig.all_is_steered(&steered)?;
    rig.director().run(|| drop(steering));
    Ok(())
}

#[test]
fn every_mode_of_both_families_is_steered() -> Result<()> {
    let rig = Rig::new()?;
    steered_by(&rig, Hook::Tcx)?;
    steered_by(&rig, Hook::Clsact)
}

/// The backend checks every checksum then.
#[test]
fn checksums_that_no_network_card_fills_in_are_right() -> Result<()> {
    let rig = Rig::new()?;
    // Large packets are cut late, and summed up after that.
    let fabric = rig.lab.host("fabric");
    fabric.offloads("backend1", &["tx", "off"])?;
    steered_by(&rig, Hook::Tcx)?;
    let off = ["tx", "off", "tso", "off", "gso", "off"];
    rig.director().offloads("eth0", &off)?;
    rig.backend().offloads("eth0", &off)?;
    steered_by(&rig, Hook::Tcx)?;
    steered_by(&rig, Hook::Clsact)
}

#[test]
fn it_works_beside_the_data_plane() -> Result<()> {
    let rig = Rig::new()?;
    let config = rig.lab.director_config(Forwarding::L2);
    let director = rig.lab.start_director(&program(), &config)?;
    steered_by(&rig, Hook::Tcx)?;
    steered_by(&rig, Hook::Clsact)?;
    drop(director);
    Ok(())
}

#[test]
fn a_backend_without_the_vip_fails_while_its_own_address_answers() -> Result<()> {
    let rig = Rig::new()?;
    let mut steering = rig.load()?;
    let steered = steering.steered();
    rig.attach(&mut steering, Hook::Tcx)?;
    for mode in MODES {
        let (vip, prefix) = match rig.vip(mode) {
            vip @ IpAddr::V4(_) => (vip, 32),
            vip @ IpAddr::V6(_) => (vip, 128),
        };
        let vip = format!("{vip}/{prefix}");
        rig.backend().ip(&["addr", "del", &vip, "dev", "lo"])?;
        let before = count(&steered, mode)?;
        let error = rig.connect(Type::STREAM, mode, Some(mode.mark), 80, TRIED);
        let kind = error.map(drop).map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::TimedOut), "{mode:?}");
        assert!(count(&steered, mode)? > before, "{mode:?}");
        rig.get(mode, None).with_context(|| format!("{mode:?}"))?;
        rig.backend()
            .ip(&["addr", "add", &vip, "dev", "lo", "nodad"])
            .or_else(|_| rig.backend().ip(&["addr", "add", &vip, "dev", "lo"]))?;
        rig.get(mode, Some(mode.mark))
            .with_context(|| format!("{mode:?}"))?;
    }
    rig.director().run(|| drop(steering));
    Ok(())
}

#[test]
fn filters_of_a_daemon_that_crashed_are_replaced_and_those_of_others_stay() -> Result<()> {
    let rig = Rig::new()?;
    let mut first = rig.load()?;
    rig.attach(&mut first, Hook::Clsact)?;
    let other = "/sys/fs/bpf/other";
    rig.director()
        .run(|| first.program(Way::In)?.pin(other).context("cannot pin"))?;
    for way in ["ingress", "egress"] {
        let mut add = Tools::new()?.command("tc")?;
        add.args(["filter", "add", "dev", "eth0", way, "bpf", "da"]);
        add.args(["object-pinned", other]);
        rig.director().namespace().check(&mut add)?;
    }
    // As if it had been killed: it removes nothing.
    std::mem::forget(first);

    let mut second = rig.load()?;
    let steered = second.steered();
    for _ in 0..2 {
        rig.attach(&mut second, Hook::Clsact)?;
        let (questions, answers) = (rig.filters("egress")?, rig.filters("ingress")?);
        // Each shows by its program's name as well, and so do those of others.
        assert_eq!(
            questions.matches("xdp_lb_steer direct").count(),
            1,
            "{questions}"
        );
        assert_eq!(
            answers.matches("xdp_lb_answer direct").count(),
            1,
            "{answers}"
        );
        rig.all_is_steered(&steered)?;
    }
    rig.director().run(|| drop(second));
    for (way, program) in [
        ("egress", "xdp_lb_steer"),
        ("ingress", "xdp_lb_answer direct"),
    ] {
        let filters = rig.filters(way)?;
        assert!(!filters.contains(program), "{filters}");
        assert_eq!(filters.matches("other").count(), 1, "{filters}");
    }
    Ok(())
}

#[test]
fn a_second_daemon_takes_over_from_a_first_that_is_about_to_end() -> Result<()> {
    let rig = Rig::new()?;
    let mut first = rig.load()?;
    rig.attach(&mut first, Hook::Tcx)?;
    let mut second = rig.load()?;
    let steered = second.steered();
    for _ in 0..2 {
        rig.attach(&mut second, Hook::Tcx)?;
        rig.all_is_steered(&steered)?;
    }
    for mode in MODES {
        assert_eq!(count(&first.steered(), mode)?, 0, "{mode:?}");
    }
    drop(first);
    rig.all_is_steered(&steered)?;
    second.detach_others(&[rig.director().ifindex("eth0")?]);
    rig.all_is_steered(&steered)?;
    second.detach_others(&[]);
    for mode in MODES {
        let before = count(&steered, mode)?;
        rig.get(mode, Some(mode.mark))?;
        assert_eq!(count(&steered, mode)?, before, "{mode:?}");
    }
    Ok(())
}

#[test]
fn attaching_takes_the_newest_hook_there_is_and_names_an_interface_that_is_not() -> Result<()> {
    let rig = Rig::new()?;
    let mut steering = rig.load()?;
    let hook = rig.director().run(|| steering.attach("eth0"))?;
    let has_links = KernelVersion::current()? >= KernelVersion::new(6, 6, 0);
    let expected = if has_links { Hook::Tcx } else { Hook::Clsact };
    assert_eq!(hook, expected);
    let error = rig.director().run(|| steering.attach("eth7")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("interface `eth7` does not exist")
    );
    rig.director().run(|| drop(steering));
    Ok(())
}
