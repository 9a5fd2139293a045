//! The XDP program for backends without tunnels of their own: takes packets out of the tunnels by
//! which directors send them (forwarding modes `ipip` and `gue`) and hands them to the kernel.
//!
//! IP in IP (RFC 2003, RFC 2473, RFC 4213) and GUE variant 1 (draft-ietf-intarea-gue, section 5: the
//! IP packet directly behind the UDP header), outer and inner packet of either family. A packet goes
//! through [`outer`] (is it in a tunnel?), [`inner`] (is what is in it sound?), and leaves through the
//! one exit below, where it is counted. Everything that is not in a tunnel passes untouched.
//!
//! The outer header's marks of congestion (RFC 6040) are not carried over to the inner one, and its
//! UDP checksum is not verified: inner packets have checksums of their own.

// On the host, where clippy and rust-analyzer look at it, this is a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[path = "../context.rs"]
mod context;
mod frame;
mod inner;
mod maps;
mod outer;
#[path = "../runtime.rs"]
mod runtime;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use xdp_lb_common::{
    counters::decap::{DropReason, PassReason},
    decap::Settings,
};

use crate::{
    frame::Frame,
    inner::{Family, Payload},
    maps::{SETTINGS, Source},
    outer::{IPV4_IN_IP, IPV6_IN_IP, Outer},
};

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q: a tag, and a tag around another.
const TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// Bytes of an Ethernet header without tags, with one, and with two.
const ETHERNET: usize = 14;
const TAGGED: usize = ETHERNET + 4;
const TWICE_TAGGED: usize = TAGGED + 4;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Why a packet is not decapsulated.
enum Kept {
    Passed(PassReason),
    Dropped(DropReason),
}

impl From<PassReason> for Kept {
    #[inline(always)]
    fn from(reason: PassReason) -> Self {
        Self::Passed(reason)
    }
}

impl From<DropReason> for Kept {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

/// Entry, and the single exit: counts the packet, once, and says what becomes of it.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn xdp_lb_decap(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.ctx);
    let length = frame.length();
    let (counter, action) = match process(frame) {
        Ok(()) => (PassReason::Decapsulated as u32, xdp_action::XDP_PASS),
        Err(Kept::Passed(reason)) => (reason as u32, xdp_action::XDP_PASS),
        Err(Kept::Dropped(reason)) => (reason as u32, xdp_action::XDP_DROP),
    };
    maps::count(counter, length);
    action
}

/// Finds where the outer packet begins: with up to two tags there are three places.
#[inline(always)]
fn process(frame: Frame) -> Result<(), Kept> {
    let mut ether_type = ether_type::<ETHERNET>(&frame)?;
    if !is_tag(ether_type) {
        return decapsulate::<ETHERNET>(frame, ether_type);
    }
    ether_type = self::ether_type::<TAGGED>(&frame)?;
    if !is_tag(ether_type) {
        return decapsulate::<TAGGED>(frame, ether_type);
    }
    ether_type = self::ether_type::<TWICE_TAGGED>(&frame)?;
    decapsulate::<TWICE_TAGGED>(frame, ether_type)
}

/// The type at the end of an Ethernet header of `LINK` bytes.
#[inline(always)]
fn ether_type<const LINK: usize>(frame: &Frame) -> Result<u16, PassReason> {
    frame.read_u16(LINK - 2).ok_or(PassReason::OuterTruncated)
}

fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, TAG | SERVICE_TAG)
}

/// The way of a packet behind an Ethernet header of `LINK` bytes.
#[inline(always)]
fn decapsulate<const LINK: usize>(frame: Frame, ether_type: u16) -> Result<(), Kept> {
    let payload = match ether_type {
        IPV4 => tunnelled(&frame, &outer::v4(&frame, LINK)?)?,
        IPV6 => tunnelled(&frame, &outer::v6(&frame, LINK)?)?,
        _ => return Err(PassReason::NotIp.into()),
    };
    let family = payload.check(&frame)?;
    let mut link: [u8; LINK] = frame.read(0).ok_or(PassReason::OuterTruncated)?;
    if let Some(last) = link.last_chunk_mut() {
        *last = family.ether_type().to_be_bytes();
    }
    frame
        .close_gap(link, payload.offset)
        .ok_or(DropReason::NotRemoved)?;
    Ok(())
}

/// What is behind the outer header, where that is a tunnel from somebody who may send by it.
#[inline(always)]
fn tunnelled<A: Source>(frame: &Frame, outer: &Outer<A>) -> Result<Payload, Kept> {
    let settings = SETTINGS.get(0).copied().unwrap_or_default();
    let plain = |family| Payload {
        offset: outer.payload,
        room: outer.length,
        family: Some(family),
    };
    match outer.protocol {
        IPV4_IN_IP => {
            admit(outer, settings)?;
            Ok(plain(Family::V4))
        }
        IPV6_IN_IP => {
            admit(outer, settings)?;
            Ok(plain(Family::V6))
        }
        _ => gue(frame, outer, settings),
    }
}

/// As [`tunnelled`], for UDP.
#[inline(always)]
fn gue<A: Source>(frame: &Frame, outer: &Outer<A>, settings: Settings) -> Result<Payload, Kept> {
    if outer.length < UDP_HEADER {
        return Err(PassReason::OuterTruncated.into());
    }
    let [_, _, port @ .., high, low, _, _]: [u8; UDP_HEADER] = frame
        .read(outer.payload)
        .ok_or(PassReason::OuterTruncated)?;
    if u16::from_be_bytes(port) != settings.gue_port {
        return Err(PassReason::NotTunnel.into());
    }
    admit(outer, settings)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < UDP_HEADER || length > outer.length {
        return Err(DropReason::BadUdpHeader.into());
    }
    Ok(Payload {
        offset: outer.payload + UDP_HEADER,
        room: length - UDP_HEADER,
        family: None,
    })
}

/// Refuses those who may not send by the tunnel.
#[inline(always)]
fn admit<A: Source>(outer: &Outer<A>, settings: Settings) -> Result<(), DropReason> {
    if settings.listed_only() && !outer.source.is_listed() {
        return Err(DropReason::UnknownSource);
    }
    Ok(())
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
