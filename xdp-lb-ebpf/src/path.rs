//! The two ways through the program: one source, compiled twice.

use crate::outcome::Outcome;

/// A way through the program.
pub(crate) trait Path {
    /// Whether it is [`Common`].
    const IS_COMMON: bool;

    /// Said where something comes that is not common.
    ///
    /// Nothing may have been done by then that must not be done twice: nothing written to the frame, nothing counted.
    fn rare() -> Result<(), Outcome>;
}

/// What nearly all packets are: no options, no fragments, no tags, nothing to be remembered anew. This one is all
/// in one piece, without a call where the kernel does not want one, and gives up at anything else.
pub(crate) struct Common;

/// Everything. A packet that is not common begins anew here.
pub(crate) struct Whole;

impl Path for Common {
    const IS_COMMON: bool = true;

    #[inline(always)]
    fn rare() -> Result<(), Outcome> {
        Err(Outcome::RARE)
    }
}

impl Path for Whole {
    const IS_COMMON: bool = false;

    #[inline(always)]
    fn rare() -> Result<(), Outcome> {
        Ok(())
    }
}
