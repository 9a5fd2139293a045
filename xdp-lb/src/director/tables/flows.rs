//! Remembered flows: whose they are, which of them live, and where a flow goes that is not remembered.

use std::{net::IpAddr, ops::Range, sync::Arc, time::Duration};

use xdp_lb_common::{
    abi::{FlowEntry, Place, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef},
    hash::{Affinity, reduce},
};

use super::{Table, Tables, backend};
use crate::{
    dataplane::FlowShape,
    director::{
        desired::mapped,
        flows::{Flow, FlowFilter, FlowState},
        keys::Key,
        maps::Maps,
        sweep::{Seen, Sweep},
        view::{SlotView, WhereaboutsView},
    },
    timing,
};

/// How long a period is, by which the flow table counts time.
pub(in crate::director) fn flow_period(maps: &impl Maps) -> Duration {
    let ticks = maps.ticks(Duration::from_secs(1)).max(1);
    Duration::from_secs(1) / ticks * (1 << maps.flow_shape().period_shift)
}

/// Which entries live: how long they may be silent, and which period it is.
#[derive(Clone, Copy, Debug)]
pub(in crate::director) struct Lives {
    /// In ticks, as all times are.
    pub(in crate::director) opening: u32,
    pub(in crate::director) closing: u32,
    /// The period that it is.
    pub(in crate::director) now: u32,
    pub(in crate::director) shape: FlowShape,
}

impl Lives {
    /// As it is now.
    pub(super) fn of(maps: &impl Maps) -> Self {
        Self {
            opening: maps.ticks(timing::OPENING),
            closing: maps.ticks(timing::CLOSING),
            now: maps.flow_period(),
            shape: maps.flow_shape(),
        }
    }

    /// True if the flow has been silent for too long, for a service that remembers it for `idle_ticks`.
    pub(in crate::director) fn is_over(&self, entry: FlowEntry, idle_ticks: u32) -> bool {
        let ticks = match FlowState::of(entry) {
            FlowState::Opening => self.opening,
            FlowState::Closing => self.closing.min(idle_ticks),
            FlowState::Open => idle_ticks,
        };
        entry.was_silent_for(ticks, self.now, self.shape.period_shift)
    }
}

/// Whose an entry is.
struct Owner {
    service: Arc<str>,
    backend: IpAddr,
    idle_ticks: u32,
}

/// The flows that are meant, in terms of the table.
struct Meant {
    /// By index; those of others are left out.
    owners: Vec<Option<Owner>>,
    lives: Lives,
    state: Option<FlowState>,
    /// The only place, if one flow alone is meant.
    place: Option<Place>,
}

impl Meant {
    fn owner(&self, place: Place, entry: FlowEntry) -> Option<&Owner> {
        let owner = self.owners.get(usize::from(entry.backend()))?.as_ref()?;
        let is_meant = self.place.is_none_or(|only| only == place)
            && self.state.is_none_or(|only| only == FlowState::of(entry));
        is_meant.then_some(owner)
    }

    fn is_over(&self, owner: &Owner, entry: FlowEntry) -> bool {
        self.lives.is_over(entry, owner.idle_ticks)
    }

    /// The buckets that they may be in.
    fn buckets(&self) -> Range<u32> {
        match self.place {
            Some(place) => place.bucket..place.bucket + 1,
            None => 0..1 << self.lives.shape.bucket_bits,
        }
    }
}

impl Tables {
    /// Goes on through the flow table, by one part.
    pub(in crate::director) fn sweep_flows(&self, maps: &mut impl Maps, sweep: &mut Sweep) {
        let meant = self.meant(maps, sweep);
        let part = sweep.part(meant.buckets());
        let mut counts = vec![[0; FlowState::ALL.len()]; meant.owners.len()];
        let mut count = |entry: FlowEntry| {
            counts[usize::from(entry.backend())][FlowState::of(entry) as usize] += 1;
        };
        if sweep.forgets {
            let is_all = sweep.filter.is_empty();
            maps.forget_flows_in(part, &mut |place, entry| {
                let owner = meant.owner(place, entry);
                if owner.is_some_and(|owner| !meant.is_over(owner, entry)) {
                    count(entry);
                }
                owner.is_some() || is_all
            });
        } else {
            maps.each_flow_in(part, &mut |place, entry| {
                let owner = meant.owner(place, entry);
                let Some(owner) = owner.filter(|owner| !meant.is_over(owner, entry)) else {
                    return;
                };
                count(entry);
                sweep.keep(&Seen {
                    service: &owner.service,
                    backend: owner.backend,
                    state: FlowState::of(entry),
                    silence: entry.silence(meant.lives.now),
                    place,
                });
            });
        }
        for (owner, counts) in meant.owners.iter().zip(counts) {
            if let Some(owner) = owner.as_ref().filter(|_| counts != [0; 3]) {
                sweep.add(&owner.service, owner.backend, counts);
            }
        }
    }

    /// What a sweep is about.
    fn meant(&self, maps: &impl Maps, sweep: &Sweep) -> Meant {
        let lives = Lives::of(maps);
        let flow = sweep.flow.as_ref();
        let service = flow.and_then(|flow| self.service_of(flow));
        let mut owners = Vec::new();
        for (table, backend, index) in self.backends(&sweep.filter) {
            if service.is_some_and(|only| only.name != table.name) {
                continue;
            }
            let index = usize::from(index);
            if owners.len() <= index {
                owners.resize_with(index + 1, || None);
            }
            owners[index] = Some(Owner {
                service: table.name.as_str().into(),
                backend,
                idle_ticks: table.entry.idle_ticks,
            });
        }
        Meant {
            owners,
            state: sweep.filter.state,
            place: flow.map(|flow| {
                let hash = flow.hash(self.hash_key, Affinity::Flow);
                Place::of(hash, lives.shape.bucket_bits)
            }),
            lives,
        }
    }

    /// The backends that a filter names, with their services.
    pub(in crate::director) fn members(&self, filter: &FlowFilter) -> Vec<(Arc<str>, IpAddr)> {
        let backends = self.backends(filter);
        backends
            .map(|(table, address, _)| (table.name.as_str().into(), address))
            .collect()
    }

    fn backends<'a>(
        &'a self,
        filter: &'a FlowFilter,
    ) -> impl Iterator<Item = (&'a Table, IpAddr, u16)> {
        let named = |table: &&Table| {
            let name = filter.service.as_ref();
            name.is_none_or(|name| *name == table.name)
        };
        let tables = self.tables.values().filter(named);
        let members = tables.flat_map(|table| {
            let members = table.members.iter();
            members.map(move |(&address, &index)| (table, address, index))
        });
        members.filter(|(_, address, _)| filter.backend.is_none_or(|only| only == *address))
    }

    /// Where the packets of a flow go that no entry speaks for; None where no service takes it.
    pub(in crate::director) fn whereabouts(
        &self,
        maps: &impl Maps,
        flow: &Flow,
    ) -> Option<WhereaboutsView> {
        let table = self.service_of(flow)?;
        Some(WhereaboutsView {
            flow: flow.to_string(),
            service: table.name.clone(),
            connection_tracking: String::new(),
            slot: self.slot_of(maps, table, flow),
        })
    }

    fn slot_of(&self, maps: &impl Maps, table: &Table, flow: &Flow) -> Option<SlotView> {
        let affinity = if table.entry.flags & ServiceEntry::FLAG_SOURCE_AFFINITY == 0 {
            Affinity::Flow
        } else {
            Affinity::Source
        };
        let TableRef { offset, size } = table.region();
        let number = reduce(flow.hash(self.hash_key, affinity), size);
        let one = TableRef {
            offset: offset + number,
            size: size.min(1),
        };
        let slot = *maps.slots(one).first()?;
        let address = |index: u16| {
            let mut members = table.members.iter();
            let found = members.find(|(_, held)| **held == index);
            found
                .filter(|_| backend::is_serving(maps, index))
                .map(|(&address, _)| address)
        };
        Some(SlotView {
            number,
            state: match slot.previous {
                0 => "settled",
                Slot::MIXED => "mixed",
                _ => "moving",
            }
            .into(),
            current: address(slot.current),
            previous: slot.moving_from().and_then(address),
        })
    }

    /// The service that takes a flow: by its port, else for every port, else that of the longest prefix, in the
    /// same order.
    fn service_of(&self, flow: &Flow) -> Option<&Table> {
        let port_be = flow.destination.port().to_be_bytes();
        let at = |port_be| self.at_address(flow, port_be);
        let within = |port_be| self.at_prefix(flow, port_be);
        at(port_be)
            .or_else(|| at([0; 2]))
            .or_else(|| within(port_be))
            .or_else(|| within([0; 2]))
    }

    fn at_address(&self, flow: &Flow, port_be: [u8; 2]) -> Option<&Table> {
        let key = Key::Address(ServiceKey {
            vip: mapped(flow.destination.ip()),
            port_be,
            protocol: flow.protocol.number(),
            reserved: 0,
        });
        let mut tables = self.tables.values();
        tables.find(|table| table.keys.contains(&key))
    }

    fn at_prefix(&self, flow: &Flow, port_be: [u8; 2]) -> Option<&Table> {
        let wanted = PrefixKey {
            protocol: flow.protocol.number(),
            version: if flow.destination.is_ipv4() { 4 } else { 6 },
            port_be,
            address: mapped(flow.destination.ip()),
        };
        let length = |key: &Key| match *key {
            Key::Prefix { key, length } => covers(key, length, wanted).then_some(length),
            Key::Address(_) => None,
        };
        let longest = |table: &Table| table.keys.iter().filter_map(length).max();
        let tables = self.tables.values();
        let found = tables.filter_map(|table| Some((longest(table)?, table)));
        let found = found.max_by_key(|(length, _)| *length);
        found.map(|(_, table)| table)
    }
}

/// True if the first `length` bits of the addresses are the same, and all else.
fn covers(prefix: PrefixKey, length: u32, wanted: PrefixKey) -> bool {
    let bits = |key: PrefixKey| {
        let rest = 128_u32.saturating_sub(length);
        let address = u128::from_be_bytes(key.address);
        address.checked_shr(rest).unwrap_or(0)
    };
    let same = PrefixKey {
        address: prefix.address,
        ..wanted
    };
    prefix == same && bits(prefix) == bits(wanted)
}
