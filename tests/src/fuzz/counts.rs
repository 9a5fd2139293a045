//! Every counter, of the program and as it should be.

use std::fmt::Write as _;

use xdp_lb::dataplane::Traffic;
use xdp_lb_common::counters::Counter;

use super::world::{BACKENDS, SERVICES};
use crate::{plane::Plane, reference::Answer};

/// What should have been counted: by counters, services and backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) program: Vec<Traffic>,
    services: Vec<Traffic>,
    backends: Vec<Traffic>,
}

impl Default for Counts {
    fn default() -> Self {
        let zeros = |count| vec![Traffic::default(); count];
        Self {
            program: zeros(Counter::ALL.len()),
            services: zeros(SERVICES as usize + 1),
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
        if let Some((service, backend)) = answer.forwarded {
            count(&mut self.services[service as usize]);
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
        let of_service = |id| dataplane.service_traffic(id).expect("a service's counters");
        let of_backend = |index| {
            dataplane
                .backend_traffic(index)
                .expect("a backend's counters")
        };
        Self {
            program: Counter::ALL.iter().map(|&it| program.get(it)).collect(),
            services: (0..=SERVICES).map(of_service).collect(),
            backends: (0..=BACKENDS).map(of_backend).collect(),
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
        let others = [
            ("service", &self.services, &expected.services),
            ("backend", &self.backends, &expected.backends),
        ];
        for (what, seen, expected) in others {
            for (index, (seen, expected)) in seen.iter().zip(expected).enumerate() {
                if seen != expected {
                    let _ = writeln!(text, "{what} {index}: {seen:?}, expected {expected:?}");
                }
            }
        }
        text
    }
}
