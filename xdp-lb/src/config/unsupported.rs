//! What the file format has, and this version does not do yet.
//!
//! All of it stands in [`check`]: what becomes supported is a line less there.

use super::rules::RuleError;

/// Stands for an IPv6 address as a field's value.
pub(super) const IPV6: &str = "IPv6 address";

/// Refuses what is not supported yet.
///
/// `field` is the name of a field without the way to it; `value` is a word, [`IPV6`], or empty
/// where the question is whether the field may be there at all.
pub(super) fn check(field: &str, value: &str) -> Result<(), RuleError> {
    let (thing, way_out) = match (field, value) {
        ("connection_tracking", "adaptive") => ("connection_tracking `adaptive`", "use `full`"),
        ("forwarding", "gue") => ("forwarding `gue`", "use `l2`"),
        ("forwarding", "ipip") => ("forwarding `ipip`", "use `l2`"),
        ("protocol", "udp") => ("protocol `udp`", "use `tcp`"),
        ("vip", IPV6) => ("a vip with an IPv6 address", "use an IPv4 address"),
        ("backend", IPV6) => ("a backend with an IPv6 address", "use an IPv4 address"),
        ("health_check", "") => ("`health_check`", "leave it out"),
        ("vrrp", "") => ("`vrrp`", "leave it out"),
        _ => return Ok(()),
    };
    Err(RuleError::Unsupported { thing, way_out })
}
