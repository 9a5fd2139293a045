//! The interfaces that the program is attached to. They are known by their names: one that is missing is waited for, and
//! one that is made anew gets the program again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{ChangeError, Director, chain, tables::Moved};
use crate::{
    config::{FramesTaken, Interface},
    dataplane::{Attachment, DataplaneError},
    netlink::{self, Link, LinkMap},
};

/// Most things that are said to be waited for at a time.
const MOST_AWAITED: usize = 5;

/// Where the program is attached, and where it is not.
pub(super) struct Interfaces {
    links: watch::Receiver<LinkMap>,
    /// By name, for interfaces of the config.
    attached: BTreeMap<String, Attachment>,
    /// Why the program is not attached to the others.
    missing: BTreeMap<String, String>,
    /// The MAC addresses that frames for this host have, by the indices of the interfaces.
    macs: Vec<(u32, Vec<[u8; 6]>)>,
}

impl Interfaces {
    /// Begins, attached to nothing.
    ///
    /// # Errors
    ///
    /// If no netlink socket can be had.
    pub(super) fn follow() -> io::Result<Self> {
        Ok(Self {
            links: netlink::follow_links()?,
            attached: BTreeMap::new(),
            missing: BTreeMap::new(),
            macs: Vec::new(),
        })
    }

    /// Waits until an interface of this host has changed.
    pub(super) async fn changed(&mut self) {
        if self.links.changed().await.is_err() {
            // It is looked at each second besides.
            std::future::pending::<()>().await;
        }
    }

    /// Where the program is attached.
    pub(super) fn attached(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.values()
    }

    /// The interfaces of the config that it is not attached to, and why.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&str, &str)> {
        let missing = self.missing.iter();
        missing.map(|(name, reason)| (name.as_str(), reason.as_str()))
    }

    fn ports(&self) -> BTreeSet<u32> {
        self.attached().map(|attached| attached.ifindex).collect()
    }
}

impl Director {
    /// Attaches to all interfaces of the config, and to no others. One that does not exist is waited for.
    ///
    /// # Errors
    ///
    /// If an interface does not take the program.
    pub(super) fn attach_all(&mut self) -> Result<(), ChangeError> {
        self.take_macs();
        let known = std::mem::take(&mut self.interfaces.attached);
        let missing = std::mem::take(&mut self.interfaces.missing);
        for interface in self.config.interfaces.clone() {
            let mut attached = match self.dataplane.attach(&interface) {
                Ok(attached) => attached,
                Err(error @ DataplaneError::NoInterface { .. }) => {
                    warn!("{error}; it is waited for");
                    self.note_missing(&interface, &error);
                    continue;
                }
                Err(error) => {
                    self.interfaces.attached = known;
                    self.interfaces.missing = missing;
                    return Err(error.into());
                }
            };
            match known.get(&interface.name) {
                Some(before)
                    if (before.ifindex, before.mode) == (attached.ifindex, attached.mode) =>
                {
                    attached.fallback.clone_from(&before.fallback);
                }
                _ => say_attached(&attached),
            }
            self.interfaces
                .attached
                .insert(interface.name.clone(), attached);
        }
        self.take_ports()
    }

    /// Attaches where an interface has come or the program is gone, as far as that can be done now.
    pub(super) fn follow_interfaces(&mut self) {
        self.take_macs();
        let mut is_news = false;
        for interface in self.config.interfaces.clone() {
            let held = self.interfaces.attached.get(&interface.name);
            if held.is_some_and(|held| self.dataplane.is_attached(held)) {
                continue;
            }
            if let Some(gone) = self.interfaces.attached.remove(&interface.name) {
                is_news = true;
                self.health.forget_port(gone.ifindex);
                warn!(
                    interface = interface.name,
                    "the program is not attached any more"
                );
            }
            match self.dataplane.attach(&interface) {
                Ok(attached) => {
                    is_news = true;
                    say_attached(&attached);
                    self.interfaces.missing.remove(&interface.name);
                    self.interfaces
                        .attached
                        .insert(interface.name.clone(), attached);
                }
                Err(error) => {
                    if self.note_missing(&interface, &error) {
                        warn!("{}; it is tried again", chain(&error));
                    }
                }
            }
        }
        if is_news {
            if let Err(error) = self.take_ports() {
                warn!(error = %chain(&error), "links of interfaces that are gone");
            }
            let changed = self.apply();
            self.follow("interfaces changed", changed);
            self.tell_obstacle();
        }
    }

    /// Tells the program which frames are for this host.
    pub(super) fn take_macs(&mut self) {
        let links = Arc::clone(&self.interfaces.links.borrow_and_update());
        let taken = self.config.interfaces.iter();
        let taken = taken.filter(|interface| interface.frames == FramesTaken::Own);
        let ports: Vec<_> = taken
            .filter_map(|interface| {
                let link = links.get(&interface.name)?;
                Some((link.ifindex, macs(link, &links)))
            })
            .collect();
        if self.interfaces.macs == ports {
            return;
        }
        for ifindex in self.dataplane.set_port_macs(&ports) {
            warn!(
                ifindex,
                "there is no room for the MAC addresses of the interface: frames to any are taken"
            );
        }
        self.interfaces.macs = ports;
    }

    /// Says what a change outside moved, and tries it again where it failed.
    pub(super) fn follow(
        &mut self,
        what: &str,
        changed: Result<BTreeMap<String, Moved>, ChangeError>,
    ) {
        /// Until then something may have been freed.
        const RETRY: Duration = Duration::from_secs(1);
        match changed {
            Ok(report) => {
                for (service, moved) in report.iter().filter(|(_, moved)| moved.slots_moved > 0) {
                    let Moved {
                        slots_moved,
                        table_size,
                    } = moved;
                    info!(%service, slots_moved, table_size, "{what}");
                }
            }
            Err(error) => {
                warn!(error = %chain(&error), "{what}, tables did not");
                self.retry = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Backends behind an interface without the program cannot be sent packets.
    fn take_ports(&mut self) -> Result<(), ChangeError> {
        self.ports = self.interfaces.ports();
        let wanted: Vec<u32> = self.ports.iter().copied().collect();
        Ok(self.dataplane.detach_others(&wanted)?)
    }

    /// True if that is news.
    fn note_missing(&mut self, interface: &Interface, error: &DataplaneError) -> bool {
        let reason = chain(error);
        let missing = &mut self.interfaces.missing;
        let is_news = missing.get(&interface.name) != Some(&reason);
        missing.insert(interface.name.clone(), reason);
        is_news
    }

    /// Tells VRRP what keeps this director from being active, if anything does.
    pub(super) fn tell_obstacle(&self) {
        let missing = self.interfaces.missing().next();
        let obstacle = match missing {
            Some((_, reason)) => Some(format!("the program is not attached: {reason}")),
            None if !self.fresh.is_ready() => Some(format!(
                "the director is not ready: it waits for {}",
                self.waits_for()
            )),
            None => None,
        };
        self.vrrp.set_obstacle(obstacle);
    }

    /// What the director waits for, in words.
    fn waits_for(&self) -> String {
        let mut words: Vec<_> = self.awaited.iter().map(ToString::to_string).collect();
        if words.is_empty() {
            return "its tables".into();
        }
        if let Some(more) = words
            .len()
            .checked_sub(MOST_AWAITED)
            .filter(|&more| more > 0)
        {
            words.truncate(MOST_AWAITED);
            words.push(format!("{more} more"));
        }
        words.join(", ")
    }
}

/// The MAC addresses that frames for this host have on an interface: its own, those of devices on top of it (macvlans, the virtual
/// MAC addresses of VRRP among them, while they have an address), and that of the bridge or the like that it is a
/// port of. What traffic to the VIPs has comes first.
fn macs(link: &Link, links: &LinkMap) -> Vec<[u8; 6]> {
    const OF_VRRP: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];
    let is_virtual = |mac: &[u8; 6]| mac.starts_with(&OF_VRRP);
    let mut on_top = vec![link.ifindex];
    on_top.extend(link.master);
    // Devices on devices: as often as there can be something new.
    for _ in 0..links.len() {
        let more = links.values().filter(|it| {
            !on_top.contains(&it.ifindex) && it.below.is_some_and(|below| on_top.contains(&below))
        });
        let more: Vec<_> = more.map(|it| it.ifindex).collect();
        if more.is_empty() {
            break;
        }
        on_top.extend(more);
    }
    let ours = links.values().filter(|it| on_top.contains(&it.ifindex));
    let ours = ours.filter(|it| !is_virtual(&it.mac) || !it.addresses.is_empty());
    let mut macs: Vec<_> = ours.map(|it| it.mac).filter(|mac| *mac != [0; 6]).collect();
    macs.sort_by_key(|mac| (!is_virtual(mac), *mac != link.mac, *mac));
    macs.dedup();
    macs
}

fn say_attached(attached: &Attachment) {
    let Attachment {
        interface, mode, ..
    } = attached;
    info!(%interface, %mode, "attached");
    if let Some(reason) = &attached.fallback {
        warn!(%interface, %reason, "attached in generic mode, which is slower");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, mac: u8, below: Option<u32>, master: Option<u32>) -> Link {
        Link {
            ifindex,
            is_running: true,
            mac: [2, 0, 0, 0, 0, mac],
            below,
            master,
            addresses: Vec::new(),
        }
    }

    #[test]
    fn frames_for_this_host_have_the_addresses_of_what_is_on_top() {
        let eth0 = link(2, 2, None, Some(9));
        let mut vrrp = link(5, 0, Some(2), None);
        vrrp.mac = [0, 0, 0x5e, 0, 1, 51];
        let all = [
            ("eth0", eth0.clone()),
            ("eth1", link(3, 3, None, None)),
            // A macvlan, one on another, and a VLAN with the same address.
            ("mv0", link(4, 4, Some(2), None)),
            ("mv1", link(6, 6, Some(4), None)),
            ("eth0.7", link(7, 2, Some(2), None)),
            ("v4-51-eth0", vrrp),
            ("br0", link(9, 9, None, None)),
            ("mv-br0", link(10, 10, Some(9), None)),
        ];
        let mut links: BTreeMap<String, Link> = BTreeMap::new();
        links.extend(all.map(|(name, link)| (name.to_owned(), link)));
        let macs_of = |links: &BTreeMap<String, Link>| {
            let macs = macs(&eth0, &Arc::new(links.clone()));
            macs.into_iter().map(|mac| mac[5]).collect::<Vec<_>>()
        };
        assert_eq!(macs_of(&links), [2, 4, 6, 9, 10]);
        // The virtual one counts while it has an address, and is found first then.
        let vrrp = links.get_mut("v4-51-eth0").unwrap();
        vrrp.addresses.push(netlink::IfAddress {
            address: [192, 0, 2, 10].into(),
            prefix: 32,
            is_tentative: false,
        });
        assert_eq!(macs_of(&links), [51, 2, 4, 6, 9, 10]);
    }
}
