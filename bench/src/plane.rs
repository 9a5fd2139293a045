//! The program under test: loaded by the daemon's own code, with services, backends and tables.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use aya::programs::Xdp;
use xdp_lb::{
    config::{DEFAULT_GUE_PORT, Limits},
    dataplane::{Counters, Dataplane, Options, PinDirectory},
    lookup::{self, Candidate, Scheduler},
};
use xdp_lb_common::{
    abi::{BackendEntry, NextHop, ServiceEntry, ServiceKey, Slot, TableRef, mapped},
    hash::HashKey,
};
use xtask::bench::report::ProgramSize;

use crate::{
    cases::Tracking,
    packets::{Family, PORT, vip},
};

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// New MAC addresses only.
    L2,
    /// IP in IP.
    Ipip,
    /// IP in UDP.
    Gue,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::L2, Self::Ipip, Self::Gue];

    /// Lower-case name, as in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }

    /// Bytes that a frame leaves with more than it came with, to a backend of this family.
    #[must_use]
    pub const fn overhead(self, family: Family) -> usize {
        let ip = match family {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        match self {
            Self::L2 => 0,
            Self::Ipip => ip,
            Self::Gue => ip + 8,
        }
    }

    /// The flag that a backend's entry has.
    const fn flag(self) -> u16 {
        match self {
            Self::L2 => 0,
            Self::Ipip => NextHop::FLAG_IPIP,
            Self::Gue => NextHop::FLAG_GUE,
        }
    }
}

/// How much is in the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// Services: 1..=250.
    pub services: u8,
    /// Backends of each service: 1..=250.
    pub backends: u8,
    /// Slots of each service's table; to be prime.
    pub table_size: u32,
    /// Flows that can be remembered.
    pub flows: u32,
    /// Connections whose packets are in a list, and not computed.
    pub listed: u32,
}

/// Time that flows are remembered: longer than any benchmark takes.
const IDLE: Duration = Duration::from_secs(3600);
/// Index of the interface that frames come in and go out by: the namespace's loopback.
const INTERFACE: u32 = 1;
/// IP protocol number of TCP.
const TCP: u8 = 6;

/// The loaded program with its maps filled.
pub struct Plane {
    dataplane: Dataplane,
}

impl Plane {
    /// Waits for the packets under way, as the daemon does.
    ///
    /// # Errors
    ///
    /// If the kernel cannot tell.
    pub fn wait_for_packets_in_flight(&self) -> Result<()> {
        Ok(self.dataplane.wait_for_packets_in_flight()?)
    }

    /// Loads the program and fills its maps. Maps are pinned below `/sys/fs/bpf`, which should be the
    /// caller's own.
    ///
    /// # Errors
    ///
    /// If the data plane cannot be opened or filled.
    pub fn open(mode: Mode, family: Family, scale: Scale) -> Result<Self> {
        let pins = PinDirectory::new("/sys/fs/bpf/bench");
        let services = u32::from(scale.services);
        let limits = Limits {
            services: services + 1,
            backends: services * u32::from(scale.backends),
            slots: services * scale.table_size,
            flows: scale.flows,
            // Each CPU may have made as many flows in a tenth of a second as there are templates.
            new_flows_per_second: 100_000_000,
        };
        let options = Options {
            pins,
            limits,
            hash_key: HashKey::DEFAULT,
            gue_port: DEFAULT_GUE_PORT,
        };
        let (dataplane, _) = Dataplane::open(&options)?;
        let mut plane = Self { dataplane };
        for service in 0..scale.services {
            plane.add_service(mode, family, scale, service)?;
        }
        Ok(plane)
    }

    /// The program under test.
    ///
    /// # Errors
    ///
    /// Never in practice: it was there when it was loaded.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        Ok(self.dataplane.program()?)
    }

    /// How large the program is, as far as the kernel tells.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell anything.
    pub fn program_size(&mut self) -> Result<ProgramSize> {
        let info = self.program()?.info()?;
        Ok(ProgramSize {
            verified_instructions: info.verified_instruction_count(),
            translated_bytes: info.size_translated(),
            jitted_bytes: Some(info.size_jitted()).filter(|&bytes| bytes > 0),
        })
    }

    /// The program's counters.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn counters(&self) -> Result<Counters> {
        Ok(self.dataplane.counters()?)
    }

    /// Has all services remember flows so.
    pub fn track(&mut self, tracking: Tracking) {
        for id in 0..self.dataplane.sizes().services {
            let entry = self.dataplane.service(id);
            if entry.table != 0 {
                let flags = tracking.flags();
                self.dataplane
                    .set_service(id, &ServiceEntry { flags, ..entry });
            }
        }
    }

    /// Forgets all flows.
    pub fn forget(&mut self) {
        self.dataplane.forget_flows(|_, _| true);
    }

    fn add_service(&mut self, mode: Mode, family: Family, scale: Scale, service: u8) -> Result<()> {
        let id = u32::from(service) + 1;
        let first = 1 + u16::from(service) * u16::from(scale.backends);
        let candidates: Vec<Candidate> = (0..scale.backends)
            .map(|backend| Candidate {
                address: backend_address(family, service, backend),
                weight: 100,
            })
            .collect();
        for (index, candidate) in (first..).zip(&candidates) {
            let entry = backend_entry(mode, id, index, candidate.address);
            self.dataplane.set_backend(index, &entry)?;
        }
        let owners = lookup::build(
            Scheduler::Maglev,
            scale.table_size,
            HashKey::DEFAULT,
            &candidates,
        );
        let slots: Vec<Slot> = owners
            .iter()
            .map(|owner| Slot {
                current: first + owner,
                previous: 0,
            })
            .collect();
        let table = TableRef {
            offset: u32::from(service) * scale.table_size,
            size: scale.table_size,
        };
        self.dataplane.set_slots(table.offset, &slots);
        let entry = ServiceEntry {
            table: table.pack(),
            flags: Tracking::Adaptive.flags(),
            idle_ticks: self.dataplane.ticks(IDLE),
        };
        self.dataplane.set_service(id, &entry);
        self.dataplane.rest(id);
        self.listen(vip(family, service), id)
    }

    fn listen(&mut self, address: IpAddr, id: u32) -> Result<()> {
        let vip = octets(address);
        let key = ServiceKey {
            vip,
            port_be: PORT.to_be_bytes(),
            protocol: TCP,
            reserved: 0,
        };
        self.dataplane.set_key(key, id)?;
        Ok(self
            .dataplane
            .set_key(ServiceKey::of_vip(vip), ServiceKey::VIP)?)
    }
}

/// The entry of a backend that serves in this mode.
fn backend_entry(mode: Mode, service: u32, index: u16, address: IpAddr) -> BackendEntry {
    let [high, low] = index.to_be_bytes();
    let next_hop = NextHop {
        mac: [0x02, 0, 0, 0x0b, high, low],
        flags: NextHop::FLAG_SERVING | mode.flag(),
    };
    let tunnel_source = match mode {
        Mode::L2 => [0; 16],
        Mode::Ipip | Mode::Gue => octets(director(address)),
    };
    BackendEntry {
        next_hop: next_hop.pack(),
        ifindex: INTERFACE,
        mtu: 1500,
        generation: 1,
        source_mac: [0x02, 0, 0, 0, 0, 0x02],
        service,
        address: octets(address),
        tunnel_source,
        ..BackendEntry::default()
    }
}

/// The director's address towards a backend.
fn director(backend: IpAddr) -> IpAddr {
    match backend {
        IpAddr::V4(_) => Ipv4Addr::new(10, 1, 0, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 1, 0, 1).into(),
    }
}

fn backend_address(family: Family, service: u8, backend: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, service, 1 + backend).into(),
        Family::V6 => Ipv6Addr::new(
            0xfd00,
            0,
            0,
            0,
            0,
            0,
            service.into(),
            1 + u16::from(backend),
        )
        .into(),
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}
