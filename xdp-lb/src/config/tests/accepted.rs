//! Good files: every short form, every default, every override.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use xdp_lb_common::hash::{Affinity, HashKey};

use super::*;

fn good(text: &str) -> Config {
    parse(text, "config.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn v4(text: &str) -> IpAddr {
    text.parse::<Ipv4Addr>().unwrap().into()
}

const WHOLE: &str = r#"
interfaces: [eth0, { name: eth1.100, mode: native }, { name: veth-a, mode: generic, frames: any }]
hash_key: "00112233445566778899aabbccddeeff"
limits:
  services: 10
  backends: 20
  slots: 1_000_000
  flows: 5000
  new_flows_per_second: 100
metrics: { address: "127.0.0.1:9090" }
defaults:
  forwarding: l2
  scheduler: maglev
  table_size: 65537
  connection_tracking: adaptive
  idle_timeout: { tcp: 15m, udp: 2m }
services:
  - name: web
    vip: 192.0.2.10
    protocol: tcp
    port: 80
    affinity: flow
    backends:
      - 10.0.0.11
      - { address: 10.0.0.12, weight: 50 }
  - name: every.port_of-2
    vip: [192.0.2.10, 192.0.2.11]
    protocol: tcp
    port: 0
    affinity: source
    scheduler: ring
    table_size: 4096
    connection_tracking: off
    idle_timeout: { tcp: 90s }
    backends: [{ address: 10.0.0.12, weight: 0 }]
"#;

#[test]
fn a_whole_file_is_read_field_by_field() {
    let config = good(WHOLE);
    let interface = |name: &str, mode, frames| Interface {
        name: name.into(),
        mode,
        frames,
    };
    assert_eq!(
        config.interfaces,
        [
            interface("eth0", AttachMode::Auto, FramesTaken::Own),
            interface("eth1.100", AttachMode::Native, FramesTaken::Own),
            interface("veth-a", AttachMode::Generic, FramesTaken::Any)
        ]
    );
    assert_eq!(
        config.hash_key,
        HashKey([0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff])
    );
    let limits = Limits {
        services: 10,
        backends: 20,
        slots: 1_000_000,
        flows: 5000,
        new_flows_per_second: 100,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.metrics, Some("127.0.0.1:9090".parse().unwrap()));
    let backend = |address, weight| Backend {
        address: v4(address),
        weight,
        tier: 0,
    };
    let web = Service {
        name: "web".into(),
        vips: vec![v4("192.0.2.10").into()],
        protocol: Protocol::Tcp,
        ports: vec![80],
        affinity: Affinity::Flow,
        forwarding: Forwarding::L2,
        scheduler: Scheduler::Maglev,
        table_size: 65_537,
        connection_tracking: ConnectionTracking::Adaptive,
        idle_timeout: IdleTimeout::default(),
        health_check: None,
        panic_threshold: None,
        tier_minimums: vec![1],
        slow_start: Duration::ZERO,
        backends: vec![backend("10.0.0.11", 100), backend("10.0.0.12", 50)],
    };
    let every = Service {
        name: "every.port_of-2".into(),
        vips: vec![v4("192.0.2.10").into(), v4("192.0.2.11").into()],
        ports: vec![0],
        affinity: Affinity::Source,
        scheduler: Scheduler::Ring,
        table_size: 4096,
        connection_tracking: ConnectionTracking::Off,
        idle_timeout: IdleTimeout {
            tcp: Duration::from_secs(90),
            udp: Duration::from_secs(120),
        },
        backends: vec![backend("10.0.0.12", 0)],
        ..web.clone()
    };
    assert_eq!(config.services, [web, every]);
}

#[test]
fn interfaces_alone_are_a_configuration() {
    for text in [
        "interfaces: [eth0]",
        "interfaces: [eth0]\nservices:\nlimits:\ndefaults:\n",
        "interfaces:\n- eth0\nservices: []\n",
        "---\n# comment\ninterfaces: ['eth0']\n...\n",
        "\u{feff}{ \"interfaces\": [ \"eth0\" ] }",
    ] {
        let config = good(text);
        assert_eq!(config.interfaces.len(), 1, "{text}");
        assert_eq!(config.hash_key, HashKey::DEFAULT);
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.metrics, None);
        assert!(config.services.is_empty());
    }
}

#[test]
fn defaults_reach_services_that_do_not_override_them() {
    let mut text = file(&[service(""), service(", table_size: 251, scheduler: maglev")]);
    text = text.replacen("port: 80", "port: [80, 443]", 1).replacen(
        "name: web, vip: 192.0.2.10, protocol: tcp, port: 80,",
        "name: other, vip: 192.0.2.11, protocol: tcp, port: '8080',",
        1,
    );
    text += "defaults: { scheduler: modulo, table_size: 100, connection_tracking: off, \
             idle_timeout: { udp: 1s, tcp: 24h } }\n";
    let config = good(&text);
    let [one, two] = &config.services[..] else {
        panic!("{config:?}");
    };
    assert_eq!((one.scheduler, one.table_size), (Scheduler::Modulo, 100));
    assert_eq!((two.scheduler, two.table_size), (Scheduler::Maglev, 251));
    assert_eq!(one.ports, [80, 443]);
    assert_eq!(two.ports, [8080]);
    for service in [one, two] {
        assert_eq!(service.connection_tracking, ConnectionTracking::Off);
        assert_eq!(service.idle_timeout.udp, Duration::from_secs(1));
        assert_eq!(service.idle_timeout.tcp, Duration::from_secs(86_400));
    }
}

#[test]
fn what_yaml_takes_for_a_number_may_be_a_name_or_a_key() {
    let text = file(&[service("").replace("web", "1.10")]);
    for key in [
        "11112222333344445555666677778888",
        "1111222233334444555566667777888e",
        "1234567890123456789012345678e123",
        "0x345678901234567890123456789012",
    ] {
        let read = parse(&format!("hash_key: {key}\n{text}"), "config.yaml");
        assert_eq!(read.is_ok(), !key.contains('x'), "{key}");
        if let Ok(config) = read {
            let number = u128::from_str_radix(key, 16).unwrap();
            assert_eq!(config.hash_key, HashKey::from_bytes(number.to_be_bytes()));
            assert_eq!(config.services[0].name, "1.10");
        }
    }
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let config = good(
        "interfaces: [eth0]
services:
  - &web { name: web, vip: 192.0.2.10, protocol: tcp, port: 80, backends: &pool [10.0.0.11, 10.0.0.12] }
  - { name: tls, vip: 192.0.2.10, protocol: tcp, port: 443, backends: *pool }
  - { <<: *web, name: alt, port: 8080 }
",
    );
    let names: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["web", "tls", "alt"]);
    for service in &config.services {
        assert_eq!(service.backends.len(), 2);
    }
    assert_eq!(config.services[2].ports, [8080]);
}

#[test]
fn thousands_of_backends_are_read() {
    let backends: Vec<String> = (0..3000u32)
        .map(|i| Ipv4Addr::from_bits(0x0a00_0001 + i))
        .map(|address| format!("{{ address: {address}, weight: 7 }}"))
        .collect();
    let text = file(&[service("").replace("10.0.0.11", &backends.join(", "))]);
    let config = good(&text);
    assert_eq!(config.services[0].backends.len(), 3000);
}

#[test]
fn a_configuration_is_serialized_in_the_words_of_the_file() {
    let json = serde_json::to_value(good(WHOLE)).unwrap();
    assert!(json.get("hash_key").is_none());
    assert_eq!(json["interfaces"][1]["mode"], "native");
    let service = &json["services"][1];
    for (field, value) in [
        ("affinity", "source"),
        ("forwarding", "l2"),
        ("scheduler", "ring"),
        ("connection_tracking", "off"),
        ("protocol", "tcp"),
    ] {
        assert_eq!(service[field], value);
    }
    assert_eq!(service["idle_timeout"]["tcp"], "90s");
    assert_eq!(service["backends"][0]["address"], "10.0.0.12");
}

#[test]
fn a_backend_added_at_runtime_is_held_to_the_same_rules() {
    let service = &good(WHOLE).services[1];
    let check = |address: &str, weight| {
        validate_backend(service, address.parse().unwrap(), weight).map_err(|e| e.to_string())
    };
    assert_eq!(check("10.0.0.99", 0), Ok(()));
    assert_eq!(check("10.0.0.99", 65_535), Ok(()));
    assert_eq!(check("2001:db8::1", 1), Ok(()));
    for (address, weight, reason) in [
        (
            "10.0.0.9",
            65_536,
            "65536 is out of range; a weight is from 0 (drained) to 65535",
        ),
        ("192.0.2.11", 1, "is a vip of this service"),
        ("127.0.0.1", 1, "is a loopback address"),
        ("224.0.0.1", 1, "is a multicast address"),
        ("255.255.255.255", 1, "is the broadcast address"),
        ("::", 1, "is the unspecified address"),
        ("::ffff:10.0.0.1", 1, "write 10.0.0.1"),
    ] {
        let error = check(address, weight).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_service_may_have_vips_and_backends_of_both_families() {
    let text = "interfaces: [eth0]\nservices:\n- { name: dns, vip: [192.0.2.10, \"2001:db8::10\"], protocol: udp, \
                port: 53, backends: [10.0.0.11, \"2001:db8:2::12\"] }\n";
    let service = &good(text).services[0];
    assert_eq!(service.protocol, Protocol::Udp);
    assert_eq!((service.vips.len(), service.backends.len()), (2, 2));
}

/// Text made of the pieces of a file, so that it gets further than arbitrary text.
fn shuffled_file() -> impl Strategy<Value = String> {
    let pieces: Vec<&str> = WHOLE
        .split_inclusive([' ', '\n', ',', ':', '[', '{'])
        .chain([
            "&a ", "*a", "<<: ", "!!int ", "? ", "| ", "> ", "~", "\t", "\r", "'", "\"", "- ",
        ])
        .collect();
    prop::collection::vec(prop::sample::select(pieces), 0..60).prop_map(|pieces| pieces.concat())
}

/// The good file with a few characters replaced.
fn damaged_file() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), any::<char>());
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, c) in changes {
            let at = at.index(text.len());
            text[at] = c;
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn parse_never_panics(text in prop_oneof![any::<String>(), shuffled_file(), damaged_file()]) {
        if let Err(error) = parse(&text, "config.yaml") {
            prop_assert!(!error.problems().is_empty());
            prop_assert!(error.to_string().starts_with("config.yaml:"));
        }
    }
}
