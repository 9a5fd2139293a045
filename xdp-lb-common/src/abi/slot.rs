//! Slots: the entries of lookup tables.

/// One entry of a lookup table: a backend, and what is known of the one before it.
///
/// A slot is in one of three states, told apart by `previous`:
///
/// | state | `previous` | meaning |
/// |---|---|---|
/// | settled | 0 | every flow of this slot belongs to `current` |
/// | moving | a backend | moved lately: flows that nobody remembers belong to `previous` |
/// | mixed | [`Slot::MIXED`] | moved once: remembered flows may disagree with `current` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Index of the backend that gets new connections; 0: there is none for them.
    pub current: u16,
    /// See the table above.
    pub previous: u16,
}

impl Slot {
    /// The value of `previous` in a mixed slot. Backend indices end below it.
    pub const MIXED: u16 = u16::MAX;

    /// The word that the arena holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u32 {
        (self.previous as u32) << 16 | self.current as u32
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        Self {
            current: word as u16,
            previous: (word >> 16) as u16,
        }
    }

    /// True where no remembered flow can disagree with `current`.
    #[inline(always)]
    #[must_use]
    pub const fn is_settled(self) -> bool {
        self.previous == 0
    }

    /// The backend before the current one, while it is remembered.
    #[inline(always)]
    #[must_use]
    pub const fn moving_from(self) -> Option<u16> {
        match self.previous {
            0 | Self::MIXED => None,
            index => Some(index),
        }
    }
}

/// Two neighbouring slots, as [`Slot::pack`]s them: the kernel rounds array elements up to eight
/// bytes, so one slot an element would waste half of the arena.
pub type SlotPair = [u32; 2];

/// Eight neighbouring slots of tables at rest, a byte each: which of the service's [`ServiceMembers`] the slot has.
pub type RestingSlots = [u8; 8];

/// The most backends of a table at rest.
pub const MEMBERS: usize = 256;

/// The backend indices that the bytes of a service's table at rest stand for.
pub type ServiceMembers = [u16; MEMBERS];
