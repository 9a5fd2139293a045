//! Who gets a packet: the table in ARCHITECTURE.md ("Who gets a packet").

use std::net::{IpAddr, SocketAddr};

use xdp_lb::timing;
use xdp_lb_common::{
    counters::{DropReason, Event, PassReason},
    hash::{Affinity, reduce},
};

use super::{
    Stop,
    packet::{Packet, Part, UDP, u16_at},
    state::{Entry, Flow, Reference, Service, Slot},
};

/// What a packet means to its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A SYN.
    Opens,
    /// A FIN or RST.
    Ends,
    /// Any other.
    Continues,
    /// An ICMP error about one.
    Quotes,
}

impl Reference {
    /// Flow, service and backend of a packet that is whole or a first fragment.
    pub(super) fn choose(
        &mut self,
        packet: &Packet,
        events: &mut Vec<Event>,
    ) -> Result<(Flow, u32, u16), Stop> {
        let quoted = self.quoted_flow(packet)?;
        let flow = match quoted {
            Some(flow) => flow,
            None => own_flow(packet)?,
        };
        let id = self
            .service_of(flow.destination, flow.protocol)
            .ok_or(PassReason::NoService);
        let id = match (id, packet.part) {
            (Err(reason), Part::First { id }) => {
                self.leave_first(&flow, id);
                return Err(reason.into());
            }
            (id, _) => id?,
        };
        let role = match (quoted, packet.part) {
            (Some(_), Part::Whole) => Role::Quotes,
            (Some(_), _) => return Err(DropReason::FirstFragment.into()),
            (None, _) => role(packet)?,
        };
        if role != Role::Quotes && is_nobodys(flow.source.ip(), flow.destination.ip()) {
            return Err(DropReason::BadSource.into());
        }
        let service = self.services[&id].clone();
        let backend = self.balance(&flow, role, id, &service, events)?;
        if let Part::First { id: packet_id } = packet.part {
            self.remember_first(&flow, packet_id, id, backend);
        }
        if role == Role::Quotes {
            events.push(Event::IcmpError);
        }
        Ok((flow, id, backend))
    }

    fn balance(
        &mut self,
        flow: &Flow,
        role: Role,
        id: u32,
        service: &Service,
        events: &mut Vec<Event>,
    ) -> Result<u16, Stop> {
        let slot = self.slot(flow, service);
        let is_at_rest = service.is_adaptive && matches!(slot, Some(Slot::Settled(_)));
        let tracks = service.tracks && !is_at_rest;
        let mut asked = Asked {
            flow: *flow,
            role,
            id,
            service,
            events,
        };
        if tracks
            && role != Role::Opens
            && let Some(backend) = self.continued(&mut asked)
        {
            return Ok(backend);
        }
        let slot = slot.ok_or(PassReason::NoBackend)?;
        let backend = match (tracks, role) {
            (false, _) => self.serving(slot.current()),
            (true, Role::Opens) => self.open(&mut asked, slot),
            (true, _) => self.join(&mut asked, slot),
        };
        match backend {
            Some(backend) => Ok(backend),
            None if slot.current() == 0 => Err(PassReason::NoBackend.into()),
            None => Err(DropReason::BackendGone.into()),
        }
    }

    fn slot(&self, flow: &Flow, service: &Service) -> Option<Slot> {
        let affinity = if service.by_source {
            Affinity::Source
        } else {
            Affinity::Flow
        };
        let size = u32::try_from(service.table.len()).expect("a table of sensible size");
        let index = reduce(flow.hash(self.hash_key, affinity), size);
        service.table.get(usize::try_from(index).ok()?).copied()
    }

    /// Where a flow is remembered to go. The packet renews it, unless it may be forged, and makes a flow of an
    /// opening, unless it ends it.
    fn continued(&mut self, asked: &mut Asked<'_>) -> Option<u16> {
        let Asked { flow, role, id, .. } = *asked;
        if let Some(backend) = self.opened(asked) {
            if matches!(role, Role::Continues | Role::Ends) {
                self.openings.remove(&flow);
                let mut entry = entry(backend);
                entry.closing = role == Role::Ends;
                self.flows.insert(flow, entry);
            }
            if role == Role::Continues {
                asked.events.push(Event::FlowCreated);
            }
            return Some(backend);
        }
        let entry = self.flows.get_mut(&flow)?;
        if is_over(entry, asked.service) {
            if role != Role::Quotes {
                asked.events.push(Event::FlowExpired);
            }
            return None;
        }
        if role != Role::Quotes {
            entry.silent = Default::default();
        }
        entry.closing |= role == Role::Ends;
        let backend = entry.backend;
        self.serving_for(id, backend)
    }

    /// Who gets a SYN.
    fn open(&mut self, asked: &mut Asked<'_>, slot: Slot) -> Option<u16> {
        if matches!(slot, Slot::Settled(_)) {
            return self.serving(slot.current());
        }
        let flow = asked.flow;
        if let Some(backend) = self.followed(asked) {
            return Some(backend);
        }
        let ended = |entry: &Entry| entry.closing || is_over(entry, asked.service);
        if self.flows.get(&flow).is_some_and(ended) {
            asked.events.push(Event::FlowReopened);
        }
        self.forget(&flow);
        let Slot::Moving { to, .. } = slot else {
            return self.serving(slot.current());
        };
        let backend = self.serving(to)?;
        self.openings.insert(flow, entry(backend));
        asked.events.push(Event::OpeningCreated);
        Some(backend)
    }

    /// The backend of a remembered flow or opening that a SYN follows: FIN and RST may be forged.
    fn followed(&mut self, asked: &Asked<'_>) -> Option<u16> {
        let flow = asked.flow;
        if let Some(&known) = self.flows.get(&flow) {
            let backend = self.serving_for(asked.id, known.backend)?;
            if is_over(&known, asked.service) || !self.takes_syn(backend, known.closing) {
                return None;
            }
            if known.closing {
                self.flows.remove(&flow);
                self.openings.insert(flow, entry(backend));
            } else if let Some(entry) = self.flows.get_mut(&flow) {
                entry.silent = Default::default();
            }
            return Some(backend);
        }
        let backend = self.opened(asked)?;
        if !self.takes_syn(backend, false) {
            return None;
        }
        self.openings.insert(flow, entry(backend));
        Some(backend)
    }

    /// New connections go where backends accept them, and repeated SYNs, too, unless the backend is down.
    fn takes_syn(&self, backend: u16, has_ended: bool) -> bool {
        let backend = &self.backends[&backend];
        !backend.is_down && (backend.accepts || !has_ended)
    }

    /// Who gets a packet that is not a SYN and that nobody remembers; it is remembered, if it is worth it.
    fn join(&mut self, asked: &mut Asked<'_>, slot: Slot) -> Option<u16> {
        let backend = self.of_older(asked, slot);
        let backend = backend.or_else(|| self.serving(slot.current()))?;
        let is_at_risk = !asked.service.is_adaptive || matches!(slot, Slot::Moving { .. });
        if asked.role == Role::Continues {
            if is_at_risk {
                self.remember(asked, backend);
            } else {
                // It goes by its slot from now on.
                self.forget(&asked.flow);
            }
        }
        Some(backend)
    }

    /// On a slot that is moving: the backend before.
    fn of_older(&self, asked: &mut Asked<'_>, slot: Slot) -> Option<u16> {
        let Slot::Moving { from, .. } = slot else {
            return None;
        };
        let backend = self.serving(from)?;
        if asked.role != Role::Quotes {
            asked.events.push(Event::FlowFollowedPrevious);
        }
        Some(backend)
    }

    /// The backend that got the connection's SYN.
    fn opened(&self, asked: &Asked<'_>) -> Option<u16> {
        let entry = self.openings.get(&asked.flow)?;
        if entry.silent > timing::OPENING {
            return None;
        }
        self.serving_for(asked.id, entry.backend)
    }

    fn forget(&mut self, flow: &Flow) {
        self.flows.remove(flow);
        self.openings.remove(flow);
    }

    /// A flow has one entry.
    fn remember(&mut self, asked: &mut Asked<'_>, backend: u16) {
        self.openings.remove(&asked.flow);
        self.flows.insert(asked.flow, entry(backend));
        asked.events.push(Event::FlowCreated);
    }
}

/// A packet for which a backend is sought, and what comes of it.
struct Asked<'a> {
    flow: Flow,
    role: Role,
    /// The service's id.
    id: u32,
    service: &'a Service,
    events: &'a mut Vec<Event>,
}

fn entry(backend: u16) -> Entry {
    Entry {
        backend,
        silent: Default::default(),
        closing: false,
    }
}

fn is_over(entry: &Entry, service: &Service) -> bool {
    entry.silent > service.idle || (entry.closing && entry.silent > timing::CLOSING)
}

/// A source that no host has (RFC 1812, section 5.3.7), or that is the destination.
pub(super) fn is_nobodys(source: IpAddr, destination: IpAddr) -> bool {
    let is_reserved = match source {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    let is_special = source.is_unspecified() || source.is_loopback() || source.is_multicast();
    is_reserved || is_special || source == destination
}

/// The flow of a packet that has ports.
fn own_flow(packet: &Packet) -> Result<Flow, PassReason> {
    let port = |at| u16_at(packet.payload, at).ok_or(PassReason::Truncated);
    Ok(Flow {
        source: SocketAddr::new(packet.source, port(0)?),
        destination: SocketAddr::new(packet.destination, port(2)?),
        protocol: packet.protocol,
    })
}

/// What the transport header says, if it is sound.
fn role(packet: &Packet) -> Result<Role, DropReason> {
    let segment = packet.payload;
    if packet.protocol == UDP {
        let bad = DropReason::BadUdpHeader;
        if segment.len() < 8 {
            return Err(bad);
        }
        let stated = usize::from(u16_at(segment, 4).ok_or(bad)?);
        // The datagram goes on behind a first fragment.
        let cut = matches!(packet.part, Part::First { .. });
        let fits = stated >= 8 && (cut || stated <= segment.len());
        return if fits { Ok(Role::Continues) } else { Err(bad) };
    }
    let bad = DropReason::BadTcpHeader;
    if segment.len() < 20 {
        return Err(bad);
    }
    let header = usize::from(segment[12] >> 4) * 4;
    if header < 20 || header > segment.len() {
        return Err(bad);
    }
    let [fin, syn, rst, ack] = [0x01, 0x02, 0x04, 0x10].map(|bit| segment[13] & bit != 0);
    Ok(if syn && !ack && !rst {
        Role::Opens
    } else if fin || rst {
        Role::Ends
    } else {
        Role::Continues
    })
}
