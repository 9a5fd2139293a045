//! What is measured, and what the program's counters must show for it.

use xdp_lb_common::{abi::ServiceEntry, counters::Counter};

use crate::{
    packets::{Family, Packets, Segment, connection, no_vip},
    plane::{Mode, Scale},
};

/// Which flows are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Those of slots that are not settled: none here.
    Adaptive,
    /// All.
    Full,
}

impl Tracking {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Adaptive, Self::Full];

    /// The word in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Full => "full",
        }
    }

    /// The flags that a service's entry has.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Adaptive => ServiceEntry::FLAG_TRACK | ServiceEntry::FLAG_ADAPTIVE,
            Self::Full => ServiceEntry::FLAG_TRACK,
        }
    }
}

/// Packets that come to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One connection that is established.
    OneFlow,
    /// Many connections that are.
    Flows,
    /// Ten times as many.
    TenfoldFlows,
    /// SYNs of many connections, which make no entry.
    Syns,
    /// Bare ACKs of connections that have not been seen before.
    NewFlows,
    /// Many connections to an address that is no service's.
    NoService,
}

impl Traffic {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::OneFlow,
        Self::Flows,
        Self::TenfoldFlows,
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
            Self::TenfoldFlows => "flows-x10",
            Self::Syns => "syns",
            Self::NewFlows => "new-flows",
            Self::NoService => "no-service",
        }
    }

    /// What each packet does to its connection.
    #[must_use]
    pub const fn segment(self) -> Segment {
        match self {
            Self::Syns => Segment::Syn,
            _ => Segment::Ack,
        }
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How packets reach the backends.
    pub mode: Mode,
    /// Family of clients, services and backends.
    pub family: Family,
    /// Which flows are remembered.
    pub tracking: Tracking,
    /// The packets.
    pub traffic: Traffic,
}

impl Case {
    /// All cases of a mode and family. What passes to the kernel is the same in all of them, and so one
    /// of the first alone.
    pub fn all(mode: Mode, family: Family) -> impl Iterator<Item = Self> {
        let all = Tracking::ALL.into_iter().flat_map(move |tracking| {
            Traffic::ALL.into_iter().map(move |traffic| Self {
                mode,
                family,
                tracking,
                traffic,
            })
        });
        all.filter(|case| {
            let is_first = (case.mode, case.tracking) == (Mode::L2, Tracking::Adaptive);
            is_first || case.traffic != Traffic::NoService
        })
    }

    /// Whether all flows are forgotten before each run, so that none is known. Where none is remembered, none has to be
    /// forgotten, which would take the caches from the program.
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        (self.traffic, self.tracking) == (Traffic::NewFlows, Tracking::Full)
    }

    /// What the program must count for `packets` packets. Everything else must stay.
    #[must_use]
    pub fn expected(&self, packets: u64) -> Vec<(Counter, u64)> {
        match (self.traffic, self.tracking) {
            (Traffic::NoService, _) => vec![(Counter::NoService, packets)],
            (Traffic::NewFlows, Tracking::Full) => vec![
                (Counter::Forwarded, packets),
                (Counter::FlowCreated, packets),
            ],
            _ => vec![(Counter::Forwarded, packets)],
        }
    }

    /// What it must count when it sees `connections` connections for the first time.
    #[must_use]
    pub fn expected_at_first(&self, packets: u64, connections: u64) -> Vec<(Counter, u64)> {
        let mut expected = self.expected(packets);
        let is_many = matches!(
            self.traffic,
            Traffic::OneFlow | Traffic::Flows | Traffic::TenfoldFlows
        );
        if is_many && self.tracking == Tracking::Full {
            expected.push((Counter::FlowCreated, connections));
        }
        expected
    }

    /// Name, of which a filter is a part.
    #[must_use]
    pub fn name(&self) -> String {
        let (mode, family) = (self.mode.name(), self.family.name());
        let (tracking, traffic) = (self.tracking.name(), self.traffic.name());
        format!("{mode}/{family}/{tracking}/{traffic}")
    }

    /// Bytes of the frames that leave.
    #[must_use]
    pub fn frame_out(&self) -> usize {
        match self.traffic {
            Traffic::NoService => self.family.frame(),
            _ => self.family.frame() + self.mode.overhead(self.family),
        }
    }

    /// Its packets: of `count` connections, ten times as many, or one, to the services in turn.
    #[must_use]
    pub fn packets(&self, scale: Scale, count: u32) -> Packets {
        let count = match self.traffic {
            Traffic::OneFlow => 1,
            Traffic::TenfoldFlows => 10 * count,
            _ => count,
        };
        let segment = self.traffic.segment();
        match self.traffic {
            Traffic::NoService => Packets::to(connection(0, no_vip(self.family)), segment, count),
            _ => Packets::to_services(self.family, segment, scale, count),
        }
    }
}
