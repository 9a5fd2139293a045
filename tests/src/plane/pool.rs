//! Planes that are used again: loading the program takes far longer than most tests, under emulation
//! seconds.

use std::sync::{Mutex, PoisonError};

use xdp_lb::dataplane::OBJECT;
use xdp_lb_common::abi::{BackendEntry, ServiceEntry, Slot};
use xtask::lab::Namespace;

use super::{Plane, Setup};
use crate::runner;

/// Planes with the default setup that no test is using.
static POOL: Mutex<Vec<(Namespace, Plane)>> = Mutex::new(Vec::new());

/// Runs `test` on a plane with small limits, as good as new. Where there can be none, the test is
/// skipped.
pub fn on_plane(test: impl FnOnce(&mut Plane) + Send) {
    if !runner::can_load(OBJECT) {
        return;
    }
    let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let (namespace, mut plane) = pooled.unwrap_or_else(|| open(Setup::default()));
    // One whose test fails is dropped with what it holds.
    namespace.run(|| {
        test(&mut plane);
        if !plane.spent {
            plane.reset();
        }
    });
    if !plane.spent {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push((namespace, plane));
    }
}

/// As [`on_plane`], on a new plane with other limits or another key.
pub fn on_plane_with(setup: Setup, test: impl FnOnce(&mut Plane) + Send) {
    if runner::can_load(OBJECT) {
        let (namespace, mut plane) = open(setup);
        namespace.run(|| test(&mut plane));
    }
}

fn open(setup: Setup) -> (Namespace, Plane) {
    let namespace = Namespace::new("prog-run").expect("a namespace");
    let plane = namespace.run(move || Plane::open(setup));
    (namespace, plane)
}

impl Plane {
    /// Makes the plane as it was when it was opened, but for the counters.
    fn reset(&mut self) {
        for key in std::mem::take(&mut self.keys) {
            let removed = self.dataplane.remove_key(&key);
            removed.expect("the map of services can be written");
        }
        for (key, length) in std::mem::take(&mut self.prefixes) {
            let removed = self.dataplane.remove_prefix(key, length);
            removed.expect("the map of prefixes can be written");
        }
        let sizes = self.dataplane.sizes();
        for id in 0..sizes.services {
            self.dataplane.set_service(id, &ServiceEntry::default());
        }
        let slots = usize::try_from(sizes.slots).expect("a small table");
        self.dataplane.set_slots(0, &vec![Slot::default(); slots]);
        for index in std::mem::take(&mut self.known) {
            self.write_backend(index, &BackendEntry::default());
        }
        self.forget();
        self.begin();
    }
}
