//! The XDP program of xdp-lb: picks a backend for each packet sent to a service and sends the packet
//! on to it.
//!
//! A packet goes through [`link`] and [`network`] (what is it?), [`balance`] (who gets it?), [`send`]
//! (on its way), and leaves through the one exit below, where it is counted. Everything that is not
//! for a service passes to the kernel untouched.
//!
//! Each stage is a subprogram that reads and writes notes on the packet in memory of this CPU
//! ([`packet`]) and says no more than whether the packet goes on. That keeps each stage's stack within
//! its 512 bytes, and it keeps the verifier from following each way through one stage through all of
//! the next: what is read back from memory looks the same to it, whichever way wrote it.

// On the host, where clippy and rust-analyzer look at it, this is a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod balance;
mod budget;
mod context;
mod counters;
mod flows;
mod fragments;
mod frame;
mod icmp;
mod index;
mod link;
mod maps;
mod network;
mod outcome;
mod packet;
mod path;
mod runtime;
mod send;
mod services;
mod time;
mod too_big;
mod transport;
mod tunnel;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use xdp_lb_common::{
    abi,
    counters::{Counter, PassReason},
};

use crate::{
    frame::Frame,
    maps::{PROGRAMS, SCRATCH},
    outcome::{Outcome, Status},
    packet::{Family, Packet},
    path::{Common, Whole},
};

/// Entry: the common path, and where it gives up, the whole one.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn xdp_lb(ctx: XdpContext) -> u32 {
    let frame = Frame::new(ctx.ctx);
    let mut packet = Packet::of(&frame);
    let outcome = match common(ctx.ctx, &frame, &mut packet) {
        Ok(outcome) | Err(outcome) => outcome,
    };
    if outcome.is_rare() {
        // SAFETY: the map has programs of this type alone. Where one is called, this is the last that is done here.
        unsafe { PROGRAMS.tail_call(&ctx, abi::PROGRAM_WHOLE) };
        // Never: the daemon put it there before it attached this program.
        return xdp_action::XDP_PASS;
    }
    exit(&packet, outcome)
}

/// All stages in one piece.
#[inline(always)]
fn common(ctx: *mut xdp_md, frame: &Frame, packet: &mut Packet) -> Result<Outcome, Outcome> {
    match link::read::<Common>(frame, packet)? {
        link::IPV4 => {
            network::ipv4::<Common>(frame, packet)?;
            balance::choose::<Common, [u8; 4]>(frame, packet)?;
        }
        link::IPV6 => {
            network::ipv6::<Common>(frame, packet)?;
            balance::choose::<Common, [u8; 16]>(frame, packet)?;
        }
        _ => return Err(Outcome::pass(PassReason::NotIp)),
    }
    send::send::<Common>(Frame::new(ctx), packet)
}

/// The whole path: all stages, each of them a subprogram.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[xdp]
fn xdp_lb_whole(ctx: XdpContext) -> u32 {
    let ctx = ctx.ctx;
    let Some(packet) = SCRATCH.get_ptr_mut(0) else {
        // Never: the array has this element.
        return xdp_action::XDP_PASS;
    };
    // SAFETY: the element is this CPU's own, and the program is not interrupted by itself.
    let packet = unsafe { &mut *packet };
    let frame = Frame::new(ctx);
    packet.length = frame.length();
    packet.ingress = frame.ingress();
    let outcome = match process(ctx, packet) {
        Ok(outcome) | Err(outcome) => outcome,
    };
    exit(packet, outcome)
}

#[inline(always)]
fn process(ctx: *mut xdp_md, packet: &mut Packet) -> Result<Outcome, Outcome> {
    match Outcome::or_value(read_link(ctx, packet))? {
        link::IPV4 => ipv4(ctx, packet)?,
        link::IPV6 => ipv6(ctx, packet)?,
        _ => return Err(Outcome::pass(PassReason::NotIp)),
    }
    match packet.flow_family {
        Family::V4 => choose_v4(ctx, packet)?,
        Family::V6 => choose_v6(ctx, packet)?,
    }
    Ok(send(ctx, packet))
}

/// The exit of both: counts the packet, once, and says what becomes of it.
#[inline(always)]
fn exit(packet: &Packet, outcome: Outcome) -> u32 {
    let counter = outcome.counter();
    if counter == Counter::Forwarded as u32 {
        counters::forwarded(packet.way.backend, packet.length);
    } else {
        counters::verdict(counter, packet.length);
    }
    outcome.action()
}

/// The ether type, or an outcome, in one word.
#[inline(never)]
fn read_link(ctx: *mut xdp_md, packet: &mut Packet) -> u32 {
    match link::read::<Whole>(&Frame::new(ctx), packet) {
        Ok(ether_type) => u32::from(ether_type),
        Err(outcome) => outcome.word(),
    }
}

#[inline(never)]
fn ipv4(ctx: *mut xdp_md, packet: &mut Packet) -> Status {
    network::ipv4::<Whole>(&Frame::new(ctx), packet)
}

#[inline(never)]
fn ipv6(ctx: *mut xdp_md, packet: &mut Packet) -> Status {
    network::ipv6::<Whole>(&Frame::new(ctx), packet)
}

#[inline(never)]
fn choose_v4(ctx: *mut xdp_md, packet: &mut Packet) -> Status {
    balance::choose::<Whole, [u8; 4]>(&Frame::new(ctx), packet)
}

#[inline(never)]
fn choose_v6(ctx: *mut xdp_md, packet: &mut Packet) -> Status {
    balance::choose::<Whole, [u8; 16]>(&Frame::new(ctx), packet)
}

#[inline(never)]
fn send(ctx: *mut xdp_md, packet: &Packet) -> Outcome {
    match send::send::<Whole>(Frame::new(ctx), packet) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
