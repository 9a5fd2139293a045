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
    pub(crate) fn check(&self, frame: &Frame) -> Result<Family, DropReason> {
        // The shorter of the two headers.
        if self.room < V4 {
            return Err(DropReason::BadInnerHeader);
        }
        // IPv4's total length, and IPv6's payload length.
        let [first, _, total_high, total_low, high, low] =
            frame.read(self.offset).ok_or(DropReason::BadInnerHeader)?;
        let family = match first >> 4 {
            4 => Family::V4,
            6 => Family::V6,
            _ => return Err(DropReason::BadInnerVersion),
        };
        if self.family.is_some_and(|stated| stated != family) {
            return Err(DropReason::BadInnerVersion);
        }
        match family {
            Family::V4 => self.check_v4(first, u16::from_be_bytes([total_high, total_low]))?,
            Family::V6 => self.check_v6(u16::from_be_bytes([high, low]))?,
        }
        Ok(family)
    }

    #[inline(always)]
    fn check_v4(&self, first: u8, total_length: u16) -> Result<(), DropReason> {
        let header_length = usize::from(first & 0x0f) * 4;
        if header_length < V4 {
            return Err(DropReason::BadInnerHeader);
        }
        let total_length = usize::from(total_length);
        if total_length < header_length || total_length > self.room {
            return Err(DropReason::BadInnerLength);
        }
        Ok(())
    }

    #[inline(always)]
    fn check_v6(&self, payload_length: u16) -> Result<(), DropReason> {
        if self.room < V6 {
            return Err(DropReason::BadInnerHeader);
        }
        if usize::from(payload_length) > self.room - V6 {
            return Err(DropReason::BadInnerLength);
        }
        Ok(())
    }
}
