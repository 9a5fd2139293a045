//! The Virtual Router Redundancy Protocol, version 3 (RFC 9568): which of several directors has the VIPs.
//!
//! [`packet`] is how an advertisement looks; [`machine`] decides what a virtual router does. Both are
//! without I/O, and the time is passed in.

pub mod machine;
pub mod packet;
