//! What `cargo xtask` can do, as a library, so that integration tests share it: setup of a machine,
//! build, tests, and the lab of network namespaces.

pub mod bench;
pub mod build;
pub mod cargo;
mod child;
pub mod demo;
pub mod fuzz;
mod interrupt;
pub mod lab;
pub mod paths;
pub mod root;
pub mod setup;
pub mod test;
pub mod vm;
