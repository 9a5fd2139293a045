//! Compares what program and reference remember of connections and fragments.

use std::{collections::BTreeMap, fmt::Debug, ops::ControlFlow, time::Duration};

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use xdp_lb_common::{
    abi::{BackendRef, Place},
    hash::{Affinity, HashKey},
};

use super::mirror::{Mirror, packed_fragment, ticks};
use crate::{
    plane::{Plane, periods},
    reference::{Entry, Flow, Known, Reference},
};

/// What is remembered under each key, and a time in ticks: when, or how long ago.
type Memory<K, V> = BTreeMap<K, (V, u32)>;

impl Mirror {
    /// Says in what entries differ, a line each. Time stands still in the reference: entries of the
    /// program may be older by as much as `elapsed`, the time that the packets took.
    pub(super) fn differences(
        &self,
        plane: &mut Plane,
        reference: &Reference,
        elapsed: Duration,
    ) -> String {
        let slack = ticks(plane, elapsed) + 2;
        let flow_slack = (periods(plane.read(), elapsed) + 2) << UNUSED;
        let flows = expected(plane, reference);
        let places = reference.fragments.iter().map(|(key, place)| {
            let key = packed_fragment(key);
            let key = (key.source, key.destination, key.id, key.protocol);
            (
                key,
                ((place.backend, place.service), ticks(plane, place.age)),
            )
        });
        let places: Memory<_, _> = places.collect();
        let seen_places = all(&self.fragments).into_iter().map(|(key, entry)| {
            let key = (key.source, key.destination, key.id, key.protocol);
            (key, ((known(entry.backend), entry.service), entry.seen))
        });
        [
            compare("flow", &seen(plane), &flows, flow_slack),
            compare("fragments", &seen_places.collect(), &places, slack),
        ]
        .concat()
    }
}

/// `seen` has times, `expected` ages. The sum of both is the time when an entry was written last, which
/// is within the run for all of them.
fn compare<K: Debug + Ord, V: Debug + PartialEq>(
    what: &str,
    seen: &Memory<K, V>,
    expected: &Memory<K, V>,
    slack: u32,
) -> String {
    /// More than these tell no more.
    const MOST: usize = 10;

    let written = |(key, (_, time)): (&K, &(V, u32))| {
        let (_, age) = expected.get(key)?;
        Some(time.wrapping_add(*age))
    };
    let times = || seen.iter().filter_map(written);
    let first = times().next().unwrap_or(0);
    // The ticks wrap.
    let last = times().max_by_key(|time| time.wrapping_sub(first).cast_signed());
    let last = last.unwrap_or(first);
    let is_right = |(key, entry): (&K, &(V, u32))| {
        let same = expected
            .get(key)
            .is_some_and(|(value, _)| *value == entry.0);
        same && written((key, entry)).is_some_and(|time| last.wrapping_sub(time) <= slack)
    };
    let wrong = seen
        .iter()
        .filter(|entry| !is_right(*entry))
        .map(|(key, (value, time))| {
            let (age, expected) = (last.wrapping_sub(*time), expected.get(key));
            format!("{what} {key:?}: {value:?} for {age} ticks, expected {expected:?}\n")
        });
    let missing = expected.iter().filter(|(key, _)| !seen.contains_key(key));
    let missing = missing.map(|(key, entry)| format!("{what} {key:?}: none, expected {entry:?}\n"));
    wrong.chain(missing).take(MOST).collect()
}

fn known(word: u32) -> Option<Known> {
    let BackendRef { index, generation } = BackendRef::unpack(word);
    (word != 0).then_some(Known { index, generation })
}

fn all<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
    let entries = map.iter().collect::<Result<_, _>>();
    entries.expect("the map can be read")
}

/// Bits that the times of flow entries have not got: they wrap earlier than those of fragments.
const UNUSED: u32 = 12;

/// Backend, whether the flow is closing, and whether it is an opening.
type FlowView = (u16, bool, bool);

fn expected(plane: &Plane, reference: &Reference) -> Memory<Place, FlowView> {
    let shape = plane.read().flow_shape();
    let view = |(flow, entry): (&Flow, &Entry), is_opening| {
        let age = periods(plane.read(), entry.silent) << UNUSED;
        let place = place(reference.hash_key, shape.bucket_bits, flow);
        (place, ((entry.backend, entry.closing, is_opening), age))
    };
    let flows = reference.flows.iter().map(|entry| view(entry, false));
    let openings = reference.openings.iter().map(|entry| view(entry, true));
    flows.chain(openings).collect()
}

fn seen(plane: &Plane) -> Memory<Place, FlowView> {
    let mut seen = Memory::new();
    plane.read().each_flow(|place, entry| {
        let view = (entry.backend(), entry.is_closing(), entry.is_opening());
        let twice = seen.insert(place, (view, entry.seen() << UNUSED));
        assert_eq!(twice, None, "a flow has one entry");
        ControlFlow::Continue(())
    });
    seen
}

/// Where a flow has its entry.
fn place(hash_key: HashKey, bucket_bits: u32, flow: &Flow) -> Place {
    Place::of(flow.hash(hash_key, Affinity::Flow), bucket_bits)
}

impl Plane {
    /// Lets the entry of a flow or an opening, if it is there, have been silent for longer.
    pub(super) fn age_entry(&mut self, hash_key: HashKey, flow: &Flow, age: Duration) {
        let periods = periods(self.read(), age);
        let place = place(hash_key, self.read().flow_shape().bucket_bits, flow);
        self.dataplane().edit_flow(place, |entry| {
            entry.seen_in(entry.seen().wrapping_sub(periods))
        });
    }

    /// Forgets all flows at a backend.
    pub(super) fn forget_flows_at(&mut self, index: u16) {
        self.read()
            .forget_flows(|_, entry| entry.backend() == index);
    }
}
