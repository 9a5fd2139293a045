//! TCP: a connection is accepted.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;
use xdp_lb::{
    config::Probe,
    health::{Kind, probe::Target},
};
use xdp_lb_tests::lab::SOON;
use xdp_lb_tests::misbehave::{Manner, Server};
use xdp_lb_tests::probes::{
    LOOPBACKS, PATIENT, ask, ask_all, assert_failed, check, loopback, target,
};
use xtask::lab::{Namespace, wait_for};

/// How many TCP sockets of a namespace are in a state, as the kernel numbers them.
fn sockets(namespace: &Namespace, state: &str) -> Result<usize> {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))?;
    let states = text.lines().skip(1);
    Ok(states
        .filter(|line| line.split_whitespace().nth(3) == Some(state))
        .count())
}

#[test]
fn a_listening_port_is_right_and_a_closed_one_is_refused() -> Result<()> {
    let namespace = loopback()?;
    let tcp = check(Probe::Tcp, PATIENT);
    for address in LOOPBACKS {
        let server = Server::start(&namespace, address, 0, Manner::Hangs)?;
        let to = target(server.address());
        assert_eq!(ask(&namespace, &tcp, &to), Ok(()));
        wait_for("the server to see it", SOON, || {
            Ok((server.accepted() == 1).then_some(()))
        })?;
        drop(server);
        assert_failed(
            &ask(&namespace, &tcp, &to),
            Kind::Refused,
            "connect: refused",
        );
    }
    Ok(())
}

#[test]
fn checks_leave_no_connection_behind() -> Result<()> {
    const ESTABLISHED: &str = "01";
    const TIME_WAIT: &str = "06";
    let namespace = loopback()?;
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let to = target(listener.local_addr()?);
    let results = ask_all(&namespace, &vec![(check(Probe::Tcp, PATIENT), to); 100]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(sockets(&namespace, TIME_WAIT)?, 0);
    assert_eq!(sockets(&namespace, ESTABLISHED)?, 0);
    Ok(())
}

#[test]
fn the_written_source_is_taken_and_one_that_is_not_ours_tells_nothing_of_the_backend() -> Result<()>
{
    let namespace = loopback()?;
    let listener = namespace.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let tcp = check(Probe::Tcp, PATIENT);
    let from = |source| Target {
        source: Some(source),
        ..target(listener.local_addr().expect("it is bound"))
    };
    let source = Ipv4Addr::new(127, 0, 0, 9).into();
    assert_eq!(ask(&namespace, &tcp, &from(source)), Ok(()));
    assert_eq!(listener.accept()?.1.ip(), source);
    assert_failed(
        &ask(
            &namespace,
            &tcp,
            &from(Ipv4Addr::new(203, 0, 113, 1).into()),
        ),
        Kind::Local,
        "connect: Cannot assign requested address (os error 99)",
    );
    Ok(())
}

#[test]
fn any_mtu_will_do() -> Result<()> {
    let namespace = loopback()?;
    let tcp = check(Probe::Tcp, PATIENT);
    for address in LOOPBACKS {
        let server = Server::start(&namespace, address, 0, Manner::Hangs)?;
        for mtu in [0, 68, 576, 1280, 1500, 9000, 32_807, u16::MAX] {
            let to = Target {
                mtu: Some(mtu),
                ..target(server.address())
            };
            assert_eq!(ask(&namespace, &tcp, &to), Ok(()), "{mtu}");
        }
    }
    Ok(())
}

#[test]
fn no_route_is_unreachable() -> Result<()> {
    let namespace = loopback()?;
    let tcp = check(Probe::Tcp, PATIENT);
    for address in ["192.0.2.1:80", "[2001:db8::1]:80"] {
        let to = target(address.parse::<std::net::SocketAddr>()?);
        assert_failed(
            &ask(&namespace, &tcp, &to),
            Kind::Unreachable,
            "connect: network unreachable",
        );
    }
    Ok(())
}
