//! The programs that steer health checks, one packet at a time through `BPF_PROG_TEST_RUN`, and packets of
//! checks.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use crate::{
    datagram::IPV6 as V6,
    packet::{DIRECTOR_MAC, ETHERNET, Frame, IPV4 as V4, ROUTER_MAC},
    runner::{self, Pool},
};
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder,
};
use xdp_lb::dataplane::check::{Flows, OBJECT, Steering, Way};
use xdp_lb_common::{
    abi::FlowKey,
    check::Target,
    hash::{Affinity, HashKey, flow_hash},
};

/// What `TC_ACT_UNSPEC` and `TC_ACT_SHOT` look like.
const UNSPECIFIC: u32 = u32::MAX;
const SHOT: u32 = 2;

/// Where the mark is in the context of a tc program, `struct __sk_buff`.
const MARK: usize = 8;

/// A protocol that is steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Echo requests and replies of ICMP or ICMPv6. The port of the one who asks is the identifier.
    Echo,
}

/// All of them.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];

impl Protocol {
    /// Its number; that of ICMP depends on the family.
    #[must_use]
    pub fn number(self, address: IpAddr) -> u8 {
        match (self, address) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Echo, IpAddr::V4(_)) => 1,
            (Self::Echo, IpAddr::V6(_)) => 58,
        }
    }
}

/// A packet in the making, with right checksums.
#[derive(Clone, Debug)]
pub struct Packet {
    protocol: Protocol,
    way: Way,
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
    traffic_class: u8,
    id: u16,
    dont_fragment: bool,
    more_fragments: bool,
    fragment_offset: u16,
    options: usize,
}

/// What a check sends: TTL 64, traffic class 0, id 0, not to be fragmented, eight bytes of payload.
#[must_use]
pub fn question(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Packet {
    Packet {
        protocol,
        way: Way::Out,
        from,
        to,
        payload: b"question".to_vec(),
        traffic_class: 0,
        id: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        options: 0,
    }
}

/// What comes back. The same but for the type of an echo.
#[must_use]
pub fn answer(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Packet {
    Packet {
        way: Way::In,
        ..question(protocol, from, to)
    }
}

impl Packet {
    /// For another one.
    #[must_use]
    pub fn to(mut self, to: SocketAddr) -> Self {
        self.to = to;
        self
    }

    /// From another one.
    #[must_use]
    pub fn from(mut self, from: SocketAddr) -> Self {
        self.from = from;
        self
    }

    /// Another payload.
    #[must_use]
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Another type of service or traffic class.
    #[must_use]
    pub fn traffic_class(mut self, bits: u8) -> Self {
        self.traffic_class = bits;
        self
    }

    /// IPv4: has an identification, and may be fragmented.
    #[must_use]
    pub fn may_fragment(mut self, id: u16) -> Self {
        (self.id, self.dont_fragment) = (id, false);
        self
    }

    /// IPv4: is a fragment that begins so many bytes into its packet.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        (self.fragment_offset, self.more_fragments) = (offset / 8, more);
        self.may_fragment(7)
    }

    /// IPv4: has options of so many bytes.
    #[must_use]
    pub fn options(mut self, bytes: usize) -> Self {
        self.options = bytes;
        self
    }

    /// Its flow, with the VIP that it is sent to, as the programs remember it.
    #[must_use]
    pub fn flow(&self, vip: IpAddr) -> FlowKey<[u8; 16]> {
        let protocol = self.protocol.number(vip);
        let mut flow = FlowKey::without_ports(mapped(self.from.ip()), mapped(vip), protocol);
        flow.source_port_be = self.from.port().to_be_bytes();
        if self.protocol != Protocol::Echo {
            flow.destination_port_be = self.to.port().to_be_bytes();
        }
        flow
    }

    fn ip_header(&self) -> IpHeaders {
        let protocol = IpNumber(self.protocol.number(self.from.ip()));
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = Ipv4Header::new(0, 64, protocol, from.octets(), to.octets());
                let mut header = header.expect("no payload fits");
                header.dscp = (self.traffic_class >> 2).try_into().expect("six bits");
                header.ecn = (self.traffic_class & 3).try_into().expect("two bits");
                header.identification = self.id;
                header.dont_fragment = self.dont_fragment;
                header.more_fragments = self.more_fragments;
                header.fragment_offset =
                    IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
                let options = vec![1; self.options];
                header.options = options.as_slice().try_into().expect("words of four bytes");
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    traffic_class: self.traffic_class,
                    flow_label: Ipv6FlowLabel::try_new(0x12345).expect("20 bits"),
                    payload_length: 0,
                    next_header: protocol,
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                };
                IpHeaders::Ipv6(header, Default::default())
            }
            (from, to) => panic!("from {from} to {to}: two families"),
        }
    }
}

/// The frame cut to every shorter length that kernels give to a program, with and without a tag. Without
/// one, some take no frame that ends within its IP header.
pub fn cut_off(whole: &Frame) -> impl Iterator<Item = Frame> {
    let header = if whole.bytes()[12..ETHERNET] == [0x86, 0xdd] {
        V6
    } else {
        V4
    };
    let plain = (ETHERNET + header..whole.bytes().len()).map(|length| whole.clone().cut_to(length));
    let tagged = whole.clone().in_vlan(7);
    let lengths = ETHERNET + 4..tagged.bytes().len();
    plain.chain(lengths.map(move |length| tagged.clone().cut_to(length)))
}

impl From<Packet> for Frame {
    fn from(packet: Packet) -> Self {
        let ip = PacketBuilder::ethernet2(DIRECTOR_MAC, ROUTER_MAC).ip(packet.ip_header());
        let (from, to) = (packet.from.port(), packet.to.port());
        let mut bytes = Vec::new();
        let payload = packet.payload.as_slice();
        let is_v4 = packet.from.is_ipv4();
        let written = match (packet.protocol, packet.way) {
            (Protocol::Tcp, _) => ip.tcp(from, to, 1, 64240).ack(2).write(&mut bytes, payload),
            (Protocol::Udp, _) => ip.udp(from, to).write(&mut bytes, payload),
            (Protocol::Echo, Way::Out) if is_v4 => {
                ip.icmpv4_echo_request(from, 9).write(&mut bytes, payload)
            }
            (Protocol::Echo, Way::In) if is_v4 => {
                ip.icmpv4_echo_reply(to, 9).write(&mut bytes, payload)
            }
            (Protocol::Echo, Way::Out) => {
                ip.icmpv6_echo_request(from, 9).write(&mut bytes, payload)
            }
            (Protocol::Echo, Way::In) => ip.icmpv6_echo_reply(to, 9).write(&mut bytes, payload),
        };
        written.expect("a packet that fits its length fields");
        Self::new(bytes)
    }
}

impl From<&Packet> for Frame {
    fn from(packet: &Packet) -> Self {
        packet.clone().into()
    }
}

/// An address as the maps have it.
#[must_use]
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// GUE's source port, and the outer IPv6 header's flow label, for a flow.
#[must_use]
pub fn entropy(flow: &FlowKey<[u8; 16]>) -> (u16, u32) {
    let [.., a, b, c, d] = flow_hash(HashKey::DEFAULT, Affinity::Flow, flow).to_be_bytes();
    let port = 0xc000 | u16::from_be_bytes([c, d]) & 0x3fff;
    (port, u32::from_be_bytes([a, b, c, d]) & 0xf_ffff)
}

/// What should become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is steered, or its answer is taken back, and goes on as this frame.
    Changed(Frame),
    /// It goes on as it is.
    Kept,
    /// It is dropped.
    Dropped,
}

/// What became of a packet.
pub struct Seen {
    value: u32,
    output: Frame,
    mark: u32,
    counted: u64,
}

impl Seen {
    /// Whether the packet was dropped.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.value == SHOT
    }

    /// The frame as it left the program.
    #[must_use]
    pub fn output(&self) -> &Frame {
        &self.output
    }
}

/// Runs `test` on the loaded programs. Where there can be none, the test is skipped.
pub fn on_steerer(test: impl FnOnce(&mut Steerer) + Send) {
    static POOL: Pool<(), Steerer> = Pool::new();

    if runner::can_load(OBJECT) {
        POOL.with(
            (),
            |()| Steerer::load(),
            |steerer| {
                test(steerer);
                steerer.forget_all();
            },
        );
    }
}

/// The loaded programs.
pub struct Steerer(Steering, BTreeSet<u32>);

impl Steerer {
    fn load() -> Self {
        Self(Steering::load().expect("the programs"), BTreeSet::new())
    }

    /// Makes the maps as they were when they were loaded.
    fn forget_all(&mut self) {
        for mark in std::mem::take(&mut self.1) {
            self.remove_target(mark);
        }
        let keys: Vec<_> = self.flows().keys().collect();
        for key in keys {
            let key = key.expect("the map can be read");
            self.flows().remove(&key).expect("the map can be written");
        }
    }

    /// Sets what becomes of the packets with a mark.
    pub fn set_target(&mut self, mark: u32, target: &Target) {
        self.1.insert(mark);
        self.0.set_target(mark, target).expect("room for a target");
    }

    /// Forgets that.
    pub fn remove_target(&mut self, mark: u32) {
        self.0.remove_target(mark).expect("it can be removed");
    }

    /// How many packets with this mark were steered.
    #[must_use]
    pub fn packets(&self, mark: u32) -> Option<u64> {
        self.0.steered().packets(mark).expect("it can be read")
    }

    /// What is remembered of packets that were steered.
    pub fn flows(&mut self) -> &mut Flows {
        self.0.flows()
    }

    /// Sends a frame through one of the programs.
    pub fn send(&mut self, way: Way, mark: u32, frame: &Frame) -> Seen {
        let before = self.packets(mark);
        let mut context = [0; MARK + 4];
        context[MARK..].copy_from_slice(&mark.to_ne_bytes());
        let program = self.0.program(way).expect("the program");
        let output = runner::run_with_context(program, frame, Some(&context));
        let mark_out = output.context[MARK..].first_chunk();
        Seen {
            value: output.value,
            output: output.frame,
            mark: u32::from_ne_bytes(*mark_out.expect("a context with a mark")),
            counted: self.packets(mark).unwrap_or(0) - before.unwrap_or(0),
        }
    }

    /// Sends a frame through one of the programs and compares all that can be seen of it; each difference
    /// is a line of the answer.
    pub fn differences(
        &mut self,
        way: Way,
        mark: u32,
        frame: &Frame,
        expected: &Expected,
    ) -> String {
        let seen = self.send(way, mark, frame);
        let (value, output) = match expected {
            Expected::Changed(changed) => (UNSPECIFIC, changed),
            Expected::Kept => (UNSPECIFIC, frame),
            Expected::Dropped => (SHOT, frame),
        };
        let is_steered = way == Way::Out && matches!(expected, Expected::Changed(_));
        let mut lines = String::new();
        differ(&mut lines, "returned", &seen.value, &value);
        differ(&mut lines, "output", &seen.output, output);
        differ(&mut lines, "counted", &seen.counted, &u64::from(is_steered));
        let mark = if is_steered { 0 } else { mark };
        differ(&mut lines, "mark", &seen.mark, &mark);
        lines
    }
}

fn differ<T: fmt::Debug + PartialEq>(lines: &mut String, what: &str, seen: &T, expected: &T) {
    if seen != expected {
        let _ = writeln!(lines, "{what} {seen:?}\nexpected {expected:?}");
    }
}
