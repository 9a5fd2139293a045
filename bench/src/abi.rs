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

/// Words of a frame in which packets of a run may differ: from this one on, in IPv4 packets. They hold addresses and ports.
pub const VARYING_V4_AT: usize = 3;
/// In IPv6 packets.
pub const VARYING_V6_AT: usize = 2;
/// Those words: a list of packets has them alone, since whole frames would take caches that are the program's.
pub type VaryingV4 = [u64; 2];
/// Those words.
pub type VaryingV6 = [u64; 6];

/// The most packets that a list can have.
pub const TEMPLATES: u32 = 1_000_000;

/// Slots of the floor `stateless`, in one cache line.
pub type SlotLine = [u8; 64];

/// A backend of the floor `stateless`: the MAC addresses that a frame gets, the destination first, each in the first six
/// bytes of a word. Half a cache line, as balancers need for that, an interface and a tunnel.
pub type StatelessBackend = [u64; 4];

/// The wrapper's state, from one packet to the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What all packets have in common.
    pub base: Template,
    /// Templates in use.
    pub templates: u32,
    /// How far the next template is from the last: 1..=`templates`.
    pub stride: u32,
    /// The template that is used next.
    pub next: u32,
    /// What the program `grow` adds to the head of each frame, in bytes; negative: takes away.
    pub growth: i32,
    /// Bytes of each frame: [`FRAME`] or [`SHORT_FRAME`].
    pub frame: u32,
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
