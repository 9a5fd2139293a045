//! Health checks, and what else decides which backends are used.

use std::{net::IpAddr, time::Duration};

use super::*;

fn check(fields: &str) -> HealthCheck {
    let text = file(&[service(&format!(", health_check: {fields}"))]);
    let config = parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    let check = config.services[0].health_check.clone();
    HealthCheck::clone(&check.expect("a check"))
}

fn refused(fields: &str) -> String {
    let text = file(&[service(fields)]);
    parse(&text, "test").expect_err(fields).to_string()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_type_alone_has_its_defaults() {
    let tcp = check("tcp");
    assert_eq!(tcp, check("{ type: tcp }"));
    assert_eq!(tcp.probe, Probe::Tcp);
    assert_eq!((tcp.port, tcp.via), (80, Via::Vip));
    assert_eq!(tcp.vips, [Some(address("192.0.2.10")), None]);
    assert_eq!(tcp.pace.interval, Duration::from_secs(2));
    assert_eq!(tcp.pace.fast_interval, Duration::from_millis(500));
    assert_eq!(tcp.pace.timeout, Duration::from_secs(1));
    assert_eq!((tcp.judgement.rise, tcp.judgement.fall), (2, 3));
    assert_eq!(tcp.judgement.start, Start::Down);
    assert_eq!(tcp.judgement.damping, Some(Damping::default()));
    assert_eq!(tcp.when_down, WhenDown::Keep);
    let config = parse(&file(&[service("")]), "test").unwrap();
    assert_eq!(config.services[0].health_check, None);
}

#[test]
fn every_type_has_its_fields() {
    let http = check(
        "{ type: http, method: HEAD, path: '/x?y', host: www.example.com, status: [200-299, 404], \
         body: 'o.k', via: backend, port: 8080, full_size: false }",
    );
    let Probe::Http(request) = &http.probe else {
        panic!("{http:?}");
    };
    assert_eq!(
        (http.port, http.via, http.vips),
        (8080, Via::Backend, [None; 2])
    );
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("HEAD", "/x?y")
    );
    assert_eq!(request.status.to_string(), "200-299, 404");
    for (status, is_right) in [
        (199, false),
        (200, true),
        (299, true),
        (300, false),
        (404, true),
    ] {
        assert_eq!(request.status.contains(status), is_right, "{status}");
    }
    assert!(request.body.as_ref().unwrap().is_in(b"all o.k here"));
    assert_eq!((http.probe.name(), request.tls.is_none()), ("http", true));
    let https = check("{ type: https, tls: { verify: false, server_name: a.b, ca: /etc/ca.pem } }");
    assert_eq!(https.probe.name(), "https");
    let Probe::Http(Http { tls: Some(tls), .. }) = https.probe else {
        panic!("no TLS");
    };
    assert!(!tls.verify && tls.server_name.as_deref() == Some("a.b"));
    let Probe::Udp(udp) = check("{ type: udp, send: { hex: 00fF }, expect: '^x' }").probe else {
        panic!("not UDP");
    };
    assert_eq!(udp.send, Payload(vec![0, 255]));
    let dns = check("{ type: dns, name: example.com, record: AAAA }").probe;
    assert_eq!(dns.to_string(), "dns example.com AAAA");
    assert_eq!(
        check("{ type: grpc, service: a.B }").probe.to_string(),
        "grpc a.B"
    );
    assert_eq!(check("icmp").port, 0);
    let command = check("{ type: command, command: [/bin/check, -x] }");
    // It is told the VIP, and is not steered there.
    assert_eq!(command.vips, [Some(address("192.0.2.10")), None]);
    assert_eq!(command.vip_for(address("10.0.0.1")), None);
    assert_eq!(
        (command.probe.name(), command.via, command.port),
        ("command", Via::Backend, 80)
    );
}

#[test]
fn intervals_follow_from_each_other() {
    let pace = |fields: &str| check(&format!("{{ type: tcp, {fields} }}")).pace;
    let short = pace("interval: 200ms");
    assert_eq!(short.fast_interval, Duration::from_millis(200));
    assert_eq!(short.timeout, Duration::from_millis(200));
    let long = pace("interval: 1m");
    assert_eq!(long.fast_interval, Duration::from_secs(15));
    assert_eq!(long.timeout, Duration::from_secs(1));
    for (fields, reason) in [
        (
            "interval: 2s, timeout: 3s",
            "`timeout` here is from 10ms to 2s",
        ),
        (
            "interval: 2s, fast_interval: 3s",
            "`fast_interval` here is from 100ms to 2s",
        ),
        ("interval: 2h", "`interval` here is from 100ms to 1h"),
        ("interval: often", "is not a duration"),
        ("jitter: 51%", "a percentage from 0% to 50%"),
        ("rise: 0", "from 1 to 100"),
        ("damping: { hold: 2h, longest: 1h }", "from 2h to 24h"),
    ] {
        let refused = refused(&format!(", health_check: {{ type: tcp, {fields} }}"));
        assert!(refused.contains(reason), "{fields}: {refused}");
    }
}

#[test]
fn defaults_hold_for_services_that_say_nothing() {
    let text = "interfaces: [eth0]\ndefaults:\n  health_check: tcp\n  slow_start: 30s\n  \
                panic_threshold: 70%\n  tier_minimum: [2, 1]\nservices:\n\
                - { name: a, vip: 192.0.2.1, protocol: udp, port: 53, backends: [] }\n\
                - { name: b, vip: 192.0.2.2, protocol: tcp, port: 80, health_check: none, \
                slow_start: 0s, panic_threshold: off, tier_minimum: 3, \
                backends: [{ address: 10.0.0.1, tier: 2 }] }\n";
    let config = parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
    let [a, b] = &config.services[..] else {
        panic!("not two services");
    };
    let check = a.health_check.as_ref().unwrap();
    assert_eq!((check.port, check.when_down), (53, WhenDown::Move));
    assert_eq!(check.vips, [Some(address("192.0.2.1")), None]);
    assert_eq!(
        (a.panic_threshold, a.slow_start),
        (Some(70), Duration::from_secs(30))
    );
    assert_eq!(a.tier_minimums, [2, 1]);
    assert!(b.health_check.is_none() && b.panic_threshold.is_none() && b.slow_start.is_zero());
    assert_eq!((&b.tier_minimums[..], b.backends[0].tier), (&[3][..], 2));
}

#[test]
fn a_vip_of_the_backends_family_is_asked() {
    let text = "interfaces: [eth0]\nservices:\n- { name: a, vip: [10.1.0.0/16, '2001:db8::1', \
                '2001:db8::2'], protocol: tcp, port: 80, backends: [], health_check: HERE }\n";
    let with = |check: &str| {
        let config = parse(&text.replace("HERE", check), "test");
        config.unwrap_or_else(|error| panic!("{error}")).services[0]
            .health_check
            .clone()
            .unwrap()
    };
    let first = with("tcp");
    assert_eq!(
        first.vip_for(address("10.0.0.1")),
        Some(address("10.1.0.0"))
    );
    assert_eq!(
        first.vip_for(address("2001:db8:2::1")),
        Some(address("2001:db8::1"))
    );
    let other = with("{ type: tcp, vip: '2001:db8::2' }");
    assert_eq!(
        other.vip_for(address("2001:db8:2::1")),
        Some(address("2001:db8::2"))
    );
    let of_prefix = with("{ type: tcp, vip: 10.1.2.3 }");
    assert_eq!(
        of_prefix.vip_for(address("10.0.0.1")),
        Some(address("10.1.2.3"))
    );
    assert_eq!(
        with("{ type: tcp, via: backend }").vip_for(address("10.0.0.1")),
        None
    );
}

#[test]
fn what_makes_no_check_is_refused_with_the_way_out() {
    for (fields, reason) in [
        (
            "health_check: { path: / }",
            "`type` is missing; write `type: http`",
        ),
        ("health_check: htpp", "did you mean `http`?"),
        ("health_check: udp", "`send` is missing; write `send: ping`"),
        (
            "health_check: { type: tcp, path: / }",
            "a check of type `tcp` has no `path`; it belongs to `http`, `https`",
        ),
        (
            "health_check: { type: tcp, intervall: 1s }",
            "did you mean `interval`?",
        ),
        (
            "health_check: { type: http, path: healthz }",
            "begins with `/`",
        ),
        ("health_check: { type: http, method: get }", "in capitals"),
        (
            "health_check: { type: http, status: 200-100 }",
            "is not a status or a range",
        ),
        (
            "health_check: { type: http, status: 600 }",
            "is not a status or a range",
        ),
        (
            "health_check: { type: http, body: '(' }",
            "this is not a regular expression: unclosed group",
        ),
        (
            "health_check: { type: udp, send: '' }",
            "0 bytes cannot be sent",
        ),
        (
            "health_check: { type: udp, send: { hex: 0 } }",
            "pairs of hexadecimal digits",
        ),
        (
            "health_check: { type: dns, name: 'a..b' }",
            "is not a domain name",
        ),
        (
            "health_check: { type: command, command: check }",
            "is not an absolute path",
        ),
        (
            "health_check: { type: command, command: /c, via: vip }",
            "leave out `via: vip`",
        ),
        (
            "health_check: { type: tcp, vip: 192.0.2.11 }",
            "none of the service's VIPs",
        ),
        (
            "health_check: { type: https, tls: { ca: ca.pem } }",
            "is not an absolute path",
        ),
        ("panic_threshold: 100%", "from 0% to 99%"),
        ("tier_minimum: 0", "from 1 to"),
        ("tier_minimum: []", "the list is empty"),
        ("slow_start: 2h", "a slow start is from 0s to 1h"),
    ] {
        let refused = refused(&format!(", {fields}"));
        assert!(refused.contains(reason), "{fields}: {refused}");
    }
    let text = "interfaces: [eth0]\nservices:\n- { name: a, vip: 192.0.2.1, protocol: tcp, port: 0, \
                backends: [], health_check: tcp }\n";
    let refused = parse(text, "test").unwrap_err().to_string();
    assert!(refused.contains("say with `port` which one"), "{refused}");
}

#[test]
fn the_section_health_is_for_all_checks() {
    let text = "interfaces: [eth0]\nhealth: { mark: 0xAb, at_once: 100, source: [10.0.0.2, '2001:db8::2'] }\n";
    let health = parse(text, "test").unwrap().health;
    assert_eq!((health.mark, health.at_once), (0xab, 100));
    assert_eq!(
        health.source_for(address("2001:db8::9")),
        Some(address("2001:db8::2"))
    );
    for (section, reason) in [
        ("{ mark: 17 }", "write it like 0x584c"),
        ("{ mark: 0x0 }", "write it like 0x584c"),
        (
            "{ source: [10.0.0.2, 10.0.0.3] }",
            "is the source of checks over IPv4 already",
        ),
    ] {
        let text = format!("interfaces: [eth0]\nhealth: {section}\n");
        let refused = parse(&text, "test").unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    let text = "interfaces: [eth0]\nhealth: { source: 192.0.2.10 }\nservices:\n- { name: web, \
                vip: 192.0.2.10, protocol: tcp, port: 80, backends: [] }\n";
    let refused = parse(text, "test").unwrap_err().to_string();
    assert!(
        refused.contains("give an address of the director"),
        "{refused}"
    );
}
