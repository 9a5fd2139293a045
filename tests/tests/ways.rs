//! Ways to the backends: tunnels through gateways, VLANs, routes and links that come and go.

use anyhow::{Context, Result};
use xdp_lb_tests::lab::{Rig, SOON};
use xtask::{
    lab::{Lab, LabConfig, wait_for},
    test::libtest::UNSUPPORTED,
};

/// A service with these backends.
fn web(fields: &str, backends: &str) -> String {
    format!(
        "interfaces: [eth0]\nservices:\n- {{ name: web, vip: 192.0.2.10, protocol: tcp, port: 80, \
         {fields} backends: [{backends}] }}\n"
    )
}

/// A lab whose backend1 also has an address behind itself, to which the director has a route.
fn routed_lab() -> Result<Lab> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    lab.host("backend1")
        .ip(&["addr", "add", "10.9.0.11/32", "dev", "lo"])?;
    let route = ["route", "add", "10.9.0.0/24", "via", "10.0.0.11"];
    lab.host("director").ip(&route)?;
    Ok(lab)
}

/// State and reason of the only backend.
fn state(rig: &Rig) -> Result<(String, String)> {
    let backends = rig.json(&["backend", "list"])?;
    let text = |name: &str| backends[0][name].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("reason")))
}

/// Waits until the only backend is unreachable for a reason with `part` in it.
fn wait_for_reason(rig: &Rig, part: &str) -> Result<()> {
    wait_for(&format!("the reason `{part}`"), SOON, || {
        let (state, reason) = state(rig)?;
        Ok((state == "unreachable" && reason.contains(part)).then_some(()))
    })
}

fn wait_for_active(rig: &Rig) -> Result<()> {
    wait_for("the backend to be active", SOON, || {
        Ok((state(rig)?.0 == "active").then_some(()))
    })
}

#[test]
fn a_tunnel_goes_through_a_gateway_and_follows_its_route() -> Result<()> {
    for mode in ["ipip", "gue"] {
        let config = web(&format!("forwarding: {mode},"), "10.9.0.11");
        let rig = Rig::in_lab(routed_lab()?, &config)?;
        let gateway = rig.lab.host("backend1").mac("eth0")?;
        let backends = rig.json(&["backend", "list"])?;
        assert_eq!(backends[0]["mac"], *gateway);

        let director = rig.lab.host("director");
        let mut route = ["route", "del", "10.9.0.0/24", "via", "10.0.0.11"];
        director.ip(&["route", "del", "default"])?;
        director.ip(&route)?;
        wait_for_reason(&rig, "no route")?;
        route[1] = "add";
        director.ip(&route)?;
        wait_for_active(&rig)?;

        let fabric = rig.lab.host("fabric");
        fabric.ip(&["link", "set", "director", "down"])?;
        wait_for_reason(&rig, "eth0, which has no carrier")?;
        fabric.ip(&["link", "set", "director", "up"])?;
        wait_for_active(&rig)?;
        // The kernel takes the routes away.
        director.ip(&["link", "set", "eth0", "down"])?;
        wait_for_reason(&rig, "no route")?;
    }
    Ok(())
}

#[test]
fn without_a_tunnel_a_gateway_is_refused_until_a_reload_asks_for_one() -> Result<()> {
    let lab = routed_lab()?;
    let config = web("", "10.9.0.11");
    let mut rig = Rig {
        director: lab.start_director(&xdp_lb_tests::lab::program(), &config)?,
        servers: Vec::new(),
        lab,
    };
    wait_for_reason(&rig, "reached through 10.0.0.11; forwarding `l2`")?;
    let tunnel = web("forwarding: ipip,", "10.9.0.11");
    rig.director.write_config(&tunnel)?;
    rig.director.check(&["config", "reload"])?;
    wait_for_active(&rig)?;

    rig.director
        .write_config(&format!("{tunnel}tunnel: {{ gue_port: 6081 }}\n"))?;
    let refused = rig.director.cli(&["config", "reload"])?;
    let said = xdp_lb_tests::lab::stderr(&refused);
    assert!(
        !refused.status.success() && said.contains("restart the daemon"),
        "{said}"
    );
    rig.director.restart()?;
    wait_for_active(&rig)
}

#[test]
fn a_backend_on_a_vlan_is_reached_by_the_interface_below() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let add: Vec<_> = "link add link eth0 name eth0.100 type vlan id 100"
        .split(' ')
        .collect();
    for (name, address) in [
        ("director", "10.100.0.2/24"),
        ("backend1", "10.100.0.11/24"),
    ] {
        let host = lab.host(name);
        if let Err(error) = host.ip(&add) {
            if error.to_string().contains("Unknown device type") {
                println!("{UNSUPPORTED}it has no VLAN devices");
                return Ok(());
            }
            return Err(error);
        }
        host.ip(&["addr", "add", address, "dev", "eth0.100"])?;
        host.ip(&["link", "set", "eth0.100", "up"])?;
    }
    let rig = Rig::in_lab(lab, &web("", "10.100.0.11"))?;
    let shares = rig.shares(20)?;
    assert!(shares.keys().eq(["backend1"]), "{shares:?}");
    let director = rig.lab.host("director");
    director.ip(&["link", "set", "eth0.100", "down"])?;
    wait_for("the backend to be out", SOON, || {
        Ok((state(&rig)?.0 == "unreachable").then_some(()))
    })?;
    director.ip(&["link", "set", "eth0.100", "up"])?;
    wait_for_active(&rig).context("after the VLAN is up again")
}

#[test]
fn a_service_by_prefix_serves_every_address_of_it_and_keeps_its_table() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(2))?;
    let config = web("", "10.0.0.11, 10.0.0.12").replace("192.0.2.10", "192.0.2.0/24");
    let mut rig = Rig::in_lab(lab, &config)?;
    let services = rig.json(&["service", "list"])?;
    assert_eq!(services[0]["vips"][0], "192.0.2.0/24");
    assert!(
        rig.director
            .check(&["service", "list"])?
            .contains("192.0.2.0/24")
    );
    assert_eq!(rig.shares(100)?.len(), 2);
    let slots = |rig: &Rig| -> Result<_> { Ok(rig.backend(1)?["slots"].clone()) };
    let before = slots(&rig)?;
    rig.director.restart()?;
    rig.wait_until_active()?;
    assert_eq!(slots(&rig)?, before);
    let services = rig.json(&["service", "list"])?;
    assert_eq!(services[0]["moving_slots"], 0, "its table was found");
    assert_eq!(rig.shares(100)?.len(), 2);
    Ok(())
}
