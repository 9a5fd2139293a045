//! A datagram and its answer.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::Result;
use xdp_lb::config::{HealthCheck, Pattern, Payload, Probe, Udp};
use xdp_lb::health::Kind;
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, ask_all, assert_failed, check, loopback, target,
};
use xdp_lb_tests::responder::Responder;

fn udp(expect: Option<&str>, timeout: Duration) -> HealthCheck {
    let probe = Probe::Udp(Udp {
        send: Payload(b"ping".to_vec()),
        expect: expect.map(|text| Pattern::new(text).expect("a pattern")),
    });
    check(probe, timeout)
}

#[test]
fn a_datagram_is_answered_over_both_families() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        let server = Responder::udp_saying(&namespace, address, &[b"state: well\n"])?;
        let target = target(server.address());
        assert_eq!(ask(&namespace, &udp(None, PATIENT), &target), Ok(()));
        assert_eq!(
            ask(
                &namespace,
                &udp(Some("^state: \\w+$|well"), PATIENT),
                &target
            ),
            Ok(())
        );
        let came = server.end();
        assert_eq!(came.len(), 2);
        assert!(
            came.iter().all(|(datagram, _)| datagram == b"ping"),
            "{came:?}"
        );
        assert_ne!(came[0].1, came[1].1, "each check has a port of its own");
    }
    Ok(())
}

#[test]
fn a_datagram_that_says_nothing_is_an_answer_too() -> Result<()> {
    let namespace = loopback()?;
    let server = Responder::udp_saying(&namespace, LOOPBACKS[0], &[b""])?;
    let target = target(server.address());
    assert_eq!(ask(&namespace, &udp(None, PATIENT), &target), Ok(()));
    let result = ask(&namespace, &udp(Some("well"), PATIENT), &target);
    assert_failed(
        &result,
        Kind::Answer,
        "answer: the pattern is not in its 0 bytes",
    );
    Ok(())
}

#[test]
fn the_first_answer_to_a_datagram_decides() -> Result<()> {
    let namespace = loopback()?;
    let server = Responder::udp_saying(&namespace, LOOPBACKS[1], &[b"ill", b"well"])?;
    let target = target(server.address());
    let result = ask(&namespace, &udp(Some("well"), PATIENT), &target);
    assert_failed(
        &result,
        Kind::Answer,
        "answer: the pattern is not in its 3 bytes",
    );
    Ok(())
}

#[test]
fn only_the_beginning_of_an_enormous_datagram_is_looked_at() -> Result<()> {
    let namespace = loopback()?;
    let mut answer = b"first".to_vec();
    answer.resize(60_000, b'x');
    answer.extend(b"last");
    let server = Responder::udp_saying(&namespace, LOOPBACKS[0], &[&answer])?;
    let target = target(server.address());
    assert_eq!(
        ask(&namespace, &udp(Some("^first"), PATIENT), &target),
        Ok(())
    );
    let result = ask(&namespace, &udp(Some("last"), PATIENT), &target);
    assert_failed(
        &result,
        Kind::Answer,
        "answer: the pattern is not in its first 4 KiB",
    );
    Ok(())
}

#[test]
fn a_closed_udp_port_is_told_from_a_silent_one() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        let silent = namespace.run(|| UdpSocket::bind((address, 0)))?;
        let target = target(silent.local_addr()?);
        let result = ask(&namespace, &udp(None, HASTY), &target);
        assert_failed(
            &result,
            Kind::Timeout,
            "timeout after 400ms while waiting for an answer",
        );
        drop(silent);
        let result = ask(&namespace, &udp(None, PATIENT), &target);
        assert_failed(&result, Kind::Refused, "port unreachable");
    }
    Ok(())
}

#[test]
fn datagrams_of_others_are_not_taken_for_the_answer() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        let server = Responder::udp(&namespace, address, move |_, _, from| {
            let other = UdpSocket::bind((address, 0)).expect("a free port");
            other.send_to(b"well", from).expect("it is sent");
        })?;
        let result = ask(&namespace, &udp(None, HASTY), &target(server.address()));
        assert_failed(
            &result,
            Kind::Timeout,
            "timeout after 400ms while waiting for an answer",
        );
        assert_eq!(server.end().len(), 1);
    }
    Ok(())
}

#[test]
fn checks_have_the_source_address_that_is_asked_for() -> Result<()> {
    let namespace = loopback()?;
    let server = Responder::udp_saying(&namespace, LOOPBACKS[0], &[b"well"])?;
    let mut target = target(server.address());
    for mark in [None, Some(7)] {
        target.mark = mark;
        target.source = Some(Ipv4Addr::new(127, 0, 0, 9).into());
        assert_eq!(ask(&namespace, &udp(None, PATIENT), &target), Ok(()));
        target.source = Some(Ipv4Addr::new(192, 0, 2, 1).into());
        let result = ask(&namespace, &udp(None, PATIENT), &target);
        let text = "send: Cannot assign requested address (os error 99)";
        assert_failed(&result, Kind::Local, text);
    }
    let sources: Vec<_> = server
        .end()
        .iter()
        .map(|(_, from)| from.ip().to_string())
        .collect();
    assert_eq!(sources, ["127.0.0.9", "127.0.0.9"]);
    Ok(())
}

#[test]
fn a_backend_without_a_route_is_unreachable() -> Result<()> {
    let namespace = loopback()?;
    for address in ["192.0.2.1:9", "[2001:db8::1]:9"] {
        let result = ask(
            &namespace,
            &udp(None, PATIENT),
            &target(address.parse::<std::net::SocketAddr>()?),
        );
        assert_failed(&result, Kind::Unreachable, "send: network unreachable");
    }
    Ok(())
}

#[test]
fn many_datagrams_at_once_get_each_its_own_answer() -> Result<()> {
    let namespace = loopback()?;
    let server = Responder::udp(&namespace, LOOPBACKS[0], |socket, datagram, from| {
        socket.send_to(datagram, from).expect("it is sent");
    })?;
    let checks: Vec<_> = (0..100)
        .map(|number| {
            let probe = Probe::Udp(Udp {
                send: Payload(format!("<{number}>").into_bytes()),
                expect: Some(Pattern::new(&format!("^<{number}>$")).expect("a pattern")),
            });
            (check(probe, PATIENT), target(server.address()))
        })
        .collect();
    for result in ask_all(&namespace, &checks) {
        assert_eq!(result, Ok(()));
    }
    Ok(())
}
