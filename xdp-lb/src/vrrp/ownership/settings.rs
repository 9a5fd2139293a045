//! What the kernel is told besides addresses and devices: parameters below `/proc/sys/net`.

use std::{fs, io};

use tracing::{debug, warn};

/// Has a device with a virtual MAC address answer for its own addresses alone, and its parent for its own:
/// either would answer for the other's.
pub(super) fn tell_apart(device: &str, parent: &str, is_ipv6: bool) {
    // Neither has a device addresses of its own making.
    set(&format!("ipv6/conf/{device}/addr_gen_mode"), "1");
    set(&format!("ipv6/conf/{device}/accept_ra"), "0");
    let is_off = if is_ipv6 { "0" } else { "1" };
    set(&format!("ipv6/conf/{device}/disable_ipv6"), is_off);
    set(&format!("ipv4/conf/{device}/arp_ignore"), "1");
    set(&format!("ipv4/conf/{parent}/arp_ignore"), "1");
    // Who asks in the name of a VIP tells neighbours that it is at the parent's MAC address.
    set(&format!("ipv4/conf/{parent}/arp_announce"), "2");
    // Answers leave by the parent. Not "0": of this and the value for all devices, the larger one counts.
    set(&format!("ipv4/conf/{device}/rp_filter"), "2");
}

/// Has the other addresses of a network stay when one of them is removed: without this, the kernel takes all
/// that came later away with the first one, be they ours or not.
pub(super) fn keep_the_others(device: &str) {
    set(&format!("ipv4/conf/{device}/promote_secondaries"), "1");
}

/// Whether this host is an IPv6 router for what comes in by a device: the kernel's own neighbour advertisements
/// say so.
pub(super) fn is_router(device: &str) -> bool {
    let key = format!("/proc/sys/net/ipv6/conf/{device}/forwarding");
    fs::read(key).is_ok_and(|value| !value.starts_with(b"0"))
}

fn set(key: &str, value: &str) {
    match fs::write(format!("/proc/sys/net/{key}"), value) {
        Ok(()) => {}
        // What the kernel does not have is not needed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => debug!(key, "not in this kernel"),
        Err(error) => warn!(key, value, %error, "a kernel parameter is not set"),
    }
}
