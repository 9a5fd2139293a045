//! The section `tunnel` and the forwarding modes that need it.

use std::net::IpAddr;

use super::refused::assert_each;
use super::*;

fn tunnel(text: &str) -> Tunnel {
    let text = format!("interfaces: [eth0]\ntunnel: {text}\n");
    let config = parse(&text, "config.yaml").unwrap_or_else(|error| panic!("{error}"));
    config.tunnel
}

#[test]
fn tunnels_begin_at_one_address_of_each_family() {
    let [v4, v6]: [IpAddr; 2] = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
    let both = tunnel("{ source: [192.0.2.1, \"2001:db8::1\"], gue_port: 6081 }");
    assert_eq!((&both.source[..], both.gue_port), (&[v4, v6][..], 6081));
    assert_eq!(both.source_for([10, 0, 0, 11].into()), Some(v4));
    assert_eq!(both.source_for("2001:db8::11".parse().unwrap()), Some(v6));
    let one = tunnel("{ source: 192.0.2.1 }");
    assert_eq!((&one.source[..], one.gue_port), (&[v4][..], 6080));
    assert_eq!(one.source_for("2001:db8::11".parse().unwrap()), None);
    for empty in ["", "{}"] {
        assert_eq!(tunnel(empty), Tunnel::default());
    }
}

#[test]
fn a_wrong_tunnel_is_refused() {
    let cases = [
        ("{ source: [] }", "2:19 tunnel.source: the list is empty"),
        (
            "{ source: [192.0.2.1, 192.0.2.2] }",
            "2:31 tunnel.source[1]: 192.0.2.1 is the source of tunnels over IPv4 already; list one \
             of each family",
        ),
        (
            "{ source: 192.0.2.1/24 }",
            "2:19 tunnel.source: `192.0.2.1/24` is not an IP address; write it like 192.0.2.10, \
             without port or prefix length",
        ),
        (
            "{ source: 127.0.0.1 }",
            "2:19 tunnel.source: 127.0.0.1 is a loopback address; a source needs an address of its \
             own",
        ),
        (
            "{ gue_port: 0 }",
            "2:21 tunnel.gue_port: 0 is out of range; a port is from 1 to 65535",
        ),
        (
            "{ port: 6080 }",
            "2:11 tunnel.port: unknown field; expected `source` or `gue_port`",
        ),
    ];
    assert_each(
        cases.map(|(text, expected)| (format!("interfaces: [eth0]\ntunnel: {text}\n"), expected)),
    );
}

#[test]
fn a_tunnel_does_not_begin_at_a_vip() {
    let text = file(&[service("")]) + "tunnel: { source: 192.0.2.10 }\n";
    assert_each([(
        text,
        "4:19 tunnel.source: 192.0.2.10 is a vip of service `web` (line 3), and backends drop what \
         comes from it; give an address of the director",
    )]);
}

#[test]
fn each_forwarding_mode_takes_backends_of_both_families() {
    for (word, mode) in [
        ("l2", Forwarding::L2),
        ("ipip", Forwarding::Ipip),
        ("gue", Forwarding::Gue),
    ] {
        let backends = "[10.0.0.11, \"2001:db8:2::11\"]";
        let service = service(&format!(", forwarding: {word}")).replace("[10.0.0.11]", backends);
        let config = parse(&file(&[service]), "config.yaml").unwrap();
        assert_eq!(config.services[0].forwarding, mode);
        assert_eq!(config.services[0].backends.len(), 2);
    }
}
