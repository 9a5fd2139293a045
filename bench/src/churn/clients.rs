//! The clients: which packets come in which second.

use xdp_lb::director::simulation::Segment;
use xdp_lb_common::{
    abi::FlowKey,
    hash::{Affinity, HashKey, flow_hash},
};

use super::Plan;
use crate::random::Random;

/// How long a silent connection is remembered, in seconds: what is the default of xdp-lb. Pauses are shorter.
pub const IDLE: u32 = 900;
/// In so many seconds the first connections begin.
const RAMP: usize = 300;
/// How long connections take, on average: half of them the one, half of them the other.
const LIVES: [f64; 2] = [300.0, 3600.0];
/// Seconds between two packets, on average.
const GAP: f64 = 20.0;
/// One gap in so many is a pause, of one to fourteen minutes.
const PAUSES: usize = 50;
/// No two packets of a connection are further apart.
const FURTHEST: usize = 1024;

/// A packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The connection's place: one that has ended gives it to the next.
    pub place: u32,
    /// The hash of its 5-tuple.
    pub hash: u64,
    /// What it is to its connection.
    pub segment: Segment,
}

#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    hash: u64,
    /// The second from which on the next packet is the last.
    ends: u32,
    is_open: bool,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    random: Random,
    connections: Vec<Connection>,
    /// Who sends in which of the next seconds.
    wheel: Vec<Vec<u32>>,
    /// Connections that have begun.
    pub begun: u64,
}

impl Clients {
    /// Clients that have not begun yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut this = Self {
            random: Random::new(plan.seed ^ u64::MAX),
            connections: vec![Connection::default(); plan.connections as usize],
            wheel: vec![Vec::new(); FURTHEST],
            begun: 0,
        };
        for place in 0..plan.connections {
            let at = this.random.below(RAMP);
            this.wheel[at].push(place);
        }
        this
    }

    /// The packets of a second. Seconds are to be asked for one after the other, from 0 on.
    pub fn packets(&mut self, second: u32) -> Vec<Packet> {
        let due = std::mem::take(&mut self.wheel[second as usize % FURTHEST]);
        due.into_iter()
            .map(|place| self.send(place, second))
            .collect()
    }

    fn send(&mut self, place: u32, second: u32) -> Packet {
        let mut connection = self.connections[place as usize];
        let (segment, wait) = if !connection.is_open {
            connection = self.open(second);
            // The handshake's last packet.
            (Segment::Opens, 1)
        } else if second >= connection.ends {
            connection.is_open = false;
            (Segment::Ends, 1)
        } else {
            (Segment::Continues, self.gap())
        };
        self.connections[place as usize] = connection;
        self.wheel[(second as usize + wait) % FURTHEST].push(place);
        Packet {
            place,
            hash: connection.hash,
            segment,
        }
    }

    fn open(&mut self, second: u32) -> Connection {
        let life = self.random.one_of(&LIVES);
        let life = self.exponential(life);
        // A new 5-tuple each time, from clients all over.
        let number = self.begun;
        self.begun += 1;
        let [.., a, b, c, d, e, f] = number.wrapping_mul(0x9e37_79b9_7f4b).to_be_bytes();
        let flow = FlowKey {
            source_port_be: [e, f],
            destination_port_be: 443_u16.to_be_bytes(),
            ..FlowKey::without_ports([a, b, c, d], [192, 0, 2, 1], 6)
        };
        Connection {
            hash: flow_hash(HashKey::DEFAULT, Affinity::Flow, &flow),
            ends: second + 2 + whole(life),
            is_open: true,
        }
    }

    fn gap(&mut self) -> usize {
        if self.random.once_in(PAUSES) {
            return 60 + self.random.below(781);
        }
        let gap = self.exponential(GAP);
        (1 + whole(gap) as usize).min(IDLE as usize - 1)
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        // 53 bits of a number below 1, and not 1.
        let uniform = (self.random.number() >> 11) as f64 / (1_u64 << 53) as f64;
        -mean * (1.0 - uniform).ln()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "short times"
)]
fn whole(seconds: f64) -> u32 {
    seconds as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn connections_begin_go_on_and_end_and_are_never_silent_for_too_long() {
        let plan = Plan {
            connections: 500,
            ..Plan::QUICK
        };
        let mut clients = Clients::new(&plan);
        let mut seen: HashMap<u32, (u64, u32, Segment)> = HashMap::new();
        let mut hashes = HashMap::new();
        let mut longest = 0;
        for second in 0..plan.seconds {
            for Packet {
                place,
                hash,
                segment,
            } in clients.packets(second)
            {
                let before = seen.insert(place, (hash, second, segment));
                match before {
                    Some((held, at, last)) if last != Segment::Ends => {
                        assert_eq!(held, hash);
                        assert_ne!(segment, Segment::Opens);
                        longest = longest.max(second - at);
                    }
                    _ => {
                        assert_eq!(segment, Segment::Opens);
                        assert_eq!(hashes.insert(hash, place), None, "a 5-tuple of its own");
                    }
                }
            }
        }
        assert_eq!(clients.begun, hashes.len() as u64);
        assert!(clients.begun > 550, "{}", clients.begun);
        assert!((500..IDLE).contains(&longest), "{longest}");
    }
}
