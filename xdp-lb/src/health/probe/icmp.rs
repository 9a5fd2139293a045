//! A ping is answered.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::AsRawFd as _,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use socket2::{Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};
use xdp_lb_common::checksum;

use super::{Stage, Target, socket};
use crate::{
    config::HealthCheck,
    health::{Cause, Kind},
};

/// Bytes of an ICMP echo header.
const HEADER: usize = 8;

/// Bytes of payload where the packet is not to be filled up: as `ping` has it.
const PAYLOAD: usize = 56;

/// Bytes by which an answer is known to be ours.
const COOKIE: usize = 8;

/// A socket that has been told of an error, say that there is no way, has nothing to be read.
const HEARS: Interest = Interest::READABLE.add(Interest::ERROR);

/// Sends an echo request, and waits for its answer.
pub(super) async fn ask(check: &HealthCheck, target: &Target, stage: &Stage) -> Result<(), Cause> {
    let failed = |error: io::Error| Cause::io("ping", &error);
    let is_v4 = target.address.is_ipv4();
    let full_size = target.mtu.filter(|_| check.full_size);
    let request = request(target, full_size);
    let socket = open(target)?;
    prepare(&socket, target, full_size.is_some(), &request).map_err(failed)?;
    // SAFETY: the socket's descriptor stays its own, and the same, for as long as it lives.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE | HEARS) };
    let socket = socket.map_err(|error| failed(error.into()))?;
    let sent = socket.async_io(Interest::WRITABLE, |socket| socket.send(&request));
    sent.await.map_err(failed)?;
    stage.set("waiting for the answer");
    let mut buffer = vec![MaybeUninit::uninit(); request.len() + 128];
    loop {
        let received = socket.async_io(HEARS, |socket| {
            let length = socket.recv(&mut buffer)?;
            // SAFETY: the kernel has written that many bytes.
            let bytes = unsafe { &*(std::ptr::from_ref(&buffer[..length]) as *const [u8]) };
            Ok(is_answer(bytes, &request, is_v4))
        });
        // Others are late, or made up.
        if received.await.map_err(failed)? {
            return Ok(());
        }
    }
}

fn open(target: &Target) -> Result<Socket, Cause> {
    let protocol = if target.address.is_ipv4() {
        Protocol::ICMPV4
    } else {
        Protocol::ICMPV6
    };
    let socket = socket::new(target, Type::RAW, protocol);
    socket.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Cause::new(
            Kind::Local,
            "ping: not allowed; the daemon needs CAP_NET_RAW for checks of type `icmp`",
        ),
        _ => Cause::io("ping", &error),
    })
}

/// Connects a socket, and has it receive what may be the answer to `request`.
fn prepare(socket: &Socket, target: &Target, is_filled_up: bool, request: &[u8]) -> io::Result<()> {
    socket.attach_filter(&filter(request, target.address.is_ipv4()))?;
    if is_filled_up {
        // Whatever the kernel thinks of the way's MTU: it is what is to be found out.
        never_fragment(socket, target.address.ip())?;
    }
    // The kernel passes on what comes from there alone.
    socket.connect(&SockAddr::from(std::net::SocketAddr::new(
        target.address.ip(),
        0,
    )))
}

/// Has the kernel pass on echo replies with the identifier of `request` alone. It hands a copy of each ICMP
/// packet of a backend to each raw socket that is connected to it: the answers to other checks of the same
/// backend would push out the one that is waited for.
fn filter(request: &[u8], is_v4: bool) -> [SockFilter; 7] {
    use libc::{
        BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET,
        BPF_W,
    };

    // All codes are below 256.
    let instruction = |code: u32, no: u8, value: u32| SockFilter::new(code as u16, 0, no, value);
    let identifier = u16::from_be_bytes([request[4], request[5]]);
    // Where the ICMP header begins: behind the IP header, which packets of IPv6 come without.
    let header = if is_v4 {
        BPF_LDX | BPF_B | BPF_MSH
    } else {
        BPF_LDX | BPF_W | BPF_IMM
    };
    [
        instruction(header, 0, 0),
        instruction(BPF_LD | BPF_B | BPF_IND, 0, 0),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 3, kinds(is_v4).1.into()),
        instruction(BPF_LD | BPF_H | BPF_IND, 0, 4),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, identifier.into()),
        instruction(BPF_RET | BPF_K, 0, u32::MAX),
        instruction(BPF_RET | BPF_K, 0, 0),
    ]
}

fn never_fragment(socket: &Socket, address: IpAddr) -> io::Result<()> {
    let (level, option, value) = match address {
        IpAddr::V4(_) => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        IpAddr::V6(_) => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    let value: libc::c_int = value;
    // SAFETY: the socket is open, and the option's value is an integer of the size that is told.
    let set = unsafe {
        let pointer = std::ptr::from_ref(&value).cast();
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            pointer,
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An echo request with an identifier and a payload that no other has now.
fn request(target: &Target, full_size: Option<u16>) -> Vec<u8> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static SECRET: OnceLock<RandomState> = OnceLock::new();

    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let length = match full_size {
        Some(mtu) => usize::from(mtu.saturating_sub(socket::ip_header(target.address.ip()))),
        None => HEADER + PAYLOAD,
    };
    let mut packet = vec![0x58; length.max(HEADER + COOKIE)];
    let cookie = SECRET
        .get_or_init(RandomState::new)
        .hash_one((number, target.address));
    packet[..4].copy_from_slice(&[kinds(target.address.is_ipv4()).0, 0, 0, 0]);
    packet[4..6].copy_from_slice(&number.to_be_bytes());
    packet[6..8].copy_from_slice(&1_u16.to_be_bytes());
    packet[HEADER..HEADER + COOKIE].copy_from_slice(&cookie.to_be_bytes());
    // The kernel does it for ICMPv6, which has addresses in it.
    if target.address.is_ipv4() {
        let checksum = checksum::of(&packet);
        packet[2..4].copy_from_slice(&checksum);
    }
    packet
}

/// The types of an echo request and of its answer.
const fn kinds(is_v4: bool) -> (u8, u8) {
    if is_v4 { (8, 0) } else { (128, 129) }
}

/// True for the answer to `request`. Raw IPv4 sockets receive the IP header as well.
fn is_answer(packet: &[u8], request: &[u8], is_v4: bool) -> bool {
    let header = match packet.first() {
        Some(first) if is_v4 => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let Some(message) = packet.get(header..) else {
        return false;
    };
    message.len() == request.len()
        && message[..2] == [kinds(is_v4).1, 0]
        && message[4..] == request[4..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target {
            address: address.parse().unwrap(),
            vip: None,
            mark: None,
            source: None,
            mtu: None,
        }
    }

    #[test]
    fn requests_differ_and_fill_the_packet() {
        for (address, full) in [("10.0.0.1:0", 1480), ("[2001:db8::1]:0", 1460)] {
            let target = target(address);
            let first = request(&target, None);
            assert_eq!(first.len(), HEADER + PAYLOAD);
            assert_ne!(first, request(&target, None));
            assert_eq!(request(&target, Some(1500)).len(), full);
            assert_eq!(request(&target, Some(1)).len(), HEADER + COOKIE);
        }
    }

    #[test]
    fn only_its_own_answer_is_taken() {
        let request = request(&target("10.0.0.1:0"), None);
        let mut answer = vec![0x45; 20];
        answer.extend(&request);
        answer[20] = 0;
        assert!(is_answer(&answer, &request, true));
        for index in [20, 21, 24, 26, 28, 60] {
            let mut other = answer.clone();
            other[index] ^= 1;
            assert!(!is_answer(&other, &request, true), "byte {index}");
        }
        for length in 0..answer.len() {
            assert!(!is_answer(&answer[..length], &request, true));
        }
        assert!(!is_answer(&request, &request, false), "the request itself");
    }
}
