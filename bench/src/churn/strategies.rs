//! Ways to remember which backend a connection is at.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    num::NonZeroUsize,
    time::Duration,
};

use anyhow::Result;
use lru::LruCache;
use xdp_lb::{
    config::ConnectionTracking,
    director::simulation::{Backend, PacketHash, Segment, Service, Simulation},
    lookup::{Candidate, Scheduler, build},
    timing,
};
use xdp_lb_common::{
    abi::bucket_bits,
    hash::{Affinity, HashKey, reduce},
};

use super::{Plan, clients::IDLE, script::Pool};

/// A director, or what stands for one.
pub trait Strategy: Send {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// The pool has become `pool`, and will be `planned` after what its operator does next.
    ///
    /// # Errors
    ///
    /// If it cannot follow.
    fn change(&mut self, pool: &Pool, planned: &Pool) -> Result<()>;

    /// It is this second now.
    ///
    /// # Errors
    ///
    /// If something that was due fails.
    fn advance(&mut self, second: u32) -> Result<()>;

    /// The number of the backend that a packet goes to.
    fn packet(&mut self, hash: u64, segment: Segment) -> Option<u16>;

    /// Flows that are remembered, those left out that count no more.
    fn entries(&mut self) -> usize;

    /// How often a flow was looked up.
    fn lookups(&self) -> u64;
}

/// All that are compared.
///
/// # Errors
///
/// If one cannot begin.
pub fn all(plan: &Plan) -> Result<Vec<Box<dyn Strategy>>> {
    let pool = Pool::new(plan.backends);
    // So many places that hardly a bucket fills up.
    let roomy = 8 * plan.connections;
    let tenth = plan.connections / 10;
    let ours = |name, tracking, flows| Director::new(name, tracking, flows, plan, &pool);
    Ok(vec![
        Box::new(ours("off", ConnectionTracking::Off, 1)?),
        Box::new(ours("full", ConnectionTracking::Full, roomy)?),
        Box::new(Lru::new(tenth, plan, &pool)),
        Box::new(KnownChange::new(plan, &pool)),
        Box::new(ours("adaptive", ConnectionTracking::Adaptive, roomy)?),
        Box::new(ours(
            "adaptive, 1/2",
            ConnectionTracking::Adaptive,
            plan.connections / 2,
        )?),
    ])
}

/// The name of the one that the others are measured by: it remembers every flow, without limit.
pub const REFERENCE: &str = "full";

/// The daemon's tables, and the program's decisions.
struct Director {
    name: &'static str,
    simulation: Simulation,
}

impl Director {
    fn new(
        name: &'static str,
        tracking: ConnectionTracking,
        flows: u32,
        plan: &Plan,
        pool: &Pool,
    ) -> Result<Self> {
        let service = Service {
            tracking,
            affinity: Affinity::Flow,
            idle_timeout: Duration::from_secs(IDLE.into()),
            scheduler: Scheduler::Maglev,
            table_size: plan.table_size,
            backends: backends(pool),
        };
        let simulation = Simulation::new(service, bucket_bits(flows))?;
        Ok(Self { name, simulation })
    }
}

fn backends(pool: &Pool) -> BTreeMap<IpAddr, Backend> {
    let backends = pool.backends.iter();
    backends
        .map(|(&number, &backend)| (address(number), backend))
        .collect()
}

fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [10, 0, high, low].into()
}

fn number(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(address) => {
            let [_, _, high, low] = address.octets();
            u16::from_be_bytes([high, low])
        }
        IpAddr::V6(_) => 0,
    }
}

impl Strategy for Director {
    fn name(&self) -> &'static str {
        self.name
    }

    fn change(&mut self, pool: &Pool, _: &Pool) -> Result<()> {
        let service = Service {
            backends: backends(pool),
            ..self.simulation.service().clone()
        };
        self.simulation.change(service)?;
        Ok(())
    }

    fn advance(&mut self, second: u32) -> Result<()> {
        Ok(self
            .simulation
            .advance(Duration::from_secs(second.into()))?)
    }

    fn packet(&mut self, hash: u64, segment: Segment) -> Option<u16> {
        let hash = PacketHash {
            flow: hash,
            source: hash,
        };
        self.simulation.packet(hash, segment).map(number)
    }

    fn entries(&mut self) -> usize {
        self.simulation.flows_alive()
    }

    fn lookups(&self) -> u64 {
        self.simulation.plane().counts.lookups
    }
}

/// The backend of each slot, as all of them have it.
fn slots(plan: &Plan, pool: &Pool) -> Vec<u16> {
    let wanted = pool
        .backends
        .iter()
        .filter(|(_, it)| it.is_up && !it.is_draining);
    let candidates: Vec<Candidate> = wanted
        .map(|(&number, backend)| Candidate {
            address: address(number),
            weight: backend.weight,
        })
        .collect();
    let table = build(
        Scheduler::Maglev,
        plan.table_size,
        HashKey::DEFAULT,
        &candidates,
    );
    let number = |position: u16| number(candidates[usize::from(position)].address);
    table.into_iter().map(number).collect()
}

fn at(slots: &[u16], hash: u64) -> Option<u16> {
    let size = u32::try_from(slots.len()).ok()?;
    slots.get(reduce(hash, size) as usize).copied()
}

/// Remembers every flow, and forgets the one that was silent for longest. A kernel's LRU map comes near to it.
struct Lru {
    plan: Plan,
    pool: Pool,
    slots: Vec<u16>,
    flows: LruCache<u64, u16>,
    lookups: u64,
}

impl Lru {
    fn new(limit: u32, plan: &Plan, pool: &Pool) -> Self {
        let limit = NonZeroUsize::new(limit as usize).unwrap_or(NonZeroUsize::MIN);
        Self {
            plan: *plan,
            pool: pool.clone(),
            slots: slots(plan, pool),
            flows: LruCache::new(limit),
            lookups: 0,
        }
    }
}

impl Strategy for Lru {
    fn name(&self) -> &'static str {
        "full, LRU of 1/10"
    }

    fn change(&mut self, pool: &Pool, _: &Pool) -> Result<()> {
        self.pool = pool.clone();
        self.slots = slots(&self.plan, pool);
        Ok(())
    }

    fn advance(&mut self, _: u32) -> Result<()> {
        Ok(())
    }

    fn packet(&mut self, hash: u64, segment: Segment) -> Option<u16> {
        if segment != Segment::Opens {
            self.lookups += 1;
            let known = self.flows.get(&hash).copied();
            if let Some(backend) = known.filter(|it| self.pool.backends.contains_key(it)) {
                return Some(backend);
            }
        }
        let backend = at(&self.slots, hash)?;
        self.flows.put(hash, backend);
        Some(backend)
    }

    fn entries(&mut self) -> usize {
        self.flows.len()
    }

    fn lookups(&self) -> u64 {
        self.lookups
    }
}

/// Remembers the flows of those slots that the next planned change will move, or a backend that is down when it is back:
/// the rule of JET (Mendelson et al., "Load Balancing with JET", CoNEXT 2021), for the same lookup tables.
struct KnownChange {
    plan: Plan,
    pool: Pool,
    slots: Vec<u16>,
    /// What they will be.
    planned: Vec<u16>,
    second: u32,
    flows: HashMap<u64, Remembered>,
    lookups: u64,
}

struct Remembered {
    backend: u16,
    seen: u32,
    is_closing: bool,
}

impl KnownChange {
    fn new(plan: &Plan, pool: &Pool) -> Self {
        let slots = slots(plan, pool);
        Self {
            plan: *plan,
            pool: pool.clone(),
            planned: slots.clone(),
            slots,
            second: 0,
            flows: HashMap::new(),
            lookups: 0,
        }
    }
}

impl Strategy for KnownChange {
    fn name(&self) -> &'static str {
        "known change"
    }

    fn change(&mut self, pool: &Pool, planned: &Pool) -> Result<()> {
        let mut planned = planned.clone();
        planned.backends.values_mut().for_each(|it| it.is_up = true);
        self.pool = pool.clone();
        self.slots = slots(&self.plan, pool);
        self.planned = slots(&self.plan, &planned);
        Ok(())
    }

    fn advance(&mut self, second: u32) -> Result<()> {
        self.second = second;
        Ok(())
    }

    fn packet(&mut self, hash: u64, segment: Segment) -> Option<u16> {
        if segment != Segment::Opens {
            self.lookups += 1;
            if let Some(known) = self.flows.get_mut(&hash)
                && self.pool.backends.contains_key(&known.backend)
            {
                known.seen = self.second;
                known.is_closing |= segment == Segment::Ends;
                return Some(known.backend);
            }
        }
        let backend = at(&self.slots, hash)?;
        if at(&self.planned, hash) != Some(backend) && segment != Segment::Ends {
            let remembered = Remembered {
                backend,
                seen: self.second,
                is_closing: false,
            };
            self.flows.insert(hash, remembered);
        }
        Some(backend)
    }

    fn entries(&mut self) -> usize {
        let now = self.second;
        let closing = u32::try_from(timing::CLOSING.as_secs()).unwrap_or(u32::MAX);
        let limit = |it: &Remembered| if it.is_closing { closing } else { IDLE };
        self.flows.retain(|_, it| now - it.seen <= limit(it));
        self.flows.len()
    }

    fn lookups(&self) -> u64 {
        self.lookups
    }
}
