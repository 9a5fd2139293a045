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
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0: the kernel compares keys byte by byte.
    pub reserved: [u8; 3],
}

/// Where the first fragment went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentEntry {
    /// A [`BackendRef`](super::BackendRef) packed into one word.
    pub backend: u32,
    /// Id of the service.
    pub service: u32,
    /// When the first fragment passed: the low 32 bits of the kernel's tick count.
    pub seen: u32,
    /// Fills the entry up to a multiple of eight bytes.
    pub reserved: u32,
}
