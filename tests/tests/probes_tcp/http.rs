//! HTTP without TLS: good answers, bad ones, and such as never end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use xdp_lb::{
    config::{HealthCheck, Http, Pattern, Probe, Statuses},
    health::{Cause, Kind, probe::Target},
};
use xdp_lb_tests::misbehave::{GOOD, Manner, Server};
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, ask_until, assert_failed, check, loopback, target,
};
use xtask::lab::{Lab, LabConfig};

fn get(path: &str) -> Http {
    Http {
        method: "GET".into(),
        path: path.into(),
        host: None,
        status: Statuses::default(),
        body: None,
        tls: None,
    }
}

fn with_body(path: &str, pattern: &str) -> Http {
    Http {
        body: Some(Pattern::new(pattern).expect("a pattern")),
        ..get(path)
    }
}

fn patiently(http: Http) -> HealthCheck {
    check(Probe::Http(http), PATIENT)
}

/// Asks a server of this manner once.
fn meet(manner: Manner, check: &HealthCheck) -> Result<Result<(), Cause>> {
    let namespace = loopback()?;
    let server = Server::start(&namespace, LOOPBACKS[0], 0, manner)?;
    Ok(ask(&namespace, check, &target(server.address())))
}

#[track_caller]
fn fails(manner: Manner, http: &Http, kind: Kind, text: &str) -> Result<()> {
    assert_failed(&meet(manner, &patiently(http.clone()))?, kind, text);
    Ok(())
}

/// A server of this manner keeps a check until its time is over.
#[track_caller]
fn takes_too_long(manner: Manner, http: Http, doing: &str) -> Result<()> {
    let result = meet(manner, &check(Probe::Http(http), HASTY))?;
    let text = format!("timeout after 400ms while {doing}");
    assert_failed(&result, Kind::Timeout, &text);
    Ok(())
}

#[test]
fn nginx_is_asked() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let backend = lab.host("backend1");
    let _server = lab.start_http(backend)?;
    let director = lab.host("director");
    for (address, client) in [
        (IpAddr::from(backend.v4()), IpAddr::from(director.v4())),
        (backend.v6().into(), director.v6().into()),
    ] {
        let to = target(SocketAddr::new(address, 80));
        let ask = |http: Http| ask(director.namespace(), &patiently(http), &to);
        assert_eq!(ask(get("/healthz")), Ok(()));
        assert_eq!(ask(with_body("/", "^backend=backend1 ")), Ok(()));
        let head = Http {
            method: "HEAD".into(),
            ..get("/download")
        };
        assert_eq!(ask(head), Ok(()));
        assert_failed(&ask(get("/nowhere")), Kind::Answer, "status 404");
        let wanted = Http {
            status: Statuses(vec![(200, 200), (404, 404)]),
            ..get("/nowhere")
        };
        assert_eq!(ask(wanted), Ok(()));
        let length = format!("backend=backend1 client={client}\n").len();
        assert_failed(
            &ask(with_body("/", "backend2")),
            Kind::Answer,
            &format!("body: the pattern is not in its {length} bytes"),
        );
        assert_failed(
            &ask(with_body("/download", "x")),
            Kind::Answer,
            "body: the pattern is not in its first 64 KiB",
        );
    }
    Ok(())
}

#[test]
fn a_request_says_who_asks_whom() -> Result<()> {
    let namespace = loopback()?;
    let version = env!("CARGO_PKG_VERSION");
    for (host, mtu, full_size) in [
        (None, None, true),
        (Some("www.example.com"), Some(1500), true),
        (None, Some(1500), false),
    ] {
        let server = Server::start(&namespace, LOOPBACKS[1], 0, Manner::Says(GOOD))?;
        let to = Target {
            vip: Some("2001:db8::10".parse()?),
            mtu,
            ..target(server.address())
        };
        let check = HealthCheck {
            full_size,
            ..patiently(Http {
                host: host.map(Into::into),
                ..get("/a?b=c")
            })
        };
        assert_eq!(ask(&namespace, &check, &to), Ok(()));
        let port = server.address().port();
        let host = host.map_or(format!("[2001:db8::10]:{port}"), Into::into);
        let requests = server.requests();
        let request = String::from_utf8_lossy(&requests[0]).to_lowercase();
        let plain = format!(
            "get /a?b=c http/1.1\r\nhost: {host}\r\n\
             user-agent: xdp-lb/{version} (health check)\r\naccept: */*\r\nconnection: close\r\n"
        );
        let rest = request.strip_prefix(&plain);
        let rest = rest.unwrap_or_else(|| panic!("{request} does not begin with {plain}"));
        if full_size && mtu.is_some() {
            assert_eq!(request.len(), 1500 - 40 - 20);
            let padding = rest.strip_prefix("x-padding: ");
            let padding = padding.map(|it| it.trim_end_matches("\r\n").trim_matches('x'));
            assert_eq!(padding, Some(""), "{request}");
        } else {
            assert_eq!(rest, "\r\n");
        }
    }
    Ok(())
}

#[test]
fn statuses_are_compared() -> Result<()> {
    for (answer, status) in [
        (
            &b"HTTP/1.1 503 Go Away\r\nContent-Length: 0\r\n\r\n"[..],
            503,
        ),
        (b"HTTP/1.1 400\r\n\r\n", 400),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            101,
        ),
        (b"HTTP/1.1 999 Beyond\r\n\r\n", 999),
    ] {
        let text = format!("status {status}");
        fails(Manner::Says(answer), &get("/"), Kind::Answer, &text)?;
    }
    for answer in [
        GOOD,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let result = meet(Manner::Says(answer), &patiently(get("/")))?;
        assert_eq!(result, Ok(()), "{}", answer.escape_ascii());
    }
    Ok(())
}

#[test]
fn bodies_are_searched_however_they_are_framed() -> Result<()> {
    let ok = with_body("/", "^ok$");
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-T: y\r\n\r\n",
    ] {
        let result = meet(Manner::Says(answer), &patiently(ok.clone()))?;
        assert_eq!(result, Ok(()), "{}", answer.escape_ascii());
    }
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok";
    let closed = "http: closed before the answer was whole";
    fails(Manner::Says(half), &ok, Kind::Reset, closed)?;
    let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok";
    fails(Manner::Says(half), &ok, Kind::Reset, closed)?;
    let odd = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
    let text = "http: the body is not HTTP";
    fails(Manner::Says(odd), &ok, Kind::Answer, text)?;
    let text = "body: the pattern is not in its 3 bytes";
    fails(Manner::Says(GOOD), &ok, Kind::Answer, text)?;
    let text = "body: the pattern is not in its first 64 KiB";
    fails(Manner::EndlessBody, &ok, Kind::Answer, text)
}

#[test]
fn a_body_that_nobody_looks_for_is_not_read() -> Result<()> {
    let result = meet(Manner::EndlessBody, &patiently(get("/")))?;
    assert_eq!(result, Ok(()));
    Ok(())
}

#[test]
fn what_is_not_http_is_said_so() -> Result<()> {
    let text = "http: the answer is not HTTP";
    for answer in [
        &b"220 mail.example.com ESMTP\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc Well\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ] {
        fails(Manner::Says(answer), &get("/"), Kind::Answer, text)?;
    }
    Ok(())
}

#[test]
fn broken_connections_are_told_apart() -> Result<()> {
    let closed = "http: closed before the answer was whole";
    fails(Manner::Closes, &get("/"), Kind::Reset, closed)?;
    let half = b"HTTP/1.1 200 OK\r\nServer:";
    fails(Manner::Says(half), &get("/"), Kind::Reset, closed)?;
    // It may strike before the connection is known to be made, or later.
    let cause = meet(Manner::Resets, &patiently(get("/")))?.expect_err("a reset");
    assert_eq!(cause.kind, Kind::Reset, "{cause}");
    assert!(
        [
            "connect: reset",
            "http: reset",
            "http: closed before the request was sent"
        ]
        .contains(&&*cause.text),
        "{cause}"
    );
    Ok(())
}

#[test]
fn servers_that_take_their_time_run_out_of_it() -> Result<()> {
    let waiting = "waiting for the answer";
    takes_too_long(Manner::Hangs, get("/"), waiting)?;
    let slow = Manner::Slow(Duration::from_millis(100));
    takes_too_long(slow, get("/"), waiting)?;
    takes_too_long(Manner::EndlessInterim, get("/"), waiting)?;
    let begun = b"HTTP/1.1 200 OK\r\n\r\nnot yet";
    let hanging = Manner::Floods(begun, b"");
    takes_too_long(hanging, with_body("/", "ok"), "reading the body")
}

#[test]
fn heads_without_an_end_are_not_read_to_it() -> Result<()> {
    let text = "http: a head of more than 16 KiB, or of more than 100 lines";
    fails(Manner::EndlessHeaders, &get("/"), Kind::Answer, text)?;
    let lines = Manner::Floods(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n");
    fails(lines, &get("/"), Kind::Answer, text)?;
    let line = Manner::Floods(b"HTTP/1.1 200 ", b"O");
    fails(line, &get("/"), Kind::Answer, text)
}

#[test]
fn servers_that_never_end_are_left() -> Result<()> {
    let namespace = loopback()?;
    for manner in [
        Manner::Hangs,
        Manner::EndlessHeaders,
        Manner::EndlessInterim,
        Manner::EndlessBody,
        Manner::Floods(b"", b"\0"),
    ] {
        let server = Server::start(&namespace, LOOPBACKS[0], 0, manner.clone())?;
        let check = check(Probe::Http(with_body("/", "ok")), HASTY);
        let checks = vec![(check, target(server.address())); 20];
        let (results, were_left) = ask_until(&namespace, &checks, || server.is_idle());
        assert!(results.iter().all(Result::is_err), "{results:?}");
        assert_eq!(server.accepted(), 20, "{manner:?}");
        assert!(were_left, "{manner:?}: connections are still open");
    }
    Ok(())
}
