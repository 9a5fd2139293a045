//! What the wrapper and the benchmark share: names and layouts of the wrapper's maps.
//!
//! The crate `bench-ebpf` takes this file in by path, so that there is no crate between the two.

/// Bytes of the longest frames, from the Ethernet header on: the longest headers that are measured (Ethernet, IPv6,
/// TCP; 74 bytes) in whole words. The wrapper writes all of a frame.
pub const FRAME: usize = 80;
/// Bytes of the others: the shortest that there are on Ethernet, with the checksum that no program sees.
pub const SHORT_FRAME: usize = 64;

/// A frame, all of it or the first [`SHORT_FRAME`] bytes.
pub type Template = [u64; FRAME / 8];

/// A frame in a list, at the beginning of a cache line.
pub type Listed = [u64; 16];

/// The most connections that packets can be of: they have 24 bits of a client's address and port for themselves.
pub const CONNECTIONS: u32 = 1 << 24;

/// Slots of the floor `stateless`, in one cache line.
pub type SlotLine = [u8; 64];

/// A backend of the floor `stateless`: the MAC addresses that a frame gets, the destination first, each in the first six
/// bytes of a word. Half a cache line, as balancers need for that, an interface and a tunnel.
pub type StatelessBackend = [u64; 4];

/// The wrapper's state, from one packet to the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The packet of the connection 0.
    pub base: Template,
    /// Connections that packets are of: 1..=[`CONNECTIONS`].
    pub connections: u32,
    /// Services that they are to, in turn: 1..=250.
    pub services: u32,
    /// How far the next packet's connection is from the last one's: 1..=`connections`. 0: they are drawn at random.
    pub stride: u32,
    /// The connection that comes next, unless it is drawn.
    pub next: u32,
    /// What the program `grow` adds to the head of each frame, in bytes; negative: takes away.
    pub growth: i32,
    /// Bytes of each frame: [`FRAME`] or [`SHORT_FRAME`].
    pub frame: u32,
    /// Connections whose packets are in the list; those of the others are computed.
    pub listed: u32,
    /// Bytes of the frame as the last packet's program left it.
    pub length: u32,
    /// Slots of each service, for `stateless`.
    pub table_size: u32,
    /// Backends of each service, for `stateless`.
    pub backends: u32,
    /// Packets handed to the program under test.
    pub packets: u64,
    /// Packets that could not be written anew, or that the program `grow` could not change.
    pub failures: u64,
}

// The kernel is given all bytes of it, so none is without a value.
const _: () = assert!(size_of::<State>() == size_of::<Template>() + 10 * 4 + 2 * 8);

/// The number of a connection of so many, drawn at random: the same for the same `step`.
///
/// Nothing is remembered between two steps, so that no memory is needed for an order, nor for the packets.
#[inline(always)]
#[must_use]
pub const fn drawn(step: u64, connections: u32) -> u32 {
    let mut x = step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    // The lower half as a fraction of 2^32.
    (((x & 0xffff_ffff) * connections as u64) >> 32) as u32
}

/// What tells a packet from that of connection 0: words of 16 bits, as they stand in the memory of a little-endian machine, which are
/// added to what is there.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// To the lower half of the client's address.
    client: u64,
    /// To its port, which has its upper byte first.
    port: u64,
    /// To the last two bytes of the service's address.
    service: u64,
}

impl Difference {
    /// That of a connection.
    #[inline(always)]
    #[must_use]
    pub const fn new(connection: u32, services: u32) -> Self {
        // In a BPF program, a division that could panic cannot be.
        let service = match connection.checked_rem(services) {
            Some(service) => service as u64,
            None => 0,
        };
        let connection = connection as u64;
        Self {
            client: connection & 0xffff,
            port: connection >> 16 << 8,
            service: service << 8,
        }
    }

    /// A word of its packet, by that of connection 0. The IP header's checksum goes with it. The TCP header's is the same
    /// for all: the upper half of the sequence number makes up for the rest.
    #[inline(always)]
    #[must_use]
    pub const fn apply_v4(self, index: usize, word: u64) -> u64 {
        match index {
            // Checksum, the client's address, half of the service's.
            3 => {
                let sum = !word & 0xffff;
                let sum = plus(sum, self.client + self.service);
                (word & !0xffff | sum ^ 0xffff) + (self.client << 32)
            }
            // The other half, ports, and half of the sequence number.
            4 => (self.sequence(word, 48) + self.service) + (self.port << 16),
            _ => word,
        }
    }

    /// The same of IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn apply_v6(self, index: usize, word: u64) -> u64 {
        match index {
            // The end of the client's address.
            4 => word + (self.client << 32),
            // The end of the service's, and the client's port.
            6 => word + (self.service << 32) + (self.port << 48),
            // Half of the sequence number.
            7 => self.sequence(word, 16),
            _ => word,
        }
    }

    /// A word with another upper half of the sequence number, from this bit on.
    #[inline(always)]
    const fn sequence(self, word: u64, at: u32) -> u64 {
        let sum = plus(self.client + self.port, self.service);
        let sequence = plus(word >> at & 0xffff, sum ^ 0xffff);
        word & !(0xffff << at) | sequence << at
    }
}

/// A sum in one's complement, of two numbers that have some bits more than 16 at the most.
#[inline(always)]
const fn plus(a: u64, b: u64) -> u64 {
    let sum = a + b;
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}
