//! What the data plane knows: services, backends, and what it remembers.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use xdp_lb_common::{
    abi::FlowKey,
    hash::{Affinity, HashKey, flow_hash},
};

/// The state of a data plane, and the plane itself: see [`Reference::process`].
#[derive(Clone, Debug)]
pub struct Reference {
    /// Key of the flow hash.
    pub hash_key: HashKey,
    /// Destination port of the forwarding mode `gue`.
    pub gue_port: u16,
    /// Index of the interface that packets come in by.
    pub ingress: u32,
    /// Ids of services by VIP, port (0: every port) and protocol.
    pub keys: HashMap<(SocketAddr, u8), u32>,
    /// Services whose VIP is a prefix.
    pub prefixes: Vec<Prefix>,
    /// Services by id.
    pub services: HashMap<u32, Service>,
    /// Backends by index.
    pub backends: HashMap<u16, Backend>,
    /// Connections that have sent more than their SYN.
    pub flows: BTreeMap<Flow, Entry>,
    /// Connections that have sent only their SYN, on a slot that was moving.
    pub openings: BTreeMap<Flow, Entry>,
    /// Packets of which the first fragment has been seen.
    pub fragments: BTreeMap<FragmentKey, FragmentPlace>,
}

/// Addresses, port and protocol that are for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// An address within.
    pub address: IpAddr,
    /// Bits of it that count.
    pub length: u8,
    /// The port; 0: every port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Id of the service.
    pub service: u32,
}

impl Prefix {
    /// True where the address is within.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        let differing = |a: u128, b: u128, size: u32| {
            let bits = size - u32::from(self.length);
            let mask = u128::MAX.checked_shl(bits).unwrap_or(0);
            (a ^ b) & mask
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let [a, b] = [a, b].map(|address| u128::from(address.to_bits()));
                differing(a, b, 32) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => differing(a.to_bits(), b.to_bits(), 128) == 0,
            _ => false,
        }
    }
}

/// How a service is balanced.
#[derive(Clone, Debug)]
pub struct Service {
    /// The lookup table.
    pub table: Vec<Slot>,
    /// Flows are remembered.
    pub tracks: bool,
    /// Only those of slots that are not settled.
    pub is_adaptive: bool,
    /// The hash is over the client's address only.
    pub by_source: bool,
    /// How long a silent flow is remembered.
    pub idle: Duration,
}

/// One entry of a lookup table, by indices of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Every flow belongs to this backend.
    Settled(u16),
    /// Moved lately.
    Moving {
        /// The backend before.
        from: u16,
        /// The current one.
        to: u16,
    },
    /// Moved long ago.
    Mixed(u16),
}

impl Slot {
    /// The backend that gets new connections; 0: none.
    #[must_use]
    pub fn current(self) -> u16 {
        match self {
            Self::Settled(index) | Self::Mixed(index) | Self::Moving { to: index, .. } => index,
        }
    }
}

/// A backend, and the way to it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Id of the service that it belongs to: no other one's flows are remembered to be at it.
    pub service: u32,
    /// Tells backends apart that have had the same index.
    pub generation: u16,
    /// May be sent packets.
    pub serves: bool,
    /// Gets new connections.
    pub accepts: bool,
    /// Cannot serve, by its health checks.
    pub is_down: bool,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// MAC address of the interface towards it.
    pub source_mac: [u8; 6],
    /// Index of that interface.
    pub interface: u32,
    /// VLAN tags of its frames, the outer one first.
    pub tags: Vec<Tag>,
    /// The most bytes of an IP packet on the way; None: any number.
    pub mtu: Option<u16>,
    /// How packets get there.
    pub mode: Mode,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Of IEEE 802.1ad, not of 802.1Q.
    pub is_service: bool,
    /// The VLAN.
    pub id: u16,
}

/// A forwarding mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `l2`
    L2,
    /// `ipip` or `gue`
    Tunnel {
        /// Which.
        kind: Kind,
        /// The outer source.
        from: IpAddr,
        /// The outer destination, of the same family.
        to: IpAddr,
    },
}

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IP in IP.
    Ipip,
    /// IP in UDP.
    Gue,
}

/// The 5-tuple; both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The client.
    pub source: SocketAddr,
    /// The VIP.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

impl Flow {
    /// The flow's hash, which is defined over the ABI's keys.
    #[must_use]
    pub fn hash(&self, key: HashKey, affinity: Affinity) -> u64 {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => flow_hash(
                key,
                affinity,
                &self.key(source.octets(), destination.octets()),
            ),
            (source, destination) => {
                let [source, destination] = [source, destination].map(|address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                });
                flow_hash(key, affinity, &self.key(source, destination))
            }
        }
    }

    /// The map key with these addresses, which are the flow's.
    pub fn key<A>(&self, source: A, destination: A) -> FlowKey<A> {
        FlowKey {
            source,
            destination,
            source_port_be: self.source.port().to_be_bytes(),
            destination_port_be: self.destination.port().to_be_bytes(),
            protocol: self.protocol,
            reserved: [0; 3],
        }
    }
}

/// One particular backend: its index, and which of those that have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The index.
    pub index: u16,
    /// [`Backend::generation`].
    pub generation: u16,
}

/// What is remembered of a flow or an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the backend that it goes to.
    pub backend: u16,
    /// How long it has been silent.
    pub silent: Duration,
    /// It has sent a FIN or RST.
    pub closing: bool,
}

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentKey {
    /// The sender.
    pub source: IpAddr,
    /// The VIP.
    pub destination: IpAddr,
    /// The packet's identification.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
}

/// Where a first fragment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPlace {
    /// The backend; None: the kernel has it.
    pub backend: Option<Known>,
    /// Id of the service.
    pub service: u32,
    /// How long ago.
    pub age: Duration,
}

impl Reference {
    /// A plane without services and backends.
    #[must_use]
    pub fn new(hash_key: HashKey, gue_port: u16, ingress: u32) -> Self {
        Self {
            hash_key,
            gue_port,
            ingress,
            keys: HashMap::new(),
            prefixes: Vec::new(),
            services: HashMap::new(),
            backends: HashMap::new(),
            flows: BTreeMap::new(),
            openings: BTreeMap::new(),
            fragments: BTreeMap::new(),
        }
    }

    /// Id of the service that a destination is for: VIP and port, VIP, the longest prefix with the
    /// port, the longest prefix, in this order.
    #[must_use]
    pub fn service_of(&self, destination: SocketAddr, protocol: u8) -> Option<u32> {
        let by_vip = |port| {
            let vip = SocketAddr::new(destination.ip(), port);
            self.keys.get(&(vip, protocol)).copied()
        };
        let by_prefix = |port| {
            let matching = self.prefixes.iter().filter(|prefix| {
                (prefix.port, prefix.protocol) == (port, protocol)
                    && prefix.covers(destination.ip())
            });
            matching
                .max_by_key(|prefix| prefix.length)
                .map(|prefix| prefix.service)
        };
        by_vip(destination.port())
            .or_else(|| by_vip(0))
            .or_else(|| by_prefix(destination.port()))
            .or_else(|| by_prefix(0))
    }

    /// True for the address of a VIP, whatever its services.
    #[must_use]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.keys.keys().any(|(vip, _)| vip.ip() == address)
            || self.prefixes.iter().any(|prefix| prefix.covers(address))
    }

    /// The index, if there is a backend that may be sent packets.
    pub(super) fn serving(&self, index: u16) -> Option<u16> {
        let backend = self.backends.get(&index)?;
        backend.serves.then_some(index)
    }

    /// The same for one particular backend.
    pub(super) fn still_serving(&self, known: Known) -> Option<u16> {
        let backend = self.backends.get(&known.index)?;
        (backend.serves && backend.generation == known.generation).then_some(known.index)
    }

    /// The same for a backend that a flow of a service is remembered to be at.
    pub(super) fn serving_for(&self, service: u32, index: u16) -> Option<u16> {
        let backend = self.backends.get(&index)?;
        (backend.serves && backend.service == service).then_some(index)
    }

    /// What is remembered to tell this backend from others that will have its index.
    pub(super) fn known(&self, index: u16) -> Known {
        Known {
            index,
            generation: self.backends[&index].generation,
        }
    }
}
