//! Counts the frames to a MAC address that arrive at an interface, whoever's address it is.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::libc;

use super::host::{Host, parse_mac};
use super::packet_socket::{self, Receives};

/// Where fields are in an Ethernet frame without tags, with an IPv4 packet in it.
const ETHER_TYPE: u32 = 12;
const DESTINATION: u32 = 30;

/// A count of frames that goes on until it is dropped.
#[derive(Debug)]
pub struct Tally {
    socket: OwnedFd,
    seen: u64,
}

impl Tally {
    /// Counts IPv4 packets to `address` in frames to `mac` (as `ip` prints it), on an interface of `host`.
    pub fn start(host: &Host, interface: &str, mac: &str, address: Ipv4Addr) -> Result<Self> {
        let octets = parse_mac(mac)?;
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let socket = packet_socket::open(host, interface, Receives::All)?;
        let program = filter(&[
            (libc::BPF_W, 0, word(&octets[..4])),
            (libc::BPF_H, 4, word(&octets[4..])),
            (libc::BPF_H, ETHER_TYPE, 0x0800),
            (libc::BPF_W, DESTINATION, address.to_bits()),
        ]);
        let program = libc::sock_fprog {
            len: u16::try_from(program.len())?,
            filter: program.as_ptr().cast_mut(),
        };
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        packet_socket::set_option(&socket, level, name, &program)
            .context("cannot filter frames")?;
        // What came before the filter.
        packet_socket::take_statistics(&socket)?;
        Ok(Self { socket, seen: 0 })
    }

    /// The frames so far.
    pub fn frames(&mut self) -> Result<u64> {
        let statistics = packet_socket::take_statistics(&self.socket)
            .context("cannot read how many frames came")?;
        // Those too many for the socket's memory are among them.
        self.seen += u64::from(statistics.tp_packets);
        Ok(self.seen)
    }
}

/// Takes the packets in which all those fields (size, offset) have their values.
fn filter(fields: &[(u32, u32, u32)]) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jf: usize, k| libc::sock_filter {
        code: code.try_into().unwrap_or(u16::MAX),
        jt: 0,
        jf: jf.try_into().unwrap_or(u8::MAX),
        k,
    };
    let mut program = Vec::new();
    for (index, (size, offset, value)) in fields.iter().enumerate() {
        // To the last instruction: over the further fields, and over the one that takes.
        let to_end = (fields.len() - index - 1) * 2 + 1;
        program.push(instruction(libc::BPF_LD | libc::BPF_ABS | size, 0, *offset));
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        program.push(instruction(equal, to_end, *value));
    }
    let takes = |length| instruction(libc::BPF_RET | libc::BPF_K, 0, length);
    program.extend([takes(u32::MAX), takes(0)]);
    program
}
