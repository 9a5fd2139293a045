//! Which service a packet is for.

use core::ptr;

use aya_ebpf::maps::lpm_trie::Key;
use xdp_lb_common::{
    abi::{FlowKey, PrefixKey, ServiceEntry, ServiceKey, TableRef, mapped},
    counters::PassReason,
};

use crate::{
    index::{self, Found},
    maps::{PREFIXES, SERVICE_TABLE, SERVICES},
    outcome::Outcome,
    path::Path,
};

/// A service, as read once for a packet.
pub(crate) struct Service {
    pub(crate) id: u32,
    pub(crate) table: TableRef,
    /// The table stands in `RESTING`, too.
    pub(crate) is_at_rest: bool,
    pub(crate) flags: u32,
    pub(crate) idle_ticks: u32,
}

impl Service {
    /// Flows of this service are remembered.
    #[inline(always)]
    pub(crate) fn tracks(&self) -> bool {
        self.flags & ServiceEntry::FLAG_TRACK != 0
    }

    /// Not on settled slots, though.
    #[inline(always)]
    pub(crate) fn is_adaptive(&self) -> bool {
        self.flags & ServiceEntry::FLAG_ADAPTIVE != 0
    }
}

/// An address that VIPs are compared with.
pub(crate) trait Vip: Copy + Sized {
    /// IP version.
    const VERSION: u8;

    fn to_key(self) -> [u8; 16];

    /// True if a flow comes from an address that no host has (RFC 1812, section 5.3.7; RFC 4291), or from its own
    /// destination.
    fn is_nobodys(flow: &FlowKey<Self>) -> bool;
}

impl Vip for [u8; 4] {
    const VERSION: u8 = 4;

    #[inline(always)]
    fn to_key(self) -> [u8; 16] {
        mapped(self)
    }

    #[inline(always)]
    fn is_nobodys(flow: &FlowKey<Self>) -> bool {
        const LOOPBACK: u8 = 127;
        const FIRST_MULTICAST: u8 = 224;
        let first = flow.source[0];
        first == 0
            || first == LOOPBACK
            || first >= FIRST_MULTICAST
            || u32::from_ne_bytes(flow.source) == u32::from_ne_bytes(flow.destination)
    }
}

impl Vip for [u8; 16] {
    const VERSION: u8 = 6;

    #[inline(always)]
    fn to_key(self) -> [u8; 16] {
        self
    }

    #[inline(always)]
    fn is_nobodys(flow: &FlowKey<Self>) -> bool {
        const MULTICAST: u8 = 0xff;
        let [high, low] = halves(flow.source);
        // Unspecified, loopback, and IPv4 addresses in their IPv6 form.
        let is_special = high == 0 && (low.to_be() <= 1 || low.to_be() >> 32 == 0xffff);
        is_special || flow.source[0] == MULTICAST || [high, low] == halves(flow.destination)
    }
}

/// The two halves of an address, as they are read.
#[inline(always)]
fn halves(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// The service of the flow's destination: by its port, else the one for every port; else that of the
/// longest prefix, by its port, else for every port.
#[inline(always)]
pub(crate) fn find<P: Path, A: Vip>(flow: &FlowKey<A>) -> Result<Service, Outcome> {
    let key = ServiceKey {
        vip: flow.destination.to_key(),
        port_be: flow.destination_port_be,
        protocol: flow.protocol,
        reserved: 0,
    };
    let id = match index::find(&key) {
        Found::Service(id) => Some(id),
        Found::None => None,
        Found::Unsure => {
            P::rare()?;
            in_maps(flow, key)
        }
    };
    let entry = id
        .and_then(|id| SERVICE_TABLE.get_ptr(id))
        .ok_or(PassReason::NoService)?;
    // SAFETY: `entry` points into an array's element, which lives as long as the map. The daemon
    // writes the fields meanwhile, each as one word, so each is read once, as one word.
    let (table, flags, idle_ticks) = unsafe {
        (
            ptr::read_volatile(&raw const (*entry).table),
            ptr::read_volatile(&raw const (*entry).flags),
            ptr::read_volatile(&raw const (*entry).idle_ticks),
        )
    };
    Ok(Service {
        id: id.unwrap_or_default(),
        table: TableRef::unpack(table),
        is_at_rest: TableRef::is_at_rest(table),
        flags,
        idle_ticks,
    })
}

/// The service's id by the maps, which know all services.
#[inline(always)]
fn in_maps<A: Vip>(flow: &FlowKey<A>, key: ServiceKey) -> Option<u32> {
    at_address(key)
        .or_else(|| {
            at_address(ServiceKey {
                port_be: [0; 2],
                ..key
            })
        })
        .or_else(|| at_prefix(flow.destination, key.protocol, key.port_be))
        .or_else(|| at_prefix(flow.destination, key.protocol, [0; 2]))
}

/// True if the address is a VIP of some service, or within one that is a prefix.
#[inline(always)]
pub(crate) fn is_vip<A: Vip>(address: A) -> bool {
    at_address(ServiceKey::of_vip(address.to_key())).is_some()
        || at_prefix(address, 0, [0; 2]).is_some()
}

/// The id of the service at a VIP; port 0: the one for every port.
#[inline(always)]
fn at_address(key: ServiceKey) -> Option<u32> {
    // SAFETY: the value is one aligned word that is never changed in place.
    unsafe { SERVICES.get(key) }.copied()
}

/// The id of the service at the longest prefix that `vip` is within; port 0: as above.
#[inline(always)]
fn at_prefix<A: Vip>(vip: A, protocol: u8, port_be: [u8; 2]) -> Option<u32> {
    let key = PrefixKey {
        protocol,
        version: A::VERSION,
        port_be,
        address: vip.to_key(),
    };
    PREFIXES.get(Key::new(PrefixKey::ALL_BITS, key)).copied()
}
