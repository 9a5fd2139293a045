//! ICMP errors (RFC 792, RFC 4443): of which flow the packet is that they quote.

use std::net::{IpAddr, SocketAddr};

use xdp_lb_common::counters::PassReason;

use super::{
    balance::is_nobodys,
    packet::{ICMP, ICMP_V6, Packet, TCP, UDP, address, u16_at},
    state::{Flow, Reference},
};

/// A quoted packet, as far as it is quoted.
struct Quoted<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// What is behind its IP header, as far as that is quoted.
    behind: &'a [u8],
}

impl Reference {
    /// The flow that an ICMP message is about; None where the packet is none.
    pub(super) fn quoted_flow(&self, packet: &Packet) -> Result<Option<Flow>, PassReason> {
        let errors: &[u8] = match (packet.is_v4(), packet.protocol) {
            (true, ICMP) => &[3, 11, 12],
            (false, ICMP_V6) => &ERRORS_V6,
            _ => return Ok(None),
        };
        let (header, quote) = packet
            .payload
            .split_at_checked(8)
            .ok_or(PassReason::Truncated)?;
        if !errors.contains(&header[0]) {
            return Err(PassReason::OtherProtocol);
        }
        let outer = if packet.is_v4() {
            quoted_v4(quote)?
        } else {
            quoted_v6(quote)?
        };
        // A router on the way to a backend quotes what went there, in a tunnel, and tells this director.
        if self.is_tunnel(&outer) {
            return Err(PassReason::TunnelError);
        }
        // One on the way to a client quotes what a backend has sent from the VIP, and tells the VIP.
        if ![TCP, UDP].contains(&outer.protocol)
            || outer.source != packet.destination
            || is_nobodys(packet.source, packet.destination)
        {
            return Err(PassReason::OtherProtocol);
        }
        let of_backend = flow(&outer)?;
        Ok(Some(Flow {
            source: of_backend.destination,
            destination: of_backend.source,
            protocol: of_backend.protocol,
        }))
    }

    /// Whether a quoted packet is one in a tunnel.
    fn is_tunnel(&self, outer: &Quoted<'_>) -> bool {
        match outer.protocol {
            4 | 41 => true,
            UDP if u16_at(outer.behind, 2) == Some(self.gue_port) => {
                let version = outer.behind.get(8).map(|first| first >> 4);
                matches!(version, Some(4 | 6))
            }
            _ => false,
        }
    }
}

/// RFC 4443, section 2.1: the types below 128 are errors.
static ERRORS_V6: [u8; 128] = {
    let mut types = [0; 128];
    let mut kind: u8 = 0;
    while kind < 128 {
        types[kind as usize] = kind;
        kind += 1;
    }
    types
};

fn quoted_v4(bytes: &[u8]) -> Result<Quoted<'_>, PassReason> {
    if bytes.len() < 20 || bytes[0] >> 4 != 4 || bytes[0] & 0xf < 5 {
        return Err(PassReason::Truncated);
    }
    if u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff != 0 {
        // It has no ports.
        return Err(PassReason::OtherProtocol);
    }
    let header = usize::from(bytes[0] & 0xf) * 4;
    Ok(Quoted {
        source: address::<4>(bytes, 12),
        destination: address::<4>(bytes, 16),
        protocol: bytes[9],
        behind: bytes.get(header..).unwrap_or_default(),
    })
}

fn quoted_v6(bytes: &[u8]) -> Result<Quoted<'_>, PassReason> {
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return Err(PassReason::Truncated);
    }
    Ok(Quoted {
        source: address::<16>(bytes, 8),
        destination: address::<16>(bytes, 24),
        protocol: bytes[6],
        behind: &bytes[40..],
    })
}

/// The flow of a quoted packet, as it stands there.
fn flow(quoted: &Quoted) -> Result<Flow, PassReason> {
    if ![TCP, UDP].contains(&quoted.protocol) {
        return Err(PassReason::OtherProtocol);
    }
    let port = |at| u16_at(quoted.behind, at).ok_or(PassReason::Truncated);
    Ok(Flow {
        source: SocketAddr::new(quoted.source, port(0)?),
        destination: SocketAddr::new(quoted.destination, port(2)?),
        protocol: quoted.protocol,
    })
}
