//! `cargo xtask demo`.

mod wire;

pub use self::wire::Wire;
