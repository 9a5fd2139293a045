//! Random packets through the program and through the [`reference`](crate::reference), which should
//! agree on all that can be seen: action, every byte, every counter, and what is remembered.
//!
//! A run is made of *epochs*. Each has a plane, services, backends and packets of its own, all of
//! which come from its seed, so that an epoch can be repeated by itself. `XDP_LB_FUZZ_PACKETS` sets
//! the number of packets, `XDP_LB_FUZZ_SEED` the seed.

mod counts;
mod mirror;
mod mutate;
mod packets;
mod pools;
mod remembered;
mod report;
mod world;

use std::{
    env,
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use etherparse::Ipv4Header;
use xdp_lb::config::Limits;
use xdp_lb_common::{counters::Counter, hash::HashKey};

use self::{counts::Counts, world::World};
use crate::{
    packet::Frame,
    plane::{Plane, Setup, on_plane_with},
    random::Random,
};

/// Packets of an epoch: so few that no map gets full, as the reference's never do.
pub const EPOCH: usize = 25_000;
/// Packets between two comparisons of counters.
const BATCH: usize = 1000;
/// Packets between two changes of the state.
const CHANGE: usize = 50;
/// Packets between two fillings of the budgets: fewer than the smallest burst.
const REFILL: usize = 90;
/// The seed where none is given.
const SEED: u64 = 0x7864_702d_6c62;

/// What an epoch is made of.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    seed: u64,
    packets: usize,
    /// From this packet on, counters are compared after each.
    closely_from: usize,
}

/// What was counted in an epoch, by [`Counter`]; or how program and reference differ.
type Outcome = Result<Vec<u64>, Failure>;

/// A difference.
struct Failure {
    /// Index of the first packet that may have shown it.
    packet: usize,
    /// True where only counters show it, that were compared after several packets.
    of_batch: bool,
    text: String,
}

/// Sends `packets` random packets, or as many as the environment says, through program and reference.
///
/// # Panics
///
/// As [`run`], and if the environment is not understood.
pub fn run_as_told(packets: usize) {
    let number = |name| {
        let text = env::var(name).ok()?;
        let number = text.parse().ok();
        Some(number.unwrap_or_else(|| panic!("{name} is not a number: {text}")))
    };
    let wanted: Option<u64> = number("XDP_LB_FUZZ_PACKETS");
    let packets = wanted.map_or(packets, |wanted| {
        usize::try_from(wanted).expect("a number of packets that fits")
    });
    run(packets, number("XDP_LB_FUZZ_SEED"));
}

/// Sends `packets` random packets through program and reference. Without a seed, most come from a
/// fixed one and a tenth of the epochs from one that is new each time.
///
/// # Panics
///
/// If they differ in anything; the message says in what and how to see it again. Also if a verdict
/// never occurred among many packets: then the packets are not what they should be.
pub fn run(packets: usize, seed: Option<u64>) {
    let epochs = epochs(packets, seed);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    thread::scope(|scope| {
        for _ in 0..threads.min(epochs.len()) {
            scope.spawn(|| {
                while let Some(epoch) = epochs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = epoch.run();
                    if outcome.is_err() {
                        next.store(epochs.len(), Ordering::Relaxed);
                    }
                    let mut results = results.lock().expect("no thread has panicked");
                    results.push((*epoch, outcome));
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread has panicked");
    let mut counts = vec![0; Counter::ALL.len()];
    for (epoch, outcome) in results {
        match outcome {
            // Where there can be no plane, the epoch has counted nothing.
            Ok(counted) => {
                for (count, counted) in counts.iter_mut().zip(counted) {
                    *count += counted;
                }
            }
            Err(failure) => panic!("{}", epoch.explain(&failure)),
        }
    }
    check_coverage(packets, &counts);
}

/// The epochs of a run.
fn epochs(packets: usize, seed: Option<u64>) -> Vec<Epoch> {
    let count = packets.div_ceil(EPOCH);
    let fixed = seed.map_or(count - count / 10, |_| count);
    let unforeseen = RandomState::new().build_hasher().finish() >> 1;
    println!(
        "{fixed} epochs from seed {}, {} from seed {unforeseen}",
        seed.unwrap_or(SEED),
        count - fixed
    );
    let of = |first: u64, indices: std::ops::Range<usize>| {
        let numbered = indices.zip(0..);
        numbered.map(move |(index, offset)| Epoch {
            seed: first.wrapping_add(offset),
            packets: EPOCH.min(packets - index * EPOCH),
            closely_from: usize::MAX,
        })
    };
    of(seed.unwrap_or(SEED), 0..fixed)
        .chain(of(unforeseen, fixed..count))
        .collect()
}

/// Asserts that the packets were of all kinds.
fn check_coverage(packets: usize, counts: &[u64]) {
    // What has not happened: no headroom, no room in maps, too many at once.
    let impossible = [
        Counter::NoRoom,
        // Nothing is said of the interface, so that all frames are taken.
        Counter::OtherHost,
        Counter::FlowNotCreated,
        Counter::OpeningNotCreated,
    ];
    let counted = || Counter::ALL.iter().zip(counts);
    let mut text = String::new();
    for (counter, count) in counted() {
        let _ = write!(text, "{} {count}, ", counter.name());
    }
    println!("{text}");
    let is_missing = |counter: &Counter, count: u64| count == 0 && !impossible.contains(counter);
    let missing: Vec<_> = counted()
        .filter(|(counter, count)| is_missing(counter, **count))
        .map(|(counter, _)| counter.name())
        .collect();
    let ran = counts.iter().any(|&count| count > 0);
    assert!(
        !ran || packets < EPOCH || missing.is_empty(),
        "never seen among {packets} packets: {missing:?}"
    );
}

impl Epoch {
    /// Runs it; where counters differ, once more to find the packet.
    fn run(&self) -> Outcome {
        match self.run_once() {
            Err(failure) if failure.of_batch => {
                let closely = Self {
                    closely_from: failure.packet,
                    ..*self
                };
                closely.run_once().and(Err(failure))
            }
            outcome => outcome,
        }
    }

    fn run_once(&self) -> Outcome {
        let mut random = Random::new(self.seed);
        let setup = Setup {
            limits: Limits {
                services: 64,
                backends: 16,
                slots: 256,
                // More than there are packets, so that no bucket is ever full.
                flows: 4_000_000,
                new_flows_per_second: 10_000_000,
            },
            hash_key: HashKey([random.number(), random.number()]),
        };
        let mut outcome = Ok(Vec::new());
        on_plane_with(setup, |plane| {
            let world = World::new(&mut random, plane, setup.hash_key);
            let mut run = Run {
                plane,
                world,
                random,
                counts: Counts::default(),
                last: Vec::new(),
            };
            outcome = run.all(self);
        });
        outcome
    }

    fn explain(&self, failure: &Failure) -> String {
        format!(
            "packet {} of the epoch with seed {}: {}\n\
             again: XDP_LB_FUZZ_SEED={} XDP_LB_FUZZ_PACKETS={EPOCH} cargo xtask test a_million",
            failure.packet, self.seed, failure.text, self.seed
        )
    }
}

/// An epoch under way.
struct Run<'a> {
    plane: &'a mut Plane,
    world: World,
    random: Random,
    counts: Counts,
    /// The packet before.
    last: Vec<u8>,
}

impl Run<'_> {
    fn all(&mut self, epoch: &Epoch) -> Outcome {
        let (started, mut checked) = (Instant::now(), 0);
        for index in 0..epoch.packets {
            if index % REFILL == 0 {
                self.world.mirror.fill_budgets();
            }
            if index % CHANGE == CHANGE - 1 {
                self.world.change(&mut self.random, self.plane);
            }
            let frame = self.next_frame();
            if let Some(text) = self.differs(&frame) {
                return Err(Failure {
                    packet: index,
                    of_batch: false,
                    text,
                });
            }
            if (index + 1) % BATCH == 0 || index + 1 == epoch.packets || index >= epoch.closely_from
            {
                self.check_counts(checked, index, &frame)?;
                checked = index + 1;
            }
        }
        let World { reference, mirror } = &self.world;
        let text = mirror.differences(self.plane, reference, started.elapsed());
        if !text.is_empty() {
            let text = format!("what is remembered after the epoch differs:\n{text}");
            return Err(Failure {
                packet: epoch.packets,
                of_batch: false,
                text,
            });
        }
        let counted = self.counts.program.iter();
        Ok(counted.map(|traffic| traffic.packets).collect())
    }

    fn next_frame(&mut self) -> Frame {
        let random = &mut self.random;
        let mut bytes = packets::frame(random);
        if random.once_in(4) {
            mutate::mutate(random, &mut bytes, &self.last);
        }
        mutate::fit(random, &mut bytes);
        self.last.clone_from(&bytes);
        Frame::new(bytes)
    }

    /// Has both process a frame; says in what they differ.
    fn differs(&mut self, frame: &Frame) -> Option<String> {
        let mut expected = self.world.reference.process(frame.bytes());
        let (action, output) = self.plane.run(frame);
        self.counts.add(&expected, frame.bytes().len());
        if let Some(at) = expected.random_id_at {
            take_identification(&mut expected.output, output.bytes(), at);
        }
        report::difference(frame, (action, &output), &expected)
    }

    fn check_counts(&mut self, from: usize, to: usize, frame: &Frame) -> Result<(), Failure> {
        let seen = Counts::read(self.plane);
        if seen == self.counts {
            return Ok(());
        }
        let mut text = format!("counters differ after packets {from} to {to}:\n");
        text += &seen.differences(&self.counts);
        if from == to {
            let _ = writeln!(text, "packet: {}", report::dump(frame.bytes(), 0));
        }
        Err(Failure {
            packet: from,
            of_batch: from != to,
            text,
        })
    }
}

/// Makes the identification of the IPv4 header at `at` that of `output`, where both have one.
fn take_identification(expected: &mut [u8], output: &[u8], at: usize) {
    let id = at + 4..at + 6;
    if let Some(seen) = output.get(id.clone()) {
        expected[id].copy_from_slice(seen);
        let (header, _) = Ipv4Header::from_slice(&expected[at..]).expect("an IPv4 header");
        let checksum = header.calc_header_checksum().to_be_bytes();
        expected[at + 10..at + 12].copy_from_slice(&checksum);
    }
}
