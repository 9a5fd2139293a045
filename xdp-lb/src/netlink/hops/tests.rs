//! What is heard, and what follows from it, at times that the tests choose.

use super::*;
use crate::netlink::links::{Exit, LinkState, Vlan};

const IFINDEX: u32 = 2;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 11];
const DIRECT: Via = Via {
    ifindex: IFINDEX,
    gateway: None,
    source: None,
    mtu: None,
};

fn address() -> IpAddr {
    "10.0.0.11".parse().unwrap()
}

fn hops() -> Hops {
    let mut hops = Hops::default();
    hops.want([address()].into());
    hops.link(IFINDEX, link("eth0"));
    hops.route(address(), Route::Via(DIRECT));
    hops
}

fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        mac: Some(OWN),
        mtu: 1500,
        state: LinkState::Up,
        vlan: None,
        below: None,
        master: None,
    }
}

fn exits<const N: usize>(exits: [(u32, u16, u16); N]) -> Exits {
    let mut all = Exits::default();
    for (place, (ifindex, outer_tag, inner_tag)) in all.iter_mut().zip(exits) {
        *place = Some(Exit {
            ifindex,
            outer_tag,
            inner_tag,
        });
    }
    all
}

fn heard(hops: &mut Hops, state: State) {
    let mac = (!matches!(state, State::Incomplete | State::Failed)).then_some(MAC);
    hops.neighbour(IFINDEX, address(), Neighbour { mac, state }, Instant::now());
}

fn known(hops: &mut Hops, now: Instant) -> Option<Hop> {
    match hops.resolve(now).remove(&address()) {
        Some(HopState::Known(hop)) => Some(hop),
        _ => None,
    }
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_then_used() {
    let now = Instant::now();
    let mut hops = hops();
    assert_eq!(
        hops.next_asks(Instant::now()),
        [(IFINDEX, address())].into()
    );
    assert_eq!(known(&mut hops, now), None);
    heard(&mut hops, State::Incomplete);
    assert_eq!(hops.next_asks(Instant::now()), [].into());
    assert_eq!(known(&mut hops, now), None);
    heard(&mut hops, State::Confirmed);
    assert_eq!(hops.next_asks(Instant::now()), [].into());
    assert_eq!(
        known(&mut hops, now),
        Some(Hop {
            exits: exits([(IFINDEX, 0, 0)]),
            mac: MAC,
            source_mac: OWN,
            mtu: 1500,
            source: None,
            gateway: None,
        })
    );
}

#[test]
fn a_stale_neighbour_is_used_and_asked_again() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Stale);
    assert!(known(&mut hops, now).is_some());
    assert_eq!(
        hops.next_asks(Instant::now()),
        [(IFINDEX, address())].into()
    );
    heard(&mut hops, State::Asked);
    assert!(known(&mut hops, now).is_some());
    assert_eq!(hops.next_asks(Instant::now()), [].into());
}

#[test]
fn a_failed_neighbour_is_not_used_and_asked_again() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Asked);
    heard(&mut hops, State::Failed);
    assert_eq!(known(&mut hops, now), None);
    assert_eq!(
        hops.next_asks(Instant::now()),
        [(IFINDEX, address())].into()
    );
}

#[test]
fn a_forgotten_neighbour_is_used_for_a_second_only() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    hops.neighbour_gone(IFINDEX, address(), now);
    assert!(known(&mut hops, now + LINGER).is_some());
    assert_eq!(
        known(&mut hops, now + LINGER + Duration::from_millis(1)),
        None
    );
    assert_eq!(
        hops.next_asks(Instant::now()),
        [(IFINDEX, address())].into()
    );
    heard(&mut hops, State::Incomplete);
    assert!(known(&mut hops, now).is_some(), "it is being asked again");
    heard(&mut hops, State::Failed);
    assert_eq!(known(&mut hops, now), None, "and does not answer");
}

#[test]
fn one_that_is_flushed_is_used_until_it_has_answered() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    // What the kernel says on `ip neigh flush`.
    heard(&mut hops, State::Failed);
    hops.neighbour_gone(IFINDEX, address(), now);
    assert!(known(&mut hops, now).is_some());
    assert_eq!(
        hops.next_asks(Instant::now()),
        [(IFINDEX, address())].into()
    );
    heard(&mut hops, State::Incomplete);
    assert!(known(&mut hops, now).is_some());
    heard(&mut hops, State::Confirmed);
    assert!(known(&mut hops, now + 2 * LINGER).is_some());
}

#[test]
fn the_reason_is_told_where_there_is_no_way() {
    let now = Instant::now();
    let mut hops = hops();
    for (route, reason) in [
        (
            Route::None("Network is unreachable".into()),
            "no route: Network is unreachable",
        ),
        (
            Route::Via(Via {
                ifindex: 9,
                ..DIRECT
            }),
            "reached by an interface that is not known yet",
        ),
        (Route::Via(DIRECT), "is being asked for its MAC address"),
    ] {
        hops.route(address(), route);
        assert_eq!(reason_of(&mut hops, now), reason);
    }
    let without_mac = Link {
        mac: None,
        ..link("tun0")
    };
    hops.link(IFINDEX, without_mac);
    assert_eq!(
        reason_of(&mut hops, now),
        "reached by an interface without an Ethernet address"
    );
}

/// Why there is no way.
fn reason_of(hops: &mut Hops, now: Instant) -> String {
    match &hops.resolve(now)[&address()] {
        HopState::Unknown { reason, .. } => reason.clone(),
        HopState::Known(hop) => panic!("{hop:?}"),
    }
}

#[test]
fn behind_a_gateway_the_gateway_is_the_next_hop() {
    let now = Instant::now();
    let mut hops = hops();
    let gateway: IpAddr = "10.0.0.1".parse().unwrap();
    let via = Via {
        gateway: Some(gateway),
        source: Some([10, 0, 0, 2].into()),
        ..DIRECT
    };
    hops.route(address(), Route::Via(via));
    assert_eq!(hops.next_asks(Instant::now()), [(IFINDEX, gateway)].into());
    assert_eq!(
        hops.resolve(now)[&address()],
        HopState::Unknown {
            reason: "its gateway 10.0.0.1 is being asked for its MAC address".into(),
            gateway: Some(gateway),
            is_given_up: false,
        }
    );
    let mac = Some(MAC);
    let state = State::Confirmed;
    hops.neighbour(IFINDEX, gateway, Neighbour { mac, state }, now);
    let hop = known(&mut hops, now).unwrap();
    assert_eq!((hop.mac, hop.gateway), (MAC, Some(gateway)));
    assert_eq!(hop.source, Some([10, 0, 0, 2].into()));
    let state = State::Failed;
    for _ in 0..2 {
        hops.neighbour(IFINDEX, gateway, Neighbour { mac: None, state }, now);
    }
    let late = now + 2 * LINGER;
    assert_eq!(
        reason_of(&mut hops, late),
        "its gateway 10.0.0.1 does not answer ARP"
    );
}

#[test]
fn the_old_way_is_taken_for_a_second_while_a_new_next_hop_is_asked_for() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    let old = known(&mut hops, now).unwrap();
    let gateway: IpAddr = "10.0.0.1".parse().unwrap();
    let via = Via {
        gateway: Some(gateway),
        ..DIRECT
    };
    hops.route(address(), Route::Via(via));
    assert_eq!(known(&mut hops, now), Some(old));
    let neighbour = |mac, state| Neighbour { mac, state };
    hops.neighbour(IFINDEX, gateway, neighbour(None, State::Incomplete), now);
    assert_eq!(known(&mut hops, now + LINGER), Some(old));
    let late = now + LINGER + Duration::from_millis(1);
    assert_eq!(
        reason_of(&mut hops, late),
        "its gateway 10.0.0.1 is being asked for its MAC address"
    );

    // An answer, of whatever kind, ends it.
    let mac = Some([2, 0, 0, 0, 0, 9]);
    hops.neighbour(IFINDEX, gateway, neighbour(mac, State::Confirmed), now);
    assert_eq!(known(&mut hops, now).map(|hop| hop.mac), mac);
    hops.route(address(), Route::Via(DIRECT));
    assert_eq!(known(&mut hops, now), Some(old));
    let other = Via {
        gateway: Some("10.0.0.2".parse().unwrap()),
        ..DIRECT
    };
    hops.route(address(), Route::Via(other));
    let failed = neighbour(None, State::Failed);
    hops.neighbour(IFINDEX, "10.0.0.2".parse().unwrap(), failed, now);
    assert!(reason_of(&mut hops, now).contains("does not answer"));
}

#[test]
fn the_old_way_is_not_taken_by_a_device_that_is_down_or_without_a_route() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    assert!(known(&mut hops, now).is_some());
    let other = Via {
        ifindex: 3,
        ..DIRECT
    };
    hops.link(3, link("eth1"));
    hops.route(address(), Route::Via(other));
    assert!(known(&mut hops, now).is_some());
    let down = Link {
        state: LinkState::Down,
        ..link("eth0")
    };
    hops.link(IFINDEX, down);
    assert_eq!(known(&mut hops, now), None);
    hops.link(IFINDEX, link("eth0"));
    assert!(known(&mut hops, now).is_some());
    hops.route(address(), Route::None("unreachable".into()));
    assert_eq!(known(&mut hops, now), None);
}

#[test]
fn two_backends_behind_one_gateway_ask_once() {
    let mut hops = hops();
    let other = "10.9.0.1".parse().unwrap();
    let gateway: IpAddr = "10.0.0.1".parse().unwrap();
    hops.want([address(), other].into());
    for address in [address(), other] {
        let gateway = Some(gateway);
        hops.route(address, Route::Via(Via { gateway, ..DIRECT }));
    }
    assert_eq!(hops.next_asks(Instant::now()).len(), 1);
}

#[test]
fn the_mtu_is_the_routes_but_never_more_than_the_devices() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    for (route, device, mtu) in [
        (None, 1500, 1500),
        (Some(1400), 1500, 1400),
        (Some(9000), 1500, 1500),
        (None, 9000, 9000),
        (None, 100_000, 65_535),
    ] {
        let via = Via {
            mtu: route,
            ..DIRECT
        };
        hops.route(address(), Route::Via(via));
        let changed = Link {
            mtu: device,
            ..link("eth0")
        };
        hops.link(IFINDEX, changed);
        assert_eq!(known(&mut hops, now).unwrap().mtu, mtu);
    }
}

#[test]
fn frames_for_a_vlan_leave_by_it_or_by_the_device_below() {
    let now = Instant::now();
    let mut hops = hops();
    let vlan = Link {
        vlan: Some(Vlan {
            parent: 3,
            tag: 100,
        }),
        ..link("eth1.100")
    };
    hops.link(IFINDEX, vlan);
    assert!(reason_of(&mut hops, now).contains("not known"));
    hops.link(3, link("eth1"));
    heard(&mut hops, State::Confirmed);
    let hop = known(&mut hops, now).unwrap();
    assert_eq!(hop.exits, exits([(IFINDEX, 0, 0), (3, 100, 0)]));
}

#[test]
fn a_device_that_goes_down_takes_its_backends_along() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    for (state, reason) in [
        (LinkState::Down, "reached by eth0, which is down"),
        (
            LinkState::NoCarrier,
            "reached by eth0, which has no carrier",
        ),
    ] {
        assert!(hops.link(
            IFINDEX,
            Link {
                state,
                ..link("eth0")
            }
        ));
        assert_eq!(reason_of(&mut hops, now), reason);
    }
    assert!(hops.link(IFINDEX, link("eth0")));
    assert!(!hops.link(IFINDEX, link("eth0")), "that is nothing new");
    assert!(known(&mut hops, now).is_some());
}

#[test]
fn addresses_of_a_prefix_are_found() {
    let mut hops = hops();
    let [one, two, six]: [IpAddr; 3] =
        ["10.0.0.1", "10.1.0.1", "2001:db8::1"].map(|text| text.parse().unwrap());
    hops.want([one, two, six].into());
    let last = "10.0.255.255".parse().unwrap();
    assert_eq!(hops.wanted_within([10, 0, 0, 0].into(), last), [one]);
    let all = (IpAddr::from([0; 4]), IpAddr::from([255; 4]));
    assert_eq!(hops.wanted_within(all.0, all.1), [one, two]);
}

#[test]
fn a_route_that_nobody_wants_any_more_is_not_kept() {
    let mut hops = hops();
    hops.want(BTreeSet::new());
    hops.route(address(), Route::Via(DIRECT));
    hops.want([address()].into());
    assert!(reason_of(&mut hops, Instant::now()).contains("not known yet"));
}

#[test]
fn a_link_that_goes_takes_its_neighbours_along() {
    let now = Instant::now();
    let mut hops = hops();
    heard(&mut hops, State::Confirmed);
    hops.link_gone(IFINDEX);
    hops.link(IFINDEX, link("eth0"));
    assert_eq!(known(&mut hops, now), None);
}

#[test]
fn what_is_no_longer_wanted_is_forgotten() {
    let mut hops = hops();
    heard(&mut hops, State::Stale);
    hops.want(BTreeSet::new());
    assert!(hops.resolve(Instant::now()).is_empty());
    assert!(hops.next_asks(Instant::now()).is_empty());
}

#[test]
fn a_neighbour_is_given_up_after_two_rounds_of_questions() {
    let begin = Instant::now();
    let mut hops = hops();
    hops.route(address(), Route::Via(DIRECT));
    let is_given_up = |hops: &mut Hops, now| match hops.resolve(now)[&address()] {
        HopState::Unknown { is_given_up, .. } => Some(is_given_up),
        HopState::Known(_) => None,
    };
    let hear = |hops: &mut Hops, state, now| {
        let mac = (state == State::Confirmed).then_some(MAC);
        hops.neighbour(IFINDEX, address(), Neighbour { mac, state }, now);
    };
    hear(&mut hops, State::Failed, begin);
    // That was before anybody asked.
    assert_eq!(is_given_up(&mut hops, begin), Some(false));
    assert_eq!(hops.next_asks(begin).len(), 1);
    for (seconds, state, expected) in [
        (0, State::Incomplete, Some(false)),
        (3, State::Failed, Some(false)),
        (3, State::Incomplete, Some(false)),
        (6, State::Failed, Some(true)),
        (6, State::Incomplete, Some(true)),
        (7, State::Confirmed, None),
    ] {
        let now = begin + Duration::from_secs(seconds);
        hear(&mut hops, state, now);
        hops.next_asks(now);
        assert_eq!(is_given_up(&mut hops, now), expected, "{seconds} {state:?}");
    }
    // Where there is no route nobody has to be asked, but it may come.
    hops.route(address(), Route::None("unreachable".into()));
    let later = begin + 2 * PATIENCE;
    assert_eq!(is_given_up(&mut hops, later), Some(false));
    assert_eq!(is_given_up(&mut hops, later + PATIENCE), Some(true));
}
