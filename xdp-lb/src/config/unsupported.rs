//! What the file format has, and this version does not do yet.
//!
//! All of it stands in [`check`]: what becomes supported is a line less there.

use super::rules::RuleError;

/// Refuses what is not supported yet.
///
/// `field` is the name of a field without the way to it; `value` is a word, or empty where the
/// question is whether the field may be there at all.
pub(super) fn check(field: &str, value: &str) -> Result<(), RuleError> {
    let (thing, way_out) = match (field, value) {
        ("connection_tracking", "adaptive") => ("connection_tracking `adaptive`", "use `full`"),
        _ => return Ok(()),
    };
    Err(RuleError::Unsupported { thing, way_out })
}
