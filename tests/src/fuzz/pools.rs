//! Few addresses and ports, so that packets meet state that others have left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{plane::GUE_PORT, random::Random};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(net: u16, subnet: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, subnet, 0, 0, 0, host))
}

/// VIPs that services have; the first is [`WEB`](crate::packet::WEB).
pub(super) const VIPS: [IpAddr; 6] = [
    v4(192, 0, 2, 10),
    v4(192, 0, 2, 11),
    v4(192, 0, 2, 12),
    v6(0x10, 0, 0x10),
    v6(0x10, 0, 0x11),
    v6(0x10, 0, 0x12),
];

/// Prefixes that services have, several within each other, one around VIPs.
pub(super) const PREFIXES: [(IpAddr, u8); 9] = [
    (v4(203, 0, 113, 0), 24),
    (v4(203, 0, 113, 128), 25),
    (v4(203, 0, 113, 192), 26),
    (v4(203, 0, 113, 200), 32),
    (v4(192, 0, 2, 0), 24),
    (v6(0x20, 0, 0), 48),
    (v6(0x20, 1, 0), 64),
    (v6(0x20, 1, 5), 128),
    (v6(0x10, 0, 0), 64),
];

/// Where packets go to besides the VIPs: within prefixes, and nowhere.
const OTHERS: [IpAddr; 10] = [
    v4(203, 0, 113, 5),
    v4(203, 0, 113, 130),
    v4(203, 0, 113, 200),
    v4(192, 0, 2, 200),
    v4(198, 51, 100, 77),
    v6(0x20, 7, 1),
    v6(0x20, 1, 1),
    v6(0x20, 1, 5),
    v6(0x10, 0, 0x99),
    v6(0x77, 0, 1),
];

/// Ports of services; 0 is also the key for every port.
pub(super) const PORTS: [u16; 5] = [80, 443, 53, GUE_PORT, 0];

/// Bytes of an IPv4-mapped IPv6 address of the first VIP.
const MAPPED: IpAddr = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 10).to_ipv6_mapped());

/// An address that packets go to.
pub(super) fn destination(random: &mut Random, is_v4: bool) -> IpAddr {
    if random.once_in(64) && !is_v4 {
        return MAPPED;
    }
    let choices: &[IpAddr] = if random.once_in(4) { &OTHERS } else { &VIPS };
    of_family(random, choices, is_v4)
}

/// A client.
pub(super) fn client(random: &mut Random, is_v4: bool) -> IpAddr {
    let host = u8::try_from(random.below(5)).expect("a small number");
    if is_v4 {
        v4(198, 51, 100, host)
    } else {
        v6(1, 0, u16::from(host))
    }
}

/// An end of a tunnel, or a router.
pub(super) fn infrastructure(random: &mut Random, is_v4: bool) -> IpAddr {
    let host = u8::try_from(random.below(16)).expect("a small number");
    if is_v4 {
        v4(10, 0, 0, host)
    } else {
        v6(0xb, 0, u16::from(host))
    }
}

/// A port of a service.
pub(super) fn service_port(random: &mut Random) -> u16 {
    if random.once_in(32) {
        random.short()
    } else {
        random.one_of(&PORTS)
    }
}

/// A port of a client.
pub(super) fn client_port(random: &mut Random) -> u16 {
    if random.once_in(16) {
        random.short()
    } else {
        40000 + u16::try_from(random.below(4)).expect("a small number")
    }
}

fn of_family(random: &mut Random, choices: &[IpAddr], is_v4: bool) -> IpAddr {
    loop {
        let address = random.one_of(choices);
        if address.is_ipv4() == is_v4 {
            return address;
        }
    }
}
