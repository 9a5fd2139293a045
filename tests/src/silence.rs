//! Hosts that do not hear others: frames that are dropped before the kernel looks at them.

use std::fs;
use std::sync::Arc;

use anyhow::Result;
use xtask::lab::{Host, Lab};
use xtask::setup::Tools;

/// Drops frames that come in by a host's `eth0`, until it is dropped itself.
#[derive(Debug)]
pub struct Silence {
    host: Arc<Host>,
    table: String,
}

impl Silence {
    /// `frames` says which, in the language of nftables, a rule each.
    pub fn new(lab: &Lab, host: &Arc<Host>, name: &str, frames: &[String]) -> Result<Self> {
        let rules: Vec<_> = frames.iter().map(|it| format!("{it} drop\n")).collect();
        let script = format!(
            "table netdev {name} {{\nchain ingress_eth0 {{\ntype filter hook ingress device eth0 priority 0\n{}}}\n}}\n",
            rules.concat()
        );
        let file = lab.dir().join(format!("{}-{name}.nft", host.name()));
        fs::write(&file, script)?;
        let mut command = Tools::new()?.command("nft")?;
        command.arg("-f").arg(&file);
        host.namespace().check(&mut command)?;
        Ok(Self {
            host: Arc::clone(host),
            table: name.to_owned(),
        })
    }

    /// `host` does not hear the others' ARP and neighbour solicitations, and so does not answer them.
    pub fn of_arp(lab: &Lab, host: &Arc<Host>, others: &[&Arc<Host>]) -> Result<Self> {
        let mut frames = Vec::new();
        for other in others {
            let mac = other.mac("eth0")?;
            frames.push(format!("ether saddr {mac} ether type arp"));
            frames.push(format!(
                "ether saddr {mac} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }}"
            ));
        }
        let name = format!("no_arp_{}", others.first().map_or("", |it| it.name()));
        Self::new(lab, host, &name, &frames)
    }

    /// `host` does not hear the others' TCP, which they use for health checks.
    pub fn of_checks(lab: &Lab, host: &Arc<Host>, others: &[&Arc<Host>]) -> Result<Self> {
        let frames = others.iter().flat_map(|other| {
            [
                format!("ip saddr {} ip protocol tcp", other.v4()),
                format!("ip6 saddr {} meta l4proto tcp", other.v6()),
            ]
        });
        Self::new(lab, host, "no_checks", &frames.collect::<Vec<_>>())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let delete = || -> Result<()> {
            let mut command = Tools::new()?.command("nft")?;
            command.args(["delete", "table", "netdev", &self.table]);
            self.host.namespace().check(&mut command)?;
            Ok(())
        };
        if let Err(error) = delete() {
            println!("{} stays silent: {error:#}", self.host.name());
        }
    }
}
