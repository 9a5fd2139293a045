//! Entries of backends: how they come, change and go.

use std::net::IpAddr;

use xdp_lb_common::abi::{BackendEntry, BackendLink, NextHop};

use crate::{
    dataplane::DataplaneError,
    director::{
        desired::{DesiredBackend, mapped},
        maps::Maps,
    },
};

/// True if packets may be sent to the backend at `index`.
pub(super) fn is_serving(maps: &impl Maps, index: u16) -> bool {
    NextHop::unpack(maps.backend(index).next_hop).is_serving()
}

/// Gives the free `index` to a new backend, of another generation than the one before. It may not be
/// sent packets yet.
pub(super) fn begin(
    maps: &mut impl Maps,
    index: u16,
    service: u32,
    address: IpAddr,
) -> Result<(), DataplaneError> {
    maps.begin_backend(index)?;
    let generation = BackendLink::unpack(maps.backend(index).link).generation;
    let link = BackendLink {
        ifindex: 0,
        generation: generation.checked_add(1).unwrap_or(1),
        mtu: 0,
    };
    let entry = BackendEntry {
        link: link.pack(),
        service,
        address: mapped(address),
        ..BackendEntry::default()
    };
    maps.set_backend(index, &entry)
}

/// Writes the next hop of a backend, or that it has none.
pub(super) fn write(
    maps: &mut impl Maps,
    index: u16,
    backend: &DesiredBackend,
) -> Result<(), DataplaneError> {
    let held = maps.backend(index);
    let link = BackendLink::unpack(held.link);
    let entry = match &backend.hop {
        Ok(hop) => BackendEntry {
            next_hop: NextHop {
                mac: hop.mac,
                flags: NextHop::FLAG_SERVING,
            }
            .pack(),
            link: BackendLink {
                ifindex: hop.ifindex,
                ..link
            }
            .pack(),
            source_mac: hop.source_mac,
            ..held
        },
        Err(_) => BackendEntry {
            next_hop: 0,
            ..held
        },
    };
    if entry == held {
        Ok(())
    } else {
        maps.set_backend(index, &entry)
    }
}

/// An entry whose backend is gone: only the generation stays.
fn retired(held: &BackendEntry) -> BackendEntry {
    let generation = BackendLink::unpack(held.link).generation;
    BackendEntry {
        link: BackendLink {
            ifindex: 0,
            generation,
            mtu: 0,
        }
        .pack(),
        ..BackendEntry::default()
    }
}

/// Ends a backend that no slot refers to: flows that do are no longer followed.
pub(super) fn end(maps: &mut impl Maps, index: u16) -> Result<(), DataplaneError> {
    let held = maps.backend(index);
    maps.set_backend(index, &retired(&held))
}
