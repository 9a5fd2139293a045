//! The host's network devices: their addresses and states, and which VLANs they are. Sans-I/O.

use std::collections::HashMap;

/// Tags that a frame may have: a device may be a VLAN of a VLAN.
const MOST_TAGS: usize = 2;

/// Devices that a frame may leave by: the one of the route, and those that it is a VLAN of.
pub type Exits = [Option<Exit>; MOST_TAGS + 1];

/// A device that frames may leave by, and the tags that they need there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Index of the device.
    pub ifindex: u32,
    /// The outer tag, as [`tag`](xdp_lb_common::abi::BackendEntry::tag) makes it; 0: none.
    pub outer_tag: u16,
    /// The inner tag; 0: none.
    pub inner_tag: u16,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its name, for people.
    pub(super) name: String,
    /// Its MAC address; None where it is no Ethernet device.
    pub(super) mac: Option<[u8; 6]>,
    /// The largest IP packet that it takes, in bytes.
    pub(super) mtu: u32,
    /// Whether frames can leave by it.
    pub(super) state: LinkState,
    /// Which VLAN it is, if it is one.
    pub(super) vlan: Option<Vlan>,
    /// Index of the device that it is on top of, if it is.
    pub(super) below: Option<u32>,
    /// Index of the bridge or the like that it is a port of, if it is.
    pub(super) master: Option<u32>,
}

/// Whether frames can leave by a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// They can.
    Up,
    /// It is switched on, and nothing is at the other end.
    NoCarrier,
    /// It is switched off.
    Down,
}

/// What a VLAN device does to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vlan {
    /// Index of the device that it is a VLAN of.
    pub(super) parent: u32,
    /// The tag that it adds, as [`tag`](xdp_lb_common::abi::BackendEntry::tag) makes it.
    pub(super) tag: u16,
}

/// All devices, by index.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<u32, Link>);

impl Links {
    /// Takes what is said about a device. True if that is new.
    pub(super) fn set(&mut self, ifindex: u32, link: Link) -> bool {
        self.0.get(&ifindex) != Some(&link) && {
            self.0.insert(ifindex, link);
            true
        }
    }

    pub(super) fn remove(&mut self, ifindex: u32) {
        self.0.remove(&ifindex);
    }

    /// The device at `ifindex`.
    ///
    /// # Errors
    ///
    /// If it is not known, or cannot send.
    pub(super) fn get(&self, ifindex: u32) -> Result<&Link, String> {
        let link = self
            .0
            .get(&ifindex)
            .ok_or("reached by an interface that is not known yet")?;
        let name = &link.name;
        match link.state {
            LinkState::Up => Ok(link),
            LinkState::NoCarrier => Err(format!("reached by {name}, which has no carrier")),
            LinkState::Down => Err(format!("reached by {name}, which is down")),
        }
    }

    /// The devices that frames for the device at `ifindex` may leave by.
    ///
    /// # Errors
    ///
    /// If one of them cannot send.
    pub(super) fn exits(&self, ifindex: u32) -> Result<Exits, String> {
        let mut exit = Exit {
            ifindex,
            outer_tag: 0,
            inner_tag: 0,
        };
        let mut exits = Exits::default();
        for (place, tags) in exits.iter_mut().zip(0..) {
            let link = self.get(exit.ifindex)?;
            *place = Some(exit);
            // A device further down would need one tag more than there can be.
            let Some(Vlan { parent, tag }) = link.vlan.filter(|_| tags < MOST_TAGS) else {
                break;
            };
            exit = Exit {
                ifindex: parent,
                outer_tag: tag,
                inner_tag: exit.outer_tag,
            };
        }
        Ok(exits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, vlan: Option<(u32, u16)>) -> Link {
        Link {
            name: name.into(),
            mac: Some([2; 6]),
            mtu: 1500,
            state: LinkState::Up,
            vlan: vlan.map(|(parent, tag)| Vlan { parent, tag }),
            below: None,
            master: None,
        }
    }

    fn links() -> Links {
        let mut links = Links::default();
        links.set(2, link("eth0", None));
        links.set(3, link("eth0.10", Some((2, 0x800a))));
        links.set(4, link("eth0.10.20", Some((3, 20))));
        links.set(5, link("eth0.10.20.30", Some((4, 30))));
        links
    }

    fn exits(ifindex: u32) -> Vec<(u32, u16, u16)> {
        let exits = links().exits(ifindex).unwrap().into_iter().flatten();
        exits
            .map(|exit| (exit.ifindex, exit.outer_tag, exit.inner_tag))
            .collect()
    }

    #[test]
    fn the_tag_of_the_device_below_is_the_outer_one() {
        assert_eq!(exits(2), [(2, 0, 0)]);
        assert_eq!(exits(3), [(3, 0, 0), (2, 0x800a, 0)]);
        assert_eq!(exits(4), [(4, 0, 0), (3, 20, 0), (2, 0x800a, 20)]);
    }

    #[test]
    fn three_tags_are_too_many() {
        assert_eq!(exits(5), [(5, 0, 0), (4, 30, 0), (3, 20, 30)]);
    }

    #[test]
    fn a_device_that_is_down_takes_its_vlans_along() {
        let mut links = links();
        let down = Link {
            state: LinkState::Down,
            ..link("eth0", None)
        };
        links.set(2, down.clone());
        assert_eq!(
            links.exits(4).unwrap_err(),
            "reached by eth0, which is down"
        );
        let without_carrier = Link {
            state: LinkState::NoCarrier,
            ..down
        };
        links.set(2, without_carrier);
        assert_eq!(
            links.exits(3).unwrap_err(),
            "reached by eth0, which has no carrier"
        );
    }

    #[test]
    fn what_is_said_again_is_not_new() {
        let mut links = links();
        assert!(!links.set(2, link("eth0", None)));
        assert!(links.set(2, link("eth1", None)));
        links.remove(2);
        assert!(links.exits(2).is_err());
    }

    #[test]
    fn devices_in_a_circle_are_walked_round_no_more_than_twice() {
        let mut links = Links::default();
        links.set(2, link("a", Some((3, 1))));
        links.set(3, link("b", Some((2, 2))));
        assert_eq!(links.exits(2).unwrap().into_iter().flatten().count(), 3);
    }
}
