//! The flow table: which backend a flow goes to, one word a flow, in buckets of one cache line.
//!
//! An entry does not have its flow in it, but a fingerprint of the flow's hash: the bucket and the fingerprint
//! tell it apart from others. Of two flows that have both in common, one is taken for the other. An unknown flow
//! finds a stranger's entry in a full bucket with a probability of 8 / 2^26, one in eight million, and then goes
//! to a backend of its own service for as long as that entry lives.
//!
//! Entries are read and written as one word each, without locks: of two CPUs that write to the same place at once,
//! one is not remembered.

/// Entries in a bucket.
pub const BUCKET: usize = 8;

/// A bucket: [`FlowEntry`]s as words.
pub type FlowBucket = [u64; BUCKET];

/// Bits of a fingerprint.
const FINGERPRINT_BITS: u32 = 26;
const FINGERPRINT_MASK: u32 = (1 << FINGERPRINT_BITS) - 1;
const FINGERPRINT_SHIFT: u32 = 38;

const BACKEND_SHIFT: u32 = 22;

/// Bits of a time.
const SEEN_BITS: u32 = 20;
const SEEN_MASK: u32 = (1 << SEEN_BITS) - 1;
const SEEN_SHIFT: u32 = 2;

/// An entry of the flow table: one word, in which 0 means that there is none.
///
/// | bits | what |
/// |---|---|
/// | 38 to 63 | fingerprint |
/// | 22 to 37 | index of the backend, never 0 |
/// | 2 to 21 | when the last packet passed, in [periods](Self::period) |
/// | 0 to 1 | its state |
///
/// | state | meaning | who may take its place while it lives |
/// |---|---|---|
/// | 0 | unproven: a flow of which one packet is known, or several in one period | another unproven flow |
/// | 1 | closing: a FIN or RST has passed | nobody |
/// | 2 | an opening: nothing but a SYN has passed | another opening |
/// | 3 | proven: its SYN was seen, or packets in several periods | nobody |
///
/// So whoever sends packets of flows that are none makes room for more of them at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowEntry(pub u64);

impl FlowEntry {
    const STATE: u64 = 3;
    const CLOSING: u64 = 1;
    const OPENING: u64 = 2;
    const PROVEN: u64 = 3;

    /// The entry of an unproven flow with this fingerprint, at a backend, last seen in this period.
    #[inline(always)]
    #[must_use]
    pub const fn new(fingerprint: u32, backend: u16, seen: u32) -> Self {
        Self(
            (fingerprint as u64) << FINGERPRINT_SHIFT
                | (backend as u64) << BACKEND_SHIFT
                | ((seen & SEEN_MASK) as u64) << SEEN_SHIFT,
        )
    }

    /// The same for an opening.
    #[inline(always)]
    #[must_use]
    pub const fn opening(fingerprint: u32, backend: u16, seen: u32) -> Self {
        Self(Self::new(fingerprint, backend, seen).0 | Self::OPENING)
    }

    /// There is none.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Bits of the hash of its flow.
    #[inline(always)]
    #[must_use]
    pub const fn fingerprint(self) -> u32 {
        (self.0 >> FINGERPRINT_SHIFT) as u32
    }

    /// Index of the backend.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 >> BACKEND_SHIFT) as u16
    }

    /// The period in which the last packet passed.
    #[inline(always)]
    #[must_use]
    pub const fn seen(self) -> u32 {
        (self.0 >> SEEN_SHIFT) as u32 & SEEN_MASK
    }

    /// Nothing but a SYN has passed.
    #[inline(always)]
    #[must_use]
    pub const fn is_opening(self) -> bool {
        self.0 & Self::STATE == Self::OPENING
    }

    /// A FIN or RST has passed.
    #[inline(always)]
    #[must_use]
    pub const fn is_closing(self) -> bool {
        self.0 & Self::STATE == Self::CLOSING
    }

    /// The same entry, whose flow was seen in this period.
    #[inline(always)]
    #[must_use]
    pub const fn seen_in(self, period: u32) -> Self {
        Self(
            self.0 & !((SEEN_MASK as u64) << SEEN_SHIFT)
                | ((period & SEEN_MASK) as u64) << SEEN_SHIFT,
        )
    }

    /// One packet has passed, which may have been anybody's.
    #[inline(always)]
    #[must_use]
    pub const fn is_unproven(self) -> bool {
        self.0 & Self::STATE == 0
    }

    /// Its SYN was seen, or packets over some time.
    #[inline(always)]
    #[must_use]
    pub const fn is_proven(self) -> bool {
        self.0 & Self::STATE == Self::PROVEN
    }

    /// The same entry, marked as closing.
    #[inline(always)]
    #[must_use]
    pub const fn closing(self) -> Self {
        Self(self.0 & !Self::STATE | Self::CLOSING)
    }

    /// The same entry, of a flow that is proven.
    #[inline(always)]
    #[must_use]
    pub const fn proven(self) -> Self {
        Self(self.0 | Self::PROVEN)
    }

    /// The same entry, after a SYN that follows it: one of a connection that has ended may open another one.
    #[inline(always)]
    #[must_use]
    pub const fn after_syn(self) -> Self {
        if self.is_closing() {
            Self(self.0 & !Self::STATE | Self::OPENING)
        } else {
            self
        }
    }

    /// The same entry, after a packet in `period` that opens no connection and does not end it.
    #[inline(always)]
    #[must_use]
    pub const fn continued_in(self, period: u32) -> Self {
        let seen = self.seen_in(period);
        if self.is_unproven() && seen.0 != self.0 {
            seen.proven()
        } else {
            seen
        }
    }

    /// Periods that have begun since the last packet; 0 where another CPU's clock was read later than this one's.
    #[inline(always)]
    #[must_use]
    pub const fn silence(self, now: u32) -> u32 {
        let passed = now.wrapping_sub(self.seen()) & SEEN_MASK;
        if passed > SEEN_MASK / 2 { 0 } else { passed }
    }

    /// True if a flow that is forgotten after `ticks` of silence is over. It is remembered for as long at the least,
    /// and for up to two periods more.
    #[inline(always)]
    #[must_use]
    pub const fn was_silent_for(self, ticks: u32, now: u32, shift: u32) -> bool {
        let limit = (ticks >> shift) + (ticks & ((1 << shift) - 1) != 0) as u32;
        self.silence(now) > limit
    }

    /// How well a new entry, `by_opening` or by a flow, may take its place: best where there is none, then that of one
    /// that is over, then that of the oldest of its own kind. 0: not at all.
    #[inline(always)]
    #[must_use]
    pub const fn worth_leaving(self, by_opening: bool, is_over: bool, now: u32) -> u32 {
        if self.is_none() {
            return u32::MAX;
        }
        // Flags as numbers, since each branch doubles what the verifier has to follow.
        let state = self.0 & Self::STATE;
        let is_of_its_kind = (state == (by_opening as u64) << 1) as u32;
        let is_over = is_over as u32;
        (1 + self.silence(now) + (is_over << (SEEN_BITS + 1))) * (is_of_its_kind | is_over)
    }

    /// The period that a tick of the kernel's clock is in: 2^`shift` ticks are one.
    #[inline(always)]
    #[must_use]
    pub const fn period(ticks: u32, shift: u32) -> u32 {
        (ticks >> shift) & SEEN_MASK
    }
}

/// Where the entry of a flow is: its bucket, and the fingerprint there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Index of the bucket.
    pub bucket: u32,
    /// See [`FlowEntry::fingerprint`].
    pub fingerprint: u32,
}

impl Place {
    /// The place of a flow in a table of 2^`bits` buckets, by the hash of the whole 5-tuple.
    ///
    /// The bucket is made of the upper bits of the hash, which the slot is made of as well, and of bits that the
    /// fingerprint has, so that flows of one slot are spread over all buckets and the slot can be told from the place.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow_hash: u64, bits: u32) -> Self {
        let fingerprint = flow_hash as u32 & FINGERPRINT_MASK;
        let top = (flow_hash >> 32) as u32 >> (32 - bits);
        Self {
            bucket: top ^ (fingerprint & ((1 << bits) - 1)),
            fingerprint,
        }
    }

    /// The first and the last of the slots that its flow may have in a lookup table of `size` slots, if slots are
    /// chosen by the whole 5-tuple.
    #[must_use]
    pub const fn slots(self, bits: u32, size: u32) -> (u32, u32) {
        let top = self.bucket ^ (self.fingerprint & ((1 << bits) - 1));
        let first = (top as u64) << (64 - bits);
        let last = first | u64::MAX >> bits;
        (
            crate::hash::reduce(first, size),
            crate::hash::reduce(last, size),
        )
    }
}

/// The sizes that a flow table may have, as powers of two of buckets.
pub const BUCKET_BITS: core::ops::RangeInclusive<u32> = 4..=24;

/// How many buckets, as a power of two, have room for so many flows at the least.
#[must_use]
pub const fn bucket_bits(flows: u32) -> u32 {
    let buckets = flows.div_ceil(BUCKET as u32).next_power_of_two();
    let bits = buckets.trailing_zeros();
    let (least, most) = (*BUCKET_BITS.start(), *BUCKET_BITS.end());
    if bits < least {
        least
    } else if bits > most {
        most
    } else {
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::reduce;

    #[test]
    fn an_entry_keeps_what_it_was_made_of() {
        for (fingerprint, backend, seen) in [
            (0, 1, 0),
            (FINGERPRINT_MASK, u16::MAX, SEEN_MASK),
            (0x0155_5555, 0xaaaa, 0x5_5555),
        ] {
            let entry = FlowEntry::new(fingerprint, backend, seen);
            assert_eq!(entry.fingerprint(), fingerprint);
            assert_eq!((entry.backend(), entry.seen()), (backend, seen));
            assert!(!entry.is_none() && !entry.is_closing() && !entry.is_opening());
            for (other, is_meant) in [
                (entry, FlowEntry::is_unproven as fn(FlowEntry) -> bool),
                (
                    FlowEntry::opening(fingerprint, backend, seen),
                    FlowEntry::is_opening,
                ),
                (entry.closing(), FlowEntry::is_closing),
                (entry.proven(), FlowEntry::is_proven),
            ] {
                let later = other.seen_in(seen + 1);
                assert_eq!(later.seen(), (seen + 1) & SEEN_MASK);
                assert_eq!(later.fingerprint(), fingerprint);
                assert_eq!(later.backend(), backend);
                let states = [
                    FlowEntry::is_unproven,
                    FlowEntry::is_opening,
                    FlowEntry::is_closing,
                    FlowEntry::is_proven,
                ];
                assert!(is_meant(later));
                assert_eq!(states.into_iter().filter(|state| state(later)).count(), 1);
            }
        }
    }

    #[test]
    fn what_packets_make_of_an_entry() {
        let opening = FlowEntry::opening(1, 2, 3);
        let unproven = FlowEntry::new(1, 2, 3);
        assert!(opening.proven().is_proven() && opening.closing().is_closing());
        // Packets of one moment prove nothing.
        assert!(unproven.continued_in(3).is_unproven());
        assert!(unproven.continued_in(4).is_proven());
        assert!(unproven.closing().continued_in(4).is_closing());
        assert!(opening.continued_in(4).is_opening());
        // A SYN opens anew what has ended, and nothing else.
        assert!(unproven.proven().closing().after_syn().is_opening());
        assert!(opening.after_syn().is_opening());
        assert!(unproven.proven().after_syn().is_proven());
        assert!(unproven.after_syn().is_unproven());
    }

    #[test]
    fn silence_is_counted_across_the_wrap_and_never_backwards() {
        let entry = FlowEntry::new(1, 1, SEEN_MASK);
        assert_eq!(entry.silence(SEEN_MASK), 0);
        assert_eq!(entry.silence(2), 3);
        assert_eq!(entry.silence(SEEN_MASK - 1), 0);
    }

    #[test]
    fn a_new_entry_takes_the_place_of_one_that_is_over_or_of_its_own_kind() {
        const NOW: u32 = SEEN_MASK;
        let now = NOW;
        let flow = |silence: u32| FlowEntry::new(1, 1, NOW - silence);
        let opening = |silence: u32| FlowEntry::opening(1, 1, NOW - silence);
        let oldest = SEEN_MASK / 2;
        for (by_opening, kind) in [(false, flow as fn(u32) -> FlowEntry), (true, opening)] {
            let order = [
                (kind(0), false),
                (kind(1), false),
                (kind(oldest), false),
                (flow(0).closing(), true),
                (flow(1).proven(), true),
                (opening(2), true),
                (kind(oldest), true),
                (FlowEntry::default(), false),
            ];
            let worth = order.map(|(entry, is_over)| entry.worth_leaving(by_opening, is_over, now));
            assert!(worth[0] > 0);
            assert!(worth.is_sorted_by(|a, b| a < b), "{worth:?}");
            let other = if by_opening {
                flow(oldest)
            } else {
                opening(oldest)
            };
            for entry in [other, flow(oldest).closing(), flow(oldest).proven()] {
                assert_eq!(entry.worth_leaving(by_opening, false, now), 0);
            }
        }
    }

    #[test]
    fn a_flow_is_remembered_for_its_time_at_the_least() {
        let shift = 6;
        for (ticks, seen_at) in [(250, 0), (256, 63), (64, 1), (1, 63), (0, 5)] {
            let entry = FlowEntry::new(1, 1, FlowEntry::period(seen_at, shift));
            let at = |tick| entry.was_silent_for(ticks, FlowEntry::period(tick, shift), shift);
            assert!(!at(seen_at + ticks), "{ticks} ticks");
            assert!(at(seen_at + ticks + 2 * 64), "{ticks} ticks");
        }
    }

    #[test]
    fn a_place_tells_the_slot() {
        let mut hash = 1_u64;
        for bits in BUCKET_BITS {
            for size in [1, 7, 251, 65537, 5_000_011] {
                hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(size);
                let place = Place::of(hash, bits);
                assert!(place.bucket < 1 << bits);
                let (first, last) = place.slots(bits, size);
                assert!((first..=last).contains(&reduce(hash, size)));
                assert!(last < size && last - first <= (size >> bits) + 1);
            }
        }
    }

    #[test]
    fn there_is_room_for_as_many_flows_as_were_asked_for() {
        assert_eq!(bucket_bits(1), 4);
        assert_eq!(bucket_bits(1_000_000), 17);
        assert_eq!(bucket_bits(1 << 24), 21);
        assert_eq!(bucket_bits((1 << 24) + 1), 22);
        assert_eq!(bucket_bits(1 << 27), 24);
    }
}
