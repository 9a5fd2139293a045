//! DNS questions: to dnsmasq, and to servers whose answers are made by hand (RFC 1035, section 4).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use xdp_lb::config::{Dns, HealthCheck, Pattern, Probe, RecordType};
use xdp_lb::health::{Cause, Kind};
use xdp_lb_tests::probes::{
    HASTY, LOOPBACKS, PATIENT, ask, assert_failed, check, loopback, target,
};
use xdp_lb_tests::random::Random;
use xdp_lb_tests::responder::{Datagram, Responder};
use xtask::lab::{Namespace, Process, wait_for};
use xtask::setup::Tools;

const SILENCE: &str = "timeout after 400ms while waiting for the answer";

/// Bytes of a message's header.
const HEADER: usize = 12;

/// In the name's place: the one of the question.
const SAME_NAME: [u8; 2] = [0xc0, 12];

const A: u8 = 1;
const NS: u8 = 2;
const CNAME: u8 = 5;
const SOA: u8 = 6;

fn dns(name: &str, record: RecordType, expect: Option<&str>, timeout: Duration) -> HealthCheck {
    let probe = Probe::Dns(Dns {
        name: name.to_owned(),
        record,
        expect: expect.map(|text| Pattern::new(text).expect("a pattern")),
    });
    check(probe, timeout)
}

/// A dnsmasq on the loopback.
fn dnsmasq(namespace: &Namespace, folder: &std::path::Path) -> Result<Process> {
    let mut command = Tools::new()?.command("dnsmasq")?;
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--log-facility=-",
    ]);
    command.args([
        "--pid-file",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--group=",
    ]);
    command.args([
        "--local=/lab/",
        "--host-record=www.lab,192.0.2.80,2001:db8::80",
    ]);
    command.args(["--cname=alias.lab,www.lab", "--mx-host=lab,mail.lab,10"]);
    command.args(["--srv-host=_http._tcp.lab,www.lab,8080,5,10"]);
    command.args(["--ptr-record=80.2.0.192.in-addr.arpa,www.lab"]);
    command.args(["--txt-record=who.lab,backend one"]);
    Process::start(namespace, &mut command, &folder.join("dnsmasq.log"))
}

#[test]
fn dnsmasq_is_asked_for_records_of_every_type_that_it_has() -> Result<()> {
    let namespace = loopback()?;
    let folder = tempfile::tempdir()?;
    let mut server = dnsmasq(&namespace, folder.path())?;
    let ask_at = |address: IpAddr, name, record, expect, timeout| {
        let target = target(SocketAddr::new(address, 53));
        ask(&namespace, &dns(name, record, expect, timeout), &target)
    };
    wait_for("dnsmasq to answer", PATIENT, || {
        anyhow::ensure!(
            server.exited()?.is_none(),
            "it ended: {}",
            server.log_tail()
        );
        Ok(ask_at(LOOPBACKS[0], "www.lab", RecordType::A, None, HASTY).ok())
    })?;
    for address in LOOPBACKS {
        for (name, record, expect) in [
            ("www.lab", RecordType::A, "^192\\.0\\.2\\.80$"),
            ("www.lab.", RecordType::A, "^192\\.0\\.2\\.80$"),
            ("WWW.Lab", RecordType::A, "^192\\.0\\.2\\.80$"),
            ("www.lab", RecordType::Aaaa, "^2001:db8::80$"),
            ("alias.lab", RecordType::Cname, "^www\\.lab\\.$"),
            ("alias.lab", RecordType::A, "^192\\.0\\.2\\.80$"),
            ("lab", RecordType::Mx, "^10 mail\\.lab\\.$"),
            (
                "_http._tcp.lab",
                RecordType::Srv,
                "^5 10 8080 www\\.lab\\.$|^10 5 8080 www\\.lab\\.$",
            ),
            ("80.2.0.192.in-addr.arpa", RecordType::Ptr, "^www\\.lab\\.$"),
            ("who.lab", RecordType::Txt, "backend one"),
        ] {
            for expect in [None, Some(expect)] {
                let result = ask_at(address, name, record, expect, PATIENT);
                assert_eq!(result, Ok(()), "{name} {record} {expect:?}");
            }
        }
        let result = ask_at(address, "nobody.lab", RecordType::A, None, PATIENT);
        assert_failed(&result, Kind::Answer, "dns: NXDOMAIN");
        let result = ask_at(address, "www.example.com", RecordType::A, None, PATIENT);
        assert_failed(&result, Kind::Answer, "dns: REFUSED");
        let result = ask_at(address, "www.lab", RecordType::Mx, None, PATIENT);
        assert_failed(&result, Kind::Answer, "dns: no MX record");
        let result = ask_at(
            address,
            "www.lab",
            RecordType::A,
            Some("192.0.2.81"),
            PATIENT,
        );
        assert_failed(&result, Kind::Answer, "dns: the pattern is in no A record");
    }
    Ok(())
}

/// Where the question's type and class begin.
fn end_of_name(question: &[u8]) -> usize {
    let mut at = HEADER;
    while question[at] != 0 {
        at += usize::from(question[at]) + 1;
    }
    at + 1
}

/// The answer to a question with this code, and records of the name that was asked for: type and data.
fn answer(question: &[u8], code: u8, records: &[(u8, &[u8])]) -> Vec<u8> {
    let count = u8::try_from(records.len()).expect("few records");
    // Identifier; response, recursion desired; code; one question; the records; nothing else.
    let mut message = vec![
        question[0],
        question[1],
        0x81,
        0x80 | code,
        0,
        1,
        0,
        count,
        0,
        0,
        0,
        0,
    ];
    message.extend(&question[HEADER..end_of_name(question) + 4]);
    for (kind, data) in records {
        let length = u8::try_from(data.len()).expect("short data");
        message.extend(SAME_NAME);
        message.extend([0, *kind, 0, 1, 0, 0, 0, 60, 0, length]);
        message.extend(*data);
    }
    message
}

/// A right answer to a question for an IPv4 address.
fn right(question: &[u8]) -> Vec<u8> {
    answer(question, 0, &[(A, &[192, 0, 2, 80])])
}

/// Asks a server for an address of `name` whose answers `make` makes. Returns the result, and what came.
fn ask_one(
    record: RecordType,
    timeout: Duration,
    make: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> Result<(std::result::Result<(), Cause>, Vec<Datagram>)> {
    let namespace = loopback()?;
    let server = Responder::udp(&namespace, LOOPBACKS[0], move |socket, question, from| {
        for answer in make(question) {
            // A refusal means that whoever asked has heard enough.
            let _ = socket.send_to(&answer, from);
        }
    })?;
    let check = dns("www.lab", record, None, timeout);
    let result = ask(&namespace, &check, &target(server.address()));
    Ok((result, server.end()))
}

#[test]
fn a_question_is_what_the_standards_ask_for() -> Result<()> {
    let (result, came) = ask_one(RecordType::A, PATIENT, |question| vec![right(question)])?;
    assert_eq!(result, Ok(()));
    let (first, _) = &came[0];
    // Recursion desired; one question, and one additional record: EDNS (RFC 6891).
    assert_eq!(first[2..HEADER], [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(first[HEADER..HEADER + 13], *b"\x03www\x03lab\0\0\x01\0\x01");
    assert_eq!(
        first[HEADER + 13..][..5],
        [0, 0, 41, 0x04, 0xd0],
        "it takes 1232 bytes"
    );
    let (_, other) = ask_one(RecordType::A, PATIENT, |question| vec![right(question)])?;
    let (_, third) = ask_one(RecordType::A, PATIENT, |question| vec![right(question)])?;
    let ids = [first, &other[0].0, &third[0].0].map(|question| [question[0], question[1]]);
    assert!(
        ids[0] != ids[1] || ids[1] != ids[2],
        "identifiers can be guessed: {ids:?}"
    );
    Ok(())
}

#[test]
fn every_name_that_a_config_may_have_can_be_asked_for() -> Result<()> {
    let namespace = loopback()?;
    let server = Responder::udp(&namespace, LOOPBACKS[0], move |socket, question, from| {
        socket.send_to(&right(question), from).expect("it is sent");
    })?;
    let mut names = vec![
        ".".to_owned(),
        "lab".into(),
        format!("{}.lab", "x".repeat(63)),
    ];
    names.push(format!("{0}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(61)));
    names.extend((b'!'..=b'~').map(|letter| format!("a{}b.lab", char::from(letter))));
    for name in names {
        let yaml = format!(
            "interfaces: [eth0]\nservices:\n  - name: dns\n    vip: 192.0.2.10\n    protocol: udp\n    \
             port: 53\n    health_check: {{ type: dns, name: '{}' }}\n    backends: [10.0.0.11]\n",
            name.replace('\'', "''")
        );
        if xdp_lb::config::parse(&yaml, "test.yaml").is_ok() {
            let check = dns(&name, RecordType::A, None, PATIENT);
            let result = ask(&namespace, &check, &target(server.address()));
            assert_eq!(result, Ok(()), "{name}");
        } else {
            println!("refused: {name}");
        }
    }
    Ok(())
}

#[test]
fn answers_with_another_identifier_are_not_looked_at() -> Result<()> {
    let other = |question: &[u8]| {
        let mut answer = answer(question, 2, &[]);
        answer[0] ^= 0x80;
        answer
    };
    let make = move |question: &[u8]| vec![other(question), other(question), right(question)];
    assert_eq!(ask_one(RecordType::A, PATIENT, make)?.0, Ok(()));
    let (result, _) = ask_one(RecordType::A, HASTY, move |question| vec![other(question)])?;
    assert_failed(&result, Kind::Timeout, SILENCE);
    Ok(())
}

#[test]
fn answers_that_are_none_have_a_cause() -> Result<()> {
    let changed = |question: &[u8], at: usize, to: u8| {
        let mut answer = right(question);
        answer[at] = to;
        answer
    };
    type Make = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Make); 7] = [
        ("dns: SERVFAIL", |question| answer(question, 2, &[])),
        ("dns: NXDOMAIN", |question| answer(question, 3, &[])),
        ("dns: NOTIMP", |question| answer(question, 4, &[])),
        ("dns: REFUSED", |question| answer(question, 5, &[])),
        ("dns: no A record", |question| answer(question, 0, &[])),
        ("dns: no A record", |question| {
            answer(question, 0, &[(CNAME, b"\x05other\0")])
        }),
        ("dns: the answer is to another question", <[u8]>::to_vec),
    ];
    for (text, make) in cases {
        let (result, _) = ask_one(RecordType::A, PATIENT, move |question| vec![make(question)])?;
        assert_failed(&result, Kind::Answer, text);
    }
    // The third letter of the name; the type.
    for (at, to) in [(HEADER + 3, b'q'), (HEADER + 10, NS)] {
        let make = move |question: &[u8]| vec![changed(question, at, to)];
        let (result, _) = ask_one(RecordType::A, PATIENT, make)?;
        assert_failed(
            &result,
            Kind::Answer,
            "dns: the answer is to another question",
        );
    }
    Ok(())
}

#[test]
fn answers_of_every_kind_are_read() -> Result<()> {
    let soa = b"\x02ns\xc0\x0c\x04root\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05";
    let (result, _) = ask_one(RecordType::Soa, PATIENT, |question| {
        vec![answer(question, 0, &[(SOA, soa)])]
    })?;
    assert_eq!(result, Ok(()));
    let (result, _) = ask_one(RecordType::Ns, PATIENT, |question| {
        vec![answer(question, 0, &[(NS, b"\x02ns\xc0\x0c")])]
    })?;
    assert_eq!(result, Ok(()));
    let (result, _) = ask_one(RecordType::A, PATIENT, |question| {
        let mut truncated = right(question);
        truncated[2] |= 2;
        vec![truncated]
    })?;
    assert_eq!(
        result,
        Ok(()),
        "it says that there is more, which nobody asks for"
    );
    let (result, _) = ask_one(RecordType::A, PATIENT, |question| {
        let (way, address) = ((CNAME, &b"\x05other\0"[..]), (A, &[192, 0, 2, 80][..]));
        vec![answer(question, 0, &[way, address])]
    })?;
    assert_eq!(result, Ok(()), "a chain");
    Ok(())
}

#[test]
fn answers_that_make_no_sense_do_no_harm() -> Result<()> {
    let (result, _) = ask_one(RecordType::A, PATIENT, |question| {
        vec![question[..2].to_vec()]
    })?;
    assert_failed(&result, Kind::Answer, "dns: the answer makes no sense");
    let (result, _) = ask_one(RecordType::A, PATIENT, |_| vec![Vec::new()])?;
    assert_failed(&result, Kind::Answer, "dns: the answer makes no sense");
    let (result, _) = ask_one(RecordType::A, PATIENT, |question| {
        let mut endless = right(question);
        // A name that refers to itself.
        let at = u8::try_from(end_of_name(question) + 4).expect("a short question");
        endless[usize::from(at)..][..2].copy_from_slice(&[0xc0, at]);
        vec![endless]
    })?;
    assert_failed(&result, Kind::Answer, "dns: the answer makes no sense");
    let (result, _) = ask_one(RecordType::A, PATIENT, |question| {
        let mut boastful = right(question);
        boastful[6..8].fill(0xff);
        vec![boastful]
    })?;
    assert_failed(&result, Kind::Answer, "dns: the answer makes no sense");
    Ok(())
}

#[test]
fn a_thousand_broken_answers_do_no_harm() -> Result<()> {
    let namespace = loopback()?;
    let mut random = Random::new(1);
    let server = Responder::udp(&namespace, LOOPBACKS[0], move |socket, question, from| {
        let mut broken = right(question);
        for _ in 0..=random.below(4) {
            // The identifier stays, so that the rest is looked at.
            let at = 2 + random.below(broken.len() - 2);
            broken[at] = random.byte();
        }
        if random.once_in(4) {
            broken.truncate(2 + random.below(broken.len() - 2));
        }
        if random.once_in(4) {
            broken.extend(random.bytes(1000));
        }
        socket.send_to(&broken, from).expect("it is sent");
    })?;
    let check = dns("www.lab", RecordType::A, Some("192"), PATIENT);
    let mut causes = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        // A panic or a check without end is what fails here.
        if let Err(cause) = ask(&namespace, &check, &target(server.address())) {
            assert_eq!(cause.kind, Kind::Answer, "{cause}");
            causes.insert(cause.text);
        }
    }
    println!("{causes:?}");
    assert!(causes.len() > 5, "{causes:?}");
    assert!(causes.iter().all(|cause| cause.len() < 120), "{causes:?}");
    Ok(())
}

#[test]
fn a_closed_port_is_no_dns_server() -> Result<()> {
    let namespace = loopback()?;
    for address in LOOPBACKS {
        let check = dns("www.lab", RecordType::A, None, PATIENT);
        let result = ask(&namespace, &check, &target(SocketAddr::new(address, 53)));
        assert_failed(&result, Kind::Refused, "port unreachable");
    }
    Ok(())
}
