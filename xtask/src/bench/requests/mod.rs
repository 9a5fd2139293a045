//! Requests a second by several ways: straight to the backends, and through a director with xdp-lb or with
//! one of those that do the same job. With a director that only routes there is one more, to tell the price of
//! balancing from that of one more host.
//!
//! All hosts share two processors, which are busy all the time: what a way costs, anywhere on it, shows as
//! requests that are lacking. The ways take turns, and each is compared with the straight one of the same round.
//!
//! | module | job |
//! |---|---|
//! | `site` | a lab for a way, and the load |
//! | `peers` | what the director runs |
//! | `proof` | whether requests went the way that they were to go |
//! | `cost` | processor time |
//! | `pinning` | who runs where |
//! | `report`, `page` | what was found, and how people read it |

mod cost;
mod page;
mod peers;
mod pinning;
mod proof;
mod report;
mod site;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use self::peers::version_of;
pub(super) use self::report::Report;
use self::report::{Measured, Versions};
use self::site::Site;
use super::report::Machine;
use crate::interrupt;
use crate::lab::PAGE_BYTES;

const BACKENDS: usize = 2;
/// As many as there are backends, so that there are as many pairs of addresses by each way.
const VIPS: [Ipv4Addr; BACKENDS] = [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 11)];
const PORT: u16 = 80;

/// A way that requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    Straight,
    /// Through a director that balances nothing: what one more hop costs.
    Routed,
    /// With the program in the kernel's receive path (mode `generic`), which suits the lab's veth devices best.
    XdpLb,
    /// With the program in the veth driver (mode `native`).
    XdpLbNative,
    Nftables,
    Haproxy,
    NginxStream,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::Straight,
        Self::Routed,
        Self::XdpLb,
        Self::XdpLbNative,
        Self::Nftables,
        Self::Haproxy,
        Self::NginxStream,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::Routed => "routed",
            Self::XdpLb => "xdp-lb",
            Self::XdpLbNative => "xdp-lb native",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy",
            Self::NginxStream => "nginx stream",
        }
    }

    /// Those with one of these parts of names, and the straight one, which the others are compared with.
    fn chosen(filters: &[String]) -> Result<Vec<Self>> {
        for filter in filters {
            ensure!(
                Self::ALL.iter().any(|way| way.has(filter)),
                "no way has {filter} in its name: {}",
                Self::ALL.map(Self::name).join(", ")
            );
        }
        let is_chosen = |way: &Self| {
            *way == Self::Straight || filters.is_empty() || filters.iter().any(|it| way.has(it))
        };
        Ok(Self::ALL.into_iter().filter(is_chosen).collect())
    }

    /// Whether it does what xdp-lb does.
    fn is_peer(self) -> bool {
        matches!(self, Self::Nftables | Self::Haproxy | Self::NginxStream)
    }

    /// The mode that our program is attached in, if it is ours.
    fn mode(self) -> Option<&'static str> {
        match self {
            Self::XdpLb => Some("generic"),
            Self::XdpLbNative => Some("native"),
            _ => None,
        }
    }

    fn has(self, part: &str) -> bool {
        self.name().to_lowercase().contains(&part.to_lowercase())
    }
}

/// What connections requests go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// A new one each.
    New,
    /// The same ones all the time.
    Kept,
}

impl Kind {
    const ALL: [Self; 2] = [Self::New, Self::Kept];

    fn name(self) -> &'static str {
        match self {
            Self::New => "one a request",
            Self::Kept => "kept",
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: usize,
    time: Duration,
    /// All at once, by one way.
    connections: usize,
}

/// Fails if there is no way with one of these parts of names.
pub(super) fn check_names(filters: &[String]) -> Result<()> {
    Way::chosen(filters).map(drop)
}

/// Measures. `program` is the daemon, `filters` are parts of ways' names.
pub(super) fn measure(program: &Path, is_quick: bool, filters: &[String]) -> Result<Report> {
    let plan = Plan {
        // Short ones, so that a way and the straight one are measured close to one another, and many of them.
        rounds: if is_quick { 1 } else { 31 },
        time: Duration::from_secs(1),
        connections: 128,
    };
    let ways = Way::chosen(filters)?;
    let processors = pinning::confine()?;
    interrupt::watch()?;
    let mut sites = Vec::new();
    for way in &ways {
        eprintln!("setting up: {}", way.name());
        let site = Site::new(*way, program, &processors);
        sites.push(site.with_context(|| way.name())?);
    }
    let mut measured = Vec::new();
    for kind in Kind::ALL {
        measured.extend(rounds(&mut sites, kind, plan)?);
    }
    Ok(Report {
        machine: Machine::this()?,
        processors: processors.len(),
        backends: BACKENDS,
        connections: plan.connections,
        body_bytes: PAGE_BYTES,
        rounds: plan.rounds,
        seconds: plan.time.as_secs(),
        versions: versions()?,
        measured,
    })
}

/// The rounds of one kind of connections.
fn rounds(sites: &mut [Site], kind: Kind, plan: Plan) -> Result<Vec<Measured>> {
    let mut measured: Vec<_> = sites
        .iter()
        .map(|site| Measured {
            way: site.way(),
            kind,
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..plan.rounds {
        // Each in its turn comes first, so that what the machine does besides meets all of them alike.
        for turn in 0..sites.len() {
            let index = (turn + round) % sites.len();
            let site = &mut sites[index];
            let found = site.measure(kind, plan.connections, plan.time);
            let found = found.with_context(|| {
                let (way, kind) = (site.way().name(), kind.name());
                format!("{way}, connections: {kind}; its figures are refused")
            })?;
            measured[index].rounds.push(found);
        }
        eprintln!(
            "connections: {}, round {} of {}, requests/s: {}",
            kind.name(),
            round + 1,
            plan.rounds,
            latest(&measured)
        );
    }
    Ok(measured)
}

/// What the latest round of each way has shown.
fn latest(measured: &[Measured]) -> String {
    let ways = measured.iter().filter_map(|it| {
        let round = it.rounds.last()?;
        Some(format!("{} {:.0}", it.way.name(), round.per_second))
    });
    ways.collect::<Vec<_>>().join(", ")
}

fn versions() -> Result<Versions> {
    Ok(Versions {
        nftables: version_of("nft", "--version")?,
        haproxy: version_of("haproxy", "-v")?,
        nginx: version_of("nginx", "-v")?,
        wrk: version_of("wrk", "-v")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_straight_way_is_always_taken() {
        let chosen = |filters: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|it| (*it).to_owned()).collect();
            Way::chosen(&filters)
        };
        assert_eq!(chosen(&[]).unwrap(), Way::ALL);
        let two = [Way::Straight, Way::Haproxy];
        assert_eq!(chosen(&["haproxy"]).unwrap(), two);
        assert_eq!(chosen(&["nft", "xdp"]).unwrap().len(), 4);
        let error = chosen(&["ipvs"]).unwrap_err().to_string();
        assert!(error.contains("nginx stream"), "{error}");
    }
}
