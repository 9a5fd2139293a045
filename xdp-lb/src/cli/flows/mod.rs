//! Remembered flows: which ones are asked for.

pub(super) mod text;

use std::net::{IpAddr, SocketAddr};

use clap::{ArgGroup, Subcommand, ValueEnum, builder::PossibleValue};

use super::commands::escaped;
use crate::{
    config::Protocol,
    director::flows::{DEFAULT_LIMIT, FilterError, FlowFilter, FlowState, MAX_LIMIT},
};

#[derive(Debug, Subcommand)]
pub(super) enum Flow {
    /// List flows that live, by service, backend and silence.
    ///
    /// Silence is known to a fraction of a second, the period that the flow table counts time in. The id is bucket
    /// and fingerprint in that table. Asked for one flow, it tells as well where its slot leads: there goes a flow
    /// that is not remembered.
    List(List),
    /// Count flows that live, by backend and state.
    Count(Which),
    /// Forget flows: their next packets go where their slots lead.
    ///
    /// On a settled or mixed slot that is its current backend; on a slot that is moving, the backend before. Where
    /// the flow was at another one, its connection breaks. With `connection_tracking: full` a flow that goes on is
    /// remembered again, at its new backend.
    Flush(Flush),
}

/// Which flows are meant.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Which {
    /// Flows of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Flows at this backend.
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<IpAddr>,
    /// Flows in this state.
    #[arg(long, value_enum)]
    state: Option<FlowState>,
    /// One flow: its protocol.
    #[arg(long, value_enum, requires = "source", requires = "destination")]
    protocol: Option<Protocol>,
    /// One flow: the client with its port; `[2001:db8::7]:40000` with IPv6.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "protocol",
          conflicts_with_all = ["service", "backend", "state"])]
    source: Option<SocketAddr>,
    /// One flow: the VIP with the port that the client connects to.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "protocol")]
    destination: Option<SocketAddr>,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    of: Which,
    /// How many at the most.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true)
    .args(["service", "backend", "state", "source", "all"]))]
pub(super) struct Flush {
    #[command(flatten)]
    of: Which,
    /// All flows of all services.
    #[arg(long, conflicts_with_all = ["service", "backend", "state", "source"])]
    all: bool,
}

impl ValueEnum for FlowState {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for Protocol {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Tcp, Self::Udp]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl Which {
    /// What the API is asked.
    pub(super) fn filter(self) -> Result<FlowFilter, FilterError> {
        let filter = FlowFilter {
            service: self.service,
            backend: self.backend,
            state: self.state,
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            limit: None,
        };
        // What makes no sense is the caller's fault, whether a daemon is running or not.
        filter.flow().map(|_| filter)
    }
}

impl List {
    /// What the API is asked.
    pub(super) fn filter(self) -> Result<FlowFilter, FilterError> {
        Ok(FlowFilter {
            limit: Some(self.limit),
            ..self.of.filter()?
        })
    }
}

impl Flush {
    /// What the API is asked, and whether all flows are meant.
    pub(super) fn filter(self) -> Result<(FlowFilter, bool), FilterError> {
        let filter = self.of.filter()?;
        filter.check_flush(self.all)?;
        Ok((filter, self.all))
    }
}

/// A call with a filter.
pub(super) fn query(call: &str, filter: &FlowFilter) -> String {
    let FlowFilter {
        service,
        backend,
        state,
        protocol,
        source,
        destination,
        limit,
    } = filter;
    let fields = [
        ("service", service.clone()),
        ("backend", backend.map(|it| it.to_string())),
        ("state", state.map(|it| it.name().into())),
        ("protocol", protocol.map(|it| it.name().into())),
        ("source", source.map(|it| it.to_string())),
        ("destination", destination.map(|it| it.to_string())),
        ("limit", limit.map(|it| it.to_string())),
    ];
    let fields: Vec<String> = fields
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?))))
        .collect();
    if fields.is_empty() {
        call.into()
    } else {
        format!("{call}?{}", fields.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn flows_are_forgotten_only_where_something_tells_which() {
        let code = |words: &str| {
            let words = ["xdp-lb", "flow"].into_iter().chain(words.split(' '));
            Arguments::try_parse_from(words).map_or_else(|error| error.exit_code(), |_| 0)
        };
        let one = "--protocol udp --source [2001:db8::7]:4711 --destination [2001:db8::1]:53";
        for words in [
            "list",
            "count",
            "list --service web --backend 10.0.0.11 --state closing --limit 7",
            "flush --all",
            "flush --service web",
            "flush --state opening",
            &format!("list {one}"),
            &format!("flush {one}"),
        ] {
            assert_eq!(code(words), 0, "{words}");
        }
        for words in [
            "flush",
            "flush --all --service web",
            "flush --limit 7",
            "count --limit 7",
            "list --limit 0",
            "list --limit 100001",
            "list --state closed",
            "list --source 198.51.100.7",
            "list --source 198.51.100.7:40000",
            "list --source 198.51.100.7:40000 --destination 192.0.2.10:80",
            "flush --protocol tcp",
            &format!("list {one} --service web"),
            &format!("flush {one} --all"),
        ] {
            assert_eq!(code(words), 2, "{words}");
        }
    }

    #[test]
    fn a_filter_becomes_a_query() {
        let of = FlowFilter::default();
        assert_eq!(query("/v1/flows", &of), "/v1/flows");
        let of = FlowFilter {
            state: Some(FlowState::Closing),
            source: "[2001:db8::7]:40000".parse().ok(),
            limit: Some(7),
            ..of
        };
        assert_eq!(
            query("/v1/flows", &of),
            "/v1/flows?state=closing&source=%5B2001%3Adb8%3A%3A7%5D%3A40000&limit=7"
        );
    }

    #[test]
    fn ends_of_two_families_are_wrong_usage() {
        let which = Which {
            protocol: Some(Protocol::Tcp),
            source: "[2001:db8::7]:40000".parse().ok(),
            destination: "192.0.2.10:80".parse().ok(),
            ..Which::default()
        };
        assert_eq!(which.filter(), Err(FilterError::Families));
    }
}
