//! What the decapsulating program and `xdp-lb decap` agree on: maps and settings. Its counters are in
//! [`counters::decap`](crate::counters::decap).
//!
//! Of its maps only the counters outlive a program; the others are made, filled and then put into
//! force together with a new one.

/// Version of the counters' order and meaning. The counters of another version are not taken over.
pub const ABI_VERSION: u32 = 1;

/// The UDP port of GUE, as IANA has it.
pub const GUE_PORT: u16 = 6080;

/// Names of the maps.
pub mod map {
    /// Array of one [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// Longest-prefix-match trie of IPv4 addresses: whose packets are decapsulated. The values mean
    /// nothing.
    pub const FROM_V4: &str = "FROM_V4";
    /// [`FROM_V4`] for IPv6.
    pub const FROM_V6: &str = "FROM_V6";
    /// Per-CPU array by [`Counter`](crate::counters::decap::Counter) of [`Count`](crate::abi::Count).
    pub const COUNTERS: &str = "COUNTERS";
}

/// The value of [`map::SETTINGS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// UDP port on which GUE comes in.
    pub gue_port: u16,
    /// [`Self::FLAG_LISTED_ONLY`]
    pub flags: u16,
}

impl Settings {
    /// Only packets from the addresses in [`map::FROM_V4`] and [`map::FROM_V6`] are decapsulated.
    pub const FLAG_LISTED_ONLY: u16 = 1;

    /// Says whether [`Self::FLAG_LISTED_ONLY`] is set.
    #[must_use]
    pub const fn listed_only(self) -> bool {
        self.flags & Self::FLAG_LISTED_ONLY != 0
    }
}

// The kernel knows a map by sizes alone.
const _: () = assert!(size_of::<Settings>() == 4);

// SAFETY: `repr(C)`, two integers of the same size: every bit pattern is valid, and there is no
// padding.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}
