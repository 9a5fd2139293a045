//! What is measured, and what the program's counters must show for it.

use xdp_lb_common::counters::Counter;

use crate::{
    abi::FRAME,
    packets::{Connection, Family, Segment, connection, no_vip, vip},
    plane::{Mode, Scale},
};

/// Packets that come to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One connection that has an entry.
    OneFlow,
    /// Many connections that have entries.
    Flows,
    /// SYNs of many connections, which make no entry.
    Syns,
    /// Bare ACKs of connections that have no entry yet, and get one.
    NewFlows,
    /// Many connections to an address that is no service's.
    NoService,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::OneFlow,
        Self::Flows,
        Self::Syns,
        Self::NewFlows,
        Self::NoService,
    ];

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneFlow => "one-flow",
            Self::Flows => "flows",
            Self::Syns => "syns",
            Self::NewFlows => "new-flows",
            Self::NoService => "no-service",
        }
    }

    /// Whether entries are taken away before each run.
    #[must_use]
    pub fn begins_anew(self) -> bool {
        self == Self::NewFlows
    }

    /// What each packet does to its connection.
    #[must_use]
    pub const fn segment(self) -> Segment {
        match self {
            Self::Syns => Segment::Syn,
            Self::OneFlow | Self::Flows | Self::NewFlows | Self::NoService => Segment::Ack,
        }
    }

    /// What the program must count for `packets` packets of this kind. Everything else must stay.
    #[must_use]
    pub fn expected(self, packets: u64) -> Vec<(Counter, u64)> {
        match self {
            Self::OneFlow | Self::Flows | Self::Syns => vec![(Counter::Forwarded, packets)],
            Self::NewFlows => vec![
                (Counter::Forwarded, packets),
                (Counter::FlowCreated, packets),
            ],
            Self::NoService => vec![(Counter::NoService, packets)],
        }
    }

    /// What it must count besides when it sees the connections for the first time.
    #[must_use]
    pub fn expected_at_first(self, packets: u64, connections: u64) -> Vec<(Counter, u64)> {
        let mut expected = self.expected(packets);
        if matches!(self, Self::OneFlow | Self::Flows) {
            expected.push((Counter::FlowCreated, connections));
        }
        expected
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How packets reach the backends.
    pub mode: Mode,
    /// Family of clients, services and backends.
    pub family: Family,
    /// The packets.
    pub traffic: Traffic,
}

impl Case {
    /// All cases of a mode and family. What passes to the kernel is the same in all modes, and so a case
    /// of the first alone.
    pub fn all(mode: Mode, family: Family) -> impl Iterator<Item = Self> {
        Traffic::ALL
            .into_iter()
            .filter(move |&traffic| mode == Mode::L2 || traffic != Traffic::NoService)
            .map(move |traffic| Self {
                mode,
                family,
                traffic,
            })
    }

    /// Name, of which a filter is a part.
    #[must_use]
    pub fn name(&self) -> String {
        let (mode, family) = (self.mode.name(), self.family.name());
        format!("{mode}/{family}/{}", self.traffic.name())
    }

    /// Bytes of the frames that leave.
    #[must_use]
    pub fn frame_out(&self) -> usize {
        match self.traffic {
            Traffic::NoService => FRAME,
            _ => FRAME + self.mode.overhead(self.family),
        }
    }

    /// Its connections, `count` or one: dealt to the services in turn.
    #[must_use]
    pub fn connections(&self, scale: Scale, count: u32) -> Vec<Connection> {
        let services = (0..scale.services).cycle();
        let count = if self.traffic == Traffic::OneFlow {
            1
        } else {
            count
        };
        let to = |service| match self.traffic {
            Traffic::NoService => no_vip(self.family),
            _ => vip(self.family, service),
        };
        (0..count)
            .zip(services)
            .map(|(number, service)| connection(number, to(service)))
            .collect()
    }
}
