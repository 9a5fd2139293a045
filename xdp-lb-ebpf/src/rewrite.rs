//! The packet on its way: forwarding modes.

use aya_ebpf::bindings::xdp_action;
use xdp_lb_common::counters::DropReason;

use crate::{balance::Chosen, frame::Frame, maps::PORTS};

/// Direct server return on the backend's own network: new MAC addresses, nothing else.
#[inline(always)]
pub(crate) fn l2(frame: &Frame, backend: &Chosen) -> Result<xdp_action::Type, DropReason> {
    let [a, b, c, d, e, f] = backend.next_hop.mac;
    let [g, h, i, j, k, l] = backend.source_mac;
    // The Ethernet header was read, so it is there.
    frame
        .write(0, [a, b, c, d, e, f, g, h, i, j, k, l])
        .ok_or(DropReason::BackendGone)?;
    transmit(frame, backend.link.ifindex)
}

/// Out by the interface that leads to the backend.
#[inline(always)]
fn transmit(frame: &Frame<'_>, ifindex: u32) -> Result<xdp_action::Type, DropReason> {
    if ifindex == frame.ingress() {
        return Ok(xdp_action::XDP_TX);
    }
    // Fails where the interface is not in the map: the daemon has just taken it out.
    PORTS
        .redirect(ifindex, 0)
        .map_err(|_| DropReason::BackendGone)
}
