//! Cases: a packet, the state it meets, and what should become of it.

use xdp_lb_common::counters::Event;
use xdp_lb_tests::{
    expect::Expected,
    packet::Frame,
    plane::{Plane, on_plane},
};

/// Makes a state.
type Given = Box<dyn Fn(&mut Plane) + Send + Sync>;

/// One row of a table.
pub(crate) struct Case {
    pub(crate) what: String,
    given: Option<Given>,
    frame: Frame,
    pub(crate) expected: Expected,
}

/// A packet that meets a plane as it is at first.
pub(crate) fn case(what: impl Into<String>, frame: impl Into<Frame>, expected: Expected) -> Case {
    Case {
        what: what.into(),
        given: None,
        frame: frame.into(),
        expected,
    }
}

impl Case {
    /// Its line in the table of all cases.
    pub(crate) fn row(&self) -> String {
        let events: Vec<_> = self.expected.events().map(Event::name).collect();
        let (what, verdict) = (&self.what, self.expected.verdict().name());
        format!("| {what} | `{verdict}` | {} |\n", events.join(", "))
    }

    /// The state that the packet meets.
    pub(crate) fn given(mut self, given: impl Fn(&mut Plane) + Send + Sync + 'static) -> Self {
        self.given = Some(Box::new(given));
        self
    }
}

/// Runs all of them and names those that came out otherwise. Cases with a state have a plane each;
/// the others share one, so they must not depend on what an earlier one may have left in it.
pub(crate) fn check(cases: Vec<Case>) {
    let (stateful, others): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| case.given.is_some());
    if !others.is_empty() {
        on_plane(move |plane| {
            let failed: Vec<_> = others
                .iter()
                .filter_map(|case| fails(plane, case))
                .collect();
            assert!(failed.is_empty(), "{}", failed.concat());
        });
    }
    for case in stateful {
        on_plane(move |plane| {
            if let Some(given) = &case.given {
                given(plane);
            }
            if let Some(failed) = fails(plane, &case) {
                panic!("{failed}");
            }
        });
    }
}

fn fails(plane: &mut Plane, case: &Case) -> Option<String> {
    let differences = plane.differences(&case.frame, &case.expected);
    (!differences.is_empty()).then(|| format!("\n{}: {differences}", case.what))
}
