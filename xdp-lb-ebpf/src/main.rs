//! The XDP program of xdp-lb: picks a backend for each packet sent to a service and sends the packet
//! on to it.
//!
//! A packet goes through [`packet`] (what is it?), [`balance`] (who gets it?), [`rewrite`] (on its
//! way), and leaves through the one exit below, where it is counted. Everything that is not for a
//! service passes to the kernel untouched.

// On the host, where clippy and rust-analyzer look at it, this is a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod balance;
mod counters;
mod flows;
mod frame;
mod icmp;
mod maps;
mod packet;
mod rewrite;
mod services;
mod time;
mod transport;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use network_types::eth::{EthHdr, EtherType};
use xdp_lb_common::counters::{Counter, DropReason, Event, PassReason};

use crate::{
    flows::Tracked,
    frame::Frame,
    packet::{Packet, Segment},
    services::Vip,
};

/// What happens to a packet that is not dropped.
enum Verdict {
    /// It goes to a backend, by this XDP action.
    Forward {
        service: u32,
        backend: u16,
        action: xdp_action::Type,
    },
    /// It is left to the kernel.
    Pass(PassReason),
}

/// Entry.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn xdp_lb(ctx: XdpContext) -> u32 {
    run(&Frame::new(&ctx))
}

/// The single exit.
#[inline(always)]
fn run(frame: &Frame<'_>) -> u32 {
    let length = frame.length();
    match process(frame) {
        Ok(Verdict::Forward {
            service,
            backend,
            action,
        }) => {
            counters::verdict(Counter::Forwarded as u32, length);
            counters::forwarded(service, backend, length);
            action
        }
        Ok(Verdict::Pass(reason)) => {
            counters::verdict(reason as u32, length);
            xdp_action::XDP_PASS
        }
        Err(reason) => {
            counters::verdict(reason as u32, length);
            xdp_action::XDP_DROP
        }
    }
}

#[inline(always)]
fn process(frame: &Frame<'_>) -> Result<Verdict, DropReason> {
    let Some(ethernet) = frame.read::<EthHdr>(0) else {
        return Ok(Verdict::Pass(PassReason::Truncated));
    };
    match ethernet.ether_type {
        IPV4 => forward(frame, packet::ipv4(frame, EthHdr::LEN)),
        IPV6 => forward(frame, packet::ipv6(frame, EthHdr::LEN)),
        _ => Ok(Verdict::Pass(PassReason::NotIp)),
    }
}

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;

/// The way of a packet of either family.
#[inline(always)]
fn forward<A: Tracked + Vip>(
    frame: &Frame<'_>,
    packet: Result<Packet<A>, PassReason>,
) -> Result<Verdict, DropReason> {
    let packet = match packet {
        Ok(packet) => packet,
        Err(reason) => return Ok(Verdict::Pass(reason)),
    };
    let Some(service) = services::find(&packet.flow) else {
        return Ok(Verdict::Pass(PassReason::NoService));
    };
    let segment = packet.segment(frame)?;
    let Some(chosen) = balance::choose(frame, &packet.flow, segment, &service)? else {
        return Ok(Verdict::Pass(PassReason::NoBackend));
    };
    let action = rewrite::l2(frame, &chosen)?;
    if segment == Segment::Quotes {
        counters::event(Event::IcmpError);
    }
    Ok(Verdict::Forward {
        service: service.id,
        backend: chosen.index,
        action,
    })
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Never reached: no code path panics, or the verifier would refuse the program.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
