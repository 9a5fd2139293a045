//! Connection tracking: flows, and how fast they may be made.

/// A flow: the 5-tuple, with addresses of one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// The client.
    pub source: A,
    /// The VIP.
    pub destination: A,
    /// The client's port in network order.
    pub source_port_be: [u8; 2],
    /// The service's port in network order.
    pub destination_port_be: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0: the kernel compares keys byte by byte.
    pub reserved: [u8; 3],
}

impl<A> FlowKey<A> {
    /// A key whose ports are still 0.
    #[inline(always)]
    #[must_use]
    pub const fn without_ports(source: A, destination: A, protocol: u8) -> Self
    where
        A: Copy,
    {
        Self {
            source,
            destination,
            source_port_be: [0; 2],
            destination_port_be: [0; 2],
            protocol,
            reserved: [0; 3],
        }
    }
}

/// One particular backend: index and generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendRef {
    /// Index into [`map::BACKENDS`](super::map::BACKENDS).
    pub index: u16,
    /// [`BackendEntry::generation`](super::BackendEntry::generation) at the time the reference was made.
    pub generation: u16,
}

impl BackendRef {
    /// The word that [`FragmentEntry::backend`](super::FragmentEntry::backend) holds.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u32 {
        (self.generation as u32) << 16 | self.index as u32
    }

    /// The opposite of [`pack`](Self::pack).
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        Self {
            index: word as u16,
            generation: (word >> 16) as u16,
        }
    }
}

/// What is limited per CPU: an index into [`map::BUDGETS`](super::map::BUDGETS).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// New entries of flows.
    Flows = 0,
    /// New entries of openings.
    Openings = 1,
    /// New entries in the map of fragments.
    Fragments = 2,
    /// ICMP messages to clients whose packets are too big.
    Answers = 3,
}

impl Budget {
    /// How many there are.
    pub const COUNT: u32 = 4;
}

/// The state of one [`Budget`] on one CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBucket {
    /// When tokens were last added: the low 32 bits of the kernel's tick count.
    pub filled_at: u32,
    /// Entries that may still be made.
    pub tokens: u32,
    /// When it was last logged that the bucket is empty, in the same ticks.
    pub warned_at: u32,
    /// Fills the entry up to a multiple of eight bytes.
    pub reserved: u32,
}

/// Rates, times and sizes that hold for the whole program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Entries that may be made per tick and CPU, for each [`Budget`].
    pub tokens_per_tick: [u32; Budget::COUNT as usize],
    /// The most tokens that a bucket holds, for each [`Budget`].
    pub burst: [u32; Budget::COUNT as usize],
    /// How long a silent flow is remembered after a FIN or RST, in ticks.
    pub closing_ticks: u32,
    /// How long an opening is remembered, in ticks.
    pub opening_ticks: u32,
    /// The flow table counts time in periods of 2 to the power of this many ticks.
    pub period_shift: u32,
    /// The flow table has 2 to the power of this many buckets.
    pub bucket_bits: u32,
    /// The service index has 2 to the power of this many lines besides its head.
    pub index_bits: u32,
    /// How many [`Count`](super::Count)s each CPU has in [`map::BACKEND_COUNTERS`](super::map::BACKEND_COUNTERS).
    pub backends: u32,
    /// How long a first fragment is remembered, in ticks.
    pub fragment_ticks: u32,
    /// The shortest time between two log lines of the same kind on one CPU, in ticks.
    pub warning_ticks: u32,
}
