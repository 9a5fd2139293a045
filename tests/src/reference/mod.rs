//! What the data plane should do, said once more: plain Rust, written from the meaning of things
//! (ARCHITECTURE.md and the RFCs), to be read and checked by hand.
//!
//! It shares no code with the program, but for the flow hash and the names of counters, which are
//! defined for both in `xdp_lb_common`. Where the program deals with a stream of pointers and bounds,
//! this deals with slices that hold one packet and nothing else; where that counts ticks, time stands
//! still here, and whoever holds the [`Reference`] lets entries grow older. It has no limits of rate:
//! whoever compares the two keeps the program's budgets full.

mod balance;
mod fragment;
mod icmp;
mod packet;
mod send;
mod state;
mod too_big;

use xdp_lb_common::counters::{Counter, DropReason, Event, PassReason};

pub use self::state::{
    Backend, Entry, Flow, FragmentKey, FragmentPlace, Kind, Known, Mode, Prefix, Reference,
    Service, Slot, Tag,
};
use self::{
    packet::{Packet, Part},
    send::Sent,
};
use crate::plane::Action;

/// What should become of a packet.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the kernel is asked to do.
    pub action: Action,
    /// The frame that leaves, or that the kernel gets.
    pub output: Vec<u8>,
    /// Where in `output` an IPv4 header begins whose identification is random.
    pub random_id_at: Option<usize>,
    /// What the packet is counted by.
    pub verdict: Counter,
    /// Service and backend that count it too.
    pub forwarded: Option<(u32, u16)>,
    /// What else is counted.
    pub events: Vec<Event>,
}

/// Why a packet does not go to a backend.
enum Stop {
    Pass(PassReason),
    Drop(DropReason),
    /// Dropped, and its sender gets this frame.
    Answer(DropReason, Vec<u8>),
}

impl From<PassReason> for Stop {
    fn from(reason: PassReason) -> Self {
        Self::Pass(reason)
    }
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

impl Reference {
    /// What should become of a frame; what it changes of flows, openings and fragments is changed.
    pub fn process(&mut self, frame: &[u8]) -> Answer {
        let mut events = Vec::new();
        let end = self.forward(frame, &mut events);
        let (action, output, verdict) = match end {
            Ok((service, sent)) => return Self::sent(service, sent, events),
            Err(Stop::Pass(reason)) => (Action::Pass, frame.to_vec(), reason as u32),
            Err(Stop::Drop(reason)) => (Action::Drop, frame.to_vec(), reason as u32),
            Err(Stop::Answer(reason, answer)) => (Action::Tx, answer, reason as u32),
        };
        Answer {
            action,
            output,
            random_id_at: None,
            verdict: counter(verdict),
            forwarded: None,
            events,
        }
    }

    fn sent(service: u32, sent: Sent, events: Vec<Event>) -> Answer {
        Answer {
            action: if sent.elsewhere {
                Action::Redirect
            } else {
                Action::Tx
            },
            output: sent.frame,
            random_id_at: sent.random_id_at,
            verdict: Counter::Forwarded,
            forwarded: Some((service, sent.backend)),
            events,
        }
    }

    /// The packet's way to a backend, with the service that it is of.
    fn forward(&mut self, frame: &[u8], events: &mut Vec<Event>) -> Result<(u32, Sent), Stop> {
        let packet = Packet::parse(frame)?;
        let (flow, service, backend) = match packet.part {
            Part::Later { id } => self.follow_first(&packet, id)?,
            Part::Whole | Part::First { .. } => self.choose(&packet, events)?,
        };
        let sent = self.send(&packet, &flow, backend, events)?;
        Ok((service, sent))
    }
}

fn counter(index: u32) -> Counter {
    let mut all = Counter::ALL.iter();
    *all.find(|&&counter| counter as u32 == index)
        .expect("reasons are counters")
}
