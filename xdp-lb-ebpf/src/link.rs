//! Ethernet, with up to two VLAN tags.

use core::ptr;

use network_types::eth::{EthHdr, EtherType};
use xdp_lb_common::{
    abi::{self, BackendEntry, PortMacs},
    counters::PassReason,
};

use crate::{
    frame::Frame,
    maps::PORTS,
    outcome::Outcome,
    packet::{Packet, Way},
    path::Path,
};

/// Ether type of IPv4, as it is read.
pub(crate) const IPV4: u16 = EtherType::Ipv4 as u16;
/// Ether type of IPv6, as it is read.
pub(crate) const IPV6: u16 = EtherType::Ipv6 as u16;
/// IEEE 802.1Q: a customer's tag.
const CUSTOMER_TAG: u16 = 0x8100_u16.to_be();
/// IEEE 802.1ad: a provider's tag in front of one.
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();

/// What the virtual MAC addresses of VRRP begin with (RFC 9568, section 7.3), as it is read.
const VRRP_MAC: u32 = u32::from_ne_bytes([0x00, 0x00, 0x5e, 0x00]);

/// Bytes of a tag.
pub(crate) const TAG: usize = 4;
/// Bytes of the two MAC addresses.
pub(crate) const MACS: usize = 12;

/// Reads the link header, notes where the IP header begins, and returns the ether type in front of it.
#[inline(always)]
pub(crate) fn read<P: Path>(frame: &Frame, packet: &mut Packet) -> Result<u16, Outcome> {
    let ethernet: EthHdr = frame.read(0).ok_or(PassReason::Truncated)?;
    let to: u64 = frame.read(0).ok_or(PassReason::Truncated)?;
    if !is_for_us::<P>(to, packet.ingress)? {
        return Err(PassReason::OtherHost.into());
    }
    let mut ether_type = ethernet.ether_type;
    let mut offset = EthHdr::LEN;
    for _ in 0..2 {
        if !is_tag(ether_type) {
            break;
        }
        P::rare()?;
        let [_, _, a, b]: [u8; TAG] = frame.read(offset).ok_or(PassReason::Truncated)?;
        ether_type = u16::from_ne_bytes([a, b]);
        offset += TAG;
    }
    packet.set_network(offset);
    Ok(ether_type)
}

/// Whether a frame, of which `to` is the beginning, is for this host. A switch that floods hands every director on it the same
/// frame: more than one would forward it.
#[inline(always)]
fn is_for_us<P: Path>(to: u64, ingress: u32) -> Result<bool, Outcome> {
    let Some(macs) = PORTS.get_ptr(abi::port_place(ingress)) else {
        // Never: the place is within the map.
        return Ok(true);
    };
    let word = abi::port_word_of(to, ingress);
    // SAFETY: `macs` points to an array's element, whose words the daemon writes meanwhile, each at once.
    let first = unsafe { ptr::read_volatile(macs.cast::<u64>()) };
    if first == word || first == 0 {
        return Ok(true);
    }
    P::rare()?;
    // Another interface has the place, or the address is one that VRRP hands over: who takes it over may be a moment ahead of
    // the daemon, whose kernel would reset connections.
    let is_other = (first ^ word) >> 48 != 0;
    let is_virtual = to as u32 == VRRP_MAC;
    Ok(is_other || is_virtual || is_among(macs, word))
}

/// Whether a word is among those behind the first.
#[inline(always)]
fn is_among(macs: *const PortMacs, word: u64) -> bool {
    let mut at = 1;
    while at < abi::PORT_WORDS {
        // SAFETY: `macs` points to an array's element; the place is within it.
        let held = unsafe { ptr::read_volatile(macs.cast::<u64>().add(at)) };
        if held == word {
            return true;
        }
        at += 1;
    }
    false
}

#[inline(always)]
fn is_tag(ether_type: u16) -> bool {
    ether_type == CUSTOMER_TAG || ether_type == SERVICE_TAG
}

/// Bytes of the link header on a way.
#[inline(always)]
pub(crate) fn length(way: &Way) -> usize {
    if way.link().outer_tag == 0 {
        EthHdr::LEN
    } else if way.inner_tag() == 0 {
        EthHdr::LEN + TAG
    } else {
        EthHdr::LEN + 2 * TAG
    }
}

/// Writes the link header of a way at the start of the frame; None where the frame is too short.
#[inline(always)]
pub(crate) fn write(frame: &Frame, way: &Way, ether_type: u16) -> Option<()> {
    // Each address with the two bytes that stand behind it in its word: what comes next overwrites them. Of addresses that
    // are taken apart the compiler writes each byte.
    frame.write(0, way.entry.next_hop)?;
    frame.write(MACS / 2, way.entry.source)?;
    let outer = way.link().outer_tag;
    let mut offset = MACS;
    if outer != 0 {
        frame.write(offset, tag(outer))?;
        offset += TAG;
        let inner = way.inner_tag();
        if inner != 0 {
            frame.write(offset, tag(inner))?;
            offset += TAG;
        }
    }
    frame.write(offset, ether_type.to_ne_bytes())
}

/// A tag as it goes over the wire.
#[inline(always)]
fn tag(tag: u16) -> [u8; TAG] {
    let kind = if tag & BackendEntry::TAG_SERVICE == 0 {
        CUSTOMER_TAG
    } else {
        SERVICE_TAG
    };
    let [a, b] = kind.to_ne_bytes();
    let [c, d] = (tag & BackendEntry::TAG_ID).to_be_bytes();
    [a, b, c, d]
}
