//! Two directors with the same config: whatever changes, and in whatever order, they agree on the backend of
//! every new connection, and their fingerprints say so.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use tokio::runtime::{self, Runtime};
use xdp_lb::api::client::Client;
use xdp_lb::api::{AddBackend, ChangeBackend};
use xdp_lb::director::view::{BackendView, ChangeView, StatusView};
use xdp_lb_tests::lab::{SOON, address, program};
use xdp_lb_tests::random::Random;
use xtask::lab::{Director, Lab, LabConfig, wait_for};

/// The changes of the long test.
const CHANGES: usize = 1_000;
/// The most changes that are made in an order of its own on each director.
const BATCH: usize = 8;
const BACKENDS: usize = 6;
/// The services: name, whether its backends have IPv6 addresses, fields.
const SERVICES: [(&str, bool, &str); 5] = [
    (
        "web",
        false,
        "vip: 192.0.2.10, protocol: tcp, port: [80, 443], table_size: 8191",
    ),
    (
        "ring",
        false,
        "vip: 192.0.2.10, protocol: tcp, port: 81, scheduler: ring, table_size: 4093",
    ),
    (
        "modulo",
        false,
        "vip: 192.0.2.10, protocol: tcp, port: 82, scheduler: modulo, table_size: 1009",
    ),
    (
        "source",
        false,
        "vip: 192.0.2.0/28, protocol: udp, port: 53, affinity: source, table_size: 251",
    ),
    (
        "six",
        true,
        "vip: \"2001:db8:10::10\", protocol: tcp, port: 0, table_size: 2039",
    ),
];

fn backend(number: usize, is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        let last = u16::try_from(0x10 + number).unwrap_or(u16::MAX);
        Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last).into()
    } else {
        address(number).into()
    }
}

/// The config of director 0 or 1: the same, in another order.
fn config(director: usize) -> String {
    let mut services: Vec<String> = SERVICES
        .iter()
        .map(|&(name, is_ipv6, fields)| {
            let mut backends: Vec<String> = (1..=BACKENDS - 2)
                .map(|number| {
                    let address = backend(number, is_ipv6);
                    format!("{{ address: \"{address}\", weight: {} }}", 20 * number)
                })
                .collect();
            if director == 1 {
                backends.reverse();
            }
            let backends = backends.join(", ");
            format!("- {{ name: {name}, {fields}, backends: [{backends}] }}\n")
        })
        .collect();
    if director == 1 {
        services.rotate_left(2);
    }
    format!("interfaces: [eth0]\nservices:\n{}", services.concat())
}

/// A change of one backend of one service.
#[derive(Clone, Copy, Debug)]
enum Change {
    Add(Option<u32>),
    Weigh(u32),
    SetDraining(bool),
    Remove,
}

/// Two directors, and their API.
struct Pair {
    runtime: Runtime,
    directors: Vec<Director>,
    _lab: Lab,
}

/// What a director tells of its tables.
#[derive(Debug, PartialEq)]
struct Told {
    fingerprint: String,
    fingerprints: BTreeMap<String, String>,
    /// By service and backend.
    slots: BTreeMap<(String, IpAddr), u32>,
}

impl Pair {
    fn new() -> Result<Self> {
        let lab = Lab::new(LabConfig {
            backends: BACKENDS,
            directors: 2,
            ..LabConfig::default()
        })?;
        let start = |(director, name)| {
            let config = config(director);
            lab.start_director_on(lab.host(name), &program(), &config)
        };
        let directors = (0..).zip(["director", "director2"]).map(start);
        Ok(Self {
            directors: directors.collect::<Result<_>>()?,
            runtime: runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            _lab: lab,
        })
    }

    fn client(&self, director: usize) -> Client {
        Client::new(self.directors[director].socket())
    }

    fn change(
        &self,
        director: usize,
        service: &str,
        backend: IpAddr,
        change: Change,
    ) -> Result<()> {
        let client = self.client(director);
        let of = |what: &str| format!("/v1/services/{service}/backends{what}");
        let one = of(&format!("/{backend}"));
        let body = |weight, draining| ChangeBackend { weight, draining };
        let call = async {
            match change {
                Change::Add(weight) => {
                    let body = AddBackend {
                        address: backend,
                        weight,
                    };
                    let path = of("");
                    client
                        .call::<ChangeView>("POST".parse()?, &path, Some(&body))
                        .await
                }
                Change::Weigh(weight) => {
                    let body = body(Some(weight), None);
                    client.call("PATCH".parse()?, &one, Some(&body)).await
                }
                Change::SetDraining(draining) => {
                    let body = body(None, Some(draining));
                    client.call("PATCH".parse()?, &one, Some(&body)).await
                }
                Change::Remove => client.call("DELETE".parse()?, &one, None::<&()>).await,
            }
            .map_err(anyhow::Error::from)
        };
        let done = self.runtime.block_on(call);
        done.with_context(|| format!("{change:?} {backend} of {service} on director {director}"))?;
        Ok(())
    }

    /// What a director tells, once it knows the way to every backend.
    fn told(&self, director: usize) -> Result<Told> {
        let client = self.client(director);
        wait_for("all backends to be reachable", SOON, || {
            let asked = async {
                let before: Vec<BackendView> = client.get("/v1/backends").await?;
                let status: StatusView = client.get("/v1/status").await?;
                let after: Vec<BackendView> = client.get("/v1/backends").await?;
                anyhow::Ok((before, status, after))
            };
            let (before, status, after) = self.runtime.block_on(asked)?;
            let mut all = before.iter().chain(&after);
            let slots = after
                .iter()
                .map(|it| ((it.service.clone(), it.address), it.slots));
            let told = Told {
                fingerprint: status.fingerprint,
                fingerprints: status.fingerprints,
                slots: slots.collect(),
            };
            Ok(all.all(|it| it.state != "unreachable").then_some(told))
        })
    }

    /// Checks that both tell the same.
    fn check_agreement(&self) -> Result<Told> {
        let (one, other) = (self.told(0)?, self.told(1)?);
        ensure!(one == other, "they differ: {one:#?}\n{other:#?}");
        Ok(one)
    }
}

/// A backend as the changes so far have made it.
#[derive(Clone, Copy, Debug)]
struct Backend {
    is_there: bool,
    is_draining: bool,
}

impl Backend {
    fn change(&mut self, random: &mut Random) -> Change {
        let weight = u32::from(random.byte()) % 101;
        if !self.is_there {
            self.is_there = true;
            self.is_draining = false;
            return Change::Add((!random.once_in(3)).then_some(weight));
        }
        match random.below(5) {
            0 => {
                self.is_there = false;
                Change::Remove
            }
            1 | 2 => {
                self.is_draining = !self.is_draining;
                Change::SetDraining(self.is_draining)
            }
            _ => Change::Weigh(weight),
        }
    }
}

/// Changes of backends that differ from each other, so that their order does not matter.
fn batch(
    state: &mut BTreeMap<(usize, usize), Backend>,
    random: &mut Random,
) -> Vec<(&'static str, IpAddr, Change)> {
    let mut chosen = BTreeMap::new();
    for _ in 0..=random.below(BATCH) {
        let service = random.below(SERVICES.len());
        let number = 1 + random.below(BACKENDS);
        let backend = state.get_mut(&(service, number));
        if let Some(backend) = backend.filter(|_| !chosen.contains_key(&(service, number))) {
            chosen.insert((service, number), backend.change(random));
        }
    }
    let named = chosen.into_iter().map(|((service, number), change)| {
        let (name, is_ipv6, _) = SERVICES[service];
        (name, backend(number, is_ipv6), change)
    });
    named.collect()
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

fn seed() -> Result<u64> {
    match std::env::var("XDP_LB_AGREEMENT_SEED") {
        Ok(text) => text.parse().context("XDP_LB_AGREEMENT_SEED is no number"),
        Err(_) => Ok(0x5eed),
    }
}

#[test]
fn two_directors_agree_after_each_of_a_thousand_changes() -> Result<()> {
    let seed = seed()?;
    println!("repeat it with XDP_LB_AGREEMENT_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = Pair::new()?;
    let mut seen = vec![pair.check_agreement()?];
    let all = (0..SERVICES.len()).flat_map(|service| (1..=BACKENDS).map(move |it| (service, it)));
    let mut state: BTreeMap<_, _> = all
        .map(|(service, number)| {
            let backend = Backend {
                is_there: number <= BACKENDS - 2,
                is_draining: false,
            };
            ((service, number), backend)
        })
        .collect();
    let mut made = 0;
    while made < CHANGES {
        let mut changes = batch(&mut state, &mut random);
        made += changes.len();
        for director in 0..pair.directors.len() {
            for &(service, backend, change) in &changes {
                pair.change(director, service, backend, change)?;
            }
            shuffle(&mut changes, &mut random);
        }
        let told = pair.check_agreement();
        seen.push(told.with_context(|| format!("after change {made}, of {changes:?}"))?);
    }
    // They have not agreed on one thing all the time.
    seen.dedup();
    ensure!(
        seen.len() > CHANGES / BATCH / 2,
        "only {} tables",
        seen.len()
    );

    // A daemon that takes over tells the same.
    pair.directors[1].restart()?;
    let last = seen.pop();
    assert_eq!(Some(pair.check_agreement()?), last);
    Ok(())
}

#[test]
fn fingerprints_differ_while_a_weight_does() -> Result<()> {
    let pair = Pair::new()?;
    let before = pair.check_agreement()?;
    pair.change(0, "ring", backend(1, false), Change::Weigh(21))?;
    let (one, other) = (pair.told(0)?, pair.told(1)?);
    assert_eq!(other, before);
    assert_ne!(one.fingerprint, other.fingerprint);
    for (name, fingerprint) in &one.fingerprints {
        let is_same = *fingerprint == other.fingerprints[name];
        assert_eq!(is_same, name != "ring", "{name}: {one:#?}\n{other:#?}");
    }
    pair.change(1, "ring", backend(1, false), Change::Weigh(21))?;
    assert_eq!(pair.check_agreement()?, one);
    Ok(())
}
