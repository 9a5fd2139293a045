//! What should become of a packet, and the comparison with what did: action, every byte that
//! leaves, and every counter.

use std::fmt::Write as _;

use xdp_lb::dataplane::Traffic;
use xdp_lb_common::counters::{Counter, DropReason, Event, Kind, PassReason};

use crate::{
    packet::Frame,
    plane::{Action, OUTWARD_MAC, Plane, SERVICE, backend_mac},
};

/// What should become of a packet.
#[derive(Clone, Debug)]
pub struct Expected {
    action: Action,
    verdict: Counter,
    /// Service and backend that count it.
    forwarded: Option<(u32, u16)>,
    events: Vec<Event>,
    /// What leaves, where it is not the frame that came, with other MAC addresses and no tags.
    becomes: Option<Frame>,
}

/// It goes to this backend, by the interface that it came in by.
#[must_use]
pub fn forwarded_to(backend: u16) -> Expected {
    Expected {
        forwarded: Some((SERVICE, backend)),
        ..new(Action::Tx, Counter::Forwarded)
    }
}

/// It is left to the kernel as it is.
#[must_use]
pub fn passed(reason: PassReason) -> Expected {
    new(Action::Pass, counter(reason as u32))
}

/// It is dropped.
#[must_use]
pub fn dropped(reason: DropReason) -> Expected {
    new(Action::Drop, counter(reason as u32))
}

fn new(action: Action, verdict: Counter) -> Expected {
    Expected {
        action,
        verdict,
        forwarded: None,
        events: Vec::new(),
        becomes: None,
    }
}

fn counter(index: u32) -> Counter {
    let counter = Counter::ALL
        .iter()
        .find(|&&counter| counter as u32 == index);
    *counter.expect("reasons are counters")
}

impl Expected {
    /// By another interface than it came in by.
    #[must_use]
    pub fn redirected(mut self) -> Self {
        self.action = Action::Redirect;
        self
    }

    /// It leaves as this frame.
    #[must_use]
    pub fn becoming(mut self, frame: impl Into<Frame>) -> Self {
        self.becomes = Some(frame.into());
        self
    }

    /// The frame that leaves is an answer to its sender: sent back though the packet is dropped.
    #[must_use]
    pub fn answered(mut self, frame: impl Into<Frame>) -> Self {
        self.action = Action::Tx;
        self.becoming(frame)
    }

    /// For this service.
    #[must_use]
    pub fn by_service(mut self, id: u32) -> Self {
        self.forwarded = self.forwarded.map(|(_, backend)| (id, backend));
        self
    }

    /// And this is counted on its way.
    #[must_use]
    pub fn with(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    /// What the packet itself is counted by.
    #[must_use]
    pub fn verdict(&self) -> Counter {
        self.verdict
    }

    /// What is counted on its way.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        self.events.iter().copied()
    }

    /// What leaves the program where `frame` came in.
    fn output(&self, frame: &Frame) -> Frame {
        if let Some(becomes) = &self.becomes {
            return becomes.clone();
        }
        match self.forwarded {
            Some((_, backend)) => frame
                .clone()
                .one_hop_later()
                .with_macs(backend_mac(backend), OUTWARD_MAC),
            None => frame.clone(),
        }
    }

    /// What every counter should grow by, in the order of [`Counts::read`].
    fn counts(&self, name: Name, bytes: u64) -> Traffic {
        match name {
            Name::Program(counter) if counter == self.verdict => Traffic { packets: 1, bytes },
            Name::Program(counter) => {
                let is_it = |event: &&Event| **event as u32 == counter as u32;
                let packets = self.events.iter().filter(is_it).count();
                Traffic {
                    packets: u64::try_from(packets).unwrap_or(u64::MAX),
                    bytes: 0,
                }
            }
            Name::Service(id) if self.forwarded.is_some_and(|(service, _)| service == id) => {
                Traffic { packets: 1, bytes }
            }
            Name::Backend(index) if self.forwarded.is_some_and(|(_, it)| it == index) => {
                Traffic { packets: 1, bytes }
            }
            Name::Service(_) | Name::Backend(_) => Traffic::default(),
        }
    }
}

/// A counter of the program, of a service or of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// One of the program's own.
    Program(Counter),
    /// What was forwarded for this service.
    Service(u32),
    /// What was forwarded to this backend.
    Backend(u16),
}

/// All counters at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(Vec<(Name, Traffic)>);

impl Counts {
    /// Reads them: the program's, those of all services and of all backends that were started.
    #[must_use]
    pub fn read(plane: &Plane) -> Self {
        let dataplane = plane.read();
        let program = dataplane.counters().expect("the counters can be read");
        let mut counts: Vec<_> = Counter::ALL
            .iter()
            .map(|&counter| (Name::Program(counter), program.get(counter)))
            .collect();
        for id in 0..dataplane.sizes().services {
            let of_service = |&index: &u16| dataplane.backend(index).service == id;
            let backends = plane.known_backends().filter(of_service);
            let traffic = dataplane.service_traffic(id, backends);
            counts.push((Name::Service(id), traffic));
        }
        for index in plane.known_backends() {
            counts.push((Name::Backend(index), dataplane.backend_traffic(index)));
        }
        Self(counts)
    }

    /// What they have grown by since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.0.iter().zip(&earlier.0);
        let grown = pairs.map(|(&(name, now), &(other, before))| {
            assert_eq!(name, other, "read with another set of backends");
            let traffic = Traffic {
                packets: now.packets - before.packets,
                bytes: now.bytes - before.bytes,
            };
            (name, traffic)
        });
        Self(grown.collect())
    }

    /// One of them.
    ///
    /// # Panics
    ///
    /// If it was not read.
    #[must_use]
    pub fn get(&self, name: Name) -> Traffic {
        let found = self.0.iter().find(|(other, _)| *other == name);
        found.expect("a counter that was read").1
    }

    /// Packets that one of the program's counters counted.
    #[must_use]
    pub fn packets(&self, counter: Counter) -> u64 {
        self.get(Name::Program(counter)).packets
    }
}

/// What became of a packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The action that the program asked for.
    pub action: Action,
    /// The frame as it left the program.
    pub output: Frame,
    /// What the counters grew by.
    pub counts: Counts,
}

impl Seen {
    /// What the packet was counted by, events aside: should be one.
    pub fn verdicts(&self) -> impl Iterator<Item = Counter> {
        Counter::ALL
            .iter()
            .copied()
            .filter(|&counter| counter.kind() != Kind::Event && self.counts.packets(counter) > 0)
    }
}

impl Plane {
    /// Sends a frame through the program.
    pub fn send(&mut self, frame: impl Into<Frame>) -> Seen {
        let before = Counts::read(self);
        let (action, output) = self.run(&frame.into());
        Seen {
            action,
            output,
            counts: Counts::read(self).since(&before),
        }
    }

    /// Sends a frame through the program and compares all that can be seen of it.
    ///
    /// # Panics
    ///
    /// If it is not as expected.
    #[track_caller]
    pub fn check(&mut self, frame: impl Into<Frame>, expected: &Expected) {
        let differences = self.differences(&frame.into(), expected);
        assert!(differences.is_empty(), "{differences}");
    }

    /// As [`check`](Self::check), for one of many: each difference is a line of the answer.
    pub fn differences(&mut self, frame: &Frame, expected: &Expected) -> String {
        let seen = self.send(frame);
        let mut lines = String::new();
        if seen.action != expected.action {
            let _ = writeln!(
                lines,
                "action {:?}, expected {:?}",
                seen.action, expected.action
            );
        }
        let output = expected.output(frame);
        if seen.output != output {
            let _ = writeln!(lines, "output {:?}\nexpected {output:?}", seen.output);
        }
        let bytes = u64::try_from(frame.bytes().len()).unwrap_or(u64::MAX);
        for &(name, grown) in &seen.counts.0 {
            let should = expected.counts(name, bytes);
            if grown != should {
                let _ = writeln!(lines, "{name:?} grew by {grown:?}, expected {should:?}");
            }
        }
        lines
    }
}
