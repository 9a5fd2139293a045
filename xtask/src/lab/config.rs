//! How large a lab is, and which VIPs it has.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

/// Where the backends are, as a director sees them; [`topology`](super::topology) has the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Farm {
    /// In the network that clients' packets come from: one interface of the director.
    #[default]
    Shared,
    /// In a network of their own: packets leave by another interface than they came by.
    Apart,
    /// The same, and one cable leads from the router to the director: there is no switch between them, and no other
    /// director.
    Cabled,
    /// In both of these networks, so that there are two ways to each.
    Both,
    /// In a network that the director is not in, behind two gateways, one in each network.
    Routed,
}

/// How packets get to the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Forwarding {
    /// With other MAC addresses.
    #[default]
    L2,
    /// In another IP packet.
    Ipip,
    /// In a UDP packet.
    Gue,
}

impl Forwarding {
    /// As the daemon's config has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }
}

/// What a lab consists of.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// The lab's name, unique on the machine; `None`: made from the process id.
    pub name: Option<String>,
    /// How many backends: 1 to 200; default 3.
    pub backends: usize,
    /// How many directors: 1 to 8; default 1. The router's routes lead to the first, unless
    /// `vips_on_link`.
    pub directors: usize,
    /// Whether the VIPs are on the link of router and directors, so that whoever answers for them gets
    /// their packets: no director has them to begin with. Default no.
    pub vips_on_link: bool,
    /// Where the backends are; default: in the network that clients' packets come from.
    pub farm: Farm,
    /// The VLAN tag of all packets on the cable of the directors' `eth0`, 1 to 4094; default none.
    /// The director's kernel neither sees it nor has to know of it; XDP sees it.
    pub tag: Option<u16>,
    /// The IPv4 VIPs, all from 192.0.2.0/24; default 192.0.2.10.
    pub vips: Vec<Ipv4Addr>,
    /// The IPv6 VIPs, all from 2001:db8:10::/64; default 2001:db8:10::10.
    pub vips6: Vec<Ipv6Addr>,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            name: None,
            backends: 3,
            directors: 1,
            vips_on_link: false,
            farm: Farm::default(),
            tag: None,
            vips: vec![Ipv4Addr::new(192, 0, 2, 10)],
            vips6: vec![Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10)],
        }
    }
}

impl LabConfig {
    /// The default lab with another number of backends.
    pub fn with_backends(backends: usize) -> Self {
        Self {
            backends,
            ..Self::default()
        }
    }

    /// Two directors that have to agree on who has the VIPs.
    #[must_use]
    pub fn redundant(backends: usize) -> Self {
        Self {
            backends,
            directors: 2,
            vips_on_link: true,
            ..Self::default()
        }
    }

    /// The same lab with its backends elsewhere.
    #[must_use]
    pub fn farm(self, farm: Farm) -> Self {
        Self { farm, ..self }
    }

    /// The same lab with tagged packets on the cable of the directors' `eth0`.
    #[must_use]
    pub fn tagged(self, tag: u16) -> Self {
        Self {
            tag: Some(tag),
            ..self
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (backends, directors) = (self.backends, self.directors);
        ensure!(
            (1..=200).contains(&backends),
            "{backends} backends: a lab takes 1 to 200"
        );
        ensure!(
            (1..=8).contains(&directors),
            "{directors} directors: a lab takes 1 to 8"
        );
        ensure!(
            self.farm != Farm::Cabled || directors == 1 && !self.vips_on_link,
            "a cable has two ends: no other director, and no VIPs that move, where the director is cabled to the router"
        );
        if let Some(tag) = self.tag {
            ensure!((1..=4094).contains(&tag), "VLAN tag {tag}: 1 to 4094");
        }
        for vip in &self.vips {
            ensure!(
                vip.octets()[..3] == [192, 0, 2],
                "VIP {vip} is outside of 192.0.2.0/24"
            );
        }
        for vip in &self.vips6 {
            let prefix = [0x2001, 0xdb8, 0x10, 0];
            ensure!(
                vip.segments()[..4] == prefix,
                "VIP {vip} is outside of 2001:db8:10::/64"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_no_vlan_has_is_refused() {
        assert!(LabConfig::default().tagged(4095).check().is_err());
        assert!(LabConfig::default().tagged(4094).check().is_ok());
    }

    #[test]
    fn a_cable_leads_to_one_director() {
        let cabled = |config: LabConfig| config.farm(Farm::Cabled).check().is_ok();
        assert!(cabled(LabConfig::default()));
        assert!(!cabled(LabConfig {
            directors: 2,
            ..LabConfig::default()
        }));
        assert!(!cabled(LabConfig {
            vips_on_link: true,
            ..LabConfig::default()
        }));
    }

    #[test]
    fn a_vip_outside_of_the_routed_prefix_is_refused() {
        let config = LabConfig {
            vips: vec![Ipv4Addr::new(10, 0, 0, 99)],
            ..LabConfig::default()
        };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("192.0.2.0/24")
        );
    }
}
