//! What becomes of a packet.

use core::num::NonZeroU32;

use aya_ebpf::bindings::xdp_action;
use xdp_lb_common::counters::{Counter, DropReason, PassReason};

/// An XDP action and the counter of the verdict, in one word: that is what a subprogram can return.
#[derive(Clone, Copy)]
pub(crate) struct Outcome(NonZeroU32);

/// What a stage says: the packet goes on, or this is its end.
pub(crate) type Status = Result<(), Outcome>;

impl Outcome {
    /// Nothing yet: the packet is not [`Common`](crate::path::Common).
    pub(crate) const RARE: Self = Self(NonZeroU32::MAX);

    const fn new(action: xdp_action::Type, counter: u32) -> Self {
        match NonZeroU32::new(action << 16 | counter) {
            Some(word) => Self(word),
            // Never: the actions used are not 0.
            None => Self(NonZeroU32::MIN),
        }
    }

    /// It is left to the kernel.
    #[inline(always)]
    pub(crate) const fn pass(reason: PassReason) -> Self {
        Self::new(xdp_action::XDP_PASS, reason as u32)
    }

    /// It is dropped.
    #[inline(always)]
    pub(crate) const fn drop(reason: DropReason) -> Self {
        Self::new(xdp_action::XDP_DROP, reason as u32)
    }

    /// It is dropped, and the frame that has become an answer to its sender is sent.
    #[inline(always)]
    pub(crate) const fn answer(reason: DropReason) -> Self {
        Self::new(xdp_action::XDP_TX, reason as u32)
    }

    /// It goes to a backend, by the interface that it came in by.
    #[inline(always)]
    pub(crate) const fn transmit() -> Self {
        Self::new(xdp_action::XDP_TX, Counter::Forwarded as u32)
    }

    /// It goes to a backend, by the interface that the kernel has been told.
    #[inline(always)]
    pub(crate) const fn redirect() -> Self {
        Self::new(xdp_action::XDP_REDIRECT, Counter::Forwarded as u32)
    }

    /// The word, which is more than 16 bits.
    #[inline(always)]
    pub(crate) const fn word(self) -> u32 {
        self.0.get()
    }

    /// What a subprogram has returned: an outcome's [`word`](Self::word), or a value of 16 bits.
    #[inline(always)]
    pub(crate) fn or_value(word: u32) -> Result<u16, Self> {
        match NonZeroU32::new(word) {
            Some(outcome) if word > 0xffff => Err(Self(outcome)),
            _ => Ok(word as u16),
        }
    }

    /// True for [`RARE`](Self::RARE).
    #[inline(always)]
    pub(crate) const fn is_rare(self) -> bool {
        self.0.get() == Self::RARE.0.get()
    }

    /// Index of the [`Counter`] of the verdict.
    #[inline(always)]
    pub(crate) const fn counter(self) -> u32 {
        self.0.get() & 0xffff
    }

    /// The action that the kernel is to take.
    #[inline(always)]
    pub(crate) const fn action(self) -> xdp_action::Type {
        self.0.get() >> 16
    }
}

impl From<PassReason> for Outcome {
    #[inline(always)]
    fn from(reason: PassReason) -> Self {
        Self::pass(reason)
    }
}

impl From<DropReason> for Outcome {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::drop(reason)
    }
}
