//! The table of transitions, and routers on a network that loses packets.

use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const LOW: u8 = 100;
const MINE: u8 = 150;
const HIGH: u8 = 200;

fn interval() -> Interval {
    Interval::from_centiseconds(100).unwrap()
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn settings(priority: u8, last: u8) -> Settings {
    Settings {
        priority,
        interval: interval(),
        preempt: Some(Duration::ZERO),
        address: address(last),
    }
}

fn heard(priority: u8, last: u8) -> Heard {
    Heard {
        priority,
        interval: interval(),
        from: address(last),
    }
}

const ADVERTISES: Action = Action::Advertise { priority: MINE };

/// A machine of priority 150 and address 10.0.0.5 in a state.
fn machine(state: State, now: Instant) -> Machine {
    let mut machine = Machine::new(settings(MINE, 5));
    if state != State::Initialize {
        assert_eq!(machine.start(now), []);
    }
    if state == State::Active {
        let due = machine.due().unwrap();
        assert_eq!(machine.tick(due), [ADVERTISES, Action::Take]);
        machine.due = Some(now + interval().duration());
    }
    assert_eq!(machine.state(), state);
    machine
}

/// State, event, the state that follows, what is done, and milliseconds until it is due.
type Row = (State, &'static str, State, &'static [Action], Option<u128>);

/// Every state with every event: the state that follows, what is done, and when it is due, in
/// milliseconds; None: not at all.
#[test]
fn every_transition_is_that_of_the_table() {
    use State::{Active, Backup, Initialize};
    const RELEASES: Action = Action::Release;
    const GOES: Action = Action::Advertise { priority: LEAVES };
    const INSISTS: [Action; 2] = [ADVERTISES, Action::Announce];

    // Skew: a second times 106 / 256.
    let (skew, down) = (414, 3414);
    let table: [Row; 24] = [
        (Initialize, "start", Backup, &[], Some(down)),
        (Initialize, "stop", Initialize, &[], None),
        (Initialize, "steps down", Initialize, &[], None),
        (Initialize, "tick", Initialize, &[], None),
        (Initialize, "leaves", Initialize, &[], None),
        (Initialize, "lower", Initialize, &[], None),
        (Initialize, "equal", Initialize, &[], None),
        (Initialize, "higher", Initialize, &[], None),
        (Backup, "start", Backup, &[], Some(down)),
        (Backup, "stop", Initialize, &[], None),
        (Backup, "steps down", Backup, &[], Some(down - 100)),
        (
            Backup,
            "tick",
            Active,
            &[ADVERTISES, Action::Take],
            Some(1000),
        ),
        (Backup, "leaves", Backup, &[], Some(skew)),
        (Backup, "lower", Backup, &[], Some(down - 100)),
        (Backup, "equal", Backup, &[], Some(down)),
        (Backup, "higher", Backup, &[], Some(down)),
        (Active, "start", Active, &[], Some(900)),
        (Active, "stop", Initialize, &[GOES, RELEASES], None),
        (Active, "steps down", Backup, &[GOES, RELEASES], Some(down)),
        (Active, "tick", Active, &[ADVERTISES], Some(1000)),
        (Active, "leaves", Active, &[ADVERTISES], Some(1000)),
        (Active, "lower", Active, &INSISTS, Some(1000)),
        (
            Active,
            "equal, smaller address",
            Active,
            &INSISTS,
            Some(1000),
        ),
        (
            Active,
            "equal, larger address",
            Backup,
            &[RELEASES],
            Some(down),
        ),
    ];
    let begin = Instant::now();
    for (state, event, next, actions, due) in table {
        let mut machine = machine(state, begin);
        // A tenth of a second later, but for ticks, which come when they are due.
        let mut now = begin + Duration::from_millis(100);
        let done = match event {
            "start" if state == Backup => {
                now = begin;
                machine.start(now)
            }
            "start" => machine.start(now),
            "stop" => machine.stop(),
            "steps down" => machine.step_down(now),
            "tick" => {
                now = machine.due().unwrap_or(now);
                machine.tick(now)
            }
            "leaves" => machine.hear(heard(LEAVES, 9), now),
            "lower" => machine.hear(heard(LOW, 9), now),
            "equal" | "equal, larger address" => machine.hear(heard(MINE, 9), now),
            "equal, smaller address" => machine.hear(heard(MINE, 1), now),
            "higher" => machine.hear(heard(HIGH, 1), now),
            _ => panic!("{event}"),
        };
        let left = machine.due().map(|due| (due - now).as_millis());
        assert_eq!(
            (machine.state(), &done[..], left),
            (next, actions, due),
            "{state:?}: {event}"
        );
    }
    let mut machine = machine(Active, begin);
    assert_eq!(machine.hear(heard(HIGH, 1), begin), [RELEASES]);
}

#[test]
fn an_owner_is_active_at_once() {
    let now = Instant::now();
    let mut machine = Machine::new(settings(OWNER, 5));
    let advertises = Action::Advertise { priority: OWNER };
    assert_eq!(machine.start(now), [advertises, Action::Take]);
    assert_eq!(machine.due(), Some(now + interval().duration()));
}

#[test]
fn one_that_does_not_preempt_leaves_others_alone() {
    let now = Instant::now();
    for (preempt, waits) in [
        (None, true),
        (Some(Duration::from_secs(60)), true),
        (Some(Duration::ZERO), false),
    ] {
        let mut machine = Machine::new(Settings {
            preempt,
            ..settings(MINE, 5)
        });
        machine.start(now);
        let mut time = now;
        for _ in 0..30 {
            time += interval().duration();
            machine.tick(time);
            machine.hear(heard(LOW, 9), time);
        }
        assert_eq!(machine.state() == State::Backup, waits, "{preempt:?}");
    }
    // When its time has come it takes over.
    let mut machine = Machine::new(Settings {
        preempt: Some(Duration::from_secs(10)),
        ..settings(MINE, 5)
    });
    machine.start(now);
    let mut time = now;
    while time < now + Duration::from_secs(20) {
        time += interval().duration() / 4;
        machine.tick(time);
        machine.hear(heard(LOW, 9), time);
    }
    assert_eq!(machine.state(), State::Active);
}

#[test]
fn it_waits_by_the_interval_of_the_active_one() {
    let now = Instant::now();
    let mut machine = machine(State::Backup, now);
    let slow = Heard {
        interval: Interval::from_centiseconds(4000).unwrap(),
        ..heard(HIGH, 9)
    };
    machine.hear(slow, now);
    assert!(machine.active_down_interval() > Duration::from_secs(120));
    assert_eq!(machine.due(), Some(now + machine.active_down_interval()));
}

#[test]
fn another_priority_counts_at_once() {
    let now = Instant::now();
    let mut backup = machine(State::Backup, now);
    assert_eq!(backup.set_priority(HIGH, now), []);
    assert_eq!(backup.due(), Some(now + backup.active_down_interval()));
    let mut active = machine(State::Active, now);
    let lower = Action::Advertise { priority: LOW };
    assert_eq!(active.set_priority(LOW, now), [lower]);
    assert_eq!(active.set_priority(LOW, now), []);
    assert_eq!(active.hear(heard(MINE, 1), now), [Action::Release]);
}

/// Routers on a network that loses, delays and repeats packets.
struct Network {
    now: Instant,
    machines: Vec<Machine>,
    /// By the time of arrival, reversed: to whom, and what.
    packets: BinaryHeap<(std::cmp::Reverse<Instant>, usize, u8, u8)>,
    random: u64,
    /// Lost, of 100.
    loss: u64,
    /// The longest delay in milliseconds.
    delay: u64,
}

impl Network {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn send(&mut self, from: usize, priority: u8) {
        for to in 0..self.machines.len() {
            for _ in 0..1 + self.random(2) {
                if to == from || self.random(100) < self.loss {
                    continue;
                }
                let delay = Duration::from_millis(self.random(self.delay + 1));
                let last = u8::try_from(from).unwrap() + 1;
                self.packets
                    .push((std::cmp::Reverse(self.now + delay), to, priority, last));
            }
        }
    }

    fn done(&mut self, who: usize, actions: Vec<Action>) {
        for action in actions {
            if let Action::Advertise { priority } = action {
                self.send(who, priority);
            }
        }
    }

    /// Lets so much time pass. Returns for how long more than one was active, at most in one piece.
    fn run(&mut self, time: Duration) -> Duration {
        let end = self.now + time;
        let mut longest = Duration::ZERO;
        let mut since: Option<Instant> = None;
        loop {
            let packet = self.packets.peek().map(|(at, ..)| at.0);
            let timers = self.machines.iter().filter_map(Machine::due);
            let next = timers.chain(packet).min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return longest;
            }
            self.now = next;
            if packet.is_some_and(|at| at <= next) {
                let Some((_, to, priority, last)) = self.packets.pop() else {
                    continue;
                };
                let actions = self.machines[to].hear(heard(priority, last), next);
                self.done(to, actions);
            } else {
                for who in 0..self.machines.len() {
                    let actions = self.machines[who].tick(next);
                    self.done(who, actions);
                }
            }
            since = (self.active() > 1).then(|| since.unwrap_or(next));
            longest = longest.max(since.map_or(Duration::ZERO, |since| next - since));
        }
    }

    fn active(&self) -> usize {
        let active = self
            .machines
            .iter()
            .filter(|it| it.state() == State::Active);
        active.count()
    }
}

proptest! {
    #[test]
    fn when_the_network_heals_the_best_one_is_active_alone(
        priorities in proptest::collection::vec(1_u8..=254, 2..5),
        loss in 0_u64..100,
        delay in 0_u64..900,
        seed in 1_u64..,
    ) {
        let machines = (1..).zip(&priorities).map(|(last, &priority)| Machine::new(settings(priority, last)));
        let mut network = Network {
            now: Instant::now(),
            machines: machines.collect(),
            packets: BinaryHeap::new(),
            random: seed,
            loss,
            delay,
        };
        for who in 0..network.machines.len() {
            let now = network.now;
            let actions = network.machines[who].start(now);
            network.done(who, actions);
        }
        network.run(Duration::from_secs(60));
        // It heals: what is under way arrives, and nothing is lost any more.
        (network.loss, network.delay) = (0, 10);
        network.run(Duration::from_secs(10));
        prop_assert_eq!(network.active(), 1);
        let best = (0..priorities.len()).max_by_key(|who| (priorities[*who], *who)).unwrap();
        prop_assert_eq!(network.machines[best].state(), State::Active);
        // From then on there is never more than one, for longer than a packet is under way.
        let longest = network.run(Duration::from_secs(60));
        prop_assert!(longest <= Duration::from_millis(10), "{:?}", longest);
        prop_assert_eq!(network.active(), 1);
        // It leaves, and another one takes over by its skew, which is less than an interval. Nothing older is under way that
        // could arrive behind its farewell, and be taken for a sign of life.
        while !network.packets.is_empty() {
            network.run(Duration::from_millis(1));
        }
        let actions = network.machines[best].stop();
        network.done(best, actions);
        network.run(interval().duration() + Duration::from_millis(20));
        prop_assert_eq!(network.active(), 1);
    }
}
