//! The one task that owns the state. Config, netlink and API send it messages; it derives the desired
//! data plane from (config + runtime changes) × health × next hops, compares it with what the maps hold,
//! and applies the difference. Nothing else writes maps.

mod changes;
mod checks;
mod desired;
mod error;
pub mod flows;
mod fresh;
mod handle;
mod health_view;
mod interfaces;
mod keys;
mod maps;
mod overrides;
mod pace;
mod ramp;
mod report;
mod selection;
pub mod simulation;
mod store;
mod sweep;
mod tables;
pub mod view;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use self::{
    checks::{HealthChecks, World},
    desired::{DesiredService, addresses, desired},
    fresh::{Awaited, Freshness, Reach},
    handle::Request,
    interfaces::Interfaces,
    overrides::Overrides,
    pace::Pace,
    store::StateStore,
    tables::{Moved, Tables},
    ways::Ways,
};
pub use self::{error::ChangeError, handle::DirectorHandle, overrides::Change};
use crate::{
    config::Config,
    dataplane::{self, Dataplane, Options, Origin, PinDirectory, Sizes},
    netlink::{HopState, NextHops, Resolver},
    vrrp::Vrrp,
};

/// How long the first tables wait for next hops. Neighbours on a local network answer in a few
/// milliseconds; those that do not are taken in when they do.
const FIRST_HOPS: Duration = Duration::from_secs(1);

/// How long the program is not attached yet while health checks have not decided: so that the first packets find
/// most backends in their places.
const FIRST_CHECKS: Duration = Duration::from_secs(1);

/// How often the director's task shows that it is alive.
const PULSE: Duration = Duration::from_secs(1);

/// Requests that may wait for the director.
const QUEUE: usize = 64;

/// Where a director finds and keeps things.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The config file.
    pub config: PathBuf,
    /// Where maps and links are pinned.
    pub pins: PinDirectory,
    /// Where run-time changes are kept.
    pub state: PathBuf,
}

/// The state, and what changes it.
pub struct Director {
    paths: Paths,
    config: Config,
    overrides: Overrides,
    store: StateStore,
    dataplane: Dataplane,
    origin: Origin,
    tables: Tables,
    resolver: Resolver,
    health: HealthChecks,
    vrrp: Vrrp,
    /// When to look at the backends' health again: it has changed, or a weight grows.
    next_look: Option<Instant>,
    /// How soon that is.
    pace: Pace,
    /// When to try again what has failed.
    retry: Option<Instant>,
    /// What is waited for, and assumed, of services that are new here.
    fresh: Freshness,
    /// What the maps hold: what was desired when they were last written.
    applied: Vec<DesiredService>,
    /// What keeps the director from being ready.
    awaited: Vec<Awaited>,
    interfaces: Interfaces,
    /// Indices of the interfaces that frames may leave by.
    ports: BTreeSet<u32>,
    started: Instant,
}

/// Why the director's task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked it to take everything away.
    Detached,
    /// Nobody can ask it anything any more.
    Abandoned,
}

impl Director {
    /// Takes over what is pinned, or begins anew, and attaches to the interfaces.
    ///
    /// # Errors
    ///
    /// If anything on the way fails; what was running before goes on.
    pub async fn start(paths: Paths, mut config: Config) -> anyhow::Result<Self> {
        let ports = dataplane::ports(&config.interfaces);
        let store = StateStore::new(&paths.state);
        let mut overrides = store.load().with_context(|| {
            let path = store.path().display();
            format!("run-time changes in {path}; move the file away to start without them")
        })?;
        changes::forget_services(&mut overrides, &config);
        let options = Options {
            pins: paths.pins.clone(),
            limits: config.limits,
            hash_key: config.hash_key,
            gue_port: config.tunnel.gue_port,
        };
        let (mut dataplane, origin) = Dataplane::open(&options)?;
        dataplane.follow_logs();
        let found = dataplane.found()?;
        // Times of moves are not kept, so the longest timeout is the safe one.
        let longest = config
            .services
            .iter()
            .flat_map(|service| [service.idle_timeout.tcp, service.idle_timeout.udp])
            .max();
        let until = Instant::now() + longest.unwrap_or_default();
        let sizes = dataplane.sizes();
        let tables = Tables::adopt(&mut dataplane, sizes, config.hash_key, &found, until);
        let mut health = HealthChecks::new(&config).context("health checks")?;
        health.intern(&mut config);
        let vrrp = Vrrp::start(&paths.state).with_context(|| {
            let state = paths.state.display();
            format!("VRRP, with what an earlier daemon has kept in {state}")
        })?;
        let fresh = Freshness::new(config.ready_timeout);
        let mut director = Self {
            paths,
            config,
            overrides,
            store,
            dataplane,
            origin,
            tables,
            resolver: crate::netlink::follow().context("netlink")?,
            health,
            vrrp,
            next_look: None,
            pace: Pace::default(),
            retry: None,
            fresh,
            applied: Vec::new(),
            awaited: Vec::new(),
            interfaces: Interfaces::follow().context("netlink")?,
            ports,
            started: Instant::now(),
        };
        director.doubt_silent();
        director.wait_for_hops(FIRST_HOPS).await;
        director.apply()?;
        director.wait_for_checks(FIRST_CHECKS).await;
        director.apply()?;
        director.attach_all()?;
        director.say_hello();
        // It takes part once the director is ready, which has told it by now what keeps it from that.
        director.tell_obstacle();
        director.vrrp.want(director.config.vrrp.clone()).await;
        Ok(director)
    }

    /// Runs until asked to detach, or until the last handle is gone. Returns the handle first.
    pub fn spawn(mut self) -> (DirectorHandle, tokio::task::JoinHandle<Ended>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let config = self.paths.config.clone();
        let vrrp = self.vrrp.clone();
        let task = tokio::spawn(async move { self.run(receiver).await });
        (DirectorHandle::new(sender, config, vrrp), task)
    }

    async fn run(&mut self, mut requests: mpsc::Receiver<Request>) -> Ended {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = Instant::now();
            if self.next_look.is_some_and(|at| at <= now) {
                self.look_at_health();
            }
            if self.retry.take_if(|at| *at <= now).is_some() {
                self.hops_changed();
            }
            let settled = self.tables.settle(&mut self.dataplane, now);
            let forgotten = self.tables.forget_over(&mut self.dataplane, now);
            let next = settled
                .into_iter()
                .chain(self.next_look)
                .chain(self.retry)
                .chain([forgotten])
                .min();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => {
                        if let Some(ended) = self.serve(request).await {
                            return ended;
                        }
                    }
                    None => return Ended::Abandoned,
                },
                changed = self.resolver.hops.changed() => match changed {
                    Ok(()) => self.hops_changed(),
                    Err(_) => {
                        warn!("next hops are no longer followed: the netlink task has ended");
                        match crate::netlink::follow() {
                            Ok(resolver) => {
                                self.resolver = resolver;
                                self.doubt_silent();
                                self.tell_wanted();
                            }
                            Err(error) => {
                                warn!(%error, "netlink");
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            }
                        }
                    }
                },
                () = self.health.changed() => {
                    let soon = self.pace.after_change(Instant::now());
                    self.next_look = self.next_look.into_iter().chain([soon]).min();
                }
                () = self.interfaces.changed() => self.follow_interfaces(),
                _ = pulse.tick() => {
                    self.vrrp.beat();
                    self.follow_interfaces();
                }
                () = due => {}
            }
        }
    }

    async fn serve(&mut self, request: Request) -> Option<Ended> {
        // A reply that nobody waits for any more is no error.
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Services(reply) => drop(reply.send(self.services())),
            Request::Backends { service, reply } => {
                drop(reply.send(self.backends(service.as_deref())));
            }
            Request::Stats(reply) => drop(reply.send(self.stats())),
            Request::Health { service, reply } => {
                drop(reply.send(self.health(service.as_deref())));
            }
            Request::CheckHealth {
                service,
                backend,
                now,
                reply,
            } => drop(reply.send(self.check_health(service.as_deref(), backend, now))),
            Request::Flows { sweep, reply } => drop(reply.send(self.sweep_flows(sweep))),
            Request::Change {
                service,
                address,
                change,
                reply,
            } => {
                drop(reply.send(self.change(&service, address, change).await));
            }
            Request::Reload { config, reply } => drop(reply.send(self.reload(*config).await)),
            Request::Detach(reply) => {
                // Others have the VIPs before nobody forwards here any more.
                self.vrrp.leave(true).await;
                let detached = self.paths.pins.remove();
                if detached.is_err() {
                    // What was taken away is put back first.
                    self.follow_interfaces();
                    self.vrrp.want(self.config.vrrp.clone()).await;
                }
                let ended = detached.is_ok().then_some(Ended::Detached);
                drop(reply.send(detached.map_err(ChangeError::from)));
                return ended;
            }
        }
        None
    }

    /// Has the neighbours asked behind which a backend does not answer its health checks.
    fn doubt_silent(&self) {
        let doubtful = self.resolver.doubtful.clone();
        // One that does not fit comes again with the next check.
        let doubt = move |backend| {
            let _ = doubtful.try_send(backend);
        };
        self.health.set_silent(Arc::new(doubt));
    }

    /// Has the next hops that are needed looked up, and waits until the new ones are known, but no
    /// longer than `patience`.
    async fn wait_for_hops(&mut self, patience: Duration) {
        let new = self.tell_wanted();
        let all_known = |hops: &NextHops| {
            let is_open = |address| match hops.get(address) {
                Some(HopState::Known(_)) => false,
                Some(HopState::Unknown { is_given_up, .. }) => !is_given_up,
                None => true,
            };
            !new.iter().any(is_open)
        };
        // Past the time, those that are known begin.
        let _ = timeout(patience, self.resolver.hops.wait_for(all_known)).await;
    }

    /// Says which next hops are needed. Returns those that were not before.
    fn tell_wanted(&self) -> Vec<IpAddr> {
        let wanted = addresses(&self.config, &self.overrides);
        let mut new = Vec::new();
        self.resolver.wanted.send_if_modified(|told| {
            new.extend(wanted.difference(told));
            let differs = *told != wanted;
            *told = wanted;
            differs
        });
        new
    }

    /// Waits until each check is decided, but no longer than `patience`.
    async fn wait_for_checks(&mut self, patience: Duration) {
        let decided = async {
            while self.health.any_undecided() {
                self.health.changed().await;
            }
        };
        // Past the time, those that are decided begin.
        let _ = timeout(patience, decided).await;
    }

    fn hops_changed(&mut self) {
        let changed = self.apply();
        self.follow("next hops changed", changed);
    }

    fn look_at_health(&mut self) {
        let begun = Instant::now();
        // Set again by what follows, where a weight is still to grow.
        self.next_look = None;
        let hops = self.resolver.hops.borrow().clone();
        let desired = self.without_health(&hops);
        let changed = self.place(desired);
        self.follow("health changed", changed);
        self.pace.looked(begun, Instant::now());
    }

    /// Brings the maps to what config, changes, health and next hops ask for.
    fn apply(&mut self) -> Result<BTreeMap<String, Moved>, ChangeError> {
        let hops = self.resolver.hops.borrow_and_update().clone();
        let desired = self.without_health(&hops);
        let world = World {
            config: &self.config,
            hops: &hops,
            ports: &self.ports,
        };
        let (tables, dataplane) = (&self.tables, &self.dataplane);
        let in_use =
            |service: &DesiredService| tables.in_use(dataplane, &service.name, &service.keys);
        let wanted = self.health.want(&desired, world, in_use);
        wanted.map_err(ChangeError::Steering)?;
        self.place(desired)
    }

    /// Brings the maps to what is desired, once health checks have had their say.
    fn place(
        &mut self,
        mut desired: Vec<DesiredService>,
    ) -> Result<BTreeMap<String, Moved>, ChangeError> {
        let now = Instant::now();
        let grows = self.health.judge(&mut desired, &self.config, now);
        let tables = &self.tables;
        let is_known = |service: &DesiredService| tables.knows(&service.name, &service.keys);
        self.fresh.observe(&desired, is_known, now);
        let hops = self.resolver.hops.borrow().clone();
        let reach = Reach {
            hops: &hops,
            is_complete: self.ports.len() == self.config.interfaces.len(),
        };
        self.fresh
            .assume(&mut desired, &self.config.services, reach, now);
        let moved = self.tables.apply(&mut self.dataplane, &desired, now)?;
        self.vrrp.set_shares(report::shares(&desired));
        self.conclude(&desired, reach, now);
        self.applied = desired;
        let waiting = self.tables.next_change();
        let next = [self.next_look, grows, waiting, self.fresh.due()];
        self.next_look = next.into_iter().flatten().min();
        Ok(moved)
    }

    /// Finds out whether the director is ready, now that the maps hold what is `desired`.
    fn conclude(&mut self, desired: &[DesiredService], reach: Reach<'_>, now: Instant) {
        let given_up = self.fresh.given_up(desired, reach, now);
        let (awaited, is_ready_now) = self.fresh.conclude(desired, reach, now);
        self.awaited = awaited;
        for it in given_up {
            warn!(
                "not known after {}s: {it}",
                self.config.ready_timeout.as_secs()
            );
        }
        if is_ready_now {
            let after = self.started.elapsed();
            info!(?after, "every backend is known, or given up");
            let is_empty = |service: &&DesiredService| service.candidates().is_empty();
            for service in desired.iter().filter(is_empty) {
                warn!(
                    service = service.name,
                    "no backend can serve: its clients are refused"
                );
            }
        }
        self.tell_obstacle();
    }

    /// What is desired, as far as health checks do not decide it.
    fn without_health(&self, hops: &NextHops) -> Vec<DesiredService> {
        let ways = Ways {
            hops,
            ports: &self.ports,
        };
        desired(&self.config, &self.overrides, ways)
    }

    fn say_hello(&self) {
        let sizes = self.dataplane.sizes();
        if self.origin == Origin::Adopted {
            info!(pins = %self.paths.pins.path().display(), "adopted the maps of an earlier daemon, flows included");
            let asked = Sizes::from(&self.config.limits);
            let of = |sizes: Sizes| (sizes.services, sizes.backends, sizes.flows);
            if of(sizes) != of(asked) {
                warn!(
                    "the maps keep the sizes that they were made with, not those of `limits`, until `xdp-lb detach` and a new start"
                );
            }
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
