//! The loaded program on maps of its own, one packet at a time through `BPF_PROG_TEST_RUN`.
//!
//! Each [`Plane`] lives in a network namespace with a bpffs of its own. It begins with one service
//! whose table has one slot, so that every flow is on that slot, and with three backends. What a
//! packet should come to, and the comparison, is in [`expect`](crate::expect).

mod pool;
mod tracking;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddrV6},
    path::PathBuf,
    time::Duration,
};

pub use self::pool::{on_plane, on_plane_with};
pub(crate) use self::tracking::periods;
use crate::{
    packet::{Endpoint, Frame},
    runner,
};
use aya::programs::{TestRun as _, TestRunOptions};
use xdp_lb::{
    config::{AttachMode, FramesTaken, Interface, Limits},
    dataplane::{Dataplane, Options, PinDirectory},
};
use xdp_lb_common::{
    abi::{BackendEntry, NextHop, PrefixKey, ServiceEntry, ServiceKey, Slot, TableRef, mapped},
    hash::HashKey,
};

/// The flags of a backend that has slots.
const IN_USE: u16 = NextHop::FLAG_SERVING | NextHop::FLAG_ACCEPTS;

/// Id of the service that is there from the start, for [`packet::WEB`](crate::packet::WEB).
pub const SERVICE: u32 = 1;
/// A backend of [`SERVICE`].
pub const A: u16 = 1;
/// Another one.
pub const B: u16 = 2;
/// The third.
pub const C: u16 = 3;
/// A backend that has never been there.
pub const NOBODY: u16 = 9;
/// Index of the interface that frames come in by: the namespace's loopback.
pub const INGRESS: u32 = 1;
/// MAC address of the interface towards the backends.
pub const OUTWARD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// How long [`SERVICE`] remembers silent flows.
pub const IDLE: Duration = Duration::from_secs(900);

/// Destination port of the forwarding mode `gue`.
pub const GUE_PORT: u16 = 6081;

/// IP protocol number of TCP.
const TCP: u8 = 6;

/// A slot that has never moved.
#[must_use]
pub const fn settled(current: u16) -> Slot {
    Slot {
        current,
        previous: 0,
    }
}

/// A slot that has lately moved from `previous` to `current`.
#[must_use]
pub const fn moving(previous: u16, current: u16) -> Slot {
    Slot { current, previous }
}

/// A slot that moved once, longer ago than is remembered.
#[must_use]
pub const fn mixed(current: u16) -> Slot {
    Slot {
        current,
        previous: Slot::MIXED,
    }
}

/// MAC address of the backend with this index.
#[must_use]
pub const fn backend_mac(index: u16) -> [u8; 6] {
    let [high, low] = index.to_be_bytes();
    [0x02, 0, 0, 0x0b, high, low]
}

/// The action that the program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `XDP_ABORTED`, or something unknown.
    Aborted,
    /// `XDP_DROP`
    Drop,
    /// `XDP_PASS`
    Pass,
    /// `XDP_TX`
    Tx,
    /// `XDP_REDIRECT`
    Redirect,
}

/// What a plane is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Sizes and rates.
    pub limits: Limits,
    /// Key of the flow hash.
    pub hash_key: HashKey,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits {
                services: 8,
                backends: 16,
                slots: 64,
                flows: 4096,
                new_flows_per_second: 10_000_000,
            },
            hash_key: HashKey::DEFAULT,
        }
    }
}

/// A loaded program with its maps.
pub struct Plane {
    dataplane: Dataplane,
    hash_key: HashKey,
    pins: PathBuf,
    /// Backends that have been started.
    known: BTreeSet<u16>,
    keys: BTreeSet<ServiceKey>,
    /// With their lengths.
    prefixes: BTreeSet<(PrefixKey, u32)>,
    /// Something was made that [`reset`](Self::reset) does not undo.
    spent: bool,
}

impl Plane {
    fn open(setup: Setup) -> Self {
        let pins = PinDirectory::new("/sys/fs/bpf/prog-run");
        let path = pins.path().to_owned();
        let options = Options {
            pins,
            limits: setup.limits,
            hash_key: setup.hash_key,
            gue_port: GUE_PORT,
        };
        let (dataplane, _) = Dataplane::open(&options).expect("a data plane");
        let mut plane = Self {
            dataplane,
            hash_key: setup.hash_key,
            pins: path,
            known: BTreeSet::new(),
            keys: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            spent: false,
        };
        runner::keep_dispatched(plane.dataplane.program().expect("the program"));
        plane.begin();
        plane
    }

    /// Makes what every test finds.
    fn begin(&mut self) {
        for index in [A, B, C] {
            self.start(index);
        }
        self.slot(settled(A));
        self.configure(SERVICE, |service| service.flags = ServiceEntry::FLAG_TRACK);
        self.listen(crate::packet::WEB, SERVICE);
    }

    /// The data plane itself.
    pub fn dataplane(&mut self) -> &mut Dataplane {
        &mut self.dataplane
    }

    /// TCP to this VIP and port (0: every port) is for the service `id`.
    pub fn listen(&mut self, endpoint: impl Endpoint, id: u32) {
        let endpoint = endpoint.socket();
        self.set_key(mapped(endpoint.ip().octets()), endpoint.port(), TCP, id);
    }

    /// This protocol at this VIP and port is for [`SERVICE`] as well.
    pub fn listen_to(&mut self, endpoint: impl Endpoint, protocol: u8) {
        let endpoint = endpoint.socket();
        self.set_key(
            mapped(endpoint.ip().octets()),
            endpoint.port(),
            protocol,
            SERVICE,
        );
    }

    /// This protocol at this IPv6 VIP and port is for [`SERVICE`] as well.
    pub fn listen6(&mut self, endpoint: SocketAddrV6, protocol: u8) {
        self.set_key(endpoint.ip().octets(), endpoint.port(), protocol, SERVICE);
    }

    /// This protocol and port (0: every port) within this prefix is for the service `id`.
    pub fn listen_prefix(
        &mut self,
        address: IpAddr,
        length: u32,
        port: u16,
        protocol: u8,
        id: u32,
    ) {
        let (version, address, length) = match address {
            IpAddr::V4(address) => (4, mapped(address.octets()), length + 96),
            IpAddr::V6(address) => (6, address.octets(), length),
        };
        for (protocol, port, id) in [(protocol, port, id), (0, 0, ServiceKey::VIP)] {
            let key = PrefixKey {
                protocol,
                version,
                port_be: port.to_be_bytes(),
                address,
            };
            let set = self.dataplane.set_prefix(key, length, id);
            set.expect("room for a prefix");
            self.prefixes.insert((key, length));
        }
    }

    fn set_key(&mut self, vip: [u8; 16], port: u16, protocol: u8, id: u32) {
        let port_be = port.to_be_bytes();
        let key = ServiceKey {
            vip,
            port_be,
            protocol,
            reserved: 0,
        };
        for (key, id) in [(key, id), (ServiceKey::of_vip(vip), ServiceKey::VIP)] {
            self.dataplane.set_key(key, id).expect("room for a key");
            self.keys.insert(key);
        }
    }

    /// Changes a service's entry.
    pub fn configure(&mut self, id: u32, change: impl FnOnce(&mut ServiceEntry)) {
        let mut entry = self.dataplane.service(id);
        entry.idle_ticks = self.dataplane.ticks(IDLE);
        change(&mut entry);
        self.dataplane.set_service(id, &entry);
    }

    /// Gives the service `id` a table of these slots, from `offset` of the arena on. If it is another one than
    /// [`SERVICE`], it gets their backends as well.
    pub fn table(&mut self, id: u32, offset: u32, slots: &[Slot]) {
        let backends = slots
            .iter()
            .flat_map(|slot| [Some(slot.current), slot.moving_from()]);
        for index in backends
            .flatten()
            .filter(|&index| id != SERVICE && index != 0)
        {
            let entry = BackendEntry {
                service: id,
                ..self.dataplane.backend(index)
            };
            self.write_backend(index, &entry);
        }
        self.dataplane.set_slots(offset, slots);
        let size = u32::try_from(slots.len()).expect("a table of sensible size");
        self.configure(id, |service| {
            service.table = TableRef { offset, size }.pack();
        });
    }

    /// Sets the only slot of [`SERVICE`].
    pub fn slot(&mut self, slot: Slot) {
        self.table(SERVICE, 0, &[slot]);
    }

    /// Takes all backends out of the table of [`SERVICE`].
    pub fn empty_table(&mut self) {
        self.table(SERVICE, 0, &[]);
    }

    /// Lets a backend serve, reached by the interface that frames come in by.
    pub fn start(&mut self, index: u16) {
        self.start_behind(index, INGRESS);
    }

    /// Lets a backend serve, reached by the interface `ifindex`.
    pub fn start_behind(&mut self, index: u16, ifindex: u32) {
        self.known.insert(index);
        let generation = self.generation(index).max(1);
        self.set_backend(index, ifindex, generation, IN_USE);
    }

    /// A backend gets no new connections any more, and keeps those that it has.
    pub fn drain(&mut self, index: u16) {
        self.set_flags(index, NextHop::FLAG_SERVING);
    }

    /// The same, since its health checks fail.
    pub fn take_down(&mut self, index: u16) {
        self.set_flags(index, NextHop::FLAG_SERVING | NextHop::FLAG_DOWN);
    }

    fn set_flags(&mut self, index: u16, flags: u16) {
        self.edit_backend(index, |entry| {
            let hop = NextHop::unpack(entry.next_hop);
            let flags = flags | hop.flags & NextHop::TUNNEL_FLAGS;
            entry.next_hop = NextHop { flags, ..hop }.pack();
        });
    }

    /// A backend may not be sent packets any more.
    pub fn stop(&mut self, index: u16) {
        let entry = BackendEntry {
            next_hop: 0,
            ..self.dataplane.backend(index)
        };
        self.write_backend(index, &entry);
    }

    /// Another backend gets the index of an earlier one, and serves.
    pub fn replace(&mut self, index: u16) {
        let generation = self.generation(index) + 1;
        // As the daemon does, before it gives an index away.
        self.dataplane
            .forget_flows(|_, entry| entry.backend() == index);
        self.set_backend(index, INGRESS, generation, IN_USE);
    }

    /// Changes a backend's entry.
    pub fn edit_backend(&mut self, index: u16, change: impl FnOnce(&mut BackendEntry)) {
        let mut entry = self.dataplane.backend(index);
        change(&mut entry);
        self.write_backend(index, &entry);
    }

    /// The way to a backend has this MTU, in bytes of an IP packet.
    pub fn narrow(&mut self, index: u16, mtu: u16) {
        self.edit_backend(index, |entry| entry.mtu = mtu);
    }

    /// Frames to a backend have these tags, the outer one first; 0: none.
    pub fn tag(&mut self, index: u16, outer: u16, inner: u16) {
        self.edit_backend(index, |entry| {
            (entry.outer_tag, entry.inner_tag) = (outer, inner);
        });
    }

    /// Packets to a backend go through a tunnel, `FLAG_IPIP` or `FLAG_GUE`, between these addresses.
    pub fn tunnel(&mut self, index: u16, flag: u16, from: IpAddr, to: IpAddr) {
        let octets = |address| match address {
            IpAddr::V4(address) => mapped(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        self.edit_backend(index, |entry| {
            let hop = NextHop::unpack(entry.next_hop);
            let flags = IN_USE | flag;
            entry.next_hop = NextHop { flags, ..hop }.pack();
            entry.tunnel_source = octets(from);
            entry.address = octets(to);
        });
    }

    /// Makes an interface that packets may be redirected to; returns its index.
    pub fn add_port(&mut self) -> u32 {
        self.add_port_with(AttachMode::Native)
    }

    /// Makes an interface with the program attached in this mode; returns its index.
    pub fn add_port_with(&mut self, mode: AttachMode) -> u32 {
        self.spent = true;
        let (name, peer) = (format!("{mode}0"), format!("{mode}1"));
        runner::add_veth(&name, &peer);
        let attached = self.dataplane.attach(&Interface {
            name,
            mode,
            frames: FramesTaken::Any,
        });
        attached.expect("the program attached").ifindex
    }

    /// Has the program process a frame; returns its action and the frame as it left it.
    pub fn run(&mut self, frame: &Frame) -> (Action, Frame) {
        runner::run(self.dataplane.program().expect("the program"), frame)
    }

    /// Has the program process a frame, and then what it made of it, again and again, `times` times.
    pub fn run_on_own_output(&mut self, frame: &Frame, times: u32) {
        let program = self.dataplane.program().expect("the program");
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame.bytes()),
            repeat: times,
            ..TestRunOptions::default()
        });
        result.expect("the kernel runs the program");
    }

    /// The backends that have been started.
    pub(crate) fn known_backends(&self) -> impl Iterator<Item = u16> {
        self.known.iter().copied()
    }

    /// The data plane, to read from.
    pub(crate) fn read(&self) -> &Dataplane {
        &self.dataplane
    }

    fn generation(&self, index: u16) -> u16 {
        self.dataplane.backend(index).generation
    }

    fn set_backend(&mut self, index: u16, ifindex: u32, generation: u16, flags: u16) {
        let mac = backend_mac(index);
        let entry = BackendEntry {
            next_hop: NextHop { mac, flags }.pack(),
            ifindex,
            generation,
            source_mac: OUTWARD_MAC,
            service: SERVICE,
            ..BackendEntry::default()
        };
        self.write_backend(index, &entry);
    }

    fn write_backend(&mut self, index: u16, entry: &BackendEntry) {
        let written = self.dataplane.set_backend(index, entry);
        written.expect("the kernel waits for packets in flight");
    }
}
