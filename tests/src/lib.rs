//! Helpers shared by the integration tests.

pub mod datagram;
pub mod decapper;
pub mod expect;
pub mod icmp;
pub mod lab;
pub mod packet;
pub mod plane;
pub mod random;
mod runner;
pub mod tunnel;
