//! No connection changes its backend, whatever the operator and the health checks do: random sequences of changes, with
//! connections that begin, pause and end, beside a model that remembers everything.

use proptest::prelude::*;

use super::*;
use crate::timing::OPENING;

const IDLE: Duration = Duration::from_secs(200);
const CONNECTIONS: usize = 24;
const BACKENDS: u8 = 5;
const SIZES: [u32; 2] = [101, 151];
/// So many that no flow displaces another.
const BUCKET_BITS: u32 = 14;

/// Something happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client connects.
    Open(usize),
    /// It sends.
    Send(usize),
    /// It ends its connection.
    End(usize),
    /// So many seconds pass.
    Pass(u64),
    /// A backend comes, or another one of its address.
    Add(u8),
    /// It goes.
    Remove(u8),
    Drain(u8, bool),
    Weigh(u8, u32),
    /// What health checks say of it changes, and what becomes of its connections while it is down.
    Check(u8, bool, WhenDown),
    Resize(u32),
    Track(ConnectionTracking),
    ByWhat(Affinity),
    /// Another daemon takes over.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let connection = || 0..CONNECTIONS;
    let backend = || 1..=BACKENDS;
    let when_down = prop_oneof![Just(WhenDown::Keep), Just(WhenDown::Move)];
    const TRACKING: [ConnectionTracking; 2] =
        [ConnectionTracking::Adaptive, ConnectionTracking::Full];
    const AFFINITY: [Affinity; 2] = [Affinity::Flow, Affinity::Source];
    prop_oneof![
        12 => connection().prop_map(Step::Open),
        24 => connection().prop_map(Step::Send),
        2 => connection().prop_map(Step::End),
        8 => (0..90_u64).prop_map(Step::Pass),
        3 => backend().prop_map(Step::Add),
        2 => backend().prop_map(Step::Remove),
        3 => (backend(), any::<bool>()).prop_map(|(at, drain)| Step::Drain(at, drain)),
        2 => (backend(), 0..300_u32).prop_map(|(at, weight)| Step::Weigh(at, weight)),
        4 => (backend(), any::<bool>(), when_down).prop_map(|(at, up, then)| Step::Check(at, up, then)),
        1 => prop::sample::select(&SIZES[..]).prop_map(Step::Resize),
        1 => prop::sample::select(&TRACKING[..]).prop_map(Step::Track),
        1 => prop::sample::select(&AFFINITY[..]).prop_map(Step::ByWhat),
        1 => Just(Step::Restart),
    ]
}

/// A connection, as the model remembers it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    backend: IpAddr,
    /// When it has sent last.
    seen: Duration,
    /// It has sent its SYN and nothing else.
    is_opening: bool,
}

struct World {
    simulation: Simulation,
    now: Duration,
    connections: [Option<Connection>; CONNECTIONS],
}

fn address(backend: u8) -> IpAddr {
    [10, 0, 0, backend].into()
}

/// Half of the connections are flows of UDP.
fn is_udp(connection: usize) -> bool {
    connection % 2 == 1
}

/// Hashes that look random; some clients share their address with another.
fn hash(connection: usize) -> PacketHash {
    let mixed = |number: usize| {
        let number = u64::try_from(number).unwrap() + 1;
        (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number << 29)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    PacketHash {
        flow: mixed(connection),
        source: mixed(1000 + connection / 2),
    }
}

impl World {
    fn new(tracking: ConnectionTracking) -> Self {
        let backends = (1..=3).map(|backend| (address(backend), Backend::NEW));
        let service = Service {
            tracking,
            affinity: Affinity::Flow,
            idle_timeout: IDLE,
            scheduler: Scheduler::Maglev,
            table_size: SIZES[0],
            backends: backends.collect(),
        };
        Self {
            simulation: Simulation::new(service, BUCKET_BITS).unwrap(),
            now: Duration::ZERO,
            connections: [None; CONNECTIONS],
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Open(connection) => self.open(connection),
            Step::Send(connection) => self.send(connection, Segment::Continues),
            Step::End(connection) => self.send(connection, Segment::Ends),
            Step::Pass(seconds) => {
                self.now += Duration::from_secs(seconds);
                let now = self.now;
                self.under_change(|simulation| simulation.advance(now).unwrap());
            }
            Step::Restart => self.under_change(|simulation| simulation.restart().unwrap()),
            _ => {
                let mut service = self.simulation.service().clone();
                change(&mut service, step);
                self.under_change(|simulation| {
                    simulation.change(service).unwrap();
                });
                self.bury();
            }
        }
    }

    /// A SYN is not remembered on a settled slot, so that a connection that opens while flows get other slots may
    /// lose its backend.
    fn under_change(&mut self, change: impl FnOnce(&mut Simulation)) {
        let before = self.ways_to_slots();
        change(&mut self.simulation);
        if self.ways_to_slots() != before {
            for connection in &mut self.connections {
                connection.take_if(|it| it.is_opening);
            }
        }
    }

    /// The connections of backends that are members no more have gone with them, even if another one comes with the
    /// same address.
    fn bury(&mut self) {
        let members = &self.simulation.service().backends;
        for connection in &mut self.connections {
            connection.take_if(|it| !members.contains_key(&it.backend));
        }
    }

    fn ways_to_slots(&self) -> (usize, u32) {
        let flags = self.simulation.plane().services[0].flags;
        let by_source = flags & xdp_lb_common::abi::ServiceEntry::FLAG_SOURCE_AFFINITY;
        (self.simulation.slots().len(), by_source)
    }

    fn open(&mut self, number: usize) {
        let is_udp = is_udp(number);
        if is_udp && self.connections[number].is_some() {
            // The same 5-tuple is the same flow.
            return self.send(number, Segment::Continues);
        }
        let segment = if is_udp {
            Segment::Continues
        } else {
            Segment::Opens
        };
        let backend = self.simulation.packet(hash(number), segment);
        self.connections[number] = backend.map(|backend| Connection {
            backend,
            seen: self.now,
            is_opening: !is_udp,
        });
    }

    fn send(&mut self, number: usize, segment: Segment) {
        let Some(connection) = self.connections[number] else {
            return;
        };
        let silent = self.now - connection.seen;
        let limit = if connection.is_opening { OPENING } else { IDLE };
        if silent >= limit.min(IDLE) {
            // It is over.
            self.connections[number] = None;
            return;
        }
        let segment = if is_udp(number) {
            Segment::Continues
        } else {
            segment
        };
        let found = self.simulation.packet(hash(number), segment);
        let is_served = self.is_served(connection.backend);
        assert!(
            found == Some(connection.backend) || !is_served,
            "connection {number} of {:?} goes to {found:?}: {connection:?}",
            self.now,
        );
        let lives = is_served && segment != Segment::Ends;
        self.connections[number] = lives.then_some(Connection {
            seen: self.now,
            is_opening: false,
            ..connection
        });
    }

    /// True if packets may be sent to a backend.
    fn is_served(&self, address: IpAddr) -> bool {
        let backend = self.simulation.service().backends.get(&address);
        backend.is_some_and(|it| it.is_up || it.when_down == WhenDown::Keep)
    }
}

fn change(service: &mut Service, step: Step) {
    let backends = &mut service.backends;
    let mut edit = |backend: u8, edit: &dyn Fn(&mut Backend)| {
        if let Some(backend) = backends.get_mut(&address(backend)) {
            edit(backend);
        }
    };
    match step {
        Step::Add(backend) => drop(backends.insert(address(backend), Backend::NEW)),
        Step::Remove(backend) => drop(backends.remove(&address(backend))),
        Step::Drain(backend, drain) => edit(backend, &|it| it.is_draining = drain),
        Step::Weigh(backend, weight) => edit(backend, &|it| it.weight = weight),
        Step::Check(backend, is_up, when_down) => {
            edit(backend, &|it| (it.is_up, it.when_down) = (is_up, when_down));
        }
        Step::Resize(size) => service.table_size = size,
        Step::Track(tracking) => service.tracking = tracking,
        Step::ByWhat(affinity) => service.affinity = affinity,
        Step::Open(_) | Step::Send(_) | Step::End(_) | Step::Pass(_) | Step::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_connection_changes_its_backend(steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new(ConnectionTracking::Adaptive);
        for step in steps {
            world.take(step);
        }
    }
}

/// The model notices: without tracking, changes break connections.
#[test]
fn without_tracking_connections_change_their_backends() {
    let broken = std::panic::catch_unwind(|| {
        let mut world = World::new(ConnectionTracking::Off);
        (0..CONNECTIONS).for_each(|connection| world.open(connection));
        world.take(Step::Add(4));
        (0..CONNECTIONS).for_each(|connection| world.send(connection, Segment::Continues));
    });
    assert!(broken.is_err());
}
