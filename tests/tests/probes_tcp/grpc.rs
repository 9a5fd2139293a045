//! The gRPC health service, and servers that have none.

use anyhow::Result;
use tonic_health::ServingStatus;
use xdp_lb::{
    config::{Grpc, Probe, Tls},
    health::{Cause, Kind},
};
use xdp_lb_tests::grpc::GrpcServer;
use xdp_lb_tests::identity::{Identity, VALID};
use xdp_lb_tests::misbehave::{GOOD, Manner, Server};
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, ask_until, assert_failed, check, loopback, target,
};

/// An empty SETTINGS frame, which begins what an HTTP/2 server says.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

const SERVICES: &[(&str, ServingStatus)] = &[
    ("", ServingStatus::Serving),
    ("good", ServingStatus::Serving),
    ("bad", ServingStatus::NotServing),
    ("odd", ServingStatus::Unknown),
];

fn grpc(service: &str, tls: Option<Tls>) -> Probe {
    Probe::Grpc(Grpc {
        service: service.into(),
        tls,
    })
}

/// Asks a server of this manner once.
fn meet(manner: Manner) -> Result<Result<(), Cause>> {
    let namespace = loopback()?;
    let server = Server::start(&namespace, LOOPBACKS[0], 0, manner)?;
    let check = check(grpc("", None), PATIENT);
    Ok(ask(&namespace, &check, &target(server.address())))
}

#[test]
fn the_health_service_is_asked() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        let server = GrpcServer::start(&namespace, address, None, SERVICES)?;
        let to = target(server.address());
        let ask = |service| ask(&namespace, &check(grpc(service, None), PATIENT), &to);
        assert_eq!(ask(""), Ok(()));
        assert_eq!(ask("good"), Ok(()));
        assert_failed(&ask("bad"), Kind::Answer, "grpc: NOT_SERVING");
        assert_failed(&ask("odd"), Kind::Answer, "grpc: UNKNOWN");
        assert_failed(
            &ask("none"),
            Kind::Answer,
            "grpc: the health service does not know this service",
        );
    }
    Ok(())
}

#[test]
fn it_is_asked_by_tls() -> Result<()> {
    let namespace = loopback()?;
    let (identity, pem) = Identity::self_signed(&["a.example.com"], VALID)?;
    let dir = tempfile::tempdir()?;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem)?;
    let tls = Tls {
        verify: true,
        server_name: Some("a.example.com".into()),
        ca: Some(ca),
    };
    for protocols in [&["h2"][..], &["http/1.1", "h2"], &[]] {
        let identity = identity.with_protocols(protocols);
        let server = GrpcServer::start(&namespace, LOOPBACKS[0], Some(&identity), SERVICES)?;
        let to = target(server.address());
        let ask = |tls: &Tls| {
            ask(
                &namespace,
                &check(grpc("", Some(tls.clone())), PATIENT),
                &to,
            )
        };
        assert_eq!(ask(&tls), Ok(()), "{protocols:?}");
        let other = Tls {
            server_name: Some("b.example.com".into()),
            ..tls.clone()
        };
        assert_failed(
            &ask(&other),
            Kind::Tls,
            "tls: certificate is not for b.example.com, but for a.example.com",
        );
    }
    let identity = identity.with_protocols(&["http/1.1"]);
    let server = Server::start(&namespace, LOOPBACKS[0], 0, Manner::Tls(identity))?;
    let check = check(grpc("", Some(tls)), PATIENT);
    assert_failed(
        &ask(&namespace, &check, &target(server.address())),
        Kind::Tls,
        "tls: the backend refuses: NoApplicationProtocol",
    );
    Ok(())
}

#[test]
fn servers_that_do_not_speak_it_are_said_so() -> Result<()> {
    let text = "grpc: the answer is not HTTP/2";
    for answer in [
        GOOD,
        b"220 mail.example.com ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ] {
        assert_failed(&meet(Manner::Says(answer))?, Kind::Answer, text);
    }
    for manner in [Manner::Closes, Manner::Resets, Manner::Says(SETTINGS)] {
        let cause = meet(manner.clone())?.expect_err("it breaks");
        assert_eq!(cause.kind, Kind::Reset, "{manner:?}: {cause}");
    }
    Ok(())
}

#[test]
fn servers_that_do_not_answer_the_call_say_why() -> Result<()> {
    for (answer, text) in [
        // GOAWAY, of a server that ends.
        (
            &b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
            "grpc: the server gives up: NO_ERROR",
        ),
        // RST_STREAM.
        (
            b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07",
            "grpc: the server gives up: REFUSED_STREAM",
        ),
        // HEADERS: a web server's status 404, and 500.
        (
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x8d",
            "grpc: the server has no health service",
        ),
        (
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x8e",
            "grpc: Unknown: grpc-status header missing, mapped from HTTP status code 500",
        ),
        // A message of 64 KiB is announced.
        (
            b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x05\0\0\0\0\0\x01\0\0\x01\0\0",
            "grpc: OutOfRange: Error, decoded message length too large: found 65536 bytes, \
             the limit is: 4096 bytes",
        ),
    ] {
        assert_failed(&meet(Manner::Floods(answer, b""))?, Kind::Answer, text);
    }
    Ok(())
}

#[test]
fn servers_that_never_end_are_left() -> Result<()> {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0xxxxxxxx";
    let namespace = loopback()?;
    for manner in [
        Manner::Hangs,
        Manner::Floods(SETTINGS, b""),
        Manner::Floods(SETTINGS, PING),
        Manner::Floods(SETTINGS, SETTINGS),
    ] {
        let server = Server::start(&namespace, LOOPBACKS[0], 0, manner.clone())?;
        let check = check(grpc("", None), HASTY);
        let checks = vec![(check, target(server.address())); 20];
        let (results, were_left) = ask_until(&namespace, &checks, || server.is_idle());
        for result in &results {
            assert_failed(
                result,
                Kind::Timeout,
                "timeout after 400ms while waiting for the answer",
            );
        }
        assert_eq!(server.accepted(), 20, "{manner:?}");
        assert!(were_left, "{manner:?}: connections are still open");
    }
    Ok(())
}
