//! What the XDP program and the daemon agree on, defined once: map names, keys and values
//! ([`abi`]), the flow hash ([`hash`]), the counters ([`counters`]), and the Internet checksum
//! ([`checksum`]). [`decap`] is the same for the program on backends, [`check`] for those that steer
//! health checks.
//!
//! `no_std` and free of dependencies, so that it compiles for the BPF target too. It knows nothing
//! of packets, of YAML or of aya (but for `Pod` behind the feature `user`).

#![no_std]

pub mod abi;
pub mod check;
pub mod checksum;
pub mod counters;
pub mod decap;
pub mod hash;
