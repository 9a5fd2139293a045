//! Every counter, of the program and as it should be.

use std::fmt::Write as _;

use xdp_lb::dataplane::Traffic;
use xdp_lb_common::counters::Counter;

use super::world::BACKENDS;
use crate::{plane::Plane, reference::Answer};

/// What should have been counted: by counters and backends. What was forwarded for a service is their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) program: Vec<Traffic>,
    backends: Vec<Traffic>,
}

impl Default for Counts {
    fn default() -> Self {
        let zeros = |count| vec![Traffic::default(); count];
        Self {
            program: zeros(Counter::ALL.len()),
            backends: zeros(usize::from(BACKENDS) + 1),
        }
    }
}

impl Counts {
    /// Counts a packet of so many bytes that fares like this.
    pub(super) fn add(&mut self, answer: &Answer, bytes: usize) {
        let bytes = u64::try_from(bytes).expect("a length of 64 bits");
        let count = |traffic: &mut Traffic| {
            traffic.packets += 1;
            traffic.bytes += bytes;
        };
        count(&mut self.program[answer.verdict as usize]);
        if let Some((_, backend)) = answer.forwarded {
            count(&mut self.backends[usize::from(backend)]);
        }
        for event in &answer.events {
            self.program[*event as usize].packets += 1;
        }
    }

    /// Reads the plane's.
    pub(super) fn read(plane: &mut Plane) -> Self {
        let dataplane = plane.dataplane();
        let program = dataplane.counters().expect("the counters can be read");
        Self {
            program: Counter::ALL.iter().map(|&it| program.get(it)).collect(),
            backends: (0..=BACKENDS)
                .map(|index| dataplane.backend_traffic(index))
                .collect(),
        }
    }

    /// Says where they are not `expected`.
    pub(super) fn differences(&self, expected: &Self) -> String {
        let mut text = String::new();
        let names = Counter::ALL.iter().map(|counter| counter.name());
        for ((name, seen), expected) in names.zip(&self.program).zip(&expected.program) {
            if seen != expected {
                let _ = writeln!(text, "{name}: {seen:?}, expected {expected:?}");
            }
        }
        let backends = self.backends.iter().zip(&expected.backends);
        for (index, (seen, expected)) in backends.enumerate() {
            if seen != expected {
                let _ = writeln!(text, "backend {index}: {seen:?}, expected {expected:?}");
            }
        }
        text
    }
}
