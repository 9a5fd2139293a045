//! Health checks: what is asked of a backend, by which way, how often, and what the answers mean.

mod probe;
mod read;
mod read_probe;

use std::{net::IpAddr, time::Duration};

use serde::Serialize;

pub use self::probe::{
    Command, Dns, Grpc, Http, Pattern, Payload, Probe, RecordType, Statuses, Tls, Udp,
};
pub(super) use self::read::{Draft, percentage, read};
use super::{
    duration,
    reader::{Field, Spot},
    tunnel::{of_its_family, sources},
};

words! {
    /// Which way the packets of a check take.
    Via {
        /// To the VIP, steered to the backend as the service forwards: what clients' packets meet.
        #[default]
        Vip "vip",
        /// To the backend's own address.
        Backend "backend",
    }
}

words! {
    /// What a backend is taken for before its first check has ended.
    Start {
        /// Not to be used.
        #[default]
        Down "down",
        /// To be used.
        Up "up",
    }
}

words! {
    /// What becomes of the connections of a backend that went down.
    WhenDown {
        /// They stay with it: what is still served goes on.
        #[default]
        Keep "keep",
        /// Their next packets go to other backends, which refuse TCP connections that they do not know.
        Move "move",
    }
}

/// A service's health check, in which every rule holds. Equal ones of one backend are run once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HealthCheck {
    /// What is asked, and which answer is right.
    #[serde(flatten)]
    pub probe: Probe,
    /// The port that is asked; 0 where the probe has none.
    pub port: u16,
    /// By which way.
    pub via: Via,
    /// The VIPs that stand for the service with [`Via::Vip`] and for commands: one of IPv4 and one of IPv6,
    /// where the service has them.
    pub vips: [Option<IpAddr>; 2],
    /// True if the first packet of a request is as large as the way takes, so that a way that takes less
    /// than it says is noticed. Of use to probes that can be filled up.
    pub full_size: bool,
    /// How often.
    #[serde(flatten)]
    pub pace: Pace,
    /// What the answers mean.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// What becomes of connections.
    pub when_down: WhenDown,
}

impl HealthCheck {
    /// The VIP to ask for in place of `backend`; None: the backend's own address.
    #[must_use]
    pub fn vip_for(&self, backend: IpAddr) -> Option<IpAddr> {
        match self.via {
            Via::Vip => self.vips[usize::from(backend.is_ipv6())],
            Via::Backend => None,
        }
    }
}

/// How often a check is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Pace {
    /// From one check to the next: 100 ms to 1 h.
    #[serde(serialize_with = "duration::serialize")]
    pub interval: Duration,
    /// The same while results and state disagree; at most `interval`.
    #[serde(serialize_with = "duration::serialize")]
    pub fast_interval: Duration,
    /// How long one may take in all: 10 ms to `interval`.
    #[serde(serialize_with = "duration::serialize")]
    pub timeout: Duration,
    /// By how many percent of an interval a check may come earlier or later: 0..=50.
    pub jitter: u8,
}

/// What results mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Judgement {
    /// Successes in a row that bring a backend up again: 1..=100. The first that ever succeeds does it
    /// alone.
    pub rise: u32,
    /// Failures in a row that bring it down: 1..=100.
    pub fall: u32,
    /// What it is taken for in the beginning.
    pub start: Start,
    /// What becomes of one that goes up and down; None: nothing.
    pub damping: Option<Damping>,
}

/// How long a backend stays down that keeps going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Damping {
    /// How often it may go down within `window` without being held: 1..=100.
    pub free: u32,
    /// How long it is held down the first time after that; twice as long each further time.
    #[serde(serialize_with = "duration::serialize")]
    pub hold: Duration,
    /// How long it is held at most.
    #[serde(serialize_with = "duration::serialize")]
    pub longest: Duration,
    /// How long a time that it went down counts.
    #[serde(serialize_with = "duration::serialize")]
    pub window: Duration,
}

impl Default for Damping {
    fn default() -> Self {
        Self {
            free: 2,
            hold: Duration::from_secs(10),
            longest: Duration::from_secs(5 * 60),
            window: Duration::from_secs(10 * 60),
        }
    }
}

/// The section `health`: what all checks have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The upper 16 bits of the marks of packets that are steered; the lower ones count checks.
    pub mark: u16,
    /// Checks that may run at once: 1..=60,000.
    pub at_once: u32,
    /// Source addresses of checks, at most one of each family; a family that has none here takes the
    /// address that the kernel's route to the backend prefers.
    pub source: Vec<IpAddr>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            mark: 0x584c,
            at_once: 4096,
            source: Vec::new(),
        }
    }
}

impl Health {
    /// The source address that is written for checks of `backend`, if one is.
    #[must_use]
    pub fn source_for(&self, backend: IpAddr) -> Option<IpAddr> {
        of_its_family(&self.source, backend)
    }
}

/// Reads `{ mark: 0x584c, at_once: 4096, source: 192.0.2.1 }`, with the places of the sources.
pub(super) fn section(field: &Field<'_>) -> Option<(Health, Vec<Spot>)> {
    let fields = field.mapping(&["mark", "at_once", "source"])?;
    let default = Health::default();
    let mark = fields.get_or("mark", default.mark, |field| field.parse("a mark", mark));
    let at_once = fields.get_or("at_once", default.at_once, |field| {
        field.number("a number of checks", 1..=60_000)
    });
    let (source, spots) = fields
        .get_or("source", Vec::new(), |field| sources(field, "checks"))
        .into_iter()
        .unzip();
    let health = Health {
        mark,
        at_once,
        source,
    };
    Some((health, spots))
}

fn mark(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix("0x");
    let mark = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    mark.filter(|mark| *mark > 0).ok_or_else(|| {
        format!(
            "`{text}` is not the upper half of a mark; write it like 0x584c, from 0x1 to 0xffff"
        )
    })
}
