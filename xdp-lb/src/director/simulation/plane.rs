//! What the XDP program decides, over memory: who gets a packet, and what is remembered of it.
//!
//! It is the program's `choose.rs` and `flows.rs` written once more, over the same words, for virtual time and millions
//! of packets; a test of the loaded program holds the two to the same decisions and the same words. Budgets are left
//! out: they never run out here.

use xdp_lb_common::{
    abi::{BackendEntry, FlowEntry, NextHop, Place, ServiceEntry, Slot, TableRef},
    hash::reduce,
};

use super::flows::{Flows, Known};

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A SYN.
    Opens,
    /// Any other packet, and every one of UDP.
    Continues,
    /// It has FIN or RST.
    Ends,
}

/// What a packet's backend is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHash {
    /// The hash of the whole 5-tuple.
    pub flow: u64,
    /// The hash of the client's address, for services with `affinity: source`.
    pub source: u64,
}

/// How often something was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Packets whose flow was looked up.
    pub lookups: u64,
    /// Entries that were made.
    pub created: u64,
    /// Those of them that took the place of an entry that was not over.
    pub displaced: u64,
}

/// The maps that the program's decisions depend on.
#[derive(Clone, Debug)]
pub struct Plane {
    /// By id.
    pub services: Vec<ServiceEntry>,
    /// The arena.
    pub slots: Vec<Slot>,
    /// By index.
    pub backends: Vec<BackendEntry>,
    /// The flow table.
    pub flows: Flows,
    /// What was done.
    pub counts: Counts,
}

/// A packet for which a backend is sought.
#[derive(Clone, Copy)]
struct Asked {
    id: u32,
    service: ServiceEntry,
    slot: Slot,
    segment: Segment,
}

impl Asked {
    fn is_adaptive(&self) -> bool {
        self.service.flags & ServiceEntry::FLAG_ADAPTIVE != 0
    }

    fn has_table(&self) -> bool {
        TableRef::unpack(self.service.table).size != 0
    }
}

impl Plane {
    /// The backend that gets a packet for the service `id`, if any does.
    pub fn packet(&mut self, id: u32, hash: PacketHash, segment: Segment) -> Option<u16> {
        self.counts.packets += 1;
        let service = self.services[id as usize];
        let asked = Asked {
            id,
            service,
            slot: self.slot(service, hash),
            segment,
        };
        let tracks = service.flags & ServiceEntry::FLAG_TRACK != 0;
        let is_settled = asked.slot.is_settled();
        if !tracks || (asked.is_adaptive() && is_settled) {
            return self.by_slot(asked);
        }
        if segment == Segment::Opens && (is_settled || !asked.has_table()) {
            return self.by_slot(asked);
        }
        self.counts.lookups += 1;
        let place = Place::of(hash.flow, self.flows.shape().bucket_bits);
        let known = self.flows.look_up(place, service.idle_ticks);
        if segment == Segment::Opens {
            self.by_opening(asked, known)
                .or_else(|| self.by_slot(asked))
        } else {
            self.by_flow(asked, known)
        }
    }

    /// The slot that a hash leads to; where the service has no table, one without a backend.
    fn slot(&self, service: ServiceEntry, hash: PacketHash) -> Slot {
        let by_source = service.flags & ServiceEntry::FLAG_SOURCE_AFFINITY != 0;
        let hash = if by_source { hash.source } else { hash.flow };
        let TableRef { offset, size } = TableRef::unpack(service.table);
        if size == 0 {
            return Slot {
                current: 0,
                previous: Slot::MIXED,
            };
        }
        self.slots[(offset + reduce(hash, size)) as usize]
    }

    fn by_slot(&self, asked: Asked) -> Option<u16> {
        self.serving(asked.slot.current)
    }

    /// A packet that opens no connection.
    fn by_flow(&mut self, asked: Asked, mut known: Known) -> Option<u16> {
        let backend = self.continued(asked, &mut known);
        if let Some(backend) = self.serving_for(asked.id, backend) {
            if known.entry.is_opening() {
                self.prove(asked, &mut known);
            }
            return Some(backend);
        }
        if !asked.has_table() {
            return None;
        }
        let previous = asked.slot.moving_from();
        let older = previous.and_then(|index| self.serving(index));
        let backend = older.or_else(|| self.by_slot(asked))?;
        if !asked.is_adaptive() || previous.is_some() {
            self.remember(asked, &known, backend);
        } else if asked.segment == Segment::Continues {
            self.flows.forget(&mut known);
        }
        Some(backend)
    }

    /// The backend that a flow is at; 0: that is not known, or not any more. The flow's time is renewed.
    fn continued(&mut self, asked: Asked, known: &mut Known) -> u16 {
        let entry = known.entry;
        if entry.is_none() || self.flows.has_ended(known) {
            return 0;
        }
        if entry.is_opening() {
            return entry.backend();
        }
        let mut renewed = entry.continued_in(self.flows.period);
        if asked.segment == Segment::Ends {
            renewed = renewed.closing();
        }
        self.flows.rewrite(known, renewed);
        entry.backend()
    }

    /// A SYN on a slot that has moved: where it must go if not to the current backend.
    fn by_opening(&mut self, asked: Asked, mut known: Known) -> Option<u16> {
        if let Some(backend) = self.begun(asked, &mut known) {
            return Some(backend);
        }
        self.flows.forget(&mut known);
        let previous = asked.slot.moving_from()?;
        let current = self.serving(asked.slot.current)?;
        if self.insert(&known, current, true) {
            Some(current)
        } else {
            self.serving(previous)
        }
    }

    /// The backend of an entry that a SYN follows.
    fn begun(&mut self, asked: Asked, known: &mut Known) -> Option<u16> {
        let entry = known.entry;
        if entry.is_none() || self.flows.has_ended(known) {
            return None;
        }
        let backend = self.serving_for(asked.id, entry.backend())?;
        let next_hop = NextHop::unpack(self.backends[usize::from(backend)].next_hop);
        if !next_hop.takes_syn(entry.is_closing()) {
            return None;
        }
        let renewed = entry.seen_in(self.flows.period).after_syn();
        self.flows.rewrite(known, renewed);
        Some(backend)
    }

    /// The packet that follows a SYN: what was an opening is a flow.
    fn prove(&mut self, asked: Asked, known: &mut Known) {
        let proven = known.entry.seen_in(self.flows.period).proven();
        match asked.segment {
            Segment::Continues => {
                self.counts.created += 1;
                self.flows.rewrite(known, proven);
            }
            Segment::Ends => self.flows.rewrite(known, proven.closing()),
            Segment::Opens => {}
        }
    }

    fn remember(&mut self, asked: Asked, known: &Known, backend: u16) {
        if asked.segment == Segment::Continues {
            self.insert(known, backend, false);
        }
    }

    fn insert(&mut self, known: &Known, backend: u16, is_opening: bool) -> bool {
        let Some(before) = self.flows.insert(known, backend, is_opening) else {
            return false;
        };
        self.counts.created += 1;
        let is_other =
            before.fingerprint() != known.fingerprint() && before != FlowEntry::default();
        let lived = is_other && !self.flows.is_over(before, known.idle_ticks());
        self.counts.displaced += u64::from(lived);
        true
    }

    /// The index, if it is of a backend that may be sent packets.
    fn serving(&self, index: u16) -> Option<u16> {
        let entry = self.backends.get(usize::from(index))?;
        let next_hop = NextHop::unpack(entry.next_hop);
        next_hop.is_serving().then_some(index)
    }

    /// The same, if the backend is one of the service's.
    fn serving_for(&self, id: u32, index: u16) -> Option<u16> {
        let entry = self.backends.get(usize::from(index))?;
        self.serving(index).filter(|_| entry.service == id)
    }
}
