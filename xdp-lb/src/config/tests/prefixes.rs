//! VIPs that are prefixes, among each other and with the rest of a service.

use super::refused::assert_each;
use super::*;

/// The service of [`service`] with this VIP and these ports.
fn of(name: &str, vip: &str, port: &str) -> String {
    service("")
        .replace("name: web", &format!("name: {name}"))
        .replace("192.0.2.10", vip)
        .replace("port: 80", &format!("port: {port}"))
}

fn vips(text: &str) -> Vec<String> {
    let config = parse(text, "config.yaml").unwrap_or_else(|error| panic!("{error}"));
    let vips = config.services.iter().flat_map(|service| &service.vips);
    vips.map(ToString::to_string).collect()
}

#[test]
fn addresses_and_prefixes_stand_in_one_list_and_may_overlap() {
    let list = "[10.1.0.0/16, 10.1.2.0/24, 10.1.2.3, \"2001:db8:1::/48\"]";
    let text = file(&[of("a", list, "80"), of("b", "10.0.0.0/8", "80")]);
    let expected = [
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3",
        "2001:db8:1::/48",
        "10.0.0.0/8",
    ];
    assert_eq!(vips(&text), expected);
    let config = parse(&text, "config.yaml").unwrap();
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["services"][0]["vips"][0], "10.1.0.0/16");
}

#[test]
fn a_prefix_that_is_everything_needs_ports() {
    assert_eq!(
        vips(&file(&[of("a", "0.0.0.0/0", "[80, 443]")])),
        ["0.0.0.0/0"]
    );
    assert_eq!(vips(&file(&[of("a", "128.0.0.0/1", "0")])), ["128.0.0.0/1"]);
    assert_each([
        (
            file(&[of("a", "0.0.0.0/0", "0")]),
            "3:53 services[0].port: every port of 0.0.0.0/0 is every tcp packet, those for the \
             director itself included; name ports, or longer prefixes",
        ),
        (
            file(&[of("a", "[10.0.0.0/8, \"2000::/3\"]", "0")]),
            "3:68 services[0].port: every port of 2000::/3 is every tcp packet, those for the \
             director itself included; name ports, or longer prefixes",
        ),
        (
            file(&[of("a", "\"::/0\"", "0")]),
            "3:50 services[0].port: every port of ::/0 is every tcp packet, those for the director \
             itself included; name ports, or longer prefixes",
        ),
    ]);
}

#[test]
fn one_prefix_is_claimed_once_for_a_port() {
    let others = [of("a", "10.1.0.0/16", "80"), of("b", "10.1.0.0/16", "81")];
    assert_eq!(vips(&file(&others)).len(), 2);
    assert_each([(
        file(&[of("a", "10.1.0.0/16", "80"), of("b", "10.1.0.0/16", "80")]),
        "4:55 services[1].port: 10.1.0.0/16 tcp port 80 already belongs to service `a` (line 3); \
         give one of the two another vip or port",
    )]);
}
