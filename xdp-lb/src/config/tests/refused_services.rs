//! Bad services, each with place, field and reason.

use super::refused::assert_each;
use super::*;

/// A file with one good service, in which each first text is replaced by the second.
#[track_caller]
fn assert_replaced(cases: &[(&str, &str, &'static str)]) {
    assert_each(cases.iter().map(|&(good, bad, expected)| {
        let text = file(&[service(", affinity: flow")]);
        assert!(text.contains(good), "{good}");
        (text.replacen(good, bad, 1), expected)
    }));
}

#[test]
fn the_fields_of_a_service_are_checked() {
    assert_replaced(&[
        (
            "name: web, ",
            "",
            "3:5 services[0]: `name` is missing; write `name: web`",
        ),
        (
            "vip: 192.0.2.10, ",
            "",
            "3:5 services[0]: `vip` is missing; write `vip: 192.0.2.10`",
        ),
        (
            "protocol: tcp, ",
            "",
            "3:5 services[0]: `protocol` is missing; write `protocol: tcp`",
        ),
        (
            "port: 80, ",
            "",
            "3:5 services[0]: `port` is missing; write `port: 80`",
        ),
        (
            ", backends: [10.0.0.11]",
            "",
            "3:5 services[0]: `backends` is missing; write `backends: [10.0.0.11]`",
        ),
        (
            "web",
            "my web",
            "3:13 services[0].name: `my web` cannot be the name of a service, which is 1 to 64 \
             letters, digits, `.`, `_` and `-`",
        ),
        (
            "tcp",
            "sctp",
            "3:45 services[0].protocol: `sctp` is not a choice here; expected `tcp` or `udp`",
        ),
        (
            "affinity: flow",
            "affinity: ip",
            "3:93 services[0].affinity: `ip` is not a choice here; expected `flow` or `source`",
        ),
        (
            "affinity: flow",
            "forwarding: vxlan",
            "3:95 services[0].forwarding: `vxlan` is not a choice here; expected `l2`, `ipip` or \
             `gue`",
        ),
        (
            "affinity: flow",
            "table_size: 5000012",
            "3:95 services[0].table_size: 5000012 is out of range; a table size is from 7 to \
             5000011",
        ),
        (
            "affinity: flow",
            "table_size: 1000",
            "3:95 services[0].table_size: table_size 1000 is not prime, as scheduler `maglev` \
             needs it; the next prime is 1009",
        ),
        (
            "affinity: flow",
            "name: b",
            "3:83 services[0].name: is given twice, first in line 3; keep one",
        ),
        (
            "affinity: flow",
            "backend: []",
            "3:83 services[0].backend: unknown field; did you mean `backends`?",
        ),
    ]);
}

#[test]
fn vips_and_ports_are_checked() {
    assert_replaced(&[
        (
            "192.0.2.10",
            "[]",
            "3:23 services[0].vip: the list is empty",
        ),
        (
            "192.0.2.10",
            "",
            "3:18 services[0].vip: has no value; expected an IP address",
        ),
        (
            "192.0.2.10",
            "192.0.2.10/24",
            "3:23 services[0].vip: `192.0.2.10/24` has bits set behind its length; write \
             192.0.2.0/24, or 192.0.2.10 for that address alone",
        ),
        (
            "192.0.2.10",
            "[192.0.2.10, 192.0.2.10/32]",
            "3:36 services[0].vip[1]: vip 192.0.2.10 is already listed in line 3; list it once",
        ),
        (
            "192.0.2.10",
            "127.0.0.1",
            "3:23 services[0].vip: 127.0.0.1 is a loopback address; a vip needs an address of \
             its own",
        ),
        (
            "192.0.2.10",
            "0.1.2.3",
            "3:23 services[0].vip: 0.1.2.3 is an address of \"this network\"; a vip needs an \
             address of its own",
        ),
        (
            "port: 80",
            "port: 65536",
            "3:56 services[0].port: 65536 is out of range; a port is from 0 to 65535",
        ),
        (
            "port: 80",
            "port: -1",
            "3:56 services[0].port: -1 is out of range; a port is from 0 to 65535",
        ),
        (
            "port: 80",
            "port: http",
            "3:56 services[0].port: `http` is not a port; expected a decimal number",
        ),
        (
            "port: 80",
            "port: 080",
            "3:56 services[0].port: `080` is not a port; expected a decimal number",
        ),
        (
            "port: 80",
            "port: 0x50",
            "3:56 services[0].port: `0x50` is not a port; expected a decimal number",
        ),
        (
            "port: 80",
            "port: [80, 80]",
            "3:61 services[0].port[1]: port 80 is already listed in line 3; list it once",
        ),
        (
            "port: 80",
            "port: [0, 80]",
            "3:57 services[0].port[0]: port 0 means every port; leave out the others, or it",
        ),
        (
            "port: 80",
            "port: { from: 80 }",
            "3:56 services[0].port: expected a port, found a mapping",
        ),
    ]);
}

#[test]
fn backends_are_checked() {
    assert_replaced(&[
        (
            "[10.0.0.11]",
            "10.0.0.11",
            "3:70 services[0].backends: expected a list, found a single value",
        ),
        (
            "10.0.0.11",
            "10.0.0.11, { address: 10.0.0.11 }",
            "3:82 services[0].backends[1]: backend 10.0.0.11 is already listed in line 3; list it \
             once",
        ),
        (
            "10.0.0.11",
            "{ address: 10.0.0.11, weight: 65536 }",
            "3:101 services[0].backends[0].weight: 65536 is out of range; a weight is from 0 to \
             65535",
        ),
        (
            "10.0.0.11",
            "{ address: 10.0.0.11, wieght: 5 }",
            "3:93 services[0].backends[0].wieght: unknown field; did you mean `weight`?",
        ),
        (
            "10.0.0.11",
            "{ weight: 5 }",
            "3:71 services[0].backends[0]: `address` is missing; write `address: 10.0.0.11`",
        ),
        (
            "10.0.0.11",
            "{ address: web.example }",
            "3:82 services[0].backends[0].address: `web.example` is not an IP address; write it \
             like 192.0.2.10, without port or prefix length",
        ),
        (
            "10.0.0.11",
            "\"::ffff:10.0.0.11\"",
            "3:71 services[0].backends[0]: ::ffff:10.0.0.11 is an IPv4 address in its IPv6 form; \
             write 10.0.0.11",
        ),
        (
            "10.0.0.11",
            "192.0.2.10",
            "3:71 services[0].backends[0]: 192.0.2.10 is a vip of this service; give the \
             backend's own address",
        ),
        (
            "10.0.0.11",
            "224.0.0.1",
            "3:71 services[0].backends[0]: 224.0.0.1 is a multicast address; a backend needs an \
             address of its own",
        ),
    ]);
}

#[test]
fn two_services_cannot_have_one_name_or_one_vip_and_port() {
    let other = service("").replace("name: web", "name: other");
    assert_each([
        (
            file(&[
                service(""),
                service("").replace("port: 80", "port: [79, 81]"),
            ]),
            "4:13 services[1].name: a service in line 3 has the name `web`; give it another",
        ),
        (
            file(&[service(""), other.replace("port: 80", "port: [79, 80]")]),
            "4:63 services[1].port[1]: 192.0.2.10 tcp port 80 already belongs to service `web` \
             (line 3); give one of the two another vip or port",
        ),
        (
            file(&[
                service(""),
                other
                    .replace("2.10", "2.11")
                    .replace("10.0.0.11", "192.0.2.10"),
            ]),
            "4:73 services[1].backends[0]: 192.0.2.10 is a vip of service `web` (line 3); give \
             the backend's own address",
        ),
    ]);
    // Every port beside one of them, and the same port of another VIP, are different services.
    let every = other.replace("port: 80", "port: 0");
    assert!(parse(&file(&[service(""), every]), "config.yaml").is_ok());
    let another = other.replace("2.10", "2.11");
    assert!(parse(&file(&[service(""), another]), "config.yaml").is_ok());
}

#[test]
fn what_does_not_fit_the_limits_is_refused() {
    let ports = service("").replace("port: 80", "port: [1, 2, 3]");
    let backends = service("").replace("10.0.0.11", "10.0.0.11, 10.0.0.12");
    let small = service(", table_size: 7").replace(
        "10.0.0.11",
        "10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7, 10.0.0.8",
    );
    assert_each([
        (
            file(&[ports]) + "limits: { services: 2 }\n",
            "3:3 services: the services have 3 pairs of vip and port, and `limits.services` \
             allows 2; raise it (up to 65535) or list fewer",
        ),
        (
            file(&[backends]) + "limits: { backends: 1 }\n",
            "3:3 services: the services have 2 backends, and `limits.backends` allows 1; raise it \
             (up to 65534) or list fewer",
        ),
        (
            file(&[service("")]) + "limits: { slots: 196610 }\n",
            "3:3 services: the lookup tables need 196611 slots, three times the sum of their \
             sizes, and `limits.slots` allows 196610; set `limits.slots` to 196611 or more, or \
             make `table_size` smaller",
        ),
        (
            file(&[small]),
            "3:13 services[0].name: table_size 7 of service `web` is too small for its 8 \
             backends; set a hundred times their number for even shares",
        ),
    ]);
    assert!(parse(&(file(&[service("")]) + "limits: { slots: 196611 }\n"), "").is_ok());
}

#[test]
fn a_scheduler_that_does_not_fit_the_inherited_table_size_is_the_one_to_change() {
    let text = file(&[service(", scheduler: maglev")]);
    assert_each([(
        text + "defaults: { scheduler: ring, table_size: 4096 }\n",
        "3:94 services[0].scheduler: table_size 4096 is not prime, as scheduler `maglev` needs \
         it; the next prime is 4099",
    )]);
}
