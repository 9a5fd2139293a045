//! Random packets, most of them for a service, many of them odd. Checksums are random: nobody looks
//! at them.

use std::net::IpAddr;

use crate::{fuzz::pools, plane::GUE_PORT, random::Random};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// A frame that somebody might send, or somebody with bad intentions.
pub(super) fn frame(random: &mut Random) -> Vec<u8> {
    let is_v4 = random.once_in(2);
    let ip = match random.below(20) {
        0..=13 => from_client(random, is_v4),
        14..=17 => error(random, is_v4),
        18 => {
            let kind = random.byte();
            let message = [&[kind][..], &random.bytes(40)].concat();
            let (source, destination) = ends(random, is_v4);
            ip(random, source, destination, icmp(is_v4), message)
        }
        _ => {
            let protocol = random.byte();
            let payload = random.bytes(30);
            let (source, destination) = ends(random, is_v4);
            ip(random, source, destination, protocol, payload)
        }
    };
    in_frame(random, is_v4, &ip)
}

fn ends(random: &mut Random, is_v4: bool) -> (IpAddr, IpAddr) {
    (
        pools::client(random, is_v4),
        pools::destination(random, is_v4),
    )
}

fn icmp(is_v4: bool) -> u8 {
    if is_v4 { ICMP } else { ICMP_V6 }
}

/// What a client sends.
fn from_client(random: &mut Random, is_v4: bool) -> Vec<u8> {
    let (source, destination) = ends(random, is_v4);
    let ports = (pools::client_port(random), pools::service_port(random));
    let (protocol, segment) = transport(random, ports);
    ip(random, source, destination, protocol, segment)
}

/// An ICMP error: about a packet of a backend, about one in a tunnel, or about any.
fn error(random: &mut Random, is_v4: bool) -> Vec<u8> {
    let (client, vip) = ends(random, is_v4);
    let (to, quoted) = match random.below(8) {
        0..=2 => {
            let ports = (pools::service_port(random), pools::client_port(random));
            let (protocol, segment) = transport(random, ports);
            let quoted = plain_ip(random, vip, client, protocol, segment);
            (vip, quoted)
        }
        3..=6 => {
            let to = pools::infrastructure(random, is_v4);
            (to, tunnelled(random, is_v4))
        }
        _ => (vip, from_client(random, is_v4)),
    };
    let length = random.one_of(&[0, 20, 28, 40, 48, 68, 88, 128, 512, 1500]);
    let quoted = &quoted[..quoted.len().min(length + random.below(8))];
    let kind = match (is_v4, random.once_in(8)) {
        (_, true) => random.byte(),
        (true, _) => random.one_of(&[3, 11, 12]),
        (false, _) => random.one_of(&[1, 2, 3, 4]),
    };
    let message = [&[kind, random.byte()][..], &random.bytes(6), quoted].concat();
    let router = pools::infrastructure(random, is_v4);
    ip(random, router, to, icmp(is_v4), message)
}

/// A packet of a client within one of a tunnel, of either family each.
fn tunnelled(random: &mut Random, is_v4: bool) -> Vec<u8> {
    let inner_is_v4 = random.once_in(2);
    let (client, vip) = ends(random, inner_is_v4);
    let ports = (pools::client_port(random), pools::service_port(random));
    let (protocol, segment) = transport(random, ports);
    let inner = plain_ip(random, client, vip, protocol, segment);
    let ends = [
        pools::infrastructure(random, is_v4),
        pools::infrastructure(random, is_v4),
    ];
    let (protocol, payload) = if random.once_in(2) {
        (if inner_is_v4 { 4 } else { 41 }, inner)
    } else {
        let port = if random.once_in(8) {
            random.short()
        } else {
            GUE_PORT
        };
        let mut datagram = random.short().to_be_bytes().to_vec();
        datagram.extend(port.to_be_bytes());
        datagram.extend(random.bytes(4));
        datagram.extend(inner);
        (UDP, datagram)
    };
    plain_ip(random, ends[0], ends[1], protocol, payload)
}

/// Protocol and bytes of a segment or datagram.
fn transport(random: &mut Random, (from, to): (u16, u16)) -> (u8, Vec<u8>) {
    let payload = payload(random);
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    if random.once_in(3) {
        let length = if random.once_in(8) {
            random.below(payload.len() + 20)
        } else {
            8 + payload.len()
        };
        bytes.extend(short(length));
        bytes.extend(random.bytes(2));
        bytes.extend(payload);
        return (UDP, bytes);
    }
    let options = if random.once_in(4) {
        random.below(11)
    } else {
        0
    };
    let words = if random.once_in(16) {
        random.byte() & 0xf
    } else {
        byte(5 + options)
    };
    let flags = match random.below(4) {
        0 => 0x02,
        1 => random.one_of(&[0x01, 0x11, 0x04, 0x14, 0x12, 0xc2, 0x19]),
        2 => 0x10,
        _ => random.byte(),
    };
    bytes.extend(random.bytes(8));
    bytes.extend([words << 4 | random.byte() & 0xf, flags]);
    bytes.extend(random.bytes(6 + 4 * options));
    bytes.extend(payload);
    (TCP, bytes)
}

fn payload(random: &mut Random) -> Vec<u8> {
    let length = match random.below(16) {
        0..=9 => random.below(40),
        10..=11 => 400 + random.below(200),
        12..=14 => 1200 + random.below(350),
        _ => random.below(2900),
    };
    let mut bytes = random.bytes(length.min(40));
    bytes.resize(length, 0xa5);
    bytes
}

/// An IP packet, with options or extension headers, or a fragment, or with a wrong length.
fn ip(
    random: &mut Random,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: Vec<u8>,
) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let options = if random.once_in(4) {
                random.below(11) * 4
            } else {
                0
            };
            let flags = match random.below(16) {
                0..=1 => 0x2000,
                2 => 0x2000 | (1 + random.short() % 0x1fff),
                3 => 1 + random.short() % 0x1fff,
                4..=6 => 0,
                7 => random.short(),
                _ => 0x4000,
            };
            v4(
                random,
                source,
                destination,
                protocol,
                &payload,
                flags,
                options,
            )
        }
        _ => {
            let (first, extensions) = extensions(random, protocol);
            let behind = [extensions, payload].concat();
            v6(random, source, destination, first, &behind)
        }
    }
}

/// An IP packet without oddities, which is to be quoted; with some, now and then.
fn plain_ip(
    random: &mut Random,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: Vec<u8>,
) -> Vec<u8> {
    if random.once_in(8) {
        return ip(random, source, destination, protocol, payload);
    }
    match source {
        IpAddr::V4(_) => v4(random, source, destination, protocol, &payload, 0x4000, 0),
        IpAddr::V6(_) => v6(random, source, destination, protocol, &payload),
    }
}

fn v4(
    random: &mut Random,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
    flags: u16,
    options: usize,
) -> Vec<u8> {
    let header = 20 + options;
    let mut bytes = vec![0x40 | byte(header / 4), random.byte()];
    bytes.extend(short(stated(random, header + payload.len())));
    // Few identifications, so that fragments meet.
    bytes.extend([0, random.byte() % 8]);
    bytes.extend(flags.to_be_bytes());
    bytes.extend([random.byte(), protocol]);
    bytes.extend(random.bytes(2));
    extend_with(&mut bytes, source);
    extend_with(&mut bytes, destination);
    bytes.extend(random.bytes(options));
    bytes.extend(payload);
    bytes
}

fn v6(
    random: &mut Random,
    source: IpAddr,
    destination: IpAddr,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let [a, b, c] = [random.byte(), random.byte(), random.byte()];
    let mut bytes = vec![0x60 | a & 0xf, b, c, a];
    bytes.extend(short(stated(random, payload.len())));
    bytes.extend([next, random.byte()]);
    extend_with(&mut bytes, source);
    extend_with(&mut bytes, destination);
    bytes.extend(payload);
    bytes
}

/// The kind of the first extension header, and the bytes of all in front of `protocol`.
fn extensions(random: &mut Random, protocol: u8) -> (u8, Vec<u8>) {
    let count = match random.below(16) {
        0..=8 => 0,
        9..=11 => 1,
        12..=13 => 2,
        14 => random.below(8),
        _ => 5 + random.below(3),
    };
    let mut bytes = Vec::new();
    let mut next = protocol;
    for _ in 0..count {
        let kind = match random.below(32) {
            0 => random.one_of(&[50, 59, 135, 139, 253]),
            1..=12 => 44,
            _ => random.one_of(&[0, 43, 51, 60]),
        };
        let header = extension(random, kind, next);
        bytes.splice(0..0, header);
        next = kind;
    }
    (next, bytes)
}

fn extension(random: &mut Random, kind: u8, next: u8) -> Vec<u8> {
    if kind == 44 {
        let flags: u16 = match random.below(8) {
            0..=2 => 0x0001,
            3..=4 => 0,
            5 => random.short(),
            _ => random.short() << 3 | 0x0008 | random.short() & 1,
        };
        let [high, low] = flags.to_be_bytes();
        return vec![next, random.byte(), high, low, 0, 0, 0, random.byte() % 8];
    }
    let words = match random.below(16) {
        0 => random.byte(),
        1 => 100 + random.byte() % 40,
        _ => random.byte() % 4,
    };
    let length = if kind == 51 {
        (usize::from(words) + 2) * 4
    } else {
        (usize::from(words) + 1) * 8
    };
    let mut bytes = random.bytes(length.max(8));
    (bytes[0], bytes[1]) = (next, words);
    bytes
}

/// A length as a header states it: now and then a wrong one.
fn stated(random: &mut Random, length: usize) -> usize {
    match random.below(40) {
        0 => random.below(80),
        1 => length.saturating_sub(random.below(60)),
        2 => length + random.below(20),
        _ => length,
    }
}

/// The frame with tags in front of the packet and padding behind it.
fn in_frame(random: &mut Random, is_v4: bool, ip: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe];
    let tags = match random.below(16) {
        0..=9 => 0,
        10..=12 => 1,
        13..=14 => 2,
        _ => 1 + random.below(3),
    };
    for _ in 0..tags {
        let kind: u16 = random.one_of(&[0x8100, 0x8100, 0x88a8]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(random.bytes(2));
    }
    let ether_type: u16 = match (random.once_in(64), is_v4) {
        (true, _) => random.one_of(&[0x0806, 0x0800, 0x86dd, 0x9100, 0x8847]),
        (_, true) => 0x0800,
        (_, false) => 0x86dd,
    };
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(ip);
    if random.once_in(4) {
        let padding = random.below(60);
        bytes.extend(random.bytes(padding));
    }
    bytes
}

fn extend_with(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).expect("a number of 8 bits")
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("a length of 16 bits")
        .to_be_bytes()
}
