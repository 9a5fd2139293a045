use std::sync::Arc;

use super::*;
use crate::{
    config::{self, WhenDown},
    director::{
        desired::desired,
        overrides::Overrides,
        ways::{Way, Ways},
    },
};

const TIMEOUT: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

const WAY: Way = Way {
    ifindex: 2,
    mac: [2; 6],
    source_mac: [2; 6],
    tags: [0; 2],
    mtu: 1500,
    tunnel: None,
};

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// A director with one service of three backends.
struct World {
    config: Vec<Service>,
    desired: Vec<DesiredService>,
    fresh: Freshness,
    hops: NextHops,
    is_known: bool,
    is_complete: bool,
    begin: Instant,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with("[10.0.0.1, 10.0.0.2, 10.0.0.3]")
    }

    fn with(backends: &str) -> Self {
        let text = format!(
            "{{ interfaces: [eth0], services: [{{ name: web, vip: 192.0.2.10, port: 80, \
             protocol: tcp, backends: {backends} }}] }}"
        );
        let config = config::parse(&text, "test.yaml").unwrap();
        let hops = NextHops::default();
        let ways = Ways {
            hops: &hops,
            ports: &BTreeSet::from([2]),
        };
        let now = Instant::now();
        Self {
            desired: desired(&config, &Overrides::default(), ways),
            config: config.services,
            fresh: Freshness::new(TIMEOUT),
            hops: Arc::default(),
            is_known: false,
            is_complete: true,
            begin: now,
            now,
        }
    }

    fn backend(&mut self, last: u8) -> &mut DesiredBackend {
        self.desired[0].backends.get_mut(&address(last)).unwrap()
    }

    fn up(&mut self, last: u8) {
        let backend = self.backend(last);
        backend.way = Ok(WAY);
        backend.health = Health::Up { since: None };
    }

    fn undecided(&mut self, last: u8) {
        let backend = self.backend(last);
        backend.way = Ok(WAY);
        backend.health = Health::Undecided {
            reason: "not checked yet".into(),
            has_failed: false,
        };
    }

    fn down(&mut self, last: u8) {
        let backend = self.backend(last);
        backend.way = Ok(WAY);
        backend.health = Health::Down {
            reason: "refused".into(),
            then: WhenDown::Keep,
        };
    }

    /// No answer to ARP, and the kernel has asked often enough.
    fn silent(&mut self, last: u8) {
        self.backend(last).way = Err("does not answer ARP".into());
        let unknown = HopState::Unknown {
            reason: "does not answer ARP".into(),
            gateway: None,
            is_given_up: true,
        };
        Arc::make_mut(&mut self.hops).insert(address(last), unknown);
    }

    /// What is assumed, as the last bytes of the addresses, what is awaited, and whether it has become ready.
    fn look(&mut self, after: Duration) -> (Option<Vec<u8>>, usize, bool) {
        self.now = self.begin + after;
        let is_known = self.is_known;
        self.fresh.observe(&self.desired, |_| is_known, self.now);
        self.desired[0].assumed = None;
        let reach = Reach {
            hops: &self.hops,
            is_complete: self.is_complete,
        };
        self.fresh
            .assume(&mut self.desired, &self.config, reach, self.now);
        self.is_known = true;
        let (awaited, is_ready_now) = self.fresh.conclude(&self.desired, reach, self.now);
        let assumed = self.desired[0].assumed.as_ref().map(|candidates| {
            let last = |it: &Candidate| match it.address {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => unreachable!(),
            };
            candidates.iter().map(last).collect()
        });
        (assumed, awaited.len(), is_ready_now)
    }
}

#[test]
fn what_is_not_known_is_assumed_until_it_is() {
    let mut world = World::new();
    world.up(1);
    assert_eq!(world.look(SECOND), (Some(vec![1, 2, 3]), 2, false));
    world.undecided(2);
    world.up(3);
    assert_eq!(world.look(2 * SECOND), (Some(vec![1, 2, 3]), 1, false));
    world.up(2);
    assert_eq!(world.look(3 * SECOND), (Some(vec![1, 2, 3]), 0, true));
    // Nothing is left to be assumed.
    assert_eq!(world.look(4 * SECOND), (None, 0, false));
}

#[test]
fn one_that_is_found_down_was_not_in_use() {
    let mut world = World::new();
    world.up(1);
    world.up(2);
    world.undecided(3);
    assert_eq!(world.look(SECOND), (Some(vec![1, 2, 3]), 1, false));
    world.down(3);
    assert_eq!(world.look(2 * SECOND), (Some(vec![1, 2]), 0, true));
}

#[test]
fn what_a_check_says_of_one_that_cannot_be_reached_counts_for_nothing() {
    let mut world = World::new();
    world.up(1);
    world.up(2);
    world.down(3);
    world.backend(3).way = Err("is being asked for its MAC address".into());
    assert_eq!(world.look(SECOND), (Some(vec![1, 2, 3]), 1, false));
}

#[test]
fn one_that_does_not_answer_is_given_up() {
    let mut world = World::new();
    world.up(1);
    world.up(2);
    assert_eq!(world.look(SECOND), (Some(vec![1, 2, 3]), 1, false));
    world.silent(3);
    assert_eq!(world.look(6 * SECOND), (Some(vec![1, 2]), 0, true));
    assert_eq!(world.look(7 * SECOND), (None, 0, false));
}

#[test]
fn while_an_interface_is_missing_nobody_is_given_up() {
    let mut world = World::new();
    world.is_complete = false;
    world.up(1);
    world.up(2);
    world.silent(3);
    assert_eq!(world.look(6 * SECOND), (Some(vec![1, 2, 3]), 1, false));
    world.is_complete = true;
    assert_eq!(world.look(7 * SECOND), (Some(vec![1, 2]), 0, true));
}

#[test]
fn one_whose_check_has_failed_is_given_up_when_it_is_late() {
    let mut world = World::new();
    world.up(1);
    world.up(2);
    world.undecided(3);
    if let Health::Undecided { has_failed, .. } = &mut world.backend(3).health {
        *has_failed = true;
    }
    assert_eq!(world.look(Duration::ZERO), (Some(vec![1, 2, 3]), 1, false));
    assert_eq!(world.look(TIMEOUT), (Some(vec![1, 2]), 0, true));
}

#[test]
fn a_check_that_says_nothing_ends_the_waiting_and_not_the_connections() {
    let mut world = World::new();
    world.up(1);
    world.up(2);
    world.undecided(3);
    assert_eq!(world.look(Duration::ZERO), (Some(vec![1, 2, 3]), 1, false));
    assert_eq!(
        world.look(TIMEOUT - SECOND),
        (Some(vec![1, 2, 3]), 1, false)
    );
    let reach = Reach {
        hops: &world.hops,
        is_complete: true,
    };
    let given_up = |now| world.fresh.given_up(&world.desired, reach, now);
    assert_eq!(given_up(world.now).len(), 0);
    let given_up = given_up(world.begin + TIMEOUT);
    let [check] = Vec::from_iter(&given_up)[..] else {
        panic!("{given_up:?}");
    };
    assert_eq!(
        check.to_string(),
        "the health check of 10.0.0.3 for service `web`"
    );
    assert_eq!(world.look(TIMEOUT), (Some(vec![1, 2, 3]), 0, true));
    assert_eq!(world.look(TIMEOUT + SECOND), (None, 0, false));
}

#[test]
fn with_nobody_known_it_waits_and_then_is_ready_all_the_same() {
    let mut world = World::new();
    assert_eq!(world.look(SECOND), (Some(vec![1, 2, 3]), 3, false));
    assert_eq!(world.look(SECOND + TIMEOUT), (Some(vec![]), 0, true));
}

#[test]
fn what_was_drained_before_has_no_connections_and_what_is_drained_now_keeps_them() {
    let mut world = World::new();
    world.backend(3).draining = true;
    world.up(1);
    world.undecided(2);
    assert_eq!(world.look(SECOND), (Some(vec![1, 2]), 1, false));
    world.backend(1).draining = true;
    assert_eq!(world.look(2 * SECOND), (Some(vec![1, 2]), 1, false));
}

#[test]
fn one_that_is_added_meanwhile_has_no_past() {
    let mut world = World::new();
    world.up(1);
    world.up(2);
    let late = world.desired[0].backends.remove(&address(3)).unwrap();
    world.undecided(2);
    assert_eq!(world.look(SECOND), (Some(vec![1, 2]), 1, false));
    world.desired[0].backends.insert(address(3), late);
    assert_eq!(world.look(2 * SECOND), (Some(vec![1, 2]), 1, false));
}

#[test]
fn a_standby_tier_is_not_assumed_to_have_been_in_use() {
    let backends = "[10.0.0.1, { address: 10.0.0.2, tier: 1 }]";
    let mut world = World::with(backends);
    assert_eq!(world.look(SECOND), (Some(vec![1]), 2, false));
    world.down(1);
    world.up(2);
    assert_eq!(world.look(2 * SECOND), (Some(vec![2]), 0, true));
}

#[test]
fn a_director_that_takes_over_its_maps_is_ready_at_once() {
    let mut world = World::new();
    world.is_known = true;
    assert_eq!(world.look(Duration::ZERO), (None, 0, true));
}

#[test]
fn a_service_that_comes_later_is_assumed_but_the_director_stays_ready() {
    let mut world = World::new();
    world.is_known = true;
    assert_eq!(world.look(Duration::ZERO), (None, 0, true));
    world.is_known = false;
    assert_eq!(world.look(SECOND), (Some(vec![1, 2, 3]), 0, false));
    assert!(world.fresh.is_ready());
    // It goes before anything is known.
    world.desired.clear();
    world.fresh.observe(&world.desired, |_| true, world.now);
    assert_eq!(world.fresh.due(), None);
}
