//! The least that a forwarding program does: headers up to the ports, and two MAC addresses.

use core::{mem::size_of, ptr};

use aya_ebpf::programs::XdpContext;
use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
};

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;

/// Swaps the MAC addresses of a TCP or UDP packet; None for anything else.
#[inline(always)]
pub(crate) fn reflect(ctx: &XdpContext) -> Option<()> {
    let ethernet: *mut EthHdr = at(ctx, 0)?;
    // SAFETY: `at` has checked the range; the header is made of bytes, so it needs no alignment.
    let EthHdr {
        dst_addr,
        src_addr,
        ether_type,
    } = unsafe { ptr::read_unaligned(ethernet) };
    let (protocol, transport, is_land) = match ether_type {
        IPV4 => {
            let ip: *mut Ipv4Hdr = at(ctx, EthHdr::LEN)?;
            // SAFETY: as above.
            let ip = unsafe { ptr::read_unaligned(ip) };
            let length = usize::from(ip.vihl & 0x0f) * 4;
            (ip.proto, length, ip.src_addr == ip.dst_addr)
        }
        IPV6 => {
            let ip: *mut Ipv6Hdr = at(ctx, EthHdr::LEN)?;
            // SAFETY: as above.
            let ip = unsafe { ptr::read_unaligned(ip) };
            (ip.next_hdr, Ipv6Hdr::LEN, ip.src_addr == ip.dst_addr)
        }
        _ => return None,
    };
    if protocol != IpProto::Tcp as u8 && protocol != IpProto::Udp as u8 {
        return None;
    }
    let ports: *mut [u8; 4] = at(ctx, EthHdr::LEN + transport)?;
    // SAFETY: as above.
    let [a, b, c, d] = unsafe { ptr::read_unaligned(ports) };
    // Nobody sends packets from an address and port to themselves, or to port 0. The checks are there
    // so that all of this is really read.
    if (is_land && [a, b] == [c, d]) || [c, d] == [0; 2] {
        return None;
    }
    let swapped = EthHdr {
        dst_addr: src_addr,
        src_addr: dst_addr,
        ether_type,
    };
    // SAFETY: as above, and the frame belongs to the program while it runs.
    unsafe { ptr::write_unaligned(ethernet, swapped) };
    Some(())
}

/// The `T` at `offset`, or None where the frame ends before its end.
#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = ctx.data() + offset;
    (start + size_of::<T>() <= ctx.data_end()).then_some(start as *mut T)
}
