//! Entries of backends: how they come, change and go.

use std::net::IpAddr;

use xdp_lb_common::abi::{BackendEntry, NextHop};

use crate::{
    dataplane::DataplaneError,
    director::{
        desired::{DesiredBackend, Health, mapped},
        maps::Maps,
        ways::{TunnelEnd, Way},
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
    maps.begin_backend(index);
    let generation = maps.backend(index).generation;
    let entry = BackendEntry {
        generation: generation.checked_add(1).unwrap_or(1),
        service,
        address: mapped(address),
        ..BackendEntry::default()
    };
    maps.set_backends(&[(index, entry)])
}

/// Writes the way to a backend, or that no packets are to be sent to it.
pub(super) fn write(
    maps: &mut impl Maps,
    index: u16,
    backend: &DesiredBackend,
) -> Result<(), DataplaneError> {
    let held = maps.backend(index);
    let entry = match backend.served_way() {
        Some(way) => served(&held, way, backend),
        None => BackendEntry {
            next_hop: 0,
            ..held
        },
    };
    if entry == held {
        Ok(())
    } else {
        maps.set_backends(&[(index, entry)])
    }
}

/// The entry of a backend in use that is to be reached in another way; None where it is not in use
/// or stays as it is.
pub(super) fn moved(
    maps: &impl Maps,
    index: u16,
    backend: &DesiredBackend,
) -> Option<BackendEntry> {
    let held = maps.backend(index);
    let entry = served(&held, backend.served_way()?, backend);
    (NextHop::unpack(held.next_hop).is_serving() && entry != held).then_some(entry)
}

/// The entry of a backend that is reached this way.
fn served(held: &BackendEntry, way: &Way, backend: &DesiredBackend) -> BackendEntry {
    let [outer_tag, inner_tag] = way.tags;
    let (flag, tunnel_source) = match way.tunnel {
        Some(TunnelEnd { flag, source }) => (flag, mapped(source)),
        None => (0, [0; 16]),
    };
    let next_hop = NextHop {
        mac: way.mac,
        flags: NextHop::FLAG_SERVING | flag | state_flags(backend),
    };
    BackendEntry {
        next_hop: next_hop.pack(),
        ifindex: way.ifindex,
        mtu: way.mtu,
        source_mac: way.source_mac,
        outer_tag,
        inner_tag,
        tunnel_source,
        ..*held
    }
}

/// What the program is to know of a backend's state.
fn state_flags(backend: &DesiredBackend) -> u16 {
    if backend.standing.is_in_use() {
        NextHop::FLAG_ACCEPTS
    } else if matches!(backend.health, Health::Down { .. }) {
        NextHop::FLAG_DOWN
    } else {
        0
    }
}

/// An entry whose backend is gone: only the generation stays.
fn retired(held: &BackendEntry) -> BackendEntry {
    BackendEntry {
        generation: held.generation,
        ..BackendEntry::default()
    }
}

/// Ends a backend that no slot refers to: flows that do are no longer followed.
pub(super) fn end(maps: &mut impl Maps, index: u16) -> Result<(), DataplaneError> {
    let held = maps.backend(index);
    maps.set_backends(&[(index, retired(&held))])
}
