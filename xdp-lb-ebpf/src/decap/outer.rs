//! The outer header, as far as it tells what is behind it.

use xdp_lb_common::counters::decap::PassReason;

use crate::frame::Frame;

/// RFC 791: not the first fragment, or not the last.
const FRAGMENT: u16 = 0x3fff;
/// RFC 8200, section 4.5: the fragment header.
const FRAGMENT_HEADER: u8 = 44;

/// IP protocol numbers.
pub(crate) const IPV4_IN_IP: u8 = 4;
pub(crate) const IPV6_IN_IP: u8 = 41;
pub(crate) const UDP: u8 = 17;

/// Bytes of an IPv4 header without options.
pub(crate) const V4: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const V6: usize = 40;

/// What the outer header says.
pub(crate) struct Outer<A> {
    pub(crate) source: A,
    /// One of the three above.
    pub(crate) protocol: u8,
    /// Where it ends, from the start of the frame.
    pub(crate) payload: usize,
    /// Bytes of the packet from there on. Ethernet's padding is not among them.
    pub(crate) length: usize,
}

/// Reads an IPv4 header at `start`.
#[inline(always)]
pub(crate) fn v4(frame: &Frame, start: usize) -> Result<Outer<[u8; 4]>, PassReason> {
    let truncated = PassReason::OuterTruncated;
    let [vihl, _, _, _, _, _, high, low, _, protocol, _, _] = frame.read(start).ok_or(truncated)?;
    let source = frame.read(start + 12).ok_or(truncated)?;
    let total_length = usize::from(frame.read_u16(start + 2).ok_or(truncated)?);
    let header_length = usize::from(vihl & 0x0f) * 4;
    if vihl >> 4 != 4
        || header_length < V4
        || total_length < header_length
        || total_length > frame.length() - start
    {
        return Err(truncated);
    }
    if !may_be_tunnel(protocol) {
        return Err(PassReason::NotTunnel);
    }
    if u16::from_be_bytes([high, low]) & FRAGMENT != 0 {
        return Err(PassReason::OuterFragment);
    }
    Ok(Outer {
        source,
        protocol,
        payload: start + header_length,
        length: total_length - header_length,
    })
}

/// Reads an IPv6 header at `start`. Directors put no extension headers before the inner packet, so a
/// packet with one is not in a tunnel.
#[inline(always)]
pub(crate) fn v6(frame: &Frame, start: usize) -> Result<Outer<[u8; 16]>, PassReason> {
    let truncated = PassReason::OuterTruncated;
    let [version, _, _, _, high, low, protocol, _] = frame.read(start).ok_or(truncated)?;
    let source = frame.read(start + 8).ok_or(truncated)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    // Fails where the header is cut off, so the subtraction below cannot.
    let _: [u8; 16] = frame.read(start + 24).ok_or(truncated)?;
    if version >> 4 != 6 || length > frame.length() - start - V6 {
        return Err(truncated);
    }
    if protocol == FRAGMENT_HEADER {
        return Err(PassReason::OuterFragment);
    }
    if !may_be_tunnel(protocol) {
        return Err(PassReason::NotTunnel);
    }
    Ok(Outer {
        source,
        protocol,
        payload: start + V6,
        length,
    })
}

fn may_be_tunnel(protocol: u8) -> bool {
    matches!(protocol, IPV4_IN_IP | IPV6_IN_IP | UDP)
}
