//! The tc programs that take health checks the way of clients' packets.
//!
//! A check's socket is connected to the backend's own address, so that the kernel finds the way to it,
//! and marked. Going out ([`xdp_lb_steer`]), its packets become what the data plane would send: for the
//! VIP, and with `ipip` and `gue` behind other headers. The answers come from the VIP straight to the
//! director's own address. Coming in ([`xdp_lb_answer`]), they get the backend's address back, before the
//! kernel can wonder at a source that may be an address of its own.
//!
//! TCP, UDP, and echo requests of ICMP and ICMPv6. No fragments and no IPv6 extension headers: a marked
//! packet with such is dropped, an answer is left as it is. What is none of ours goes on to other
//! programs, and so does what was steered.

// On the host, where clippy and rust-analyzer look at it, this is a program that does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod address;
mod maps;
mod packet;
#[path = "../runtime.rs"]
mod runtime;
mod tunnel;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use xdp_lb_common::check::Target;

use crate::packet::{Other, Packet, Way};

/// Why a packet is not changed.
enum Kept {
    /// It is for others.
    NotOurs,
    /// It is ours, but cannot be changed as it should be.
    Dropped,
}

/// For what goes out.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[classifier]
fn xdp_lb_steer(ctx: TcContext) -> i32 {
    action(&steer(&ctx))
}

/// For what comes in.
#[expect(clippy::needless_pass_by_value, reason = "the macro passes it so")]
#[classifier]
fn xdp_lb_answer(ctx: TcContext) -> i32 {
    action(&answer(&ctx))
}

#[inline(always)]
fn action(result: &Result<(), Kept>) -> i32 {
    match result {
        // Unspecific: other programs have their say.
        Ok(()) | Err(Kept::NotOurs) => TC_ACT_UNSPEC,
        Err(Kept::Dropped) => TC_ACT_SHOT,
    }
}

/// Makes of a marked packet what the data plane would send. One that cannot be made into that is
/// dropped: a check must not succeed by the direct way.
#[inline(always)]
fn steer(ctx: &TcContext) -> Result<(), Kept> {
    // SAFETY: the context is the kernel's and has this field.
    let mark = unsafe { (*ctx.skb.skb).mark };
    let target = maps::target(mark).ok_or(Kept::NotOurs)?;
    let packet = Packet::read(ctx).map_err(|other| match other {
        Other::NotIp => Kept::NotOurs,
        Other::Unknown => Kept::Dropped,
    })?;
    // SAFETY: the kernel frees no element of a map that a running program has got. Only the count of
    // packets changes while it is in use, which is not read here.
    rewrite(ctx, &packet, unsafe { &*target }).ok_or(Kept::Dropped)?;
    // Another interface below this one, of a VLAN or a bond, shall not take it for one to be steered.
    ctx.set_mark(0);
    maps::count(target);
    Ok(())
}

/// The new headers; None where the packet is not of a check of this target, or the kernel refuses.
#[inline(always)]
fn rewrite(ctx: &TcContext, packet: &Packet, target: &Target) -> Option<()> {
    if !maps::is_same(&packet.destination, &target.backend) || !packet.family.has(&target.vip) {
        return None;
    }
    let flow = packet.flow(ctx, Way::Out, &target.vip)?;
    maps::remember(&flow, &target.backend)?;
    address::change(ctx, packet, Way::Out, &target.vip)?;
    if target.flags & (Target::FLAG_IPIP | Target::FLAG_GUE) == 0 {
        return Some(());
    }
    tunnel::open(ctx, packet, target, &flow)
}

/// Gives the answer to a packet that was steered the address of the one that it was sent to.
#[inline(always)]
fn answer(ctx: &TcContext) -> Result<(), Kept> {
    let packet = Packet::read(ctx).map_err(|_| Kept::NotOurs)?;
    let backend = packet
        .flow(ctx, Way::In, &packet.source)
        .and_then(|flow| maps::asked(&flow))
        .ok_or(Kept::NotOurs)?;
    address::change(ctx, &packet, Way::In, &backend).ok_or(Kept::Dropped)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
