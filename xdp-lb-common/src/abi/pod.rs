//! Leave to copy the types to and from kernel memory, for the daemon.

use super::{
    Count, FlowKey, FragmentEntry, FragmentKey, Meta, PrefixKey, ServiceEntry, ServiceKey, Timing,
    TokenBucket,
};
use crate::hash::HashKey;

/// Asserts that a type may be copied to and from kernel memory byte by byte.
macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        // SAFETY: each is `repr(C)`, made of integers and arrays of integers, for which every
        // bit pattern is valid, and has no padding (the size asserts above add up).
        $(unsafe impl aya::Pod for $type {})*
    };
}

pod!(
    Count,
    FragmentEntry,
    FragmentKey,
    FlowKey<[u8; 4]>,
    FlowKey<[u8; 16]>,
    HashKey,
    Meta,
    PrefixKey,
    ServiceEntry,
    ServiceKey,
    Timing,
    TokenBucket,
);
