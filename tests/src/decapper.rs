//! The decapsulating program, one packet at a time through `BPF_PROG_TEST_RUN`, and the comparison with
//! what should become of the packet: action, every byte that leaves, and every counter.

use std::{fmt::Write as _, path::Path};

use xdp_lb::{
    dataplane::decap::{Decapsulator, OBJECT},
    decap::{self, Settings},
};
use xdp_lb_common::counters::decap::{Counter, DropReason, PassReason};

use crate::{
    packet::Frame,
    plane::Action,
    runner::{self, Pool},
};

/// What should become of a packet.
#[derive(Clone, Debug)]
pub struct Expected {
    action: Action,
    verdict: Counter,
    /// What leaves, where that is another frame than came.
    becomes: Option<Frame>,
}

/// It is taken out of its tunnel and leaves as this frame.
#[must_use]
pub fn decapsulated(frame: impl Into<Frame>) -> Expected {
    Expected {
        becomes: Some(frame.into()),
        ..passed(PassReason::Decapsulated)
    }
}

/// It is left to the kernel as it is.
#[must_use]
pub fn passed(reason: PassReason) -> Expected {
    Expected {
        action: Action::Pass,
        verdict: counter(reason as u32),
        becomes: None,
    }
}

/// It is dropped.
#[must_use]
pub fn dropped(reason: DropReason) -> Expected {
    Expected {
        action: Action::Drop,
        verdict: counter(reason as u32),
        becomes: None,
    }
}

fn counter(index: u32) -> Counter {
    let mut all = Counter::ALL.iter().copied();
    let found = all.find(|&counter| counter as u32 == index);
    found.expect("reasons are counters")
}

impl Expected {
    /// What the packet is counted by.
    #[must_use]
    pub fn verdict(&self) -> Counter {
        self.verdict
    }
}

/// Runs `test` on a program with these settings. Where there can be none, the test is skipped.
pub fn on_decapper(settings: &Settings, test: impl FnOnce(&mut Decapper) + Send) {
    static POOL: Pool<Settings, Decapper> = Pool::new();

    if runner::can_load(OBJECT) {
        POOL.with(settings.clone(), Decapper::load, test);
    }
}

/// A loaded program with its maps.
pub struct Decapper(Decapsulator);

/// What became of a packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The action that the program asked for.
    pub action: Action,
    /// The frame as it left the program.
    pub output: Frame,
    /// The counters that grew, with packets and bytes.
    pub counted: Vec<(Counter, u64, u64)>,
}

impl Decapper {
    fn load(settings: &Settings) -> Self {
        let pins = decap::pins(Path::new("/sys/fs/bpf/prog-run"), "lo");
        let mut program = Decapsulator::load(pins, settings).expect("the program");
        runner::keep_dispatched(program.program().expect("the program"));
        Self(program)
    }

    /// Sends a frame through the program.
    pub fn send(&mut self, frame: &Frame) -> Seen {
        let counters = |this: &Self| this.0.counters().expect("the counters can be read");
        let before = counters(self);
        let (action, output) = runner::run(self.0.program().expect("the program"), frame);
        let pairs = counters(self).into_iter().zip(before);
        let grown = pairs.map(|((counter, now), (_, before))| {
            let packets = now.packets - before.packets;
            (counter, packets, now.bytes - before.bytes)
        });
        Seen {
            action,
            output,
            counted: grown
                .filter(|(_, packets, bytes)| packets + bytes > 0)
                .collect(),
        }
    }

    /// Sends a frame through the program and compares all that can be seen of it; each difference is a
    /// line of the answer.
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
        let output = expected.becomes.as_ref().unwrap_or(frame);
        if seen.output != *output {
            let _ = writeln!(lines, "output {:?}\nexpected {output:?}", seen.output);
        }
        let bytes = u64::try_from(frame.bytes().len()).unwrap_or(u64::MAX);
        if seen.counted != [(expected.verdict, 1, bytes)] {
            let (counted, verdict) = (&seen.counted, expected.verdict);
            let _ = writeln!(lines, "counted {counted:?}, expected {verdict:?}");
        }
        lines
    }
}
