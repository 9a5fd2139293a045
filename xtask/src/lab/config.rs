//! How large a lab is, and which VIPs it has.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

/// What a lab consists of.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// The lab's name, unique on the machine; `None`: made from the process id.
    pub name: Option<String>,
    /// How many backends: 1 to 200; default 3.
    pub backends: usize,
    /// How many directors: 1 to 8; default 1. The router's routes lead to the first.
    pub directors: usize,
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
