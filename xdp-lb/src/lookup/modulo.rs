//! Modulo hashing: slot i belongs to who has the i-th turn of a weighted round robin over the
//! backends, sorted by address.

use super::turns::Turns;
use super::{Node, index};

/// The table as indices into the caller's candidates.
pub(super) fn fill(size: u32, nodes: &[Node]) -> Vec<u16> {
    Turns::new(nodes.iter().map(|node| node.weight))
        .map(|who| nodes[who].index)
        .take(index(size))
        .collect()
}
