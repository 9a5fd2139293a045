//! Health checks in a lab: what they find out, and what becomes of traffic.

mod misbehave;
mod selection;
mod servers;
mod views;
mod ways;
