//! The simulation of the program's decisions, with which hours and millions of connections are gone through, decides
//! as the program does, and leaves the same words in the flow table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
    ops::ControlFlow,
    time::Duration,
};

use xdp_lb::{
    dataplane::Dataplane,
    director::simulation::{Counts, Flows, PacketHash, Plane as Simulated, Segment},
    timing,
};
use xdp_lb_common::{
    abi::{BUCKET, BackendEntry, FlowEntry, Place, ServiceEntry, Slot, TableRef},
    hash::{Affinity, HashKey, flow_hash},
};
use xdp_lb_tests::{
    packet::{Tcp, tcp},
    plane::{
        A, Action, B, C, IDLE, Plane, SERVICE, Setup, backend_mac, mixed, moving, on_plane_with,
        settled,
    },
    random::Random,
};

/// All flows are in a few buckets, so that they displace each other; there are many more, for the rate at which
/// openings may be made goes by the size of the table.
const BUCKETS: u32 = 16;
const BUCKET_BITS: u32 = 15;
const FLOWS: usize = 200;
const SLOTS: usize = 5;
/// Few, since other kernels run this under emulation.
const STEPS: usize = 3_000;

const FLAGS: [u32; 4] = [
    0,
    ServiceEntry::FLAG_TRACK,
    ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_ADAPTIVE,
    ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_ADAPTIVE | ServiceEntry::FLAG_SOURCE_AFFINITY,
];

/// The backend that a packet went to, and the entries of all buckets after it, in some order and without their times:
/// another CPU's clock may be read a period later.
#[derive(PartialEq, Eq)]
struct Outcome {
    backend: Option<u16>,
    entries: BTreeSet<(Place, FlowEntry)>,
}

fn any_slot(random: &mut Random) -> Slot {
    let [from, to] = [(); 2].map(|()| random.one_of(&[A, B, C]));
    let nobody = Slot {
        current: 0,
        previous: random.one_of(&[from, Slot::MIXED]),
    };
    random.one_of(&[
        settled(to),
        moving(from, to),
        moving(from, to),
        mixed(to),
        nobody,
    ])
}

/// Something changes, or time passes for a flow.
fn change(plane: &mut Plane, random: &mut Random, slots: &mut [Slot]) {
    match random.below(8) {
        0 => {
            let flags = random.one_of(&FLAGS);
            plane.configure(SERVICE, |service| service.flags = flags);
        }
        1 => plane.stop(random.one_of(&[A, B, C])),
        2 | 3 => plane.start(random.one_of(&[A, B, C])),
        4 | 5 => {
            let at = random.below(slots.len());
            slots[at] = any_slot(random);
            // None at all, once in a while.
            let size = if random.once_in(10) { 0 } else { slots.len() };
            plane.table(SERVICE, 0, &slots[..size]);
        }
        _ => grow_old(plane.dataplane(), random),
    }
}

/// Some flow has been silent for a time that matters, or a bit longer.
fn grow_old(dataplane: &mut Dataplane, random: &mut Random) {
    let entries = entries(dataplane);
    if entries.is_empty() {
        return;
    }
    let (place, _) = random.one_of(&entries);
    let second = Duration::from_secs(1);
    let time = random.one_of(&[second, timing::CLOSING, timing::OPENING, IDLE]);
    let time = time + random.one_of(&[Duration::ZERO, 2 * second]);
    let shift = dataplane.flow_shape().period_shift;
    let periods = dataplane.ticks(time) >> shift;
    dataplane.edit_flow(place, |entry| {
        entry.seen_in(entry.seen().wrapping_sub(periods))
    });
}

fn entries(dataplane: &Dataplane) -> Vec<(Place, FlowEntry)> {
    let mut entries = Vec::new();
    dataplane.each_flow_in(0..BUCKETS, |place, entry| {
        entries.push((place, entry));
        ControlFlow::Continue(())
    });
    entries
}

/// The simulation, with maps as large as the program's.
fn simulation(dataplane: &Dataplane) -> Simulated {
    let shape = dataplane.flow_shape();
    assert_eq!(shape.bucket_bits, BUCKET_BITS);
    let mut flows = Flows::new(BUCKET_BITS);
    flows.period_shift = shape.period_shift;
    flows.opening_ticks = dataplane.ticks(timing::OPENING);
    flows.closing_ticks = dataplane.ticks(timing::CLOSING);
    Simulated {
        services: Vec::new(),
        slots: Vec::new(),
        backends: Vec::new(),
        flows,
        counts: Counts::default(),
    }
}

/// What the maps hold.
struct Snapshot {
    services: Vec<ServiceEntry>,
    slots: Vec<Slot>,
    backends: Vec<BackendEntry>,
    entries: Vec<(Place, FlowEntry)>,
}

impl Snapshot {
    fn of(dataplane: &Dataplane) -> Self {
        let table = TableRef {
            offset: 0,
            size: u32::try_from(SLOTS).expect("few"),
        };
        Self {
            services: (0..=SERVICE).map(|id| dataplane.service(id)).collect(),
            slots: dataplane.slots(table),
            backends: (0..=C).map(|index| dataplane.backend(index)).collect(),
            entries: entries(dataplane),
        }
    }

    fn service(&self) -> ServiceEntry {
        self.services[index(SERVICE)]
    }

    /// Makes the simulation's maps these.
    fn restore(&self, to: &mut Simulated) {
        to.services.clone_from(&self.services);
        to.slots.clone_from(&self.slots);
        to.backends.clone_from(&self.backends);
        let buckets = to.flows.buckets_mut();
        buckets[..index(BUCKETS)].fill([0; BUCKET]);
        for (place, entry) in &self.entries {
            let bucket = &mut buckets[index(place.bucket)];
            let free = bucket.iter_mut().find(|word| **word == 0);
            *free.expect("a bucket has eight words") = entry.0;
        }
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("32 bits fit")
}

impl Outcome {
    fn new(backend: Option<u16>, entries: impl IntoIterator<Item = (Place, FlowEntry)>) -> Self {
        let entries = entries.into_iter();
        let entries = entries.map(|(place, entry)| (place, entry.seen_in(0)));
        Self {
            backend,
            entries: entries.collect(),
        }
    }

    /// What is different about another one.
    fn differs(&self, other: &Self) -> String {
        let entries = |a: &Self, b: &Self| {
            let only: Vec<_> = a.entries.difference(&b.entries).collect();
            format!("{only:x?}")
        };
        format!(
            "to {:?}, and leaves {}; not to {:?} and {}",
            self.backend,
            entries(self, other),
            other.backend,
            entries(other, self)
        )
    }
}

fn of_the_program(plane: &mut Plane, packet: &Tcp) -> Outcome {
    let (action, frame) = plane.run(&packet.into());
    let backend = [A, B, C]
        .into_iter()
        .find(|&it| frame.bytes()[..6] == backend_mac(it));
    assert_eq!(action == Action::Tx, backend.is_some(), "{action:?}");
    Outcome::new(backend, entries(plane.dataplane()))
}

fn of_the_simulation(plane: &mut Simulated, packet: &Tcp, segment: Segment) -> Outcome {
    let flow = packet.flow();
    let [by_flow, by_source] =
        [Affinity::Flow, Affinity::Source].map(|it| flow_hash(HashKey::DEFAULT, it, &flow));
    let hash = PacketHash {
        flow: by_flow,
        source: by_source,
    };
    let backend = plane.packet(SERVICE, hash, segment);
    let buckets = (0..).zip(&plane.flows.buckets()[..index(BUCKETS)]);
    let entries = buckets.flat_map(|(bucket, words)| {
        let entries = words.iter().map(|&word| FlowEntry(word));
        let entries = entries.filter(|entry| !entry.is_none());
        entries.map(move |entry| {
            let fingerprint = entry.fingerprint();
            let place = Place {
                bucket,
                fingerprint,
            };
            (place, entry)
        })
    });
    Outcome::new(backend, entries)
}

/// Clients whose flows are in the buckets that are looked at.
fn clients() -> Vec<SocketAddrV4> {
    let all = (0_u32..).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        let [_, host, ..] = number.to_be_bytes();
        SocketAddrV4::new([198, 51, 100, host].into(), u16::from_be_bytes([high, low]))
    });
    let bucket = |client: &SocketAddrV4| {
        let hash = flow_hash(
            HashKey::DEFAULT,
            Affinity::Flow,
            &tcp().from(*client).flow(),
        );
        Place::of(hash, BUCKET_BITS).bucket
    };
    all.filter(|client| bucket(client) < BUCKETS)
        .take(FLOWS)
        .collect()
}

fn any_packet(random: &mut Random, clients: &[SocketAddrV4]) -> (Tcp, Segment) {
    let packet = tcp().from(random.one_of(clients));
    match random.below(8) {
        0..3 => (packet.syn(), Segment::Opens),
        3 => (packet.fin(), Segment::Ends),
        _ => (packet.ack(), Segment::Continues),
    }
}

#[test]
fn the_simulation_decides_as_the_program_does() {
    let mut setup = Setup::default();
    setup.limits.flows = u32::try_from(BUCKET << BUCKET_BITS).expect("few");
    let clients = clients();
    on_plane_with(setup, |plane| {
        let mut random = Random::new(31);
        let mut slots = vec![settled(A); SLOTS];
        plane.table(SERVICE, 0, &slots);
        let mut simulated = simulation(plane.dataplane());
        let mut seen = BTreeMap::new();
        for step in 0..STEPS {
            if random.once_in(3) {
                change(plane, &mut random, &mut slots);
            }
            let (packet, segment) = any_packet(&mut random, &clients);
            let before = Snapshot::of(plane.dataplane());
            // The period is known from outside up to one. It begins anew five minutes after the kernel has begun.
            let first = plane.dataplane().flow_period();
            let found = of_the_program(plane, &packet);
            let passed = FlowEntry::new(0, 0, first).silence(plane.dataplane().flow_period());
            let expected: Vec<Outcome> = (0..=passed + 1)
                .map(|later| {
                    before.restore(&mut simulated);
                    simulated.flows.period = FlowEntry::period(first.wrapping_add(later), 0);
                    of_the_simulation(&mut simulated, &packet, segment)
                })
                .collect();
            let service = before.service();
            assert!(
                expected.contains(&found),
                "step {step}: {segment:?} of {:?} goes {}; {service:?}, slots {slots:?}",
                packet.flow(),
                found.differs(&expected[0]),
            );
            *seen
                .entry((service.flags, found.backend.is_some()))
                .or_insert(0) += 1;
        }
        assert_eq!(
            seen.len(),
            2 * FLAGS.len(),
            "every kind of service: {seen:?}"
        );
    });
}
