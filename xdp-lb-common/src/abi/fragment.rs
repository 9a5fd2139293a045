//! Fragments: later ones carry no ports and follow their first.

/// What the fragments of one packet have in common (RFC 791, RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// The sender; an IPv4 address in its IPv4-mapped form.
    pub source: [u8; 16],
    /// The VIP, in the same form.
    pub destination: [u8; 16],
    /// The packet's identification, as it stands in the header.
    pub id: u32,
    /// IP protocol number; 0 with IPv6, where the identification alone tells packets between two hosts apart (RFC 8200,
    /// section 4.5).
    pub protocol: u8,
    /// Always 0: the kernel compares keys byte by byte.
    pub reserved: [u8; 3],
}

/// Where the first fragment went.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentEntry {
    /// A [`BackendRef`](super::BackendRef) packed into one word; 0: it was left to the kernel.
    pub backend: u32,
    /// Id of the service.
    pub service: u32,
    /// When the first fragment passed: the low 32 bits of the kernel's tick count.
    pub seen: u32,
    /// Fills the entry up to a multiple of eight bytes.
    pub reserved: u32,
}
