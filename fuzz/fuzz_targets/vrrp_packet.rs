//! Whatever comes as an advertisement is read or refused, and what is read is what was written.

#![no_main]

use std::net::IpAddr;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use xdp_lb::vrrp::packet::{Advertisement, Checksum, HOPS, PROTOCOL};

/// A packet of VRRP as a socket gives it.
#[derive(Debug, Arbitrary)]
struct Packet {
    addresses: Addresses,
    /// Time to live or hop limit; None: as it has to be.
    hops: Option<u8>,
    checksum: Sum,
    message: Vec<u8>,
}

/// Source and destination.
#[derive(Debug, Arbitrary)]
enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

/// Which checksum the message gets: fuzzing alone finds no right one.
#[derive(Debug, Arbitrary)]
enum Sum {
    AsItIs,
    Plain,
    PseudoHeader,
}

fuzz_target!(|packet: Packet| {
    let Packet {
        addresses,
        hops,
        checksum,
        mut message,
    } = packet;
    let (source, destination): (IpAddr, IpAddr) = match addresses {
        Addresses::V4(source, destination) => (source.into(), destination.into()),
        Addresses::V6(source, destination) => (source.into(), destination.into()),
    };
    let signed_as = match checksum {
        Sum::AsItIs => None,
        Sum::Plain => Some(Checksum::Plain),
        Sum::PseudoHeader => Some(Checksum::PseudoHeader),
    };
    if let Some(kind) = signed_as {
        sign(&mut message, source, destination, kind);
    }
    let hops = hops.unwrap_or(HOPS);
    let Ok(read) = Advertisement::parse(&message, hops, source, destination) else {
        return;
    };
    assert_eq!(hops, HOPS);
    assert!(read.vrid > 0 && (1..=255).contains(&read.addresses.len()));
    assert!(
        read.addresses
            .iter()
            .all(|it| it.is_ipv4() == source.is_ipv4())
    );
    for kind in [Checksum::Plain, Checksum::PseudoHeader] {
        let written = read.to_bytes(source, destination, kind);
        let again = Advertisement::parse(&written, HOPS, source, destination);
        assert_eq!(again.as_ref(), Ok(&read));
        // Four reserved bits and the checksum may differ.
        assert_eq!(written.len(), message.len());
        assert_eq!(written[..4], message[..4]);
        assert_eq!(written[4], message[4] & 0xf);
        assert_eq!(written[5], message[5]);
        assert_eq!(written[8..], message[8..]);
    }
});

/// Gives a message its checksum, by RFC 1071 and not by the code under test.
fn sign(message: &mut [u8], source: IpAddr, destination: IpAddr, kind: Checksum) {
    let length = u32::try_from(message.len()).unwrap();
    let Some(field) = message.get_mut(6..8) else {
        return;
    };
    field.fill(0);
    let mut summed = Vec::new();
    match (source, destination) {
        (IpAddr::V4(_), _) if kind == Checksum::Plain => {}
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            summed.extend(source.octets());
            summed.extend(destination.octets());
            summed.extend([0, PROTOCOL]);
            summed.extend(&length.to_be_bytes()[2..]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            summed.extend(source.octets());
            summed.extend(destination.octets());
            summed.extend(length.to_be_bytes());
            summed.extend([0, 0, 0, PROTOCOL]);
        }
        _ => unreachable!("of one family"),
    }
    summed.extend(&*message);
    let words = summed
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    message[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
