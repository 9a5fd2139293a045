//! Fragments: the later ones go where the first one went.

use std::net::SocketAddr;

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
        let key = FragmentKey {
            source: flow.source.ip(),
            destination: flow.destination.ip(),
            id,
            protocol: flow.protocol,
        };
        let place = FragmentPlace {
            backend: self.known(backend),
            service,
            age: Default::default(),
        };
        self.fragments.insert(key, place);
    }

    /// Flow (without ports), service and backend of a later fragment.
    pub(super) fn follow_first(&self, packet: &Packet, id: u32) -> Result<(Flow, u32, u16), Stop> {
        let key = FragmentKey {
            source: packet.source,
            destination: packet.destination,
            id,
            protocol: packet.protocol,
        };
        let place = self.fragments.get(&key);
        let Some(place) = place.filter(|place| place.age <= timing::FRAGMENT) else {
            let ours = [TCP, UDP].contains(&packet.protocol) && self.is_vip(packet.destination);
            return Err(if ours {
                DropReason::EarlyFragment.into()
            } else {
                PassReason::LaterFragment.into()
            });
        };
        let backend = self
            .still_serving(place.backend)
            .ok_or(DropReason::BackendGone)?;
        let flow = Flow {
            source: SocketAddr::new(packet.source, 0),
            destination: SocketAddr::new(packet.destination, 0),
            protocol: packet.protocol,
        };
        Ok((flow, place.service, backend))
    }
}
