//! Health checks: whether backends can serve, found out by asking them.
//!
//! `probe` asks once, over the network; `judge` makes a state of the answers, and `timetable` says when to
//! ask, both without I/O and with the time passed in; `checker` brings them together.

mod cause;
pub mod probe;

pub use self::cause::{Cause, Kind};
