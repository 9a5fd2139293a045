//! Which service a packet is for.

use core::ptr;

use xdp_lb_common::abi::{FlowKey, ServiceEntry, ServiceKey, TableRef, mapped};

use crate::maps::{SERVICE_TABLE, SERVICES};

/// A service, as read once for a packet.
pub(crate) struct Service {
    pub(crate) id: u32,
    pub(crate) table: TableRef,
    pub(crate) flags: u32,
    pub(crate) idle_ticks: u32,
}

impl Service {
    /// Flows of this service are remembered.
    #[inline(always)]
    pub(crate) fn tracks(&self) -> bool {
        self.flags & ServiceEntry::FLAG_TRACK != 0
    }
}

/// An address that VIPs are compared with.
pub(crate) trait Vip: Copy {
    fn to_key(self) -> [u8; 16];
}

impl Vip for [u8; 4] {
    #[inline(always)]
    fn to_key(self) -> [u8; 16] {
        mapped(self)
    }
}

impl Vip for [u8; 16] {
    #[inline(always)]
    fn to_key(self) -> [u8; 16] {
        self
    }
}

/// The service of the flow's destination: by its port, else the one for every port.
#[inline(always)]
pub(crate) fn find<A: Vip>(flow: &FlowKey<A>) -> Option<Service> {
    let mut key = ServiceKey {
        vip: flow.destination.to_key(),
        port_be: flow.destination_port_be,
        protocol: flow.protocol,
        reserved: 0,
    };
    // SAFETY: the value is one aligned word that is never changed in place.
    let mut id = unsafe { SERVICES.get(key) };
    if id.is_none() {
        key.port_be = [0; 2];
        // SAFETY: as above.
        id = unsafe { SERVICES.get(key) };
    }
    let id = *id?;
    let entry = SERVICE_TABLE.get_ptr(id)?;
    // SAFETY: `entry` points into an array's element, which lives as long as the map. The daemon
    // writes the fields meanwhile, each as one word, so each is read once, as one word.
    let (table, flags, idle_ticks) = unsafe {
        (
            ptr::read_volatile(&raw const (*entry).table),
            ptr::read_volatile(&raw const (*entry).flags),
            ptr::read_volatile(&raw const (*entry).idle_ticks),
        )
    };
    Some(Service {
        id,
        table: TableRef::unpack(table),
        flags,
        idle_ticks,
    })
}
