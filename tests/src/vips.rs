//! The part of VRRP that has addresses, on its own: on a host of the lab, without a daemon.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, Runtime};
use xdp_lb::netlink::follow_links;
use xdp_lb::vrrp::VirtualAddress;
use xdp_lb::vrrp::ownership::{Held, Holding, Ownership, Wanted};
use xtask::lab::{Host, wait_for};

use crate::lab::SOON;
use crate::vrrp::{has_address, neighbour};

/// What the tests' virtual routers are called: an IPv4 one, and an IPv6 one.
const IDS: [usize; 2] = [4, 6];

/// Has addresses on a host. Dropping it is like killing a daemon: what is there stays.
#[derive(Debug)]
pub struct Holder {
    ownership: Ownership,
    runtime: Runtime,
}

impl Holder {
    /// Begins, as a daemon does, and knows of the addresses that earlier ones have left by the file `record`.
    pub fn start(host: &Host, record: &Path) -> Result<Self> {
        host.run(|| {
            // Its thread is of the host's namespace, as this one is.
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let ownership = {
                let _inside = runtime.enter();
                Ownership::start(record.to_owned(), follow_links()?)?
            };
            Ok(Self { ownership, runtime })
        })
    }

    /// Wants these, and waits until that is so or has failed.
    pub fn set(&self, holdings: &[Holding], wanted: Wanted) {
        for holding in holdings {
            let id = IDS[usize::from(holding.is_ipv6)];
            self.ownership.set(id, holding.clone(), wanted);
        }
        self.flush();
    }

    /// There is nothing else to be set.
    pub fn all_known(&self) {
        self.ownership.all_known();
        self.flush();
    }

    /// Waits until all that was asked for is done, or has failed.
    pub fn flush(&self) {
        self.runtime.block_on(self.ownership.flush());
    }

    /// What it says of an address.
    pub fn held(&self, address: IpAddr) -> Result<Held> {
        let held = self.ownership.held();
        let found = held.into_iter().find(|((_, it), _)| it.address == address);
        let (_, found) = found.with_context(|| format!("{address} is not known"))?;
        Ok(found)
    }

    /// Waits until it says so of an address.
    pub fn wait_for(
        &self,
        what: &str,
        address: IpAddr,
        is_so: impl Fn(&Held) -> bool,
    ) -> Result<()> {
        wait_for(what, SOON, || Ok(is_so(&self.held(address)?).then_some(())))
    }
}

/// Virtual router 51 on `eth0`, with addresses such as `192.0.2.10/32`, all of one family.
///
/// # Panics
///
/// If one of them is none.
#[must_use]
pub fn holding(addresses: &[&str]) -> Holding {
    let addresses: Vec<_> = addresses.iter().map(|text| address(text)).collect();
    Holding {
        interface: "eth0".into(),
        vrid: 51,
        is_ipv6: addresses[0].address.is_ipv6(),
        addresses,
        virtual_mac: false,
    }
}

fn address(text: &str) -> VirtualAddress {
    let (address, prefix) = text.split_once('/').expect("an address and a prefix");
    VirtualAddress {
        address: address.parse().expect("an address"),
        prefix: prefix.parse().expect("a prefix"),
    }
}

/// The addresses of virtual routers.
pub fn addresses(holdings: &[Holding]) -> impl Iterator<Item = IpAddr> {
    let all = holdings.iter().flat_map(|holding| &holding.addresses);
    all.map(|vip| vip.address)
}

/// Checks that a host has all of their addresses, or none.
pub fn check_addresses(host: &Host, holdings: &[Holding], expected: bool) -> Result<()> {
    for address in addresses(holdings) {
        let found = has_address(host, &address.to_string())?;
        ensure!(found == expected, "{address} on {}: {found}", host.name());
    }
    Ok(())
}

/// Waits until a host sends packets for all of their addresses to this MAC address, though it has not asked.
pub fn wait_for_neighbours(host: &Host, holdings: &[Holding], mac: &str) -> Result<()> {
    for address in addresses(holdings) {
        let what = format!("{} to send to {mac} for {address}", host.name());
        wait_for(&what, SOON, || {
            Ok((neighbour(host, address)?.as_deref() == Some(mac)).then_some(()))
        })?;
    }
    Ok(())
}

/// Checks that all of their addresses answer a host.
pub fn check_answers(host: &Host, holdings: &[Holding]) -> Result<()> {
    for address in addresses(holdings) {
        ensure!(host.pings(address)?, "{address} does not answer");
    }
    Ok(())
}
