//! What every forwarding program reads: Ethernet, IP, ports.

use core::{mem::size_of, ptr};

use aya_ebpf::programs::XdpContext;
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};
use xdp_lb_common::hash::{Address as _, Hasher};

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;

/// The headers of a TCP or UDP packet, as far as a floor needs them.
pub(crate) struct Headers {
    /// Where the frame begins.
    pub(crate) start: *mut EthHdr,
    /// What stands there.
    pub(crate) ethernet: EthHdr,
    /// A hash that has taken in both addresses. Programs that make nothing of it do not compute it.
    pub(crate) hasher: Hasher,
    /// Both ports.
    pub(crate) ports: [u8; 4],
    /// The number of the service, as `bench/src/packets.rs` makes their addresses.
    pub(crate) service: u8,
}

impl Headers {
    /// None for anything but TCP and UDP. `hasher` takes in the addresses.
    #[inline(always)]
    pub(crate) fn read(ctx: &XdpContext, hasher: Hasher) -> Option<Self> {
        let start: *mut EthHdr = at(ctx, 0)?;
        // SAFETY: `at` has checked the range; the header is made of bytes, so it needs no alignment.
        let ethernet = unsafe { ptr::read_unaligned(start) };
        let (protocol, transport, is_land, hasher, service) = match ethernet.ether_type {
            IPV4 => {
                let ip: *mut Ipv4Hdr = at(ctx, EthHdr::LEN)?;
                // SAFETY: as above.
                let ip = unsafe { ptr::read_unaligned(ip) };
                let length = usize::from(ip.vihl & 0x0f) * 4;
                let hasher = ip.src_addr.absorb_pair(ip.dst_addr, hasher);
                let [.., last] = ip.dst_addr;
                let is_land = ip.src_addr == ip.dst_addr;
                (ip.proto, length, is_land, hasher, last.wrapping_sub(1))
            }
            IPV6 => {
                let ip: *mut Ipv6Hdr = at(ctx, EthHdr::LEN)?;
                // SAFETY: as above.
                let ip = unsafe { ptr::read_unaligned(ip) };
                let hasher = ip.src_addr.absorb_pair(ip.dst_addr, hasher);
                let [.., last] = ip.dst_addr;
                let is_land = ip.src_addr == ip.dst_addr;
                (ip.next_hdr, Ipv6Hdr::LEN, is_land, hasher, last)
            }
            _ => return None,
        };
        if protocol != IpProto::Tcp as u8 && protocol != IpProto::Udp as u8 {
            return None;
        }
        let ports: *mut [u8; 4] = at(ctx, EthHdr::LEN + transport)?;
        // SAFETY: as above.
        let ports = unsafe { ptr::read_unaligned(ports) };
        let [a, b, c, d] = ports;
        // Nobody sends packets from an address and port to themselves, or to port 0. The checks are there
        // so that all of this is really read.
        if (is_land && [a, b] == [c, d]) || [c, d] == [0; 2] {
            return None;
        }
        Some(Self {
            start,
            ethernet,
            hasher,
            ports,
            service,
        })
    }

    /// Writes the MAC addresses.
    #[inline(always)]
    pub(crate) fn address(self, destination: [u8; 6], source: [u8; 6]) {
        let ethernet = EthHdr {
            dst_addr: destination,
            src_addr: source,
            ether_type: self.ethernet.ether_type,
        };
        // SAFETY: `read` has checked the range, and the frame belongs to the program while it runs.
        unsafe { ptr::write_unaligned(self.start, ethernet) };
    }

    /// Writes the MAC addresses, each from the first six bytes of a word.
    #[inline(always)]
    pub(crate) fn address_by_words(self, destination: u64, source: u64) {
        let at = self.start.cast::<u8>();
        // SAFETY: as above; what comes later overwrites what stands behind an address in its word.
        unsafe {
            ptr::write_unaligned(at.cast(), destination);
            ptr::write_unaligned(at.add(6).cast(), source);
            ptr::write_unaligned(at.add(12).cast(), self.ethernet.ether_type);
        }
    }
}

/// The `T` at `offset`, or None where the frame ends before its end.
#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}
