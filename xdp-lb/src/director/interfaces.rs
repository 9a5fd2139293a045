//! The interfaces that the program is attached to. They are known by their names: one that is missing is waited for, and
//! one that is made anew gets the program again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{ChangeError, Director, chain, follow};
use crate::{
    config::Interface,
    dataplane::{Attachment, DataplaneError},
    netlink::{self, LinkMap},
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
        let known = std::mem::take(&mut self.interfaces.attached);
        self.interfaces.missing.clear();
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
        self.interfaces.links.borrow_and_update();
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
            follow("interfaces changed", changed);
            self.tell_obstacle();
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

fn say_attached(attached: &Attachment) {
    let Attachment {
        interface, mode, ..
    } = attached;
    info!(%interface, %mode, "attached");
    if let Some(reason) = &attached.fallback {
        warn!(%interface, %reason, "attached in generic mode, which is slower");
    }
}
