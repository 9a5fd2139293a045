//! The lab's network: which hosts there are, how they are cabled, what they route where.
//!
//! ```text
//!  client ──── router ──┐                  client    198.51.100.10  2001:db8:1::10
//!                       │ fabric (bridge)  router    198.51.100.1, 10.0.0.1
//!           director ───┤                  director  10.0.0.2       2001:db8:2::2
//!           backend1 ───┤                  backendN  10.0.0.(10+N)  2001:db8:2::(10+N)
//!           backendN ───┘                  VIPs      192.0.2.0/24, 2001:db8:10::/64
//! ```
//!
//! The router sends what goes to a VIP to the director. The backends have the VIPs on loopback,
//! never answer ARP for them, and reply through the router: direct server return.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;

use super::config::LabConfig;
use super::host::{Host, Interface};

/// What a host is for; hosts with the same role are set up alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Router,
    Director,
    Backend,
}

/// Makes all hosts of a lab, cabled and with addresses; `fabric` comes first.
pub(super) fn build(config: &LabConfig) -> Result<Vec<Arc<Host>>> {
    let fabric = Host::new("fabric", Vec::new())?;
    for scope in ["all", "default"] {
        fabric.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
    }
    fabric
        .ip_batch("link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 up")?;

    let mut hosts = Vec::new();
    for (role, name, interfaces) in plan(config) {
        let host = Host::new(&name, interfaces)?;
        set_parameters(role, &host)?;
        hosts.push((role, host));
    }
    cable(&fabric, &hosts)?;
    for (role, host) in &hosts {
        host.ip_batch(&addressing(*role, host, config))?;
        set_offloads(*role, host)?;
    }
    let hosts = hosts.into_iter().map(|(_, host)| Arc::new(host));
    Ok(std::iter::once(Arc::new(fabric)).chain(hosts).collect())
}

fn plan(config: &LabConfig) -> Vec<(Role, String, Vec<Interface>)> {
    let mut plan = vec![
        (Role::Client, "client".to_owned(), vec![outside("eth0", 10)]),
        (
            Role::Router,
            "router".to_owned(),
            vec![outside("eth0", 1), farm("eth1", 1)],
        ),
    ];
    for (number, last) in (1..=config.directors).zip(2u8..) {
        let name = if number == 1 {
            "director".to_owned()
        } else {
            format!("director{number}")
        };
        plan.push((Role::Director, name, vec![farm("eth0", last)]));
    }
    for (number, last) in (1..=config.backends).zip(11u8..) {
        plan.push((
            Role::Backend,
            format!("backend{number}"),
            vec![farm("eth0", last)],
        ));
    }
    plan
}

/// An interface in the client's network.
fn outside(name: &str, last: u8) -> Interface {
    interface(name, Ipv4Addr::new(198, 51, 100, last), 1)
}

/// An interface in the network of directors and backends.
fn farm(name: &str, last: u8) -> Interface {
    interface(name, Ipv4Addr::new(10, 0, 0, last), 2)
}

/// The IPv6 address reads like the IPv4 one: 10.0.0.11 goes with 2001:db8:2::11.
fn interface(name: &str, v4: Ipv4Addr, subnet: u16) -> Interface {
    let v6 = format!("2001:db8:{subnet}::{}", v4.octets()[3]);
    let v6 = v6.parse().expect("digits make an address");
    Interface {
        name: name.to_owned(),
        v4,
        v6,
    }
}

/// Kernel parameters; set before there are interfaces, which take theirs from `default`.
fn set_parameters(role: Role, host: &Host) -> Result<()> {
    // First: turning forwarding on resets others.
    if role == Role::Router {
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    // Lets every group use ping sockets.
    host.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
    if role == Role::Client {
        host.sysctl("net/ipv4/ip_local_port_range", "10000 65535")?;
    }
    for scope in ["all", "default"] {
        let v4 = |key: &str, value| host.sysctl(&format!("net/ipv4/conf/{scope}/{key}"), value);
        let v6 = |key: &str, value| host.sysctl(&format!("net/ipv6/conf/{scope}/{key}"), value);
        // Requests and replies take different ways.
        v4("rp_filter", "0")?;
        v4("send_redirects", "0")?;
        v4("accept_redirects", "0")?;
        v6("accept_redirects", "0")?;
        v6("accept_ra", "0")?;
        v6("accept_dad", "0")?;
        if role == Role::Backend {
            // The VIPs on loopback are nobody's business on the wire.
            v4("arp_ignore", "1")?;
            v4("arp_announce", "2")?;
        }
    }
    Ok(())
}

fn cable(fabric: &Host, hosts: &[(Role, Host)]) -> Result<()> {
    let mut script = String::new();
    for (role, host) in hosts {
        let interface = match role {
            Role::Client => continue,
            Role::Router => "eth1",
            Role::Director | Role::Backend => "eth0",
        };
        let (port, netns) = (host.name(), host.namespace().net_path());
        let netns = netns.display();
        let _ = writeln!(
            script,
            "link add {port} type veth peer name {interface} netns {netns}"
        );
        let _ = writeln!(script, "link set {port} master br0 up");
    }
    fabric.ip_batch(&script)?;
    let (client, router) = (&hosts[0].1, &hosts[1].1);
    let netns = router.namespace().net_path();
    client.ip_batch(&format!(
        "link add eth0 type veth peer name eth0 netns {}",
        netns.display()
    ))
}

/// The `ip` commands that give a host its addresses and routes.
fn addressing(role: Role, host: &Host, config: &LabConfig) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    for Interface { name, v4, v6 } in host.interfaces() {
        lines.push(format!("link set {name} up"));
        lines.push(format!("addr add {v4}/24 dev {name}"));
        lines.push(format!("addr add {v6}/64 dev {name} nodad"));
    }
    if matches!(role, Role::Director | Role::Backend) {
        lines.extend(
            config
                .vips
                .iter()
                .map(|vip| format!("addr add {vip}/32 dev lo")),
        );
        lines.extend(
            config
                .vips6
                .iter()
                .map(|vip| format!("addr add {vip}/128 dev lo nodad")),
        );
    }
    let routes: &[&str] = match role {
        Role::Client => &["default via 198.51.100.1", "default via 2001:db8:1::1"],
        Role::Router => &[
            "192.0.2.0/24 via 10.0.0.2",
            "2001:db8:10::/64 via 2001:db8:2::2",
        ],
        Role::Director | Role::Backend => &["default via 10.0.0.1", "default via 2001:db8:2::1"],
    };
    lines.extend(routes.iter().map(|route| format!("route add {route}")));
    lines.join("\n") + "\n"
}

fn set_offloads(role: Role, host: &Host) -> Result<()> {
    match role {
        // XDP sees packets before the checksums of the sender's offload are filled in, and must
        // not see frames that are larger than the wire's.
        Role::Client | Role::Router => host.interfaces().iter().try_for_each(|interface| {
            host.offloads(&interface.name, &["tx", "off", "tso", "off", "gso", "off"])
        }),
        Role::Director | Role::Backend => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_an_interface_end_alike() {
        for last in [1, 11, 99, 110, 210] {
            let interface = farm("eth0", last);
            assert_eq!(interface.v4.to_string(), format!("10.0.0.{last}"));
            assert_eq!(interface.v6.to_string(), format!("2001:db8:2::{last}"));
        }
    }

    #[test]
    fn the_largest_lab_has_addresses_for_all() {
        let config = LabConfig {
            backends: 200,
            directors: 8,
            ..LabConfig::default()
        };
        assert_eq!(plan(&config).len(), 210);
        config.check().unwrap();
    }
}
