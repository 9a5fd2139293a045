//! Times that hold for every service, and why they are what they are.

use std::time::Duration;

/// How long a flow is remembered after a FIN or RST: as long as a TIME-WAIT state (RFC 9293 asks
/// for two maximum segment lifetimes, which Linux and others set to 60 s), in which the last
/// segments may still be repeated.
pub const CLOSING: Duration = Duration::from_secs(60);

/// How long an opening is remembered: longer than a client waits between its SYN and the packet that
/// follows the SYN-ACK, repeated SYNs included.
pub const OPENING: Duration = Duration::from_secs(130);

/// The shortest time between two lines of the same kind in the log of the program, on one CPU.
pub const BETWEEN_WARNINGS: Duration = Duration::from_secs(10);

/// How long a first fragment is remembered: as long as Linux waits for the rest of a packet
/// (`ipfrag_time`).
pub const FRAGMENT: Duration = Duration::from_secs(30);

/// How long, in seconds, it takes all CPUs at the least to fill the flow table with openings or the map of
/// fragments, and so how long an entry lasts under a flood of others: several round trips.
pub const ENTRIES_LAST_SECONDS: u32 = 2;
