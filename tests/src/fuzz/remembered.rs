//! Compares what program and reference remember of connections and fragments.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use xdp_lb_common::abi::{BackendRef, FlowEntry, FlowKey};

use super::mirror::{Flows, Mirror, packed_fragment, ticks};
use crate::{
    plane::Plane,
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
        let mut in_ticks = |time| ticks(plane, time);
        let flows = expected(&reference.flows, &mut in_ticks);
        let openings = expected(&reference.openings, &mut in_ticks);
        let places = reference.fragments.iter().map(|(key, place)| {
            let key = packed_fragment(key);
            let key = (key.source, key.destination, key.id, key.protocol);
            (key, ((place.backend, place.service), in_ticks(place.age)))
        });
        let seen_places = all(&self.fragments).into_iter().map(|(key, entry)| {
            let key = (key.source, key.destination, key.id, key.protocol);
            (key, ((known(entry.backend), entry.service), entry.seen))
        });
        [
            compare("flow", &seen(&self.flows), &flows, slack),
            compare("opening", &seen(&self.openings), &openings, slack),
            compare(
                "fragments",
                &seen_places.collect(),
                &places.collect(),
                slack,
            ),
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

fn known(word: u32) -> Known {
    let BackendRef { index, generation } = BackendRef::unpack(word);
    Known { index, generation }
}

fn all<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
    let entries = map.iter().collect::<Result<_, _>>();
    entries.expect("the map can be read")
}

fn expected(
    entries: &BTreeMap<Flow, Entry>,
    mut in_ticks: impl FnMut(Duration) -> u32,
) -> Memory<Flow, (Known, bool)> {
    let mut view = |entry: &Entry| ((entry.backend, entry.closing), in_ticks(entry.silent));
    let viewed = entries.iter().map(|(flow, entry)| (*flow, view(entry)));
    viewed.collect()
}

fn seen((v4, v6): &(Flows<[u8; 4]>, Flows<[u8; 16]>)) -> Memory<Flow, (Known, bool)> {
    let view = |entry: FlowEntry| {
        let closing = entry.flags & FlowEntry::FLAG_CLOSING != 0;
        ((known(entry.backend), closing), entry.last_seen)
    };
    let v4 = all(v4)
        .into_iter()
        .map(|(key, entry)| (flow(&key), view(entry)));
    let v6 = all(v6)
        .into_iter()
        .map(|(key, entry)| (flow(&key), view(entry)));
    v4.chain(v6).collect()
}

fn flow<A: Copy>(key: &FlowKey<A>) -> Flow
where
    IpAddr: From<A>,
{
    let end = |address: A, port| SocketAddr::new(address.into(), u16::from_be_bytes(port));
    Flow {
        source: end(key.source, key.source_port_be),
        destination: end(key.destination, key.destination_port_be),
        protocol: key.protocol,
    }
}
