//! The section `tunnel`: where tunnels to the backends begin.

use std::net::IpAddr;

use serde::Serialize;

use super::{
    reader::{Field, Spot},
    rules,
};

/// The UDP port of the forwarding mode `gue` for which none is written (registered for GUE with IANA).
pub const DEFAULT_GUE_PORT: u16 = 6080;

/// What the forwarding modes `ipip` and `gue` put into outer headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// The source addresses, at most one of each family; a family that has none here takes the
    /// address that the kernel's route to the backend prefers.
    pub source: Vec<IpAddr>,
    /// Destination port of the forwarding mode `gue`.
    pub gue_port: u16,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            source: Vec::new(),
            gue_port: DEFAULT_GUE_PORT,
        }
    }
}

impl Tunnel {
    /// The source address that is written for tunnels to `backend`, if one is.
    #[must_use]
    pub fn source_for(&self, backend: IpAddr) -> Option<IpAddr> {
        of_its_family(&self.source, backend)
    }
}

/// The one of `sources` that is of the family of `address`.
pub(super) fn of_its_family(sources: &[IpAddr], address: IpAddr) -> Option<IpAddr> {
    let mut sources = sources.iter().copied();
    sources.find(|source| source.is_ipv4() == address.is_ipv4())
}

/// Reads `{ source: 192.0.2.1, gue_port: 6080 }`, with the places of the sources.
pub(super) fn read(field: &Field<'_>) -> Option<(Tunnel, Vec<Spot>)> {
    let fields = field.mapping(&["source", "gue_port"])?;
    let gue_port = fields.get_or("gue_port", DEFAULT_GUE_PORT, |field| {
        u16::try_from(field.number("a port", 1..=65_535)?).ok()
    });
    let (source, spots) = fields
        .get_or("source", Vec::new(), |field| sources(field, "tunnels"))
        .into_iter()
        .unzip();
    Some((Tunnel { source, gue_port }, spots))
}

/// One address or a list with at most one of each family. `whose` sources they are: "tunnels".
pub(super) fn sources(field: &Field<'_>, whose: &str) -> Option<Vec<(IpAddr, Spot)>> {
    let items = field.one_or_more()?;
    let mut sources: Vec<(IpAddr, Spot)> = Vec::new();
    for item in &items {
        let source = item.parse("an IP address", |text| rules::parse_address(text, "source"))?;
        let same = |(other, _): &&(IpAddr, Spot)| other.is_ipv4() == source.is_ipv4();
        if let Some((other, _)) = sources.iter().find(same) {
            let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
            return item.refuse(format_args!(
                "{other} is the source of {whose} over {family} already; list one of each family"
            ));
        }
        sources.push((source, item.spot()));
    }
    Some(sources)
}
