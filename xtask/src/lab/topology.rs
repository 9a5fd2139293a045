//! The lab's network: which hosts there are, how they are cabled, what they route where.
//!
//! ```text
//!  client ──── router ──┐                  client    198.51.100.10  2001:db8:1::10
//!                       │ front            router    198.51.100.1, 10.0.0.1
//!           director ───┤ (bridge)         director  10.0.0.2       2001:db8:2::2
//!           backend1 ───┤                  backendN  10.0.0.(10+N)  2001:db8:2::(10+N)
//!           backendN ───┘                  VIPs      192.0.2.0/24, 2001:db8:10::/64
//! ```
//!
//! The router sends what goes to a VIP to the director. The backends have the VIPs on loopback,
//! never answer ARP for them, and reply through the router: direct server return.
//!
//! This is [`Farm::Shared`]. The others have a second network `back`, with the director's `eth1` and the
//! router's `eth2`:
//!
//! | network | IPv4 | IPv6 | `Apart` | `Both` | `Routed` |
//! |---|---|---|---|---|---|
//! | `front` | 10.0.0.0/24 | 2001:db8:2::/64 | | backends' `eth0` | gateway1: 10.0.0.251 |
//! | `back` | 10.0.1.0/24 | 2001:db8:3::/64 | backends' `eth0` | backends' `eth1` | gateway2: 10.0.1.252 |
//! | `far` | 10.0.2.0/24 | 2001:db8:4::/64 | | | both gateways, backends |
//!
//! With `Routed`, the routes of the director and the backends lead over gateway1. [`Farm::Cabled`] is `Apart` without the
//! bridge `front`: one cable leads from the router's `eth1` to the director's `eth0`.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::config::{Farm, LabConfig};
use super::host::{Host, Interface};

/// What a host is for; hosts with the same role are set up alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Router,
    Director,
    Gateway,
    Backend,
}

/// The name of the host that stands for the switches.
pub(super) const FABRIC: &str = "fabric";

/// A network of the farm: a bridge in the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Front,
    Back,
    Far,
}

impl Network {
    fn bridge(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
            Self::Far => "far",
        }
    }

    /// The third number of its IPv4 addresses; that of its IPv6 addresses is two more.
    fn number(self) -> u8 {
        match self {
            Self::Front => 0,
            Self::Back => 1,
            Self::Far => 2,
        }
    }
}

/// A host to be: its interfaces, with the networks that they are cabled to, unless they are at an end of one of the
/// [`cables`].
struct Plan {
    role: Role,
    name: String,
    interfaces: Vec<(Interface, Option<Network>)>,
}

/// How long switches remember where a host is: a day, in hundredths of a second. Some hosts say nothing for long on a network
/// that they are sent much by, and what is for them would go to all others, too.
const REMEMBERED: u32 = 8_640_000;

/// Makes all hosts of a lab, cabled and with addresses; `fabric` comes first.
pub(super) fn build(config: &LabConfig) -> Result<Vec<Arc<Host>>> {
    let fabric = Host::new(FABRIC, Vec::new())?;
    for scope in ["all", "default"] {
        fabric.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
    }
    // Where br_netfilter is loaded, or built in: a switch hands no frames to packet filters.
    for table in ["iptables", "ip6tables", "arptables"] {
        let key = format!("net/bridge/bridge-nf-call-{table}");
        if fabric.has_sysctl(&key) {
            fabric.sysctl(&key, "0")?;
        }
    }
    let mut script = "link set lo up\n".to_owned();
    for network in [Network::Front, Network::Back, Network::Far] {
        let bridge = network.bridge();
        let _ = writeln!(
            script,
            "link add {bridge} type bridge mcast_snooping 0 ageing_time {REMEMBERED}"
        );
        let _ = writeln!(script, "link set {bridge} up");
    }
    fabric.ip_batch(&script)?;

    let mut hosts = Vec::new();
    for plan in plan(config) {
        let interfaces = plan.interfaces.iter().map(|(it, _)| it.clone()).collect();
        let host = Host::new(&plan.name, interfaces)?;
        set_parameters(plan.role, &host)?;
        hosts.push((plan, host));
    }
    cable(&fabric, &hosts, config)?;
    for (Plan { role, .. }, host) in &hosts {
        host.ip_batch(&addressing(*role, host, config))?;
        set_offloads(*role, host)?;
    }
    let hosts = hosts.into_iter().map(|(_, host)| Arc::new(host));
    Ok(std::iter::once(Arc::new(fabric)).chain(hosts).collect())
}

/// An interface of a host, by their names.
type End = (&'static str, &'static str);

/// The cables that lead from host to host, past the fabric.
fn cables(farm: Farm) -> Vec<[End; 2]> {
    let mut cables = vec![[("client", "eth0"), ("router", "eth0")]];
    cables.extend((farm == Farm::Cabled).then_some([("director", "eth0"), ("router", "eth1")]));
    cables
}

/// The far end of the cable of a host's interface: on another host, or in the fabric.
pub(super) fn far_end(farm: Farm, host: &Host, interface: &str) -> (&'static str, String) {
    let near = (host.name(), interface);
    for [one, other] in cables(farm) {
        for (end, (far, name)) in [(one, other), (other, one)] {
            if end == near {
                return (far, name.to_owned());
            }
        }
    }
    ("fabric", port(host, interface))
}

/// The name of the far end, in the fabric, of a host's cable to one of the farm's networks.
fn port(host: &Host, interface: &str) -> String {
    let name = host.name();
    // The only one in the fabric of most hosts goes by the host's name.
    match (name, interface) {
        ("router", "eth1") => "router".to_owned(),
        (_, "eth0") => name.to_owned(),
        _ => format!("{name}-{interface}"),
    }
}

fn plan(config: &LabConfig) -> Vec<Plan> {
    use Network::{Back, Far, Front};

    let mut plans = Vec::new();
    let mut add = |role, name: &str, interfaces: Vec<_>| {
        let name = name.to_owned();
        plans.push(Plan {
            role,
            name,
            interfaces,
        });
    };
    let has_back = config.farm != Farm::Shared;
    add(Role::Client, "client", vec![outside("eth0", 10)]);
    // In the network of the director and the router.
    let front = |name, last| {
        let (interface, network) = farm(name, Front, last);
        (interface, network.filter(|_| config.farm != Farm::Cabled))
    };
    let mut router = vec![outside("eth0", 1), front("eth1", 1)];
    router.extend(has_back.then(|| farm("eth2", Back, 1)));
    add(Role::Router, "router", router);
    for (number, last) in (1..=config.directors).zip(2u8..) {
        let name = match number {
            1 => "director".to_owned(),
            _ => format!("director{number}"),
        };
        let mut director = vec![front("eth0", last)];
        director.extend(has_back.then(|| farm("eth1", Back, last)));
        add(Role::Director, &name, director);
    }
    if config.farm == Farm::Routed {
        let gateway = |network, last| vec![farm("eth0", network, last), farm("eth1", Far, last)];
        add(Role::Gateway, "gateway1", gateway(Front, 251));
        add(Role::Gateway, "gateway2", gateway(Back, 252));
    }
    for (number, last) in (1..=config.backends).zip(11u8..) {
        let interfaces = match config.farm {
            Farm::Shared => vec![farm("eth0", Front, last)],
            Farm::Apart | Farm::Cabled => vec![farm("eth0", Back, last)],
            Farm::Both => vec![farm("eth0", Front, last), farm("eth1", Back, last)],
            Farm::Routed => vec![farm("eth0", Far, last)],
        };
        add(Role::Backend, &format!("backend{number}"), interfaces);
    }
    plans
}

/// An interface in the client's network.
fn outside(name: &str, last: u8) -> (Interface, Option<Network>) {
    (interface(name, Ipv4Addr::new(198, 51, 100, last), 1), None)
}

/// An interface in a network of the farm.
fn farm(name: &str, network: Network, last: u8) -> (Interface, Option<Network>) {
    let number = network.number();
    let v4 = Ipv4Addr::new(10, 0, number, last);
    (interface(name, v4, number + 2), Some(network))
}

/// The IPv6 address reads like the IPv4 one: 10.0.0.11 goes with 2001:db8:2::11.
fn interface(name: &str, v4: Ipv4Addr, subnet: u8) -> Interface {
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
    if matches!(role, Role::Router | Role::Gateway) {
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

fn cable(fabric: &Host, hosts: &[(Plan, Host)], config: &LabConfig) -> Result<()> {
    let mut script = String::new();
    for (plan, host) in hosts {
        let netns = host.namespace().net_path();
        let netns = netns.display();
        for (interface, network) in &plan.interfaces {
            let Some(network) = network else { continue };
            let (name, port) = (&interface.name, port(host, &interface.name));
            let bridge = network.bridge();
            let _ = writeln!(
                script,
                "link add {port} type veth peer name {name} netns {netns}"
            );
            let _ = writeln!(script, "link set {port} master {bridge} up");
            if plan.role == Role::Director && config.vips_on_link {
                // As a network card does: it takes no frames that are for others.
                let _ = writeln!(script, "link set {port} type bridge_slave flood off");
            }
        }
    }
    fabric.ip_batch(&script)?;
    let named = |name| {
        let mut all = hosts.iter().map(|(_, host)| host);
        all.find(|host| host.name() == name)
            .with_context(|| format!("no {name} to cable"))
    };
    for [(one, name), (other, peer)] in cables(config.farm) {
        let netns = named(other)?.namespace().net_path();
        let netns = netns.display();
        named(one)?.ip_batch(&format!(
            "link add {name} type veth peer name {peer} netns {netns}"
        ))?;
    }
    Ok(())
}

/// Makes a director's interface in a network of the farm anew, as a driver does that is loaded again: it has another
/// index, and the MAC address that it had.
pub(super) fn remake(fabric: &Host, director: &Host, name: &str, config: &LabConfig) -> Result<()> {
    let interfaces = director.interfaces().iter();
    let mut interfaces = interfaces.filter(|it| it.name == name);
    let Interface { v4, v6, .. } = interfaces.next().context("no such interface")?;
    let plans = plan(config);
    let planned = plans.iter().find(|plan| plan.name == director.name());
    let planned = planned.and_then(|plan| plan.interfaces.iter().find(|(it, _)| it.name == name));
    let network = planned.and_then(|(_, network)| *network);
    let bridge = network.context("it is not in the fabric")?.bridge();
    let mac = director.mac(name)?;
    let (port, netns) = (port(director, name), director.namespace().net_path());
    let netns = netns.display();
    fabric.ip_batch(&format!(
        "link del {port}\nlink add {port} type veth peer name {name} netns {netns}\nlink set {port} master \
         {bridge} up\n"
    ))?;
    let mut script = format!(
        "link set {name} address {mac} up\naddr add {v4}/24 dev {name}\naddr add {v6}/64 dev {name} nodad\n"
    );
    for route in routes(Role::Director, director, config) {
        let _ = writeln!(script, "route replace {route}");
    }
    director.ip_batch(&script)
}

/// The `ip` commands that give a host its addresses and routes.
fn addressing(role: Role, host: &Host, config: &LabConfig) -> String {
    let mut lines = vec!["link set lo up".to_owned()];
    for Interface { name, v4, v6 } in host.interfaces() {
        lines.push(format!("link set {name} up"));
        lines.push(format!("addr add {v4}/24 dev {name}"));
        lines.push(format!("addr add {v6}/64 dev {name} nodad"));
    }
    if role == Role::Backend || role == Role::Director && !config.vips_on_link {
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
    lines.extend(
        routes(role, host, config)
            .iter()
            .map(|route| format!("route add {route}")),
    );
    lines.join("\n") + "\n"
}

fn routes(role: Role, host: &Host, config: &LabConfig) -> Vec<&'static str> {
    let farm = config.farm;
    let default = vec!["default via 10.0.0.1", "default via 2001:db8:2::1"];
    let default_back = vec!["default via 10.0.1.1", "default via 2001:db8:3::1"];
    let far = [
        "10.0.2.0/24 via 10.0.0.251",
        "2001:db8:4::/64 via 2001:db8:2::251",
    ];
    let far = far.into_iter().filter(|_| farm == Farm::Routed);
    match (role, farm) {
        (Role::Client, _) => vec!["default via 198.51.100.1", "default via 2001:db8:1::1"],
        (Role::Router, _) if config.vips_on_link => {
            vec!["192.0.2.0/24 dev eth1", "2001:db8:10::/64 dev eth1"]
        }
        (Role::Router, _) => ["192.0.2.0/24 via 10.0.0.2"]
            .into_iter()
            .chain(["2001:db8:10::/64 via 2001:db8:2::2"])
            .chain(far)
            .collect(),
        (Role::Director, _) => default.into_iter().chain(far).collect(),
        (Role::Gateway, _) if host.name() == "gateway2" => default_back,
        (Role::Backend, Farm::Apart | Farm::Cabled) => default_back,
        (Role::Backend, Farm::Routed) => {
            vec!["default via 10.0.2.251", "default via 2001:db8:4::251"]
        }
        (Role::Gateway | Role::Backend, _) => default,
    }
}

fn set_offloads(role: Role, host: &Host) -> Result<()> {
    match role {
        // XDP sees packets before the checksums of the sender's offload are filled in, and must
        // not see frames that are larger than the wire's.
        Role::Client | Role::Router | Role::Gateway => {
            host.interfaces().iter().try_for_each(|interface| {
                host.offloads(&interface.name, &["tx", "off", "tso", "off", "gso", "off"])
            })
        }
        Role::Director | Role::Backend => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_of_an_interface_end_alike() {
        for last in [1, 11, 99, 110, 210] {
            let (interface, _) = farm("eth0", Network::Front, last);
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
        assert_eq!(plan(&config.clone().farm(Farm::Routed)).len(), 212);
        config.check().unwrap();
    }
}
