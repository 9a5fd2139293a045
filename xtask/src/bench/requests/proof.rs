//! Whether requests went the way that they were to go: what everybody on it has counted.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::peers::{self, Balancer};
use super::{Kind, Way};
use crate::lab::{Host, Lab};

/// Packets of a request on a connection of its own that come from the client before the answer: SYN, ACK and
/// request.
const ASKING: u64 = 3;
/// And those of the backend: SYN+ACK and answer.
const ANSWERING: u64 = 2;

/// What was counted so far, or between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets that the director received and sent, by all of its interfaces.
    received: u64,
    sent: u64,
    /// Connections that the director's kernel accepted and opened.
    accepted: u64,
    opened: u64,
    /// Packets that xdp-lb forwarded.
    forwarded: u64,
    /// Connections whose addresses nftables translated.
    translated: u64,
    /// Connections that each backend accepted.
    served: Vec<u64>,
}

impl Counts {
    /// What was counted so far.
    pub(super) fn read(lab: &Lab, balancer: &Balancer) -> Result<Self> {
        let host = lab.host("director");
        let director = tcp(host)?;
        let forwarded = match balancer {
            Balancer::XdpLb(director) => forwarded(&director.check(&["stats", "--json"])?)?,
            _ => 0,
        };
        let translated = match balancer {
            Balancer::Nftables => peers::translated(host)?,
            _ => 0,
        };
        let served = lab.backends().map(|it| Ok(tcp(it)?.passive));
        let packets = |of: fn(&Host, &str) -> Result<u64>| {
            let interfaces = host.interfaces().iter();
            interfaces.map(|it| of(host, &it.name)).sum::<Result<_>>()
        };
        Ok(Self {
            received: packets(Host::rx_packets)?,
            sent: packets(Host::tx_packets)?,
            accepted: director.passive,
            opened: director.active,
            forwarded,
            translated,
            served: served.collect::<Result<_>>()?,
        })
    }

    /// What was counted since then.
    pub(super) fn since(&self, before: &Self) -> Self {
        let served = self.served.iter().zip(&before.served);
        Self {
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
            accepted: self.accepted.saturating_sub(before.accepted),
            opened: self.opened.saturating_sub(before.opened),
            forwarded: self.forwarded.saturating_sub(before.forwarded),
            translated: self.translated.saturating_sub(before.translated),
            served: served
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        }
    }

    /// Fails unless so many requests, on so many connections at once, have gone the way that they were to go.
    pub(super) fn check(&self, way: Way, kind: Kind, requests: u64, at_once: u64) -> Result<()> {
        let name = way.name();
        let (connections, asking, answering) = match kind {
            Kind::New => (requests, requests * ASKING, requests * ANSWERING),
            Kind::Kept => (at_once, requests, requests),
        };
        let least = |what: &str, count: u64, least: u64| {
            ensure!(
                count >= least,
                "{name}: {count} {what}, where {requests} requests take {least} at the least: they \
                 went another way"
            );
            Ok(())
        };
        let most = |what: &str, count: u64, most: u64| {
            ensure!(
                count <= most,
                "{name}: {count} {what}, where there should be {most} at most: something went another way"
            );
            Ok(())
        };
        // Of neighbour discovery, and of what the daemon asks.
        let others = 200 + requests / 100;
        let accepted = "connections that the director's kernel accepted";
        match way {
            Way::Straight => {
                most("packets that the director received", self.received, others)?;
                most("packets that the director sent", self.sent, others)?;
            }
            Way::Routed => {
                least("packets that the director sent", self.sent, asking)?;
                let answers = self.received.saturating_sub(self.sent);
                most("other packets to the director", answers, others)?;
                most(accepted, self.accepted, 0)?;
            }
            Way::XdpLb | Way::XdpLbNative => {
                least("packets that xdp-lb forwarded", self.forwarded, asking)?;
                let answers = self.received.saturating_sub(self.forwarded);
                most("other packets to the director", answers, others)?;
                most(accepted, self.accepted, 0)?;
            }
            Way::Nftables => {
                least(
                    "connections that nftables translated",
                    self.translated,
                    connections,
                )?;
                least("packets to the director", self.received, asking + answering)?;
                most(accepted, self.accepted, 0)?;
            }
            Way::Haproxy | Way::NginxStream => {
                least(accepted, self.accepted, connections)?;
                least("connections to backends", self.opened, connections)?;
                least("packets to the director", self.received, asking + answering)?;
            }
        }
        least(
            "connections to backends' kernels",
            self.served.iter().sum(),
            connections,
        )?;
        self.check_shares(name, kind)
    }

    /// Fails where the load is on fewer backends than there are.
    fn check_shares(&self, name: &str, kind: Kind) -> Result<()> {
        let all: u64 = self.served.iter().sum();
        let backends = u64::try_from(self.served.len())?;
        let least = match kind {
            // Half of what is due.
            Kind::New => all / backends / 2,
            // Few connections may be shared out badly.
            Kind::Kept => 1,
        };
        ensure!(
            self.served.iter().all(|count| *count >= least),
            "{name}: the backends accepted {:?} connections: the load is not on all of them",
            self.served
        );
        Ok(())
    }
}

/// The daemon's counter, in what `xdp-lb stats --json` prints.
fn forwarded(stats: &str) -> Result<u64> {
    let stats: Value = serde_json::from_str(stats)?;
    let counters = stats["counters"].as_array().context("no counters")?;
    let counter = counters.iter().find(|it| it["name"] == "forwarded");
    let count = counter.and_then(|it| it["packets"].as_u64());
    count.context("xdp-lb has no counter `forwarded`")
}

/// Connections that a kernel has opened and accepted.
struct Opens {
    active: u64,
    passive: u64,
}

fn tcp(host: &Host) -> Result<Opens> {
    let snmp = host
        .run(|| fs::read_to_string("/proc/thread-self/net/snmp"))
        .with_context(|| format!("cannot read the counters of {}", host.name()))?;
    parse_snmp(&snmp).with_context(|| format!("no counters of TCP in:\n{snmp}"))
}

/// A line with names is followed by one with values.
fn parse_snmp(snmp: &str) -> Option<Opens> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let counters: BTreeMap<_, _> = names.split(' ').zip(values.split(' ')).collect();
    let count = |name: &str| counters.get(name)?.parse().ok();
    Some(Opens {
        active: count("ActiveOpens")?,
        passive: count("PassiveOpens")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many as 1000 requests of a way take, with a connection each.
    fn counts(way: Way) -> Counts {
        let mut counts = Counts {
            served: vec![510, 490],
            ..Counts::default()
        };
        match way {
            Way::Straight => {}
            Way::Routed => (counts.sent, counts.received) = (5000, 5010),
            Way::XdpLb | Way::XdpLbNative => (counts.forwarded, counts.received) = (5000, 5010),
            Way::Nftables => (counts.translated, counts.received) = (1000, 9000),
            Way::Haproxy | Way::NginxStream => {
                (counts.accepted, counts.opened) = (1000, 1000);
                counts.received = 9000;
            }
        }
        counts
    }

    fn check(counts: &Counts, way: Way) -> Result<()> {
        counts.check(way, Kind::New, 1000, 100)
    }

    #[test]
    fn each_way_is_told_from_all_others() {
        for way in Way::ALL {
            for other in Way::ALL {
                // The mode of our program is asked for elsewhere.
                let alike = [
                    [Way::Haproxy, Way::NginxStream],
                    [Way::XdpLb, Way::XdpLbNative],
                ];
                let is_alike = way == other
                    || alike
                        .iter()
                        .any(|two| two.contains(&way) && two.contains(&other));
                let outcome = check(&counts(way), other);
                assert_eq!(
                    outcome.is_ok(),
                    is_alike,
                    "{way:?} as {other:?}: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn kept_connections_are_fewer_than_requests() {
        let counts = Counts {
            forwarded: 1100,
            received: 1100,
            served: vec![70, 30],
            ..Counts::default()
        };
        counts.check(Way::XdpLb, Kind::Kept, 1000, 100).unwrap();
        assert!(check(&counts, Way::XdpLb).is_err());
    }

    #[test]
    fn a_backend_without_load_is_noticed() {
        let counts = Counts {
            served: vec![1000, 3],
            ..counts(Way::XdpLb)
        };
        let error = check(&counts, Way::XdpLb).unwrap_err().to_string();
        assert!(error.contains("[1000, 3]"), "{error}");
    }

    #[test]
    fn answers_through_the_director_are_noticed() {
        let counts = Counts {
            received: 9000,
            ..counts(Way::XdpLb)
        };
        assert!(check(&counts, Way::XdpLb).is_err());
    }

    #[test]
    fn the_kernels_counters_are_read_by_their_names() {
        let snmp =
            "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 22 333\n";
        let opens = parse_snmp(snmp).unwrap();
        assert_eq!((opens.active, opens.passive), (22, 333));
        assert!(parse_snmp("Tcp: ActiveOpens\n").is_none());
    }

    #[test]
    fn the_daemons_counter_is_read() {
        let stats =
            r#"{"counters":[{"name":"other","packets":1},{"name":"forwarded","packets":7}]}"#;
        assert_eq!(forwarded(stats).unwrap(), 7);
        assert!(forwarded("{}").is_err());
    }
}
