//! The health checks that the director wants, and what their results mean for the backends.
//!
//! Checks by way of a VIP bear a mark, by which the steering program knows whose packets to change and
//! how; this file hands the marks out and keeps the program's targets as the ways are.

use std::{
    cell::{LazyCell, RefCell},
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use tokio::sync::oneshot;
use xdp_lb_common::{abi::NextHop, check::Target as Steer};

use super::{
    desired::{DesiredService, Health, mapped},
    ramp,
    selection::{self, Facts},
    ways::Way,
};
use crate::{
    config::{Config, HealthCheck, Interface, Service},
    dataplane::{self, DataplaneError, check::Steering},
    health::{Check, Checks, Circumstances, Interned, Key, Outcome, Silent, Wanted, probe::Target},
    netlink::{HopState, NextHops},
};

/// All checks, and what steers their packets.
pub(super) struct HealthChecks {
    checks: Checks,
    interned: Interned,
    /// Loaded when the first check needs it.
    steering: Option<Steering>,
    /// Indices of the interfaces that it is attached to.
    steered_ports: BTreeSet<u32>,
    /// What is steered, by mark.
    targets: HashMap<u32, Steer>,
    marks: HashMap<Key, u32>,
    /// The upper half of all marks.
    mark: u16,
}

/// Why the last ones of very many checks are not made.
const TOO_MANY: &str =
    "more than 65,535 checks by way of VIPs; use `via: backend` for some services";

/// A check as services ask for it.
struct Asked<'a> {
    target: Result<Target, String>,
    way: Option<&'a Way>,
    services: Vec<String>,
    is_in_use: bool,
}

/// What checks need to know of the world.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) config: &'a Config,
    pub(super) hops: &'a NextHops,
    /// The interfaces that frames may leave by.
    pub(super) ports: &'a BTreeSet<u32>,
}

impl HealthChecks {
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        Ok(Self {
            checks: Checks::new(config.health.at_once)?,
            interned: Interned::default(),
            steering: None,
            steered_ports: BTreeSet::new(),
            targets: HashMap::new(),
            marks: HashMap::new(),
            mark: config.health.mark,
        })
    }

    /// Tells of each check that a backend does not answer.
    pub(super) fn set_silent(&self, silent: Silent) {
        self.checks.set_silent(silent);
    }

    /// Makes equal checks of a new config one, also with those that run.
    pub(super) fn intern(&mut self, config: &mut Config) {
        let checks = config.services.iter_mut();
        for check in checks.filter_map(|service| service.health_check.as_mut()) {
            *check = self.interned.intern(check);
        }
        self.interned.forget_unused();
    }

    /// Waits until a backend has come up or gone down.
    pub(super) async fn changed(&mut self) {
        self.checks.changed().await;
    }

    /// True while a check is not decided.
    pub(super) fn any_undecided(&self) -> bool {
        self.checks.all().any(|check| !check.is_decided())
    }

    /// The interface of this index is gone, and another one may get its index.
    pub(super) fn forget_port(&mut self, ifindex: u32) {
        self.steered_ports.remove(&ifindex);
        if let Some(steering) = &mut self.steering {
            let others: Vec<u32> = self.steered_ports.iter().copied().collect();
            steering.detach_others(&others);
        }
    }

    /// Has the checks run that `desired` asks for, each once, and no others. `in_use` tells which backends
    /// of a service have slots.
    ///
    /// # Errors
    ///
    /// If checks are to be steered, and the kernel refuses the program that does it.
    pub(super) fn want(
        &mut self,
        desired: &[DesiredService],
        world: World<'_>,
        in_use: impl Fn(&DesiredService) -> HashSet<IpAddr>,
    ) -> Result<(), DataplaneError> {
        if self.mark != world.config.health.mark {
            // Other marks for all: the targets are written anew.
            self.mark = world.config.health.mark;
            self.marks.clear();
        }
        self.checks.set_at_once(world.config.health.at_once);
        let vips = Vips::of(world.config);
        let mut wanted: HashMap<Key, Asked<'_>> = HashMap::new();
        for (service, desired) in world.config.services.iter().zip(desired) {
            let Some(check) = &service.health_check else {
                continue;
            };
            let used = LazyCell::new(|| in_use(desired));
            for (&address, backend) in &desired.backends {
                let key = key(service, check, address);
                let is_new = self.checks.get(&key).is_none();
                let asked = wanted.entry(key).or_insert_with_key(|key| Asked {
                    target: target(key, &backend.way, world, &vips),
                    way: backend.way.as_ref().ok(),
                    services: Vec::new(),
                    is_in_use: false,
                });
                asked.services.push(service.name.clone());
                asked.is_in_use |= is_new && used.contains(&address);
            }
        }
        self.steer(&mut wanted, world)?;
        let wanted = wanted.into_iter().map(|(key, asked)| Wanted {
            key,
            circumstances: Circumstances {
                target: asked.target,
                services: asked.services,
                is_reachable: asked.way.is_some(),
            },
            is_in_use: asked.is_in_use,
        });
        self.checks.want(wanted.collect());
        Ok(())
    }

    /// Gives marks to the checks that are steered, and the program its targets.
    fn steer(
        &mut self,
        wanted: &mut HashMap<Key, Asked<'_>>,
        world: World<'_>,
    ) -> Result<(), DataplaneError> {
        self.marks.retain(|key, _| wanted.contains_key(key));
        let taken: HashSet<u32> = self.marks.values().copied().collect();
        let all = (1..=u32::from(u16::MAX)).map(|index| u32::from(self.mark) << 16 | index);
        let mut free = all.filter(|mark| !taken.contains(mark));
        let mut targets = HashMap::new();
        for (key, asked) in wanted {
            let (Ok(target), Some(way)) = (&mut asked.target, asked.way) else {
                continue;
            };
            let Some(vip) = target.vip else {
                continue;
            };
            let mark = match self.marks.get(key) {
                Some(&mark) => Some(mark),
                None => free.next(),
            };
            let Some(mark) = mark else {
                asked.target = Err(TOO_MANY.into());
                continue;
            };
            self.marks.insert(key.clone(), mark);
            target.mark = Some(mark);
            targets.insert(mark, steer(key.backend, vip, way, world.config));
        }
        if targets.is_empty() && self.steering.is_none() {
            return Ok(());
        }
        self.write(targets, world)
    }

    fn write(
        &mut self,
        targets: HashMap<u32, Steer>,
        world: World<'_>,
    ) -> Result<(), DataplaneError> {
        if self.steering.is_none() {
            let steering = Steering::load()?;
            let steered = steering.steered();
            self.checks
                .set_steered(Arc::new(move |mark| steered.packets(mark).ok().flatten()));
            self.steering = Some(steering);
        }
        let Some(steering) = &mut self.steering else {
            return Ok(());
        };
        if self.steered_ports != *world.ports {
            let there = |it: &&Interface| {
                dataplane::index_of(&it.name).is_ok_and(|index| world.ports.contains(&index))
            };
            for interface in world.config.interfaces.iter().filter(there) {
                steering.attach(&interface.name)?;
            }
            let wanted: Vec<u32> = world.ports.iter().copied().collect();
            steering.detach_others(&wanted);
            self.steered_ports.clone_from(world.ports);
        }
        for (mark, target) in &targets {
            if self.targets.get(mark) != Some(target) {
                steering.set_target(*mark, target)?;
            }
        }
        for mark in self.targets.keys() {
            if !targets.contains_key(mark) {
                steering.remove_target(*mark)?;
            }
        }
        self.targets = targets;
        Ok(())
    }

    /// Fills in what the checks' results mean: health, who gets slots, and the weights in force. Returns
    /// when a weight grows next.
    pub(super) fn judge(
        &self,
        desired: &mut [DesiredService],
        config: &Config,
        now: Instant,
    ) -> Option<Instant> {
        let services = config.services.iter().zip(desired);
        services
            .filter_map(|(service, desired)| self.judge_service(service, desired, now))
            .min()
    }

    fn judge_service(
        &self,
        service: &Service,
        desired: &mut DesiredService,
        now: Instant,
    ) -> Option<Instant> {
        for (&address, backend) in &mut desired.backends {
            backend.health = match self.check_of(service, address) {
                None => Health::Unchecked,
                Some(check) if check.is_up() => Health::Up {
                    since: check.up_since(),
                },
                Some(check) if !check.is_decided() => Health::Undecided {
                    reason: check.reason(),
                    has_failed: check.has_failed(),
                },
                Some(check) => Health::Down {
                    reason: check.reason(),
                    then: check.key().check.when_down,
                },
            };
        }
        let facts: Vec<Facts> = desired
            .backends
            .values()
            .map(|backend| Facts {
                tier: backend.tier,
                can_be_reached: backend.way.is_ok(),
                is_wanted: backend.is_wanted(),
                is_healthy: backend.health.is_up(),
            })
            .collect();
        let selected = selection::select(&facts, &service.tier_minimums, service.panic_threshold);
        desired.is_panicking = selected.is_panic;
        let mut next = None;
        for (backend, standing) in desired.backends.values_mut().zip(selected.standings) {
            backend.standing = standing;
            if let Health::Up { since: Some(since) } = backend.health {
                let (weight, step) = ramp::weight(backend.weight, since, service.slow_start, now);
                backend.weight_in_force = weight;
                next = next.into_iter().chain(step).min();
            }
        }
        next
    }

    /// The check that tells about a backend of a service.
    pub(super) fn check_of(&self, service: &Service, address: IpAddr) -> Option<&Arc<Check>> {
        let check = service.health_check.as_ref()?;
        self.checks.get(&key(service, check, address))
    }

    /// As [`Checks::report`].
    pub(super) fn report(&self, key: &Key, now: bool) -> Option<oneshot::Receiver<Outcome>> {
        self.checks.report(key, now)
    }
}

fn key(service: &Service, check: &Arc<HealthCheck>, backend: IpAddr) -> Key {
    Key {
        check: Arc::clone(check),
        backend,
        forwarding: check.vip_for(backend).map(|_| service.forwarding),
    }
}

/// Whom a check asks, or why it cannot.
fn target(
    key: &Key,
    way: &Result<Way, String>,
    world: World<'_>,
    vips: &Vips<'_>,
) -> Result<Target, String> {
    let Key { check, backend, .. } = key;
    let vip = check.vip_for(*backend);
    let way = match way {
        Ok(way) => Some(way),
        // What clients' packets have no way to, a check by their way does not find.
        Err(reason) if vip.is_some() => return Err(reason.clone()),
        Err(_) => None,
    };
    let source = world.config.health.source_for(*backend);
    if let (None, Some(HopState::Known(hop))) = (source, world.hops.get(backend))
        && let Some(source) = hop.source
        && vips.contain(source)
    {
        return Err(format!(
            "the route to it prefers {source} as source, which is a VIP, so that answers would not come \
             back; set an address of the director with `health.source`"
        ));
    }
    Ok(Target {
        address: (*backend, check.port).into(),
        vip,
        mark: None,
        source,
        mtu: way.map(|way| way.mtu.saturating_sub(overhead(*backend, way))),
    })
}

/// Bytes that the tunnel to a backend adds to each packet.
fn overhead(backend: IpAddr, way: &Way) -> u16 {
    let ip = if backend.is_ipv4() { 20 } else { 40 };
    match way.tunnel {
        None => 0,
        Some(end) if end.flag == NextHop::FLAG_GUE => ip + 8,
        Some(_) => ip,
    }
}

/// What the steering program is to make of a check's packets.
fn steer(backend: IpAddr, vip: IpAddr, way: &Way, config: &Config) -> Steer {
    let mut steer = Steer {
        vip: mapped(vip),
        backend: mapped(backend),
        gue_port_be: config.tunnel.gue_port.to_be_bytes(),
        ..Steer::default()
    };
    if let Some(end) = way.tunnel {
        steer.tunnel_source = mapped(end.source);
        steer.flags = match end.flag {
            NextHop::FLAG_GUE => Steer::FLAG_GUE,
            _ => Steer::FLAG_IPIP,
        };
    }
    steer
}

/// Tells whether an address is a VIP. Many backends have one source.
struct Vips<'a> {
    config: &'a Config,
    known: RefCell<HashMap<IpAddr, bool>>,
}

impl<'a> Vips<'a> {
    fn of(config: &'a Config) -> Self {
        Self {
            config,
            known: RefCell::default(),
        }
    }

    fn contain(&self, address: IpAddr) -> bool {
        let mut known = self.known.borrow_mut();
        *known.entry(address).or_insert_with(|| {
            let services = self.config.services.iter();
            let mut vips = services.flat_map(|service| &service.vips);
            vips.any(|vip| vip.contains(address))
        })
    }
}
