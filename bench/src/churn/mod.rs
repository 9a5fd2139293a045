//! What becomes of a million connections while their backends come, go, drain and flap: `cargo xtask bench churn`.
//!
//! Virtual time, in steps of a second. All [`strategies`] see the same [`clients`] and the same [`script`] of changes;
//! each has its own tables. A connection is *broken* if one of its packets goes to another backend than its SYN, while
//! that backend was there to answer; it is *lost* if the backend was not.

pub mod clients;
mod run;
pub mod script;
pub mod strategies;

pub use self::run::run;

/// What to go through.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The same seed makes the same run.
    pub seed: u64,
    /// Connections at once.
    pub connections: u32,
    /// How long, in virtual seconds.
    pub seconds: u32,
    /// Backends at the beginning.
    pub backends: u16,
    /// Slots of the lookup table.
    pub table_size: u32,
}

impl Plan {
    /// A million connections for an hour.
    pub const THOROUGH: Self = Self {
        seed: 1,
        connections: 1_000_000,
        seconds: 3600,
        backends: 100,
        table_size: 65_537,
    };

    /// Few, for half an hour.
    pub const QUICK: Self = Self {
        connections: 10_000,
        seconds: 1800,
        table_size: 4_099,
        ..Self::THOROUGH
    };
}
