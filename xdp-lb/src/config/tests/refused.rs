//! Bad files, but for their services: each with place, field and reason, and how it is shown.

use super::*;

/// All problems with `text`, as `line:column field: reason`.
fn problems(text: &str) -> Vec<String> {
    let error = parse(text, "config.yaml").expect_err(text);
    let tell = |problem: &Problem| {
        let Problem {
            line,
            column,
            field,
            reason,
            ..
        } = problem;
        format!("{line}:{column} {field}: {reason}")
    };
    error.problems().iter().map(tell).collect()
}

/// Asserts that each text has the problem beside it and no other.
#[track_caller]
pub(super) fn assert_each(cases: impl IntoIterator<Item = (String, &'static str)>) {
    for (text, expected) in cases {
        assert_eq!(problems(&text), [expected], "{text}");
    }
}

#[test]
fn what_is_not_yaml_or_of_another_shape_is_refused() {
    let cases = [
        (
            "",
            "1:1 : the file is empty; it needs `interfaces` at least",
        ),
        (
            "# only this\n",
            "2:1 : the file is empty; it needs `interfaces` at least",
        ),
        (
            "text",
            "1:1 : expected fields such as `interfaces: [eth0]` and `services:`",
        ),
        (
            "- a\n- b\n",
            "1:1 : expected fields such as `interfaces: [eth0]` and `services:`",
        ),
        (
            "interfaces: [",
            "1:13 : this is not YAML: unclosed bracket '['",
        ),
        (
            "a: b: c",
            "1:5 : this is not YAML: mapping values are not allowed in this context",
        ),
        (
            "interfaces: [eth0]\n---\nservices: []\n",
            "3:1 : this is not YAML: only single YAML document expected but multiple found",
        ),
        (
            "interfaces: *eth",
            "1:13 : this is not YAML: reference to unknown value",
        ),
        (
            "interfaces: [eth0]\nservices: !list []\n",
            "2:17 : this is not YAML: unsupported tag `!list`",
        ),
        (
            "interfaces: [eth0]\n? [a]\n: b",
            "2:3 : the name of a field is to be a single word",
        ),
    ];
    assert_each(cases.map(|(text, expected)| (text.to_owned(), expected)));
    let deep = parse(&"[".repeat(10_000), "config.yaml").unwrap_err();
    assert_eq!(deep.problems().len(), 1);
}

#[test]
fn the_interfaces_are_checked() {
    let cases = [
        (
            "services: []",
            "1:1 : `interfaces` is missing; write `interfaces: [eth0]`",
        ),
        (
            "interfaces: []",
            "1:13 interfaces: the list is empty; name the interface that packets arrive at",
        ),
        (
            "interfaces:\n",
            "1:1 interfaces: the list is empty; name the interface that packets arrive at",
        ),
        (
            "interfaces: eth0",
            "1:13 interfaces: expected a list, found a single value",
        ),
        (
            "interfaces:\n  - eth0\n  - { name: eth0 }",
            "3:5 interfaces[1]: interface `eth0` is already listed in line 2; list it once",
        ),
        (
            "interfaces: [a/b]",
            "1:14 interfaces[0]: `a/b` cannot be the name of an interface, which is 1 to 15 bytes \
             without blanks, `/` and `:`; see `ip link` for the names",
        ),
        (
            "interfaces: [a234567890123456]",
            "1:14 interfaces[0]: `a234567890123456` cannot be the name of an interface, which is \
             1 to 15 bytes without blanks, `/` and `:`; see `ip link` for the names",
        ),
        (
            "interfaces: [{ mode: auto }]",
            "1:14 interfaces[0]: `name` is missing; write `name: eth0`",
        ),
        (
            "interfaces: [{ name: eth0, mode: fast }]",
            "1:34 interfaces[0].mode: `fast` is not a choice here; expected `auto`, `native` or \
             `generic`",
        ),
        (
            "interfaces: [[eth0]]",
            "1:14 interfaces[0]: expected the name of an interface, found a list",
        ),
        (
            "interfaces: [~]",
            "1:14 interfaces[0]: has no value; expected the name of an interface",
        ),
    ];
    assert_each(cases.map(|(text, expected)| (text.to_owned(), expected)));
}

#[test]
fn the_other_fields_of_the_file_are_checked() {
    let cases = [
        (
            "interface: []",
            "2:1 interface: unknown field; did you mean `interfaces`?",
        ),
        (
            "interfaces: [a]",
            "2:1 interfaces: is given twice, first in line 1; keep one",
        ),
        (
            "colour: red",
            "2:1 colour: unknown field; expected `interfaces`, `hash_key`, `limits`, `metrics`, \
             `tunnel`, `health`, `ready_timeout`, `defaults`, `services` or `vrrp`",
        ),
        (
            "hash_key: 0011",
            "2:11 hash_key: expected 32 hexadecimal digits; `openssl rand -hex 16` makes a key",
        ),
        (
            "ready_timeout: 0s",
            "2:16 ready_timeout: 0s is out of range; how long to wait for backends is from 1s to 1h",
        ),
        (
            "metrics: 9090",
            "2:10 metrics: expected a mapping, found a single value",
        ),
        (
            "metrics: {}",
            "2:10 metrics: `address` is missing; write `address: \"127.0.0.1:9090\"`",
        ),
        (
            "metrics: { address: localhost:90 }",
            "2:21 metrics.address: `localhost:90` is not an IP address with a port; write it like \
             \"127.0.0.1:9090\" or \"[::1]:9090\"",
        ),
        (
            "limits: { slots: 20 }",
            "2:18 limits.slots: 20 is out of range; a number of slots is from 21 to 268435456",
        ),
        (
            "limits: { flows: many }",
            "2:18 limits.flows: `many` is not a number of flows; expected a decimal number",
        ),
        (
            "limits: { services: 65536 }",
            "2:21 limits.services: 65536 is out of range; a number of services is from 1 to 65535",
        ),
        (
            "limits: { backends: 65535 }",
            "2:21 limits.backends: 65535 is out of range; a number of backends is from 1 to 65534",
        ),
        (
            "limits: [1]",
            "2:9 limits: expected a mapping, found a list",
        ),
        (
            "services: web",
            "2:11 services: expected a list, found a single value",
        ),
        (
            "services: [web]",
            "2:12 services[0]: expected a mapping, found a single value",
        ),
    ];
    assert_each(cases.map(|(text, expected)| (format!("interfaces: [eth0]\n{text}\n"), expected)));
}

#[test]
fn the_defaults_are_checked_even_if_no_service_uses_them() {
    let cases = [
        (
            "table_size: 65536",
            "3:15 defaults.table_size: table_size 65536 is not prime, as scheduler `maglev` needs \
             it; the next prime is 65537",
        ),
        (
            "idle_timeout: { tcp: 15 }",
            "3:24 defaults.idle_timeout.tcp: `15` is not a duration; write a number and a unit: \
             500ms, 30s, 15m, 1h",
        ),
        (
            "idle_timeout: { tcp: 999ms }",
            "3:24 defaults.idle_timeout.tcp: 999ms is out of range; an idle timeout is from 1s to \
             24h",
        ),
        (
            "idle_timeout: { udp: 25h }",
            "3:24 defaults.idle_timeout.udp: 25h is out of range; an idle timeout is from 1s to \
             24h",
        ),
        (
            "name: x",
            "3:3 defaults.name: unknown field; expected `forwarding`, `scheduler`, `table_size`, \
             `connection_tracking`, `idle_timeout`, `health_check`, `panic_threshold`, \
             `tier_minimum` or `slow_start`",
        ),
        (
            "forwarding: geneve",
            "3:15 defaults.forwarding: `geneve` is not a choice here; expected `l2`, `ipip` or `gue`",
        ),
        (
            "scheduler: maglv",
            "3:14 defaults.scheduler: `maglv` is not a choice here; did you mean `maglev`?",
        ),
        (
            "connection_tracking: adaptiv",
            "3:24 defaults.connection_tracking: `adaptiv` is not a choice here; did you mean `adaptive`?",
        ),
    ];
    assert_each(cases.map(|(text, expected)| {
        (
            format!("interfaces: [eth0]\ndefaults:\n  {text}\n"),
            expected,
        )
    }));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "hash_key: é
services:
  - name: web
\tx: 1
";
    assert_eq!(problems(text).len(), 1, "what is not YAML ends the reading");
    let text = "services:
  - { name: web, port: 99999, protocol: tcp, backends: [10.0.0.300, { address: 10.0.0.1, weight: x }] }
  - { vip: 192.0.2.10, protocol: sctp }
hash_key: é
";
    let places: Vec<String> = problems(text)
        .into_iter()
        .map(|problem| problem.split(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        places,
        [
            "1:1 ",
            "2:5 services[0]",
            "2:24 services[0].port",
            "2:57 services[0].backends[0]",
            "2:98 services[0].backends[1].weight",
            "3:5 services[1]",
            "3:5 services[1]",
            "3:5 services[1]",
            "3:34 services[1].protocol",
            "4:11 hash_key",
        ]
    );
}

#[test]
fn an_error_shows_the_line_with_a_caret() {
    let text = "interfaces: [eth0]\nlimits:\n\tflows: 1\n  flows: 'é' # why\n".replace('\t', "  ");
    let text = text.replacen("  flows: 1\n", "", 1);
    let error = parse(&text, "config.yaml").unwrap_err().to_string();
    assert_eq!(
        error,
        "config.yaml:3:10: limits.flows: `é` is not a number of flows; expected a decimal number
  3 |   flows: 'é' # why
    |          ^^^"
    );
}

#[test]
fn a_long_line_is_cut_around_the_caret_and_a_long_list_of_problems_after_twenty() {
    let ports: Vec<String> = (0..1000).map(|_| "x".repeat(6)).collect();
    let text = file(&[service("").replace("port: 80", &format!("port: [{}]", ports.join(", ")))]);
    let error = parse(&text, "config.yaml").unwrap_err();
    assert_eq!(error.problems().len(), 1000);
    let shown = error.to_string();
    assert!(shown.ends_with("\nand 980 more"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() < 140));
}
