//! Entries of `vrrp`.

use std::time::Duration;

use super::refused::assert_each;
use super::*;
use crate::vrrp::{
    VirtualAddress,
    packet::{Checksum, Interval},
};

/// A file with a service and these entries, one a line, from line 4 on.
fn with(entries: &[&str]) -> String {
    let service = service("");
    let mut text = format!("interfaces: [eth0]\nservices: [{service}]\nvrrp:\n");
    for entry in entries {
        text += "  - ";
        text += entry;
        text += "\n";
    }
    text
}

const SHORT: &str = "{ name: main, interface: eth0, vrid: 51, vips: 192.0.2.10 }";

fn read(entry: &str) -> VirtualRouter {
    let config = parse(&with(&[entry]), "test").unwrap();
    config.vrrp.into_iter().next().unwrap()
}

fn vip(address: &str, prefix: u8) -> VirtualAddress {
    VirtualAddress {
        address: address.parse().unwrap(),
        prefix,
    }
}

fn interval(centiseconds: u16) -> Interval {
    Interval::from_centiseconds(centiseconds).unwrap()
}

#[test]
fn a_short_entry_has_defaults() {
    let expected = VirtualRouter {
        name: "main".into(),
        interface: "eth0".into(),
        vrid: 51,
        priority: 100,
        advert_interval: interval(100),
        preempt: true,
        preempt_delay: Duration::ZERO,
        vips: vec![vip("192.0.2.10", 32)],
        peers: Vec::new(),
        allow_from: Vec::new(),
        source: Vec::new(),
        checksum: Checksum::Plain,
        virtual_mac: false,
        group: None,
        track: Track::default(),
        notify: None,
    };
    assert_eq!(read(SHORT), expected);
}

#[test]
fn a_long_entry_is_taken_as_it_is_written() {
    let entry = read(
        "{ name: main, interface: eth0, vrid: 255, priority: 150, advert_interval: 10ms, \
         preempt: true, preempt_delay: 30s, vips: [192.0.2.10/24, \"2001:db8::10\"], \
         peers: [10.0.0.3, \"2001:db8::3\"], allow_from: [10.0.0.3, \"2001:db8::3\"], \
         source: [10.0.0.2, \"2001:db8::2\"], checksum: pseudo_header, virtual_mac: true, \
         group: all, notify: [/bin/notify, a], track: { interfaces: [eth1, { name: eth2, weight: 7 }], \
         health: { services: web, below: 70%, delay: 1s, weight: 60 }, gateways: [10.0.0.1, \
         { address: 10.0.0.9, weight: 20, interval: 200ms, timeout: 100ms, rise: 1, fall: 5 }] } }",
    );
    let interface = |name: &str, weight| TrackedInterface {
        name: name.into(),
        weight,
    };
    let gateway = |last, weight, interval, timeout, rise, fall| TrackedGateway {
        address: [10, 0, 0, last].into(),
        weight,
        interval: Duration::from_millis(interval),
        timeout: Duration::from_millis(timeout),
        rise,
        fall,
    };
    let both = |last: u8| {
        vec![
            [10, 0, 0, last].into(),
            format!("2001:db8::{last}").parse().unwrap(),
        ]
    };
    let expected = VirtualRouter {
        name: "main".into(),
        interface: "eth0".into(),
        vrid: 255,
        priority: 150,
        advert_interval: interval(1),
        preempt: true,
        preempt_delay: Duration::from_secs(30),
        vips: vec![vip("192.0.2.10", 24), vip("2001:db8::10", 128)],
        peers: both(3),
        allow_from: both(3),
        source: both(2),
        checksum: Checksum::PseudoHeader,
        virtual_mac: true,
        group: Some("all".into()),
        track: Track {
            interfaces: vec![interface("eth1", 50), interface("eth2", 7)],
            health: Some(TrackedHealth {
                services: vec!["web".into()],
                below: 70,
                delay: Duration::from_secs(1),
                weight: 60,
            }),
            gateways: vec![
                gateway(1, 50, 1000, 500, 2, 3),
                gateway(9, 20, 200, 100, 1, 5),
            ],
        },
        notify: Some(vec!["/bin/notify".into(), "a".into()]),
    };
    assert_eq!(entry, expected);
    let longest = SHORT.replace(" }", ", advert_interval: 40950ms }");
    assert_eq!(read(&longest).advert_interval, interval(4095));
}

/// In an entry each first text is replaced by the second.
#[track_caller]
fn assert_replaced(cases: &[(&str, &str, &'static str)]) {
    assert_each(cases.iter().map(|&(good, bad, expected)| {
        assert!(SHORT.contains(good), "{good}");
        (with(&[&SHORT.replacen(good, bad, 1)]), expected)
    }));
}

#[test]
fn the_fields_of_an_entry_are_checked() {
    assert_replaced(&[
        (
            "name: main, ",
            "",
            "4:5 vrrp[0]: `name` is missing; write `name: main`",
        ),
        (
            "interface: eth0, ",
            "",
            "4:5 vrrp[0]: `interface` is missing; write `interface: eth0`",
        ),
        (
            "vrid: 51, ",
            "",
            "4:5 vrrp[0]: `vrid` is missing; write `vrid: 51`",
        ),
        (
            ", vips: 192.0.2.10",
            "",
            "4:5 vrrp[0]: `vips` is missing; write `vips: [192.0.2.10]`",
        ),
        (
            "main",
            "my main",
            "4:13 vrrp[0].name: `my main` cannot be the name of a virtual router, which is 1 to 64 \
             letters, digits, `.`, `_` and `-`",
        ),
        (
            "51",
            "0",
            "4:42 vrrp[0].vrid: 0 is out of range; a virtual router identifier is from 1 to 255",
        ),
        (
            "51",
            "256",
            "4:42 vrrp[0].vrid: 256 is out of range; a virtual router identifier is from 1 to 255",
        ),
        (
            "eth0",
            "a/b",
            "4:30 vrrp[0].interface: `a/b` cannot be the name of an interface, which is 1 to 15 \
             bytes without blanks, `/` and `:`; see `ip link` for the names",
        ),
        ("192.0.2.10", "[]", "4:52 vrrp[0].vips: the list is empty"),
        (
            "192.0.2.10",
            "192.0.2.10/33",
            "4:52 vrrp[0].vips: `192.0.2.10/33` has no length of a prefix; write it like \
             192.0.2.10/32, or 192.0.2.10 alone",
        ),
        (
            "192.0.2.10",
            "192.0.2.10/0",
            "4:52 vrrp[0].vips: `192.0.2.10/0` has no length of a prefix; write it like \
             192.0.2.10/32, or 192.0.2.10 alone",
        ),
        (
            "192.0.2.10",
            "web",
            "4:52 vrrp[0].vips: `web` is not an IP address; write it like 192.0.2.10, without port \
             or prefix length",
        ),
        (
            "192.0.2.10",
            "224.0.0.18",
            "4:52 vrrp[0].vips: 224.0.0.18 is a multicast address; a vip needs an address of its \
             own",
        ),
        (
            "192.0.2.10",
            "[192.0.2.10, 192.0.2.10/24]",
            "4:65 vrrp[0].vips[1]: vip 192.0.2.10 is already listed in line 4; list it once",
        ),
        (
            " }",
            ", priority: 0 }",
            "4:74 vrrp[0].priority: 0 is out of range; a priority is from 1 to 255",
        ),
        (
            " }",
            ", priority: 256 }",
            "4:74 vrrp[0].priority: 256 is out of range; a priority is from 1 to 255",
        ),
        (
            " }",
            ", advert_interval: 5ms }",
            "4:81 vrrp[0].advert_interval: 5ms is out of range; an interval of advertisements is \
             from 10ms to 40950ms",
        ),
        (
            " }",
            ", advert_interval: 41s }",
            "4:81 vrrp[0].advert_interval: 41s is out of range; an interval of advertisements is \
             from 10ms to 40950ms",
        ),
        (
            " }",
            ", advert_interval: 15ms }",
            "4:81 vrrp[0].advert_interval: 15ms is no multiple of 10ms, the unit in which \
             advertisements tell it",
        ),
        (
            " }",
            ", preempt: maybe }",
            "4:73 vrrp[0].preempt: `maybe` is not a choice here; expected `true` or `false`",
        ),
        (
            " }",
            ", preempt: false, preempt_delay: 1s }",
            "4:95 vrrp[0].preempt_delay: it does not preempt; leave out `preempt_delay`, or \
             `preempt: false`",
        ),
        (
            " }",
            ", preempt_delay: 2h }",
            "4:79 vrrp[0].preempt_delay: 2h is out of range; `preempt_delay` here is from 0s to 1h",
        ),
        (
            " }",
            ", checksum: crc }",
            "4:74 vrrp[0].checksum: `crc` is not a choice here; expected `plain` or \
             `pseudo_header`",
        ),
        (
            " }",
            ", peers: [10.0.0.3, 10.0.0.3] }",
            "4:82 vrrp[0].peers[1]: peer 10.0.0.3 is already listed in line 4; list it once",
        ),
        (
            " }",
            ", peers: \"2001:db8::3\" }",
            "4:71 vrrp[0].peers: no peer has an IPv4 address, by which the IPv4 addresses of \
             `vips` are advertised; add one, or put these addresses into an entry of their own",
        ),
        (
            " }",
            ", allow_from: \"2001:db8::3\" }",
            "4:76 vrrp[0].allow_from: no IPv4 address is allowed, so nobody would be heard over \
             IPv4; add the other directors' (over IPv6 their link-local ones, unless `peers` are \
             set)",
        ),
        (
            " }",
            ", source: [10.0.0.2, 10.0.0.3] }",
            "4:83 vrrp[0].source[1]: 10.0.0.2 is the source of advertisements over IPv4 already; \
             list one of each family",
        ),
        (
            " }",
            ", notify: notify.sh }",
            "4:72 vrrp[0].notify: `notify.sh` is no absolute path; write the program's whole path, \
             then its arguments: [/usr/local/bin/notify, vrrp]",
        ),
        (
            " }",
            ", track: { interfaces: [{ name: eth1, weight: 0 }] } }",
            "4:108 vrrp[0].track.interfaces[0].weight: 0 is out of range; a weight is from 1 to 254",
        ),
        (
            " }",
            ", track: { health: { below: 101% } } }",
            "4:90 vrrp[0].track.health.below: `101%` is out of range; expected a percentage from \
             0% to 100%",
        ),
        (
            " }",
            ", track: { health: { services: db } } }",
            "4:93 vrrp[0].track.health.services: there is no service `db`; name one of `services`",
        ),
        (
            " }",
            ", track: { gateways: [{ weight: 5 }] } }",
            "4:84 vrrp[0].track.gateways[0]: `address` is missing; write `address: 10.0.0.1`",
        ),
        (
            " }",
            ", track: { gateways: [{ address: 10.0.0.1, timeout: 2s }] } }",
            "4:114 vrrp[0].track.gateways[0].timeout: 2s is out of range; `timeout` here is from \
             10ms to 1s",
        ),
        (
            " }",
            ", priority: 255, track: { interfaces: eth1 } }",
            "4:86 vrrp[0].track: priority 255 says that the addresses are this director's own, and \
             is never lowered; set `priority` to 254 or less, or leave out `track`",
        ),
    ]);
}

#[test]
fn entries_agree_with_each_other_and_the_rest_of_the_file() {
    let cases: &[(&[&str], &'static str)] = &[
        (
            &[
                SHORT,
                "{ name: main, interface: eth0, vrid: 52, vips: 192.0.2.11 }",
            ],
            "5:13 vrrp[1].name: an entry in line 4 has the name `main`; give it another",
        ),
        (
            &[
                SHORT,
                "{ name: other, interface: eth0, vrid: 51, vips: \"2001:db8::10\" }",
            ],
            "5:43 vrrp[1].vrid: vrid 51 on eth0 already belongs to `main` (line 4); give one of \
             the two another vrid",
        ),
        (
            &[
                SHORT,
                "{ name: other, interface: eth1, vrid: 51, vips: 192.0.2.10/24 }",
            ],
            "5:53 vrrp[1].vips: 192.0.2.10 already belongs to `main` (line 4); one entry alone has \
             it",
        ),
        (
            &["{ name: main, interface: eth0, vrid: 51, vips: 10.0.0.11 }"],
            "4:52 vrrp[0].vips: 10.0.0.11 is a backend of service `web`, too; a vip moves between \
             directors and can be nothing else",
        ),
        (
            &["{ name: main, interface: eth0, vrid: 51, vips: 10.0.0.2, source: 10.0.0.2 }"],
            "4:52 vrrp[0].vips: 10.0.0.2 is an address of a router of `main`, too; a vip moves \
             between directors and can be nothing else",
        ),
        (
            &[
                "{ name: main, interface: eth0, vrid: 51, vips: 192.0.2.10, group: all }",
                "{ name: other, interface: eth1, vrid: 51, vips: 192.0.2.11, group: all, priority: \
                 99 }",
            ],
            "5:72 vrrp[1].group: `priority` is not that of `main`, with which it fails over; \
             entries of one group agree on it",
        ),
    ];
    assert_each(
        cases
            .iter()
            .map(|&(entries, expected)| (with(entries), expected)),
    );
}

#[test]
fn the_same_identifier_on_another_interface_is_another_router() {
    let other = "{ name: other, interface: eth1, vrid: 51, vips: 192.0.2.11 }";
    assert_eq!(parse(&with(&[SHORT, other]), "test").unwrap().vrrp.len(), 2);
}
