//! A director without a kernel, in virtual time: the daemon's tables over maps in memory, and the XDP program's
//! decisions over the same words. For experiments, and for tests that take millions of packets or hours; the daemon
//! itself does not use it.

mod flows;
mod memory;
mod plane;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use xdp_lb_common::{
    abi::{ServiceKey, Slot, mapped},
    hash::{Affinity, HashKey},
};

pub(super) use self::memory::Memory;
pub use self::{
    flows::Flows,
    plane::{Counts, PacketHash, Plane, Segment},
};
use super::{
    desired::{DesiredBackend, DesiredService, Health, Origin, flags, unmapped},
    error::ChangeError,
    keys::Key,
    maps::Maps as _,
    selection::Standing,
    tables::Tables,
    ways::Way,
};
use crate::{
    config::{ConnectionTracking, WhenDown},
    dataplane::Sizes,
    lookup::Scheduler,
};

/// Backends that there may be at a time.
const BACKENDS: u32 = 1024;

/// The id of the only service.
const ID: u32 = 0;

/// Its name.
const NAME: &str = "simulated";

/// What leads to it.
const KEY: Key = Key::Address(ServiceKey {
    vip: mapped([192, 0, 2, 1]),
    port_be: 80_u16.to_be_bytes(),
    protocol: 6,
    reserved: 0,
});

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which flows are remembered.
    pub tracking: ConnectionTracking,
    /// What of a packet its slot is chosen by.
    pub affinity: Affinity,
    /// How long a silent flow is remembered.
    pub idle_timeout: Duration,
    /// How the table is filled.
    pub scheduler: Scheduler,
    /// Slots of the table.
    pub table_size: u32,
    /// The backends.
    pub backends: BTreeMap<IpAddr, Backend>,
}

impl Service {
    fn desired(&self) -> DesiredService {
        let backends = self.backends.iter();
        DesiredService {
            name: NAME.to_owned(),
            keys: BTreeSet::from([KEY]),
            flags: flags(self.tracking, self.affinity),
            idle_timeout: self.idle_timeout,
            scheduler: self.scheduler,
            table_size: self.table_size,
            backends: backends
                .map(|(&address, backend)| (address, backend.desired()))
                .collect(),
            is_panicking: false,
            assumed: None,
        }
    }
}

/// A backend, as its operator and its health checks have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its share.
    pub weight: u32,
    /// It gets no new connections.
    pub is_draining: bool,
    /// What the health checks say.
    pub is_up: bool,
    /// What becomes of its connections while it is down.
    pub when_down: WhenDown,
}

impl Backend {
    /// One of weight 100 that is up, whose connections stay with it when it is not.
    pub const NEW: Self = Self {
        weight: 100,
        is_draining: false,
        is_up: true,
        when_down: WhenDown::Keep,
    };
}

impl Backend {
    fn desired(&self) -> DesiredBackend {
        let mut desired = DesiredBackend {
            weight: self.weight,
            draining: self.is_draining,
            tier: 0,
            origin: Origin::Config,
            way: Ok(ANY_WAY),
            health: Health::Up { since: None },
            standing: Standing::InUse,
            weight_in_force: self.weight,
        };
        if !self.is_up {
            desired.health = Health::Down {
                reason: String::new(),
                then: self.when_down,
            };
        }
        if !desired.is_wanted() || !self.is_up {
            desired.standing = Standing::Down;
        }
        desired
    }
}

/// Packets go nowhere, so that it does not matter which.
const ANY_WAY: Way = Way {
    ifindex: 1,
    mac: [2, 0, 0, 0, 0, 1],
    source_mac: [2; 6],
    tags: [0; 2],
    mtu: 1500,
    tunnel: None,
};

/// A director with one service.
#[derive(Debug)]
pub struct Simulation {
    tables: Tables,
    maps: Memory,
    sizes: Sizes,
    service: Service,
    /// When the virtual time began.
    began: Instant,
    now: Duration,
    /// When the tables want to be looked at.
    next_look: Option<Duration>,
}

impl Simulation {
    /// Begins with a service, at time 0. The flow table has 2^`bucket_bits` buckets.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub fn new(service: Service, bucket_bits: u32) -> Result<Self, ChangeError> {
        let sizes = sizes(&service);
        let mut maps = Memory::new(sizes, bucket_bits);
        let began = Instant::now();
        let found = maps.found();
        let tables = Tables::adopt(&mut maps, sizes, HashKey::DEFAULT, &found, began);
        let mut this = Self {
            tables,
            maps,
            sizes,
            service,
            began,
            now: Duration::ZERO,
            next_look: None,
        };
        this.apply()?;
        Ok(this)
    }

    /// The service, as it was asked for last.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Makes the service another one; returns how many slots got another backend.
    ///
    /// # Errors
    ///
    /// If it does not fit; then nothing changes.
    pub fn change(&mut self, service: Service) -> Result<u32, ChangeError> {
        let before = std::mem::replace(&mut self.service, service);
        let moved = self.apply();
        if moved.is_err() {
            self.service = before;
        }
        moved
    }

    /// Lets the time become `now`, and does what the daemon does in the meantime. Times of which nobody asks pass at
    /// once: go on in steps no longer than what is of interest.
    ///
    /// # Errors
    ///
    /// If a change that had to wait does not fit.
    pub fn advance(&mut self, now: Duration) -> Result<(), ChangeError> {
        self.now = self.now.max(now);
        self.maps.plane.flows.period = u32::try_from(self.now.as_secs()).unwrap_or(u32::MAX);
        let instant = self.instant();
        if self.tables.next_change().is_some_and(|at| at <= instant) {
            self.apply()?;
        }
        if self.next_look.is_none_or(|at| at <= self.now) {
            let settled = self.tables.settle(&mut self.maps, instant);
            let forgotten = self.tables.forget_over(&mut self.maps, instant);
            let next = settled.into_iter().chain([forgotten]).min();
            self.next_look = next.map(|at| at.saturating_duration_since(self.began));
        }
        Ok(())
    }

    /// The backend that gets a packet, if any does.
    pub fn packet(&mut self, hash: PacketHash, segment: Segment) -> Option<IpAddr> {
        let index = self.maps.plane.packet(ID, hash, segment)?;
        Some(unmapped(self.maps.backend(index).address))
    }

    /// The maps.
    #[must_use]
    pub fn plane(&self) -> &Plane {
        &self.maps.plane
    }

    /// The slots of the table.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let table = self.tables.find(NAME).map(|(_, table)| table.region());
        table.map_or_else(Vec::new, |table| self.maps.slots(table))
    }

    /// How many entries of the flow table are not over.
    #[must_use]
    pub fn flows_alive(&self) -> usize {
        let entry = self.maps.service(ID);
        self.maps.plane.flows.alive(entry.idle_ticks)
    }

    /// As another daemon would go on from the maps.
    ///
    /// # Errors
    ///
    /// If the service does not fit any more.
    pub fn restart(&mut self) -> Result<(), ChangeError> {
        let until = self.instant() + self.service.idle_timeout;
        let found = self.maps.found();
        self.tables = Tables::adopt(&mut self.maps, self.sizes, HashKey::DEFAULT, &found, until);
        self.apply().map(drop)
    }

    fn instant(&self) -> Instant {
        self.began + self.now
    }

    fn apply(&mut self) -> Result<u32, ChangeError> {
        let (desired, now) = (self.service.desired(), self.instant());
        let report = self.tables.apply(&mut self.maps, &[desired], now)?;
        self.next_look = None;
        Ok(report.get(NAME).map_or(0, |moved| moved.slots_moved))
    }
}

fn sizes(service: &Service) -> Sizes {
    Sizes {
        services: 1,
        backends: BACKENDS,
        // Tables are rebuilt beside the old one, and may grow.
        slots: 4 * service.table_size,
        flows: 0,
    }
}
