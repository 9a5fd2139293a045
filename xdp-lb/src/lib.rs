//! The daemon and the command line of xdp-lb.
//!
//! ARCHITECTURE.md says how the modules hang together and which rules hold between them.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod decap;
pub mod director;
pub mod health;
mod json_file;
pub mod lookup;
pub mod metrics;
pub mod netlink;
pub mod timing;
pub mod vrrp;
