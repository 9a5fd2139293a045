//! Ring hashing with virtual nodes: Karger et al., "Consistent Hashing and Random Trees",
//! STOC 1997.
//!
//! Each backend stands at several points of a circle of hash values, and a slot, which is a
//! range of hash values, belongs to the first point at or after the range's start.

use xdp_lb_common::hash::HashKey;

use super::{Node, index};

/// Domain of the points' hashes: "ring" in ASCII.
const POINT: u64 = 0x7269_6e67;

/// Points of the heaviest backend; the others have fewer, by their weight.
const POINTS: u32 = 160;

/// Points of all backends together, at most (a few more by rounding).
const MAX_POINTS: u32 = 1 << 22;

/// The table as indices into the caller's candidates.
pub(super) fn fill(size: u32, key: HashKey, nodes: &[Node]) -> Vec<u16> {
    let points = points(key, nodes);
    let mut next = 0;
    let mut table = Vec::with_capacity(index(size));
    for slot in 0..size {
        let start = (u64::from(slot) << 32).div_ceil(u64::from(size)) << 32;
        while points.get(next).is_some_and(|&(at, _)| at < start) {
            next += 1;
        }
        // Past the last point the circle begins anew.
        if let Some(&(_, owner)) = points.get(next).or(points.first()) {
            table.push(owner);
        }
    }
    table
}

/// Places and owners of all points, sorted by place.
fn points(key: HashKey, nodes: &[Node]) -> Vec<(u64, u16)> {
    let heaviest = nodes.iter().map(|node| node.weight).max().unwrap_or(1);
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
    let most = POINTS.min(MAX_POINTS / count).max(1);
    let mut points = Vec::new();
    // In the order of addresses, which a stable sort keeps where two places are equal.
    for node in nodes {
        let hash = node.hash(key, POINT);
        let own = (node.weight * most).div_ceil(heaviest);
        points.extend((0..own).map(|point| (hash.word(point.into()).finish(), node.index)));
    }
    points.sort_by_key(|&(at, _)| at);
    points
}
