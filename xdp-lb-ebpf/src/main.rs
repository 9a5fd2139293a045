//! The XDP program of xdp-lb: picks a backend for each packet sent to a service and sends the packet
//! on to it.
//!
//! A packet goes through [`packet`] (what is it?), [`balance`] (who gets it?), [`rewrite`] (on its
//! way), and leaves through the one exit below, where it is counted. Everything that is not for a
//! service passes to the kernel untouched.

// On the host, where clippy and rust-analyzer look at it, this is a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod balance;
mod budget;
mod counters;
mod flows;
mod fragments;
mod frame;
mod icmp;
mod maps;
mod packet;
mod rewrite;
mod services;
mod time;
mod transport;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use network_types::eth::{EthHdr, EtherType};
use xdp_lb_common::counters::{Counter, DropReason, Event, PassReason};

use crate::{
    flows::Tracked,
    frame::Frame,
    packet::{Parsed, Segment},
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
    let frame = Frame::new(&ctx);
    let Some(ethernet) = frame.read::<EthHdr>(0) else {
        return exit(&frame, Ok(Verdict::Pass(PassReason::Truncated)));
    };
    match ethernet.ether_type {
        IPV4 => ipv4(ctx.ctx),
        IPV6 => ipv6(ctx.ctx),
        _ => exit(&frame, Ok(Verdict::Pass(PassReason::NotIp))),
    }
}

// Each family is a subprogram: together they would not fit a stack frame.

#[inline(never)]
fn ipv4(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = Frame::new(&ctx);
    exit(&frame, forward(&frame, packet::ipv4(&frame, EthHdr::LEN)))
}

#[inline(never)]
fn ipv6(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = Frame::new(&ctx);
    exit(&frame, forward(&frame, packet::ipv6(&frame, EthHdr::LEN)))
}

/// The single exit: counts the packet, once, and says what becomes of it.
#[inline(always)]
#[expect(clippy::needless_pass_by_value, reason = "each outcome ends here")]
fn exit(frame: &Frame<'_>, outcome: Result<Verdict, DropReason>) -> u32 {
    let length = frame.length();
    match outcome {
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

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;

/// The way of a packet of either family.
#[inline(always)]
fn forward<A: Tracked + Vip>(
    frame: &Frame<'_>,
    parsed: Result<Parsed<A>, PassReason>,
) -> Result<Verdict, DropReason> {
    let packet = match parsed {
        Ok(Parsed::Packet(packet)) => packet,
        Ok(Parsed::Later(fragment)) => return fragments::follow(frame, &fragment),
        Err(reason) => return Ok(Verdict::Pass(reason)),
    };
    let Some(service) = services::find(&packet.flow) else {
        return Ok(Verdict::Pass(PassReason::NoService));
    };
    let segment = packet.segment(frame)?;
    let Some(chosen) = balance::choose(frame, &packet.flow, segment, &service)? else {
        return Ok(Verdict::Pass(PassReason::NoBackend));
    };
    if let Some(id) = packet.first_of {
        fragments::remember(frame, &packet.flow, id, service.id, &chosen)?;
    }
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
