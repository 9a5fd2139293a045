//! Helpers shared by the integration tests.

pub mod balance;
pub mod capture;
pub mod check;
pub mod datagram;
pub mod decapper;
pub mod expect;
pub mod forged;
pub mod fuzz;
pub mod grpc;
pub mod health;
pub mod icmp;
pub mod identity;
pub mod lab;
pub mod misbehave;
pub mod modes;
pub mod packet;
pub mod plane;
pub mod probes;
pub use xdp_lb_bench::random;
pub mod reference;
pub mod responder;
mod runner;
pub mod silence;
pub mod tunnel;
pub mod vips;
pub mod vrrp;
