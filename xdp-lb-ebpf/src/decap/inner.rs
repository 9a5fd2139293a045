//! The inner packet: which family it is of, and whether it may be taken out.

use xdp_lb_common::counters::decap::DropReason;

use crate::{
    frame::Frame,
    outer::{V4, V6},
};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// As Ethernet names it.
    #[inline(always)]
    pub(crate) fn ether_type(self) -> u16 {
        match self {
            Self::V4 => crate::IPV4,
            Self::V6 => crate::IPV6,
        }
    }
}

/// What a tunnel says to be behind it.
pub(crate) struct Payload {
    /// Where the inner packet begins, from the start of the frame.
    pub(crate) offset: usize,
    /// Bytes that the outer packet has for it.
    pub(crate) room: usize,
    /// None where the inner packet itself tells.
    pub(crate) family: Option<Family>,
}

impl Payload {
    /// Checks the inner header; returns its family.
    ///
    /// What the kernel finds out itself (checksums, addresses that may not be) is left to it.
    #[inline(always)]
    pub(crate) fn check(&self, frame: &Frame<'_>) -> Result<Family, DropReason> {
        if self.room == 0 {
            return Err(DropReason::BadInnerHeader);
        }
        let [first] = frame.read(self.offset).ok_or(DropReason::BadInnerHeader)?;
        let family = match first >> 4 {
            4 => Family::V4,
            6 => Family::V6,
            _ => return Err(DropReason::BadInnerVersion),
        };
        if self.family.is_some_and(|stated| stated != family) {
            return Err(DropReason::BadInnerVersion);
        }
        match family {
            Family::V4 => self.check_v4(frame, usize::from(first & 0x0f) * 4)?,
            Family::V6 => self.check_v6(frame)?,
        }
        Ok(family)
    }

    #[inline(always)]
    fn check_v4(&self, frame: &Frame<'_>, header_length: usize) -> Result<(), DropReason> {
        if self.room < V4 || header_length < V4 {
            return Err(DropReason::BadInnerHeader);
        }
        let total_length = usize::from(self.field(frame, 2)?);
        if total_length < header_length || total_length > self.room {
            return Err(DropReason::BadInnerLength);
        }
        Ok(())
    }

    #[inline(always)]
    fn check_v6(&self, frame: &Frame<'_>) -> Result<(), DropReason> {
        if self.room < V6 {
            return Err(DropReason::BadInnerHeader);
        }
        if usize::from(self.field(frame, 4)?) > self.room - V6 {
            return Err(DropReason::BadInnerLength);
        }
        Ok(())
    }

    #[inline(always)]
    fn field(&self, frame: &Frame<'_>, at: usize) -> Result<u16, DropReason> {
        frame
            .read_u16(self.offset + at)
            .ok_or(DropReason::BadInnerHeader)
    }
}
