//! Which packets a raw socket gets: decided in the kernel, by a program of classic BPF.

use std::{collections::BTreeSet, net::IpAddr};

use socket2::SockFilter;

use super::packet::{ADVERTISEMENT, HOPS};

/// Sources that a filter knows at most: beyond that the kernel would not take it, and all are plausible.
const MOST_SOURCES: usize = 24;

/// Where the kernel has the IP header of a packet, whatever a raw socket is given (`SKF_NET_OFF`).
const NETWORK: u32 = 0_u32.wrapping_sub(0x10_0000);

/// Which packets a receiver takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice<'a> {
    /// Advertisements that have not passed a router, of one of these sources if some are given.
    Plausible(Option<&'a BTreeSet<IpAddr>>),
    /// All others.
    Odd(Option<&'a BTreeSet<IpAddr>>),
}

/// A classic BPF program that takes what is chosen.
pub(super) fn filter(is_ipv6: bool, choice: Choice<'_>) -> Vec<SockFilter> {
    let (sources, is_plausible) = match choice {
        Choice::Plausible(sources) => (sources, true),
        Choice::Odd(sources) => (sources, false),
    };
    let (hops, source) = if is_ipv6 { (7, 8) } else { (8, 12) };
    let mut program = Program::default();
    // In front of the IP header of either family.
    program.load(libc::BPF_B, NETWORK + hops);
    program.require(u32::from(HOPS));
    if is_ipv6 {
        program.load(libc::BPF_B, 0);
    } else {
        // The message begins behind the IP header, which has options or has not.
        program.push(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0);
        program.push(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0);
    }
    program.require(u32::from(ADVERTISEMENT));
    let sources = sources.filter(|sources| sources.len() <= MOST_SOURCES);
    if let Some(sources) = sources {
        let of_family = sources.iter().filter(|source| source.is_ipv6() == is_ipv6);
        for address in of_family {
            let words: Vec<u32> = match address {
                IpAddr::V4(address) => vec![address.to_bits()],
                IpAddr::V6(address) => {
                    let bytes = address.octets();
                    let word =
                        |part: &[u8]| part.iter().fold(0, |sum, &it| sum << 8 | u32::from(it));
                    bytes.chunks_exact(4).map(word).collect()
                }
            };
            program.accept_if(NETWORK + source, &words, is_plausible);
        }
    }
    let accepts_the_rest = sources.is_none() == is_plausible;
    program.finish(accepts_the_rest, !is_plausible)
}

/// A filter that is being written.
#[derive(Default)]
struct Program {
    instructions: Vec<(u32, u8, u8, u32)>,
    /// Comparisons that lead to the end if they fail.
    required: Vec<usize>,
}

impl Program {
    fn push(&mut self, code: u32, value: u32) {
        self.instructions.push((code, 0, 0, value));
    }

    fn load(&mut self, size: u32, at: u32) {
        self.push(libc::BPF_LD | size | libc::BPF_ABS, at);
    }

    /// What was loaded is this, or the packet is odd.
    fn require(&mut self, value: u32) {
        self.required.push(self.instructions.len());
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value);
    }

    /// Ends with this answer if these words are there.
    fn accept_if(&mut self, at: u32, words: &[u32], takes: bool) {
        let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        for (number, (&word, at)) in words.iter().zip((at..).step_by(4)).enumerate() {
            self.load(libc::BPF_W, at);
            // Past the rest of the words, and the answer.
            let rest = 2 * (words.len() - number - 1) + 1;
            let past = u8::try_from(rest).unwrap_or(u8::MAX);
            self.instructions.push((compare, 0, past, word));
        }
        self.push(libc::BPF_RET | libc::BPF_K, length(takes));
    }

    /// Ends with one answer, and with another for what is odd.
    fn finish(mut self, takes_rest: bool, takes_odd: bool) -> Vec<SockFilter> {
        self.push(libc::BPF_RET | libc::BPF_K, length(takes_rest));
        let end = self.instructions.len();
        self.push(libc::BPF_RET | libc::BPF_K, length(takes_odd));
        // A jump reaches 255 instructions: those that lead further end where they are.
        for at in self.required {
            let past = u8::try_from(end - at - 1).unwrap_or(u8::MAX);
            self.instructions[at].2 = past;
        }
        let instruction = |(code, yes, no, value): (u32, u8, u8, u32)| {
            // All codes are below 256.
            SockFilter::new(code as u16, yes, no, value)
        };
        self.instructions.into_iter().map(instruction).collect()
    }
}

/// How much of a packet is taken.
fn length(takes: bool) -> u32 {
    if takes { u32::MAX } else { 0 }
}
