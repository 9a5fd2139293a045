//! Another address in a packet, with the checksums that it is in.
//!
//! The kernel's functions know how much of a checksum is there already: on its way out a packet may have
//! that of its addresses alone, the rest being left to the network card.

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    programs::TcContext,
};
use xdp_lb_common::{check::unmapped, checksum};

use crate::packet::{Family, Packet, Way};

/// The addresses of IPv6 are in the checksum, and not in what the network card summed up (Linux 6.16,
/// and stable kernels since then).
const BPF_F_IPV6: u64 = 128;

/// Sends a packet that is on its way out to `address`, or has one that comes in come from there. None
/// where the kernel refuses; then the packet may be half changed.
#[inline(always)]
pub(crate) fn change(ctx: &TcContext, packet: &Packet, way: Way, address: &[u8; 16]) -> Option<()> {
    let old = match way {
        Way::Out => &packet.destination,
        Way::In => &packet.source,
    };
    let complement = old.map(|byte| !byte);
    let difference = u64::from(checksum::sum(address) + checksum::sum(&complement));
    if let Some((at, zero_means_none)) = packet.checksum() {
        let mangled = if zero_means_none {
            BPF_F_MARK_MANGLED_0
        } else {
            0
        };
        let flags = u64::from(mangled);
        replace(ctx, packet.family, way, at, difference, flags)?;
    }
    match (packet.family, way) {
        (Family::V4, _) => {
            let at = packet.network;
            ctx.l3_csum_replace(at + 10, 0, difference, 0).ok()?;
            let at = at + if way == Way::Out { 16 } else { 12 };
            ctx.store(at, &unmapped(address), 0).ok()
        }
        (Family::V6, Way::Out) => ctx.store(packet.network + 24, address, 0).ok(),
        (Family::V6, Way::In) => ctx.store(packet.network + 8, address, 0).ok(),
    }
}

/// Adds `difference`, that of the addresses, to the checksum at `at`.
#[inline(always)]
fn replace(
    ctx: &TcContext,
    family: Family,
    way: Way,
    at: usize,
    difference: u64,
    flags: u64,
) -> Option<()> {
    let pseudo = flags | u64::from(BPF_F_PSEUDO_HDR);
    if family == Family::V4 || way == Way::Out {
        return ctx.l4_csum_replace(at, 0, difference, pseudo).ok();
    }
    // A network card may have summed up what came in. IPv6 has no checksum of its own, so address and
    // checksum together leave that sum as it was, which older kernels do not know: there it takes the
    // call for a checksum without addresses, which does not touch the sum.
    ctx.l4_csum_replace(at, 0, difference, pseudo | BPF_F_IPV6)
        .or_else(|_| ctx.l4_csum_replace(at, 0, difference, flags))
        .ok()
}
