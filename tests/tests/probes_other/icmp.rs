//! Pings.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use xdp_lb::config::{HealthCheck, Payload, Probe, Udp};
use xdp_lb::health::Kind;
use xdp_lb::health::probe::Target;
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, ask_all, assert_failed, check, loopback, target,
};
use xdp_lb_tests::responder::{Ping, Responder};
use xtask::lab::{Lab, LabConfig, Namespace, wait_for};
use xtask::setup::Tools;

/// What a ping says that nobody answers.
const SILENCE: &str = "timeout after 400ms while waiting for the answer";

fn ping(timeout: Duration) -> HealthCheck {
    check(Probe::Icmp, timeout)
}

fn full_size(timeout: Duration) -> HealthCheck {
    HealthCheck {
        full_size: true,
        ..ping(timeout)
    }
}

fn at(address: IpAddr) -> Target {
    target(SocketAddr::new(address, 0))
}

/// Has the kernel of a namespace answer no pings.
fn silence(namespace: &Namespace) -> Result<()> {
    namespace.run(|| {
        for key in ["ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"] {
            std::fs::write(format!("/proc/sys/net/{key}"), "1")?;
        }
        Ok(())
    })
}

/// A namespace whose pings are answered by `answer` alone.
fn answered(
    address: IpAddr,
    answer: impl FnMut(&dyn Fn(&[u8]), &Ping) + Send + 'static,
) -> Result<(Namespace, Responder<Ping>)> {
    let namespace = loopback()?;
    silence(&namespace)?;
    let responder = Responder::icmp(&namespace, address, answer)?;
    Ok((namespace, responder))
}

#[test]
fn pings_are_answered_over_both_families_or_not_at_all() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        assert_eq!(ask(&namespace, &ping(PATIENT), &at(address)), Ok(()));
    }
    silence(&namespace)?;
    for address in LOOPBACKS {
        assert_failed(
            &ask(&namespace, &ping(HASTY), &at(address)),
            Kind::Timeout,
            SILENCE,
        );
    }
    Ok(())
}

#[test]
fn a_ping_takes_its_own_answer_and_no_other() -> Result<()> {
    for address in LOOPBACKS {
        let (namespace, responder) = answered(address, |send, ping| send(&ping.answer()))?;
        assert_eq!(
            ask(&namespace, &ping(PATIENT), &at(address)),
            Ok(()),
            "the server is right"
        );
        let came = responder.end();
        assert_eq!(came.len(), 1);
        let length = came[0].message.len();

        type Change = Box<dyn Fn(&mut Vec<u8>) + Send>;
        // Code, identifier, sequence number, the payload's first and last byte.
        let mut wrong: Vec<(String, Change)> = [1, 4, 5, 6, 7, 8, length - 1]
            .into_iter()
            .map(|at| {
                (
                    format!("byte {at}"),
                    Box::new(move |it: &mut Vec<u8>| it[at] ^= 1) as Change,
                )
            })
            .collect();
        wrong.push(("shorter".into(), Box::new(|it| it.truncate(it.len() - 1))));
        wrong.push(("header alone".into(), Box::new(|it| it.truncate(8))));
        wrong.push(("longer".into(), Box::new(|it| it.push(0))));
        wrong.push((
            "another type".into(),
            Box::new(|it| it[0] = if it[0] == 0 { 13 } else { 130 }),
        ));
        for (what, change) in wrong {
            let (namespace, responder) = answered(address, move |send, ping| {
                let mut answer = ping.answer();
                change(&mut answer);
                send(&answer);
            })?;
            let result = ask(&namespace, &ping(HASTY), &at(address));
            assert!(
                result
                    .as_ref()
                    .is_err_and(|cause| cause.kind == Kind::Timeout),
                "{what}: {result:?}"
            );
            assert_eq!(responder.end().len(), 1, "{what}");
        }
    }
    Ok(())
}

#[test]
fn a_ping_waits_for_its_answer_behind_many_others() -> Result<()> {
    for address in LOOPBACKS {
        let (namespace, _responder) = answered(address, |send, ping| {
            let right = ping.answer();
            let mut wrong = right.clone();
            wrong[8] ^= 1;
            // Fewer than a socket has room for.
            for _ in 0..20 {
                send(&wrong);
            }
            send(&right);
        })?;
        assert_eq!(ask(&namespace, &ping(PATIENT), &at(address)), Ok(()));
    }
    Ok(())
}

#[test]
fn a_flood_of_answers_does_not_keep_a_ping_from_ending() -> Result<()> {
    for address in LOOPBACKS {
        let is_over = Arc::new(AtomicBool::new(false));
        let flood_ends = Arc::clone(&is_over);
        let (namespace, _responder) = answered(address, move |send, ping| {
            let mut wrong = ping.answer();
            wrong[8] ^= 1;
            while !flood_ends.load(Ordering::Relaxed) {
                send(&wrong);
            }
        })?;
        let result = ask(&namespace, &ping(HASTY), &at(address));
        is_over.store(true, Ordering::Relaxed);
        assert_failed(&result, Kind::Timeout, SILENCE);
    }
    Ok(())
}

#[test]
fn many_pings_to_one_backend_do_not_take_each_others_answers() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        let checks = vec![(ping(PATIENT), at(address)); 200];
        for result in ask_all(&namespace, &checks) {
            assert_eq!(result, Ok(()));
        }
    }
    let (namespace, responder) = answered(LOOPBACKS[0], |send, ping| {
        if ping.message[5] % 2 == 0 {
            send(&ping.answer());
        }
    })?;
    let results = ask_all(&namespace, &vec![(ping(HASTY * 5), at(LOOPBACKS[0])); 64]);
    let answered = results.iter().filter(|it| it.is_ok()).count();
    let even = responder
        .end()
        .iter()
        .filter(|ping| ping.message[5] % 2 == 0)
        .count();
    assert_eq!(answered, even, "others' answers were taken");
    Ok(())
}

#[test]
fn a_ping_of_full_size_fills_the_packet_and_is_not_fragmented() -> Result<()> {
    for (address, mtu, payload) in [(LOOPBACKS[0], 1400, 1380), (LOOPBACKS[1], 1400, 1360)] {
        let (namespace, responder) = answered(address, |send, ping| send(&ping.answer()))?;
        let known = Target {
            mtu: Some(mtu),
            ..at(address)
        };
        assert_eq!(ask(&namespace, &full_size(PATIENT), &known), Ok(()));
        assert_eq!(ask(&namespace, &ping(PATIENT), &known), Ok(()));
        assert_eq!(
            ask(&namespace, &full_size(PATIENT), &at(address)),
            Ok(()),
            "MTU not known"
        );
        let came = responder.end();
        let lengths: Vec<_> = came.iter().map(|ping| ping.message.len()).collect();
        assert_eq!(lengths, [payload, 64, 64]);
        assert!(came[0].is_whole);
    }
    Ok(())
}

#[test]
fn pings_have_the_source_address_that_is_asked_for() -> Result<()> {
    let (namespace, responder) = answered(LOOPBACKS[0], |send, ping| send(&ping.answer()))?;
    let mut target = at(LOOPBACKS[0]);
    target.source = Some("127.0.0.9".parse()?);
    assert_eq!(ask(&namespace, &ping(PATIENT), &target), Ok(()));
    target.source = Some("192.0.2.1".parse()?);
    let result = ask(&namespace, &ping(PATIENT), &target);
    assert_failed(
        &result,
        Kind::Local,
        "ping: Cannot assign requested address (os error 99)",
    );
    let came = responder.end();
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].from.to_string(), "127.0.0.9");
    Ok(())
}

#[test]
fn a_ping_without_a_way_says_so() -> Result<()> {
    let namespace = loopback()?;
    for address in ["192.0.2.1", "2001:db8::1"] {
        let result = ask(&namespace, &ping(PATIENT), &at(address.parse()?));
        assert_failed(&result, Kind::Unreachable, "ping: network unreachable");
    }
    let mut route = Tools::new()?.command("ip")?;
    namespace.check(route.args(["route", "add", "prohibit", "198.51.100.0/24"]))?;
    let result = ask(&namespace, &ping(PATIENT), &at("198.51.100.1".parse()?));
    assert_failed(&result, Kind::Unreachable, "ping: prohibited");
    Ok(())
}

#[test]
fn a_way_that_somebody_else_has_closed_is_no_way() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let (director, router) = (lab.host("director"), lab.host("backend1"));
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        router.sysctl(&format!("net/{key}"), "1")?;
    }
    let (v4, v6) = (router.v4().to_string(), router.v6().to_string());
    for (family, way, network) in [
        ("-4", &v4, "198.51.100.0/24"),
        ("-6", &v6, "2001:db8:99::/64"),
    ] {
        director.ip(&[family, "route", "add", network, "via", way])?;
        // It says so by ICMP, in a word of its own for each family.
        router.ip(&[family, "route", "add", "prohibit", network])?;
    }
    let question = Probe::Udp(Udp {
        send: Payload(b"ping".to_vec()),
        expect: None,
    });
    for (address, reason) in [
        ("198.51.100.1", "host unreachable"),
        ("2001:db8:99::1", "prohibited"),
    ] {
        let asked = target(SocketAddr::new(address.parse()?, 9));
        for (probe, doing) in [
            (Probe::Icmp, "ping"),
            (question.clone(), "receive"),
            (Probe::Tcp, "connect"),
        ] {
            let result = ask(director.namespace(), &check(probe, PATIENT), &asked);
            assert_failed(&result, Kind::Unreachable, &format!("{doing}: {reason}"));
        }
    }
    Ok(())
}

#[test]
fn a_way_that_takes_less_than_it_says_is_found_out_by_pings_of_full_size() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let (director_host, backend) = (lab.host("director"), lab.host("backend1"));
    let director = director_host.namespace();
    let addresses = [IpAddr::from(backend.v4()), backend.v6().into()];
    let targets = addresses.map(|address| Target {
        mtu: Some(1500),
        ..at(address)
    });
    for target in &targets {
        wait_for("the backend to answer", PATIENT, || {
            Ok(ask(director, &ping(HASTY), target).ok())
        })?;
        assert_eq!(ask(director, &full_size(PATIENT), target), Ok(()));
    }
    // What the kernel takes the way for does not count.
    for address in addresses {
        let to = address.to_string();
        director_host.ip(&["route", "add", &to, "dev", "eth0", "mtu", "1300"])?;
    }
    for target in &targets {
        assert_eq!(ask(director, &full_size(PATIENT), target), Ok(()));
    }
    // A cable drops what its other end does not take.
    backend.ip(&["link", "set", "eth0", "mtu", "1400"])?;
    for target in &targets {
        assert_eq!(ask(director, &ping(PATIENT), target), Ok(()));
        assert_failed(
            &ask(director, &full_size(HASTY), target),
            Kind::Timeout,
            SILENCE,
        );
    }
    Ok(())
}
