//! The ways to the backends: what the kernel knows of them, and what the forwarding mode makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use xdp_lb_common::abi::NextHop;

use crate::{
    config::{Forwarding, Tunnel},
    netlink::{Exit, Hop, HopState},
};

/// How packets get to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Index of the interface that frames leave by; the program is attached to it.
    pub(super) ifindex: u32,
    /// MAC address of the next hop.
    pub(super) mac: [u8; 6],
    /// MAC address that frames come from.
    pub(super) source_mac: [u8; 6],
    /// The outer and the inner VLAN tag, as the maps hold them; 0: none.
    pub(super) tags: [u16; 2],
    /// The largest IP packet on the way, in bytes, outer headers included.
    pub(super) mtu: u16,
    /// The tunnel; None: frames go as they are.
    pub(super) tunnel: Option<TunnelEnd>,
}

/// This end of the tunnel to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TunnelEnd {
    /// [`NextHop::FLAG_IPIP`] or [`NextHop::FLAG_GUE`].
    pub(super) flag: u16,
    /// The source of the outer header, of the family of the backend.
    pub(super) source: IpAddr,
}

/// What is known of the ways to the backends.
#[derive(Clone, Copy)]
pub(super) struct Ways<'a> {
    /// Next hops by backend.
    pub(super) hops: &'a BTreeMap<IpAddr, HopState>,
    /// Indices of the interfaces that frames may leave by.
    pub(super) ports: &'a BTreeSet<u32>,
}

impl Ways<'_> {
    /// The way to the backend `address`, or why there is none.
    pub(super) fn to(
        &self,
        address: IpAddr,
        forwarding: Forwarding,
        tunnel: &Tunnel,
    ) -> Result<Way, String> {
        let (hop, gateway) = match self.hops.get(&address) {
            None => return Err("its next hop is being looked up".into()),
            Some(HopState::Known(hop)) => (Ok(hop), hop.gateway),
            Some(HopState::Unknown {
                reason, gateway, ..
            }) => (Err(reason), *gateway),
        };
        if let (Forwarding::L2, Some(gateway)) = (forwarding, gateway) {
            return Err(format!(
                "reached through {gateway}; forwarding `l2` needs it on a directly connected \
                 network, `ipip` and `gue` do not"
            ));
        }
        let hop = hop.map_err(Clone::clone)?;
        let exit = self.exit(hop)?;
        Ok(Way {
            ifindex: exit.ifindex,
            mac: hop.mac,
            source_mac: hop.source_mac,
            tags: [exit.outer_tag, exit.inner_tag],
            mtu: hop.mtu,
            tunnel: tunnel_end(address, forwarding, tunnel, hop)?,
        })
    }

    /// Where frames leave: as far down as the program is attached, since a device below a VLAN
    /// device is the one that frames come in by as well.
    fn exit(&self, hop: &Hop) -> Result<Exit, &'static str> {
        let mut exits = hop.exits.iter().flatten();
        let is_vlan = exits.clone().count() > 1;
        exits
            .rfind(|exit| self.ports.contains(&exit.ifindex))
            .copied()
            .ok_or(if is_vlan {
                "reached by a VLAN of an interface that is not among `interfaces`"
            } else {
                "reached by an interface that is not among `interfaces`"
            })
    }
}

/// The tunnel that the forwarding mode asks for.
fn tunnel_end(
    address: IpAddr,
    forwarding: Forwarding,
    tunnel: &Tunnel,
    hop: &Hop,
) -> Result<Option<TunnelEnd>, String> {
    let flag = match forwarding {
        Forwarding::L2 => return Ok(None),
        Forwarding::Ipip => NextHop::FLAG_IPIP,
        Forwarding::Gue => NextHop::FLAG_GUE,
    };
    let of_its_family = |source: &IpAddr| source.is_ipv4() == address.is_ipv4();
    let source = tunnel
        .source_for(address)
        .or(hop.source.filter(of_its_family));
    match source {
        Some(source) => Ok(Some(TunnelEnd { flag, source })),
        None => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            Err(format!(
                "its tunnel has no source: the route to it prefers no {family} address; set one \
                 with `tunnel.source`"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 11];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop() -> Hop {
        let exit = |ifindex, outer_tag, inner_tag| {
            Some(Exit {
                ifindex,
                outer_tag,
                inner_tag,
            })
        };
        Hop {
            exits: [exit(4, 0, 0), exit(3, 20, 0), exit(2, 10, 20)],
            mac: MAC,
            source_mac: [2; 6],
            mtu: 1500,
            source: Some(address("10.0.0.2")),
            gateway: None,
        }
    }

    fn to(state: HopState, ports: &[u32], forwarding: Forwarding) -> Result<Way, String> {
        way(state, ports, forwarding, &Tunnel::default())
    }

    fn way(
        state: HopState,
        ports: &[u32],
        forwarding: Forwarding,
        tunnel: &Tunnel,
    ) -> Result<Way, String> {
        let backend = address("10.0.0.11");
        let ways = Ways {
            hops: &[(backend, state)].into(),
            ports: &ports.iter().copied().collect(),
        };
        ways.to(backend, forwarding, tunnel)
    }

    #[test]
    fn frames_leave_by_the_lowest_device_that_has_the_program() {
        for (ports, ifindex, tags) in [
            (&[2][..], 2, [10, 20]),
            (&[3], 3, [20, 0]),
            (&[4, 7], 4, [0, 0]),
            (&[2, 4], 2, [10, 20]),
        ] {
            let way = to(HopState::Known(hop()), ports, Forwarding::L2).unwrap();
            assert_eq!((way.ifindex, way.tags), (ifindex, tags), "{ports:?}");
        }
        assert_eq!(
            to(HopState::Known(hop()), &[5], Forwarding::L2).unwrap_err(),
            "reached by a VLAN of an interface that is not among `interfaces`"
        );
        let mut plain = hop();
        plain.exits[1..].fill(None);
        assert_eq!(
            to(HopState::Known(plain), &[5], Forwarding::L2).unwrap_err(),
            "reached by an interface that is not among `interfaces`"
        );
    }

    #[test]
    fn only_tunnels_go_through_gateways() {
        let gateway = Some(address("10.0.0.1"));
        let hop = Hop { gateway, ..hop() };
        let way = to(HopState::Known(hop), &[2], Forwarding::Ipip).unwrap();
        assert_eq!(way.mac, MAC);
        let refused = "reached through 10.0.0.1; forwarding `l2` needs it on a directly connected \
                       network, `ipip` and `gue` do not";
        let reason = "its gateway does not answer".to_owned();
        let unknown = HopState::Unknown {
            reason: reason.clone(),
            gateway,
            is_given_up: true,
        };
        for state in [HopState::Known(hop), unknown.clone()] {
            assert_eq!(to(state, &[2], Forwarding::L2).unwrap_err(), refused);
        }
        assert_eq!(to(unknown, &[2], Forwarding::Gue), Err(reason));
    }

    #[test]
    fn a_tunnel_begins_at_the_configured_source_or_the_routes() {
        let tunnel = |source: &[&str]| Tunnel {
            source: source.iter().map(|text| address(text)).collect(),
            ..Tunnel::default()
        };
        let end = |hop: Hop, forwarding, source: &[&str]| {
            way(HopState::Known(hop), &[2], forwarding, &tunnel(source)).map(|way| way.tunnel)
        };
        let some = |flag, source| {
            Ok(Some(TunnelEnd {
                flag,
                source: address(source),
            }))
        };
        assert_eq!(end(hop(), Forwarding::L2, &[]), Ok(None));
        assert_eq!(
            end(hop(), Forwarding::Ipip, &[]),
            some(NextHop::FLAG_IPIP, "10.0.0.2")
        );
        assert_eq!(
            end(hop(), Forwarding::Gue, &["2001:db8::1", "192.0.2.1"]),
            some(NextHop::FLAG_GUE, "192.0.2.1")
        );
        let unknown = Hop {
            source: None,
            ..hop()
        };
        let other_family = Hop {
            source: Some(address("2001:db8::2")),
            ..hop()
        };
        for hop in [unknown, other_family] {
            assert_eq!(
                end(hop, Forwarding::Ipip, &["2001:db8::1"]).unwrap_err(),
                "its tunnel has no source: the route to it prefers no IPv4 address; set one with \
                 `tunnel.source`"
            );
        }
    }
}
