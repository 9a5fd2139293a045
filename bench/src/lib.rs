//! What `cargo xtask bench` measures the XDP program with: nanoseconds per packet.
//!
//! [`wrapper`] hands the program a fresh packet in each repetition of `BPF_PROG_TEST_RUN`, [`packets`]
//! makes the packets, [`plane`] loads the program and fills its maps, [`cases`] says what is measured and
//! what the program's counters must then show, [`measure`] does it; [`tables`] are measured beside them, and what
//! the caches were like ([`memory`]). What comes out is a
//! [`Report`](xtask::bench::report::Report), which `cargo xtask bench` shows.
//!
//! [`churn`] needs no kernel: it goes through a million connections in virtual time.

pub mod abi;
pub mod cases;
pub mod churn;
pub mod measure;
pub mod memory;
pub mod packets;
pub mod plane;
pub mod random;
pub mod tables;
pub mod wrapper;
