//! TLS and HTTPS: certificates that are right, and those that are not.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use xdp_lb::{
    config::{Http, Probe, Statuses, Tls},
    health::{Cause, Kind},
};
use xdp_lb_tests::identity::{Authority, Identity, VALID};
use xdp_lb_tests::misbehave::{Manner, Server};
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, ask_all, assert_failed, check, loopback, target,
};
use xtask::lab::Namespace;

/// A namespace, and an authority whose certificate is in a file.
struct Rig {
    namespace: Namespace,
    authority: Authority,
    ca: PathBuf,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Result<Self> {
        let authority = Authority::new("Authority of the tests")?;
        let dir = tempfile::tempdir()?;
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, authority.pem())?;
        Ok(Self {
            namespace: loopback()?,
            authority,
            ca,
            dir,
        })
    }

    fn serve(&self, identity: Identity) -> Result<Server> {
        Server::start(&self.namespace, LOOPBACKS[0], 0, Manner::Tls(identity))
    }

    /// Trusts the authority, and asks for this name.
    fn asking_for(&self, name: &str) -> Tls {
        Tls {
            verify: true,
            server_name: Some(name.into()),
            ca: Some(self.ca.clone()),
        }
    }

    fn ask(&self, server: &Server, tls: &Tls) -> Result<(), Cause> {
        let check = check(Probe::Tls(tls.clone()), PATIENT);
        ask(&self.namespace, &check, &target(server.address()))
    }
}

#[test]
fn names_and_addresses_are_verified() -> Result<()> {
    let rig = Rig::new()?;
    let names = ["a.example.com", "*.example.net", "127.0.0.1"];
    let server = rig.serve(rig.authority.sign(&names, VALID)?)?;
    for name in ["a.example.com", "b.example.net", "127.0.0.1"] {
        assert_eq!(rig.ask(&server, &rig.asking_for(name)), Ok(()), "{name}");
    }
    let by_address = Tls {
        server_name: None,
        ..rig.asking_for("")
    };
    assert_eq!(rig.ask(&server, &by_address), Ok(()));
    for name in ["b.example.com", "127.0.0.2"] {
        assert_failed(
            &rig.ask(&server, &rig.asking_for(name)),
            Kind::Tls,
            &format!(
                "tls: certificate is not for {name}, but for a.example.com, *.example.net, 127.0.0.1"
            ),
        );
    }
    Ok(())
}

#[test]
fn a_cause_does_not_repeat_all_that_a_certificate_says() -> Result<()> {
    let rig = Rig::new()?;
    let names: Vec<String> = (0..200).map(|n| format!("host{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = rig.serve(rig.authority.sign(&names, VALID)?)?;
    let cause = rig.ask(&server, &rig.asking_for("b.example.com"));
    assert_failed(
        &cause,
        Kind::Tls,
        "tls: certificate is not for b.example.com, but for host0.example.com, host1.example.com, \
         host2.example.com and 197 others",
    );
    Ok(())
}

#[test]
fn many_are_asked_at_once() -> Result<()> {
    let rig = Rig::new()?;
    let server = rig.serve(rig.authority.sign(&["a.example.com"], VALID)?)?;
    let check = check(Probe::Tls(rig.asking_for("a.example.com")), PATIENT);
    let checks = vec![(check, target(server.address())); 50];
    let results = ask_all(&rig.namespace, &checks);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    Ok(())
}

#[test]
fn certificates_have_their_time() -> Result<()> {
    let rig = Rig::new()?;
    let tls = rig.asking_for("a.example.com");
    let expired = rig.serve(rig.authority.sign(&["a.example.com"], [2001, 2002])?)?;
    let cause = rig.ask(&expired, &tls).expect_err("it expired");
    assert_eq!(cause.kind, Kind::Tls);
    let days = cause.text.strip_prefix("tls: certificate expired ");
    let days = days.and_then(|rest| rest.strip_suffix(" days ago"));
    let days: u64 = days.unwrap_or_else(|| panic!("{cause}")).parse()?;
    assert!(days > 24 * 365, "{cause}");

    let later = rig.serve(rig.authority.sign(&["a.example.com"], [3000, 3001])?)?;
    let cause = rig.ask(&later, &tls).expect_err("it is not valid yet");
    assert_eq!(cause.kind, Kind::Tls);
    let days = cause
        .text
        .strip_prefix("tls: certificate becomes valid in ");
    let days = days.and_then(|rest| rest.strip_suffix(" days"));
    let days: u64 = days.unwrap_or_else(|| panic!("{cause}")).parse()?;
    assert!(days > 900 * 365, "{cause}");
    Ok(())
}

#[test]
fn strangers_are_not_trusted() -> Result<()> {
    let rig = Rig::new()?;
    let tls = rig.asking_for("a.example.com");
    let text = "tls: certificate of an issuer that is not trusted";
    let stranger = Authority::new("Somebody else")?.sign(&["a.example.com"], VALID)?;
    let server = rig.serve(stranger)?;
    assert_failed(&rig.ask(&server, &tls), Kind::Tls, text);
    let by_system = Tls {
        ca: None,
        ..tls.clone()
    };
    assert_failed(&rig.ask(&server, &by_system), Kind::Tls, text);
    let (own, pem) = Identity::self_signed(&["a.example.com"], VALID)?;
    let server = rig.serve(own)?;
    assert_failed(&rig.ask(&server, &tls), Kind::Tls, text);
    let file = rig.dir.path().join("own.pem");
    fs::write(&file, pem)?;
    let known = Tls {
        ca: Some(file),
        ..tls
    };
    assert_eq!(rig.ask(&server, &known), Ok(()));
    Ok(())
}

#[test]
fn any_certificate_will_do_where_none_is_verified() -> Result<()> {
    let rig = Rig::new()?;
    let any = Tls {
        verify: false,
        ..Tls::default()
    };
    let expired = Identity::self_signed(&["a.example.com"], [2001, 2002])?.0;
    let server = rig.serve(expired)?;
    assert_eq!(rig.ask(&server, &any), Ok(()));
    Ok(())
}

#[test]
fn a_file_of_certificates_is_read_again_when_it_changes() -> Result<()> {
    let rig = Rig::new()?;
    let tls = rig.asking_for("a.example.com");
    let next = Authority::new("The next one")?;
    let server = rig.serve(next.sign(&["a.example.com"], VALID)?)?;
    assert!(rig.ask(&server, &tls).is_err());
    fs::write(&rig.ca, next.pem())?;
    assert_eq!(rig.ask(&server, &tls), Ok(()));

    let path = rig.ca.display();
    for (content, reason) in [
        ("", "holds no certificate that can be trusted"),
        ("nonsense", "holds no certificate that can be trusted"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds no certificate that can be trusted",
        ),
        ("-----BEGIN CERTIFICATE-----\n", "is no whole PEM file"),
    ] {
        fs::write(&rig.ca, content)?;
        let text = format!("tls: {path}: {reason}");
        assert_failed(&rig.ask(&server, &tls), Kind::Local, &text);
    }
    fs::remove_file(&rig.ca)?;
    let text = format!("tls: {path}: No such file or directory (os error 2)");
    assert_failed(&rig.ask(&server, &tls), Kind::Local, &text);
    Ok(())
}

#[test]
fn servers_that_do_not_speak_tls_are_said_so() -> Result<()> {
    let rig = Rig::new()?;
    let says = |manner| -> Result<_> {
        let server = Server::start(&rig.namespace, LOOPBACKS[0], 0, manner)?;
        Ok(rig.ask(&server, &Tls::default()))
    };
    let text = "tls: the answer is not TLS";
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"220 mail.example.com ESMTP\r\n",
        &[0xff; 20_000],
    ] {
        assert_failed(&says(Manner::Says(answer))?, Kind::Tls, text);
    }
    assert_failed(&says(Manner::Floods(b"", &[0; 512]))?, Kind::Tls, text);
    // An alert: handshake_failure.
    let alert = b"\x15\x03\x03\x00\x02\x02\x28";
    assert_failed(
        &says(Manner::Says(alert))?,
        Kind::Tls,
        "tls: the backend refuses: HandshakeFailure",
    );
    assert_failed(&says(Manner::Closes)?, Kind::Reset, "tls: closed");
    // Half a message of the handshake.
    let half = b"\x16\x03\x03\x00\x40\x02";
    assert_failed(&says(Manner::Says(half))?, Kind::Reset, "tls: closed");
    let server = Server::start(&rig.namespace, LOOPBACKS[0], 0, Manner::Hangs)?;
    let hasty = check(Probe::Tls(Tls::default()), HASTY);
    assert_failed(
        &ask(&rig.namespace, &hasty, &target(server.address())),
        Kind::Timeout,
        "timeout after 400ms while shaking hands (TLS)",
    );
    Ok(())
}

#[test]
fn https_asks_for_the_host() -> Result<()> {
    let rig = Rig::new()?;
    let identity = rig.authority.sign(&["a.example.com"], VALID)?;
    let https = |host: Option<&str>, identity: Identity| -> Result<_> {
        let server = rig.serve(identity)?;
        let http = Http {
            method: "GET".into(),
            path: "/".into(),
            host: host.map(Into::into),
            status: Statuses::default(),
            body: None,
            tls: Some(Tls {
                server_name: None,
                ..rig.asking_for("")
            }),
        };
        let check = check(Probe::Http(http), PATIENT);
        let result = ask(&rig.namespace, &check, &target(server.address()));
        Ok((result, server.requests()))
    };
    let (result, requests) = https(Some("a.example.com:8443"), identity.clone())?;
    assert_eq!(result, Ok(()));
    let request = String::from_utf8_lossy(&requests[0]).to_lowercase();
    assert!(
        request.contains("\r\nhost: a.example.com:8443\r\n"),
        "{request}"
    );
    assert_eq!(
        https(
            Some("a.example.com"),
            identity.with_protocols(&["http/1.1"])
        )?
        .0,
        Ok(())
    );
    assert_failed(
        &https(Some("a.example.com"), identity.with_protocols(&["h2"]))?.0,
        Kind::Tls,
        "tls: the backend refuses: NoApplicationProtocol",
    );
    let (result, requests) = https(None, identity)?;
    assert_failed(
        &result,
        Kind::Tls,
        "tls: certificate is not for 127.0.0.1, but for a.example.com",
    );
    // What is not trusted is told nothing.
    assert!(requests.iter().all(Vec::is_empty), "{requests:?}");
    Ok(())
}
