//! Which remembered flows are meant: filters, and single flows.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use xdp_lb_common::{
    abi::{FlowEntry, FlowKey},
    hash::{Affinity, HashKey, flow_hash},
};

use super::desired::mapped;
use crate::config::Protocol;

/// How many flows a list has where nobody says otherwise.
pub const DEFAULT_LIMIT: u32 = 100;

/// How many flows a list may have.
pub const MAX_LIMIT: u32 = 100_000;

/// How far a connection has come, as its packets tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// It has sent more than a SYN.
    Open,
    /// Nothing but a SYN has passed, on a slot that was moving.
    Opening,
    /// A FIN or RST has passed.
    Closing,
}

impl FlowState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Open, Self::Opening, Self::Closing];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Opening => "opening",
            Self::Closing => "closing",
        }
    }

    pub(super) const fn of(entry: FlowEntry) -> Self {
        if entry.is_opening() {
            Self::Opening
        } else if entry.is_closing() {
            Self::Closing
        } else {
            Self::Open
        }
    }
}

/// Which flows are meant: those for which all holds that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// At this backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<IpAddr>,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowState>,
    /// With source and destination: one flow alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The client, with its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// The VIP, with the service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// How many flows are listed at the most; for a list alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Why a question about flows makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what is wrong")]
pub enum FilterError {
    #[error("one flow is told by `protocol`, `source` and `destination`: give all three, or none")]
    Incomplete,
    #[error("`source` and `destination` are of two address families: no flow is")]
    Families,
    #[error("`source` and `destination` tell one flow: leave `service`, `backend` and `state` out")]
    OneFlow,
    #[error("`limit` is for a list, of 1 to {MAX_LIMIT} flows")]
    Limit,
    #[error(
        "nothing tells which flows are to be forgotten: give a service, a backend, a state or a flow, or `all`"
    )]
    Nothing,
    #[error("`all` flows are to be forgotten, and only some: leave out one or the other")]
    AllAndSome,
}

impl FlowFilter {
    /// Checks that it makes sense, and returns the one flow that it is about, if it is.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn flow(&self) -> Result<Option<Flow>, FilterError> {
        match (self.protocol, self.source, self.destination) {
            (None, None, None) => Ok(None),
            (Some(protocol), Some(source), Some(destination)) => {
                if self.service.is_some() || self.backend.is_some() || self.state.is_some() {
                    return Err(FilterError::OneFlow);
                }
                Flow::new(protocol, source, destination).map(Some)
            }
            _ => Err(FilterError::Incomplete),
        }
    }

    /// True if every flow is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                limit: self.limit,
                ..Self::default()
            }
    }

    /// Checks that it makes sense as the answer to which flows are to be forgotten.
    ///
    /// # Errors
    ///
    /// If it does not: all flows must be asked for.
    pub fn check_flush(&self, all: bool) -> Result<(), FilterError> {
        match (self.is_empty(), all) {
            (true, false) => Err(FilterError::Nothing),
            (false, true) => Err(FilterError::AllAndSome),
            _ if self.limit.is_some() => Err(FilterError::Limit),
            _ => self.flow().map(drop),
        }
    }
}

/// One flow: the 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Flow {
    fn new(
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Self, FilterError> {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (source, destination) = (plain(source), plain(destination));
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FilterError::Families);
        }
        Ok(Self {
            protocol,
            source,
            destination,
        })
    }

    /// The hash of it, by all of it or by its source alone.
    pub(super) fn hash(&self, key: HashKey, affinity: Affinity) -> u64 {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let flow = self.key(source.octets(), destination.octets());
                flow_hash(key, affinity, &flow)
            }
            (source, destination) => {
                let flow = self.key(mapped(source), mapped(destination));
                flow_hash(key, affinity, &flow)
            }
        }
    }

    fn key<A: Copy>(&self, source: A, destination: A) -> FlowKey<A> {
        FlowKey {
            source_port_be: self.source.port().to_be_bytes(),
            destination_port_be: self.destination.port().to_be_bytes(),
            ..FlowKey::without_ports(source, destination, self.protocol.number())
        }
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            protocol,
            source,
            destination,
        } = self;
        write!(f, "{protocol} {source} -> {destination}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> FlowFilter {
        serde_json::from_str(text).unwrap()
    }

    const ONE: &str =
        r#"{"protocol": "tcp", "source": "198.51.100.7:40000", "destination": "192.0.2.10:80"}"#;

    #[test]
    fn a_flow_is_told_by_all_of_its_tuple_and_nothing_else() {
        let flow = of(ONE).flow().unwrap().unwrap();
        assert_eq!(flow.to_string(), "tcp 198.51.100.7:40000 -> 192.0.2.10:80");
        assert_eq!(of(r#"{"service": "web"}"#).flow(), Ok(None));
        let source = of(ONE).source;
        for (filter, error) in [
            (
                FlowFilter {
                    protocol: None,
                    ..of(ONE)
                },
                FilterError::Incomplete,
            ),
            (
                FlowFilter {
                    source,
                    ..FlowFilter::default()
                },
                FilterError::Incomplete,
            ),
            (
                FlowFilter {
                    source: "[2001:db8::7]:40000".parse().ok(),
                    ..of(ONE)
                },
                FilterError::Families,
            ),
            (
                FlowFilter {
                    service: Some("web".into()),
                    ..of(ONE)
                },
                FilterError::OneFlow,
            ),
            (
                FlowFilter {
                    state: Some(FlowState::Open),
                    ..of(ONE)
                },
                FilterError::OneFlow,
            ),
        ] {
            assert_eq!(filter.flow(), Err(error), "{filter:?}");
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        for text in [
            r#"{"servce": "web"}"#,
            r#"{"state": "closed"}"#,
            r#"{"protocol": "icmp"}"#,
            r#"{"source": "198.51.100.7"}"#,
        ] {
            assert!(serde_json::from_str::<FlowFilter>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_flows_are_forgotten_only_if_asked_for() {
        let (none, some) = (FlowFilter::default(), of(r#"{"state": "closing"}"#));
        assert_eq!(none.check_flush(false), Err(FilterError::Nothing));
        assert_eq!(none.check_flush(true), Ok(()));
        assert_eq!(some.check_flush(false), Ok(()));
        assert_eq!(some.check_flush(true), Err(FilterError::AllAndSome));
        assert_eq!(of(ONE).check_flush(false), Ok(()));
        let limit = FlowFilter {
            limit: Some(1),
            ..some
        };
        assert_eq!(limit.check_flush(false), Err(FilterError::Limit));
        let limit = of(r#"{"limit": 7}"#);
        assert_eq!(limit.check_flush(false), Err(FilterError::Nothing));
    }

    #[test]
    fn the_hash_is_that_of_the_packets() {
        let key = FlowKey {
            source: [198, 51, 100, 7],
            destination: [192, 0, 2, 10],
            source_port_be: 40_000_u16.to_be_bytes(),
            destination_port_be: [0, 80],
            protocol: 6,
            reserved: [0; 3],
        };
        let flow = of(ONE).flow().unwrap().unwrap();
        for affinity in [Affinity::Flow, Affinity::Source] {
            assert_eq!(
                flow.hash(HashKey::DEFAULT, affinity),
                flow_hash(HashKey::DEFAULT, affinity, &key)
            );
        }
        // An IPv4-mapped address is one of IPv4.
        let mapped = FlowFilter {
            source: "[::ffff:198.51.100.7]:40000".parse().ok(),
            ..of(ONE)
        };
        assert_eq!(mapped.flow(), Ok(Some(flow)));
        let v6 = of(
            r#"{"protocol": "udp", "source": "[2001:db8::7]:53", "destination": "[2001:db8::1]:53"}"#,
        );
        let key = FlowKey {
            source: mapped_of("2001:db8::7"),
            destination: mapped_of("2001:db8::1"),
            source_port_be: [0, 53],
            destination_port_be: [0, 53],
            protocol: 17,
            reserved: [0; 3],
        };
        let flow = v6.flow().unwrap().unwrap();
        assert_eq!(
            flow.hash(HashKey::DEFAULT, Affinity::Flow),
            flow_hash(HashKey::DEFAULT, Affinity::Flow, &key)
        );
    }

    fn mapped_of(address: &str) -> [u8; 16] {
        mapped(address.parse().unwrap())
    }
}
