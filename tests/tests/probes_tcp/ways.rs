//! Ways that take less than they should, and ways that end before the backend.

use std::net::SocketAddr;

use anyhow::Result;
use tonic_health::ServingStatus;
use xdp_lb::{
    config::{Grpc, HealthCheck, Http, Probe, Statuses, Tls},
    health::{Kind, probe::Target},
};
use xdp_lb_tests::grpc::GrpcServer;
use xdp_lb_tests::identity::{Identity, VALID};
use xdp_lb_tests::misbehave::{Manner, Server};
use xdp_lb_tests::probes::{HASTY, PATIENT, ask, assert_failed, check, target};
use xtask::lab::{Lab, LabConfig};

fn http(tls: Option<Tls>) -> Probe {
    Probe::Http(Http {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        status: Statuses::default(),
        body: None,
        tls,
    })
}

#[test]
fn a_way_that_takes_less_than_its_mtu_is_found_out_by_full_size_requests() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let (director, backend) = (lab.host("director"), lab.host("backend1"));
    // Cables are to see packets as networks do.
    director.offloads("eth0", &["tso", "off", "gso", "off"])?;
    let identity = Identity::self_signed(&["a.example.com"], VALID)?.0;
    let any = Tls {
        verify: false,
        ..Tls::default()
    };
    for address in [backend.v4().into(), backend.v6().into()] {
        let _nginx = lab.start_http(backend)?;
        let tls = Server::start(
            backend.namespace(),
            address,
            0,
            Manner::Tls(identity.clone()),
        )?;
        let services = &[("", ServingStatus::Serving)];
        let grpc = GrpcServer::start(backend.namespace(), address, None, services)?;
        let asking = Grpc {
            service: String::new(),
            tls: None,
        };
        let probes = [
            (http(None), SocketAddr::new(address, 80)),
            (http(Some(any.clone())), tls.address()),
            (Probe::Grpc(asking), grpc.address()),
        ];
        for (probe, to) in probes {
            let name = probe.name();
            let ask = |full_size, mtu, patience| {
                let check = HealthCheck {
                    full_size,
                    ..check(probe.clone(), patience)
                };
                let to = Target {
                    mtu: Some(mtu),
                    ..target(to)
                };
                ask(director.namespace(), &check, &to)
            };
            assert_eq!(ask(true, 1500, PATIENT), Ok(()), "{name}");
            lab.host("fabric")
                .ip(&["link", "set", "backend1", "mtu", "1480"])?;
            assert_eq!(ask(false, 1500, PATIENT), Ok(()), "{name}");
            assert_eq!(ask(true, 1480, PATIENT), Ok(()), "{name}");
            assert_failed(
                &ask(true, 1500, HASTY),
                Kind::Timeout,
                "timeout after 400ms while waiting for the answer",
            );
            lab.host("fabric")
                .ip(&["link", "set", "backend1", "mtu", "1500"])?;
        }
    }
    Ok(())
}

#[test]
fn a_way_that_ends_is_no_fault_of_this_host() -> Result<()> {
    let lab = Lab::new(LabConfig::with_backends(1))?;
    let (director, router) = (lab.host("director"), lab.host("router"));
    let tcp = check(Probe::Tcp, PATIENT);
    let (via4, via6) = (
        router.interfaces()[1].v4.to_string(),
        router.interfaces()[1].v6.to_string(),
    );
    director.ip(&["route", "add", "203.0.113.0/24", "via", &via4])?;
    director.ip(&["route", "add", "2001:db8:ffff::/64", "via", &via6])?;
    for (kind, v4, v6) in [
        ("unreachable", "host unreachable", "network unreachable"),
        ("prohibit", "host unreachable", "prohibited"),
    ] {
        router.ip(&["route", "replace", kind, "203.0.113.0/24"])?;
        router.ip(&["route", "replace", kind, "2001:db8:ffff::/64"])?;
        for (address, reason) in [("203.0.113.1:80", v4), ("[2001:db8:ffff::1]:80", v6)] {
            let result = ask(
                director.namespace(),
                &tcp,
                &target(address.parse::<SocketAddr>()?),
            );
            assert_failed(&result, Kind::Unreachable, &format!("connect: {reason}"));
        }
    }
    Ok(())
}
