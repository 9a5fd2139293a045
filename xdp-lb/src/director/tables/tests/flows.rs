//! Remembered flows are listed, counted and forgotten, and each flow is found by its 5-tuple.

use xdp_lb_common::{
    abi::{FlowEntry, Place, PrefixKey},
    hash::Affinity,
};

use super::*;
use crate::{
    config::Protocol,
    director::{
        flows::{Flow, FlowFilter},
        sweep::Sweep,
        view::{FlowCountView, FlowsView, WhereaboutsView},
    },
};

/// The maps in memory count seconds, and are in period 0.
fn silent_for(seconds: u32) -> u32 {
    0_u32.wrapping_sub(seconds)
}

fn filter(json: &str) -> FlowFilter {
    serde_json::from_str(json).unwrap()
}

fn flow(source: &str, destination: &str) -> FlowFilter {
    FlowFilter {
        protocol: Some(Protocol::Tcp),
        source: source.parse().ok(),
        destination: destination.parse().ok(),
        ..FlowFilter::default()
    }
}

fn tuple(of: &FlowFilter) -> Flow {
    of.flow().unwrap().unwrap()
}

impl World {
    fn sweep(&mut self, mut sweep: Sweep) -> Sweep {
        while !sweep.is_done() {
            self.tables.sweep_flows(&mut self.maps, &mut sweep);
        }
        sweep
    }

    fn list(&mut self, of: FlowFilter) -> FlowsView {
        self.sweep(Sweep::to_list(of).unwrap()).into_list()
    }

    fn count(&mut self, of: FlowFilter) -> FlowCountView {
        self.sweep(Sweep::to_count(of).unwrap()).into_counts()
    }

    fn flush(&mut self, of: FlowFilter, all: bool) -> u64 {
        let sweep = Sweep::to_flush(of, all).unwrap();
        self.sweep(sweep).into_forgotten().forgotten
    }

    fn index_of(&self, service: &str, last: u8) -> u16 {
        self.tables.find(service).unwrap().1.members[&address(last)]
    }

    /// Remembers a flow in a bucket; none has another's fingerprint.
    fn remember(&mut self, bucket: u32, entry: impl FnOnce(u32) -> FlowEntry) {
        let fingerprint = u32::try_from(self.maps.flows().len()).unwrap();
        let place = Place {
            bucket,
            fingerprint,
        };
        self.maps.put_flow(place, entry(fingerprint));
    }

    fn remember_tuple(&mut self, of: &FlowFilter, backend: u16) {
        let hash = tuple(of).hash(HashKey::DEFAULT, Affinity::Flow);
        let place = Place::of(hash, MANY);
        let entry = FlowEntry::new(place.fingerprint, backend, 0);
        self.maps.put_flow(place, entry);
    }

    fn whereabouts(&self, of: &FlowFilter) -> Option<WhereaboutsView> {
        self.tables.whereabouts(&self.maps, &tuple(of))
    }
}

/// Two services with the backends 1 and 2, and 2 and 3, and flows all over the table: at each backend of each an
/// open one, at `web`'s first one of each kind, and at no backend any more one.
fn remembering() -> World {
    let mut world = World::with_buckets(MANY);
    world.apply(&[service("web", 80, &[1, 2]), service("tls", 443, &[2, 3])]);
    let last = (1 << MANY) - 1;
    let at = [("web", 1), ("web", 2), ("tls", 2), ("tls", 3)];
    for (bucket, (service, backend)) in [0, 1 << 15, (1 << 16) - 1, last].into_iter().zip(at) {
        let index = world.index_of(service, backend);
        world.remember(bucket, |print| FlowEntry::new(print, index, silent_for(9)));
    }
    let first = world.index_of("web", 1);
    let now = silent_for(0);
    world.remember(7, |print| FlowEntry::opening(print, first, now));
    world.remember(7, |print| FlowEntry::new(print, first, now).closing());
    // Those that are over.
    world.remember(8, |print| FlowEntry::opening(print, first, silent_for(131)));
    world.remember(8, |print| FlowEntry::new(print, first, silent_for(901)));
    world.remember(8, |print| {
        FlowEntry::new(print, first, silent_for(61)).closing()
    });
    world.remember(9, |print| FlowEntry::new(print, 11, now));
    world
}

#[test]
fn flows_that_live_are_counted_by_backend_and_state() {
    let mut world = remembering();
    let counted = world.count(FlowFilter::default());
    let rows: Vec<_> = counted
        .backends
        .iter()
        .map(|row| {
            let counts = (row.open, row.opening, row.closing);
            (row.service.as_str(), row.backend, counts)
        })
        .collect();
    let expected = [
        ("tls", address(2), (1, 0, 0)),
        ("tls", address(3), (1, 0, 0)),
        ("web", address(1), (1, 1, 1)),
        ("web", address(2), (1, 0, 0)),
    ];
    assert_eq!(rows, expected);
    assert_eq!(counted.total, 6);
    for (json, total) in [
        (r#"{"service": "web"}"#, 4),
        (r#"{"backend": "10.0.0.2"}"#, 2),
        (r#"{"service": "tls", "backend": "10.0.0.2"}"#, 1),
        (r#"{"service": "tls", "backend": "10.0.0.1"}"#, 0),
        (r#"{"state": "closing"}"#, 1),
        (r#"{"backend": "10.0.0.1", "state": "open"}"#, 1),
    ] {
        assert_eq!(world.count(filter(json)).total, total, "{json}");
        assert_eq!(world.list(filter(json)).total, total, "{json}");
    }
}

#[test]
fn a_list_is_in_order_and_ends_at_its_limit() {
    let mut world = remembering();
    let all = world.list(FlowFilter::default());
    let rows: Vec<_> = all
        .flows
        .iter()
        .map(|row| (row.service.as_str(), row.backend, row.silent_milliseconds))
        .collect();
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    assert_eq!((rows.len(), &rows), (6, &sorted));
    assert_eq!(all.flows[0].id, "00ffff-0000002");
    for limit in 1..=6 {
        let limited = world.list(FlowFilter {
            limit: Some(limit),
            ..FlowFilter::default()
        });
        let limit = usize::try_from(limit).unwrap();
        assert_eq!(limited.flows, all.flows[..limit]);
        assert_eq!(limited.total, 6);
    }
}

#[test]
fn what_is_forgotten_is_what_was_asked_for() {
    let mut world = remembering();
    assert_eq!(world.flush(filter(r#"{"backend": "10.0.0.2"}"#), false), 2);
    assert_eq!(world.count(FlowFilter::default()).total, 4);
    assert_eq!(world.flush(filter(r#"{"state": "opening"}"#), false), 1);
    // Those that are over go as well, and are not counted.
    assert_eq!(world.flush(filter(r#"{"service": "web"}"#), false), 2);
    let left: Vec<u16> = world
        .maps
        .flows()
        .iter()
        .map(|(_, it)| it.backend())
        .collect();
    // In the order of their places.
    assert_eq!(left, [11, world.index_of("tls", 3)]);
    assert_eq!(world.flush(FlowFilter::default(), true), 1);
    assert!(world.maps.flows().is_empty());
}

#[test]
fn one_flow_is_found_by_its_tuple() {
    let mut world = World::with_buckets(MANY);
    let v6 = Key::Address(ServiceKey {
        vip: mapped("2001:db8::1".parse().unwrap()),
        ..key(80)
    });
    let mut web = service("web", 80, &[1, 2]);
    web.keys.insert(v6);
    web.flags |= ServiceEntry::FLAG_SOURCE_AFFINITY;
    world.apply(&[web, service("tls", 443, &[3])]);
    let flows = [
        flow("198.51.100.7:40000", "10.0.0.250:80"),
        flow("[2001:db8::7]:40000", "[2001:db8::1]:80"),
    ];
    let stranger = world.index_of("tls", 3);
    for of in flows {
        assert_eq!(world.list(of.clone()).total, 0);
        // An entry at the same place, of another service: for packets it is none.
        world.remember_tuple(&of, stranger);
        assert_eq!(world.list(of.clone()).total, 0);
        world.maps.forget_all();
        let index = world.index_of("web", 2);
        world.remember_tuple(&of, index);
        let found = world.list(of.clone());
        assert_eq!((found.total, found.flows.len()), (1, 1));
        assert_eq!(found.flows[0].backend, address(2));
        let other = FlowFilter {
            source: of.source.map(|mut source| {
                source.set_port(40_001);
                source
            }),
            ..of.clone()
        };
        assert_eq!(world.count(other.clone()).total, 0);
        assert_eq!(world.flush(other, false), 0);
        assert_eq!(world.flush(of.clone(), false), 1);
        assert_eq!(world.flush(of, false), 0);
    }
}

#[test]
fn a_flow_that_is_not_remembered_has_a_slot() {
    let mut world = World::with_buckets(MANY);
    world.apply(&[service("web", 80, &[1, 2])]);
    let of = |port: u16| flow(&format!("198.51.100.7:{port}"), "10.0.0.250:80");
    let slots = |world: &World| {
        (40_000..40_100)
            .map(|port| world.whereabouts(&of(port)).unwrap().slot.unwrap())
            .collect::<Vec<_>>()
    };
    let before = slots(&world);
    world.apply(&[service("web", 80, &[1, 2, 3])]);
    let after = slots(&world);
    let table = world.maps.table(key(80));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.state, "settled");
        let held = table[usize::try_from(after.number).unwrap()].current;
        let (_, tables) = world.tables.find("web").unwrap();
        assert_eq!(tables.members[&after.current.unwrap()], held);
        if after.current == before.current {
            assert_eq!((&*after.state, after.previous), ("settled", None));
        } else {
            assert_eq!((&*after.state, after.previous), ("moving", before.current));
        }
    }
    assert!(after.iter().any(|slot| slot.state == "moving"));
    world.now += GRACE;
    // One for each place, so that none of the slots comes to rest.
    let (_, web) = world.tables.find("web").unwrap();
    let old = web.members[&address(1)];
    for bucket in 0..1 << MANY {
        let place = Place {
            bucket,
            fingerprint: 0,
        };
        let now = world.maps.plane.flows.period;
        world.maps.put_flow(place, FlowEntry::new(0, old, now));
    }
    world.tables.settle(&mut world.maps, world.now);
    assert!(slots(&world).iter().any(|slot| slot.state == "mixed"));
    world.apply(&[service("web", 80, &[])]);
    assert_eq!(world.whereabouts(&of(1)).unwrap().slot, None);
    assert_eq!(
        world.whereabouts(&flow("198.51.100.7:1", "10.0.0.251:80")),
        None
    );
}

#[test]
fn a_flows_service_is_that_of_its_packets() {
    let prefix = |address: &str, length: u32, port: u16| Key::Prefix {
        key: PrefixKey {
            protocol: 6,
            version: 4,
            port_be: port.to_be_bytes(),
            address: mapped(address.parse().unwrap()),
        },
        length: 96 + length,
    };
    let with = |name: &str, keys: &[Key]| DesiredService {
        name: name.into(),
        keys: keys.iter().copied().collect(),
        ..service(name, 1, &[1])
    };
    let of_one_port = with("one", &[Key::Address(key(80))]);
    let of_all_ports = with("all", &[Key::Address(key(0))]);
    let wide = with("wide", &[prefix("10.0.0.0", 8, 80)]);
    let narrow = with("narrow", &[prefix("10.1.0.0", 16, 80)]);
    let of_no_port = with("ports", &[prefix("10.0.0.0", 24, 0)]);
    let cases = [
        ("10.0.0.250:80", "one", "wide"),
        ("10.0.0.250:81", "all", "ports"),
        ("10.1.2.3:80", "narrow", "wide"),
        ("10.2.2.3:80", "wide", "wide"),
        ("10.0.0.3:81", "none", "ports"),
        ("10.0.1.3:81", "none", "none"),
        ("11.0.0.1:80", "none", "none"),
    ];
    let mut world = World::with_buckets(MANY);
    let service_at = |world: &World, destination: &str| {
        let found = world.whereabouts(&flow("198.51.100.7:1", destination));
        found.map_or_else(|| "none".into(), |it| it.service)
    };
    world.apply(&[of_one_port, of_all_ports, wide.clone(), narrow]);
    for (destination, service, _) in cases {
        assert_eq!(service_at(&world, destination), service, "{destination}");
    }
    let mut world = World::with_buckets(MANY);
    world.apply(&[wide, of_no_port]);
    for (destination, _, service) in cases {
        assert_eq!(service_at(&world, destination), service, "{destination}");
    }
    let udp = FlowFilter {
        protocol: Some(Protocol::Udp),
        ..flow("198.51.100.7:1", "10.0.0.250:80")
    };
    assert_eq!(world.whereabouts(&udp), None);
}
