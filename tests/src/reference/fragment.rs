//! Fragments: the later ones go where the first one went.

use std::net::{IpAddr, SocketAddr};

use xdp_lb::timing;
use xdp_lb_common::counters::{DropReason, PassReason};

use super::{
    Stop,
    packet::{Packet, TCP, UDP},
    state::{Flow, FragmentKey, FragmentPlace, Reference},
};

impl Reference {
    /// Notes where a first fragment goes.
    pub(super) fn remember_first(&mut self, flow: &Flow, id: u32, service: u32, backend: u16) {
        let place = FragmentPlace {
            backend: Some(self.known(backend)),
            service,
            age: Default::default(),
        };
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        self.fragments
            .insert(key(source, destination, id, flow.protocol), place);
    }

    /// Notes that a first fragment to a VIP is for no service: the kernel has it, and gets the others.
    pub(super) fn leave_first(&mut self, flow: &Flow, id: u32) {
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        if self.is_vip(destination) {
            let place = FragmentPlace {
                backend: None,
                service: 0,
                age: Default::default(),
            };
            self.fragments
                .insert(key(source, destination, id, flow.protocol), place);
        }
    }

    /// Flow (without ports), service and backend of a later fragment.
    pub(super) fn follow_first(&self, packet: &Packet, id: u32) -> Result<(Flow, u32, u16), Stop> {
        let key = key(packet.source, packet.destination, id, packet.protocol);
        let place = self.fragments.get(&key);
        let Some(place) = place.filter(|place| place.age <= timing::FRAGMENT) else {
            // Behind which headers TCP or UDP stands, the first fragment of IPv6 alone says.
            let may_be = match packet.protocol {
                TCP | UDP => true,
                0 | 43 | 44 | 51 | 60 => !packet.is_v4(),
                _ => false,
            };
            let ours = may_be && self.is_vip(packet.destination);
            return Err(if ours {
                DropReason::EarlyFragment.into()
            } else {
                PassReason::LaterFragment.into()
            });
        };
        let known = place.backend.ok_or(PassReason::LaterFragment)?;
        let backend = self.still_serving(known).ok_or(DropReason::BackendGone)?;
        let flow = Flow {
            source: SocketAddr::new(packet.source, 0),
            destination: SocketAddr::new(packet.destination, 0),
            protocol: packet.protocol,
        };
        Ok((flow, place.service, backend))
    }
}

/// What the fragments of a packet have in common: with IPv6 source, destination and identification alone (RFC 8200,
/// section 4.5).
fn key(source: IpAddr, destination: IpAddr, id: u32, protocol: u8) -> FragmentKey {
    FragmentKey {
        source,
        destination,
        id,
        protocol: if source.is_ipv4() { protocol } else { 0 },
    }
}
