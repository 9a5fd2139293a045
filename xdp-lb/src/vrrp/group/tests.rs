//! Groups of two members on two networks, which fail apart from each other.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::vrrp::{machine::LEAVES, packet::Interval};

const SECOND: Duration = Duration::from_secs(1);

fn settings(priority: u8, last: u8) -> [Settings; 2] {
    [0, 1].map(|network| Settings {
        priority,
        interval: Interval::from_centiseconds(100).unwrap(),
        preempt: Some(Duration::ZERO),
        address: [10, 0, network, last].into(),
    })
}

fn heard(priority: u8, member: usize, last: u8) -> Heard {
    let [first, second] = settings(priority, last);
    let from = [first, second][member].address;
    Heard {
        priority,
        interval: first.interval,
        from,
    }
}

#[test]
fn it_takes_over_when_no_member_hears_a_better_one() {
    let now = Instant::now();
    let mut group = Group::new(settings(150, 5));
    assert_eq!(group.start(now), []);
    let due = group.due().unwrap();
    // One member has waited long enough, the other has just heard something.
    let later = due - SECOND;
    assert_eq!(group.hear(1, heard(200, 1, 9), later), []);
    assert_eq!(group.tick(due), []);
    assert_eq!(group.state(), State::Backup);
    let last = group.due().unwrap();
    assert_eq!(last, later + group.active_down_interval());
    let advertises = Action::Advertise { priority: 150 };
    assert_eq!(
        group.tick(last),
        [
            (0, advertises),
            (0, Action::Take),
            (1, advertises),
            (1, Action::Take),
        ]
    );
}

#[test]
fn it_steps_down_when_one_member_hears_a_better_one() {
    let now = Instant::now();
    let mut group = Group::new(settings(150, 5));
    group.start(now);
    let due = group.due().unwrap();
    group.tick(due);
    assert_eq!(
        group.hear(1, heard(200, 1, 9), due),
        [
            (1, Action::Release),
            (0, Action::Advertise { priority: LEAVES }),
            (0, Action::Release),
        ]
    );
    assert_eq!(group.state(), State::Backup);
    assert_eq!(group.due(), Some(due + group.active_down_interval()));
}

#[test]
fn an_empty_group_does_nothing() {
    let mut group = Group::new([]);
    assert_eq!(group.start(Instant::now()), []);
    assert_eq!(group.due(), None);
    assert_eq!(group.stop(), []);
}

/// Two directors on two networks, each of which loses packets in a way of its own.
struct Pair {
    now: Instant,
    groups: [Group; 2],
    /// Of 100, by network.
    loss: [u64; 2],
    random: u64,
}

impl Pair {
    fn is_lost(&mut self, network: usize) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < self.loss[network]
    }

    /// What is sent arrives at once, or never.
    fn done(&mut self, who: usize, tasks: Vec<Task>) {
        let mut open: Vec<_> = tasks.into_iter().map(|task| (who, task)).rev().collect();
        let mut steps = 0;
        while let Some((who, (member, action))) = open.pop() {
            steps += 1;
            assert!(steps < 100, "they never agree");
            if let Action::Advertise { priority } = action
                && !self.is_lost(member)
            {
                let last = u8::try_from(who).unwrap() + 1;
                let other = 1 - who;
                let tasks =
                    self.groups[other].hear(member, heard(priority, member, last), self.now);
                open.extend(tasks.into_iter().rev().map(|task| (other, task)));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let dues = [0, 1].map(|who| self.groups[who].due());
            let Some(next) = dues.into_iter().flatten().min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for who in 0..2 {
                let now = self.now;
                let tasks = self.groups[who].tick(now);
                self.done(who, tasks);
            }
        }
    }

    /// The one that should be active: of equal ones it is the one that was first.
    fn best(&self, priorities: [u8; 2]) -> usize {
        match priorities[0].cmp(&priorities[1]) {
            Ordering::Less => 1,
            Ordering::Equal => usize::from(self.states()[1] == State::Active),
            Ordering::Greater => 0,
        }
    }

    fn states(&self) -> [State; 2] {
        let state = |group: &Group| {
            let [first, second] = [0, 1].map(|member| group.members[member].state());
            assert_eq!(first, second, "members are in one state");
            first
        };
        [state(&self.groups[0]), state(&self.groups[1])]
    }
}

fn pair(priorities: [u8; 2], loss: [u64; 2], random: u64) -> Pair {
    let now = Instant::now();
    let groups = [0, 1].map(|who: u8| Group::new(settings(priorities[usize::from(who)], who + 1)));
    let mut pair = Pair {
        now,
        groups,
        loss,
        random,
    };
    for who in 0..2 {
        let tasks = pair.groups[who].start(now);
        pair.done(who, tasks);
    }
    pair
}

proptest! {
    #[test]
    fn one_network_that_works_is_enough(
        priorities in [1_u8..=254, 1_u8..=254],
        broken in 0_usize..2,
        loss in 0_u64..=100,
        seed in 1_u64..,
    ) {
        let mut losses = [0; 2];
        losses[broken] = loss;
        let mut pair = pair(priorities, losses, seed);
        pair.run(SECOND * 10);
        let best = pair.best(priorities);
        for _ in 0..50 {
            pair.run(SECOND);
            prop_assert_eq!(pair.states()[best], State::Active);
            prop_assert_eq!(pair.states()[1 - best], State::Backup);
        }
    }

    #[test]
    fn when_both_networks_heal_one_is_active(
        priorities in [1_u8..=254, 1_u8..=254],
        loss in [0_u64..=100, 0_u64..=100],
        seed in 1_u64..,
    ) {
        let mut pair = pair(priorities, loss, seed);
        pair.run(SECOND * 60);
        pair.loss = [0; 2];
        pair.run(SECOND * 10);
        let best = pair.best(priorities);
        prop_assert_eq!(pair.states()[best], State::Active);
        prop_assert_eq!(pair.states()[1 - best], State::Backup);
        // It leaves, and the other one takes over within an interval.
        let tasks = pair.groups[best].stop();
        pair.done(best, tasks);
        pair.run(SECOND);
        prop_assert_eq!(pair.states()[1 - best], State::Active);
    }
}
