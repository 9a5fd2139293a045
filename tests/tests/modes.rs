//! Every forwarding mode under real traffic: HTTP and DNS from clients of both families, in tunnels of both
//! families, in and out by one interface and by two, with tags and without.

use anyhow::{Context as _, Result, ensure};
use xdp_lb_tests::balance::{QUESTIONS, REQUESTS, dns_is_balanced, http_is_balanced};
use xdp_lb_tests::lab::{Rig, program};
use xdp_lb_tests::modes::{self, Mode};
use xtask::lab::{Farm, Lab, LabConfig};

const BACKENDS: usize = 2;
const TAG: u16 = 100;
/// Packets that a VIP's requests and questions consist of at least: SYN, ACK, request and FIN, and each
/// question.
const LEAST: u64 = 4 * REQUESTS as u64 + QUESTIONS as u64;

/// HTTP and DNS through the VIPs of every mode.
fn all_is_balanced(modes: &[Mode], config: LabConfig) -> Result<()> {
    let farm = config.farm;
    let lab = Lab::new(config)?;
    lab.decapsulate(&program())?;
    let _dns = lab.start_all_dns()?;
    let yaml = modes::config(&lab, modes);
    let rig = Rig::in_lab(lab, &yaml)?;
    for mode in modes {
        rows(&rig, mode, farm).with_context(|| format!("{} {farm:?}", mode.name))?;
    }
    Ok(())
}

fn rows(rig: &Rig, mode: &Mode, farm: Farm) -> Result<()> {
    let lab = &rig.lab;
    let director = lab.host("director");
    let leaves_by = match farm {
        Farm::Apart | Farm::Cabled => "eth1",
        Farm::Shared | Farm::Both | Farm::Routed => "eth0",
    };
    for vip in mode.vips() {
        let sent = director.tx_packets(leaves_by)?;
        let unpacked_before = unpacked(rig)?;
        http_is_balanced(lab, vip)?;
        dns_is_balanced(lab, vip)?;
        let sent = director.tx_packets(leaves_by)? - sent;
        ensure!(sent >= LEAST, "{vip}: {sent} packets left by {leaves_by}");
        let unpacked = unpacked(rig)? - unpacked_before;
        let is_right = match mode.forwarding {
            "l2" => unpacked == 0,
            _ => unpacked >= LEAST,
        };
        ensure!(is_right, "{vip}: {unpacked} packets came in tunnels");
    }
    Ok(())
}

/// The packets that all backends together have taken out of tunnels.
fn unpacked(rig: &Rig) -> Result<u64> {
    rig.lab
        .backends()
        .map(|backend| modes::decapsulated(backend, "decapsulated"))
        .sum()
}

#[test]
fn every_mode_works_in_and_out_by_one_interface() -> Result<()> {
    all_is_balanced(modes::ALL, modes::lab(modes::ALL, BACKENDS))
}

#[test]
fn every_mode_works_in_and_out_by_one_interface_with_tagged_clients() -> Result<()> {
    let config = modes::lab(modes::ALL, BACKENDS).tagged(TAG);
    all_is_balanced(modes::ALL, config)
}

#[test]
fn every_mode_works_in_by_one_interface_and_out_by_another() -> Result<()> {
    let config = modes::lab(modes::ALL, BACKENDS).farm(Farm::Apart);
    all_is_balanced(modes::ALL, config)
}

#[test]
fn every_mode_works_in_by_a_tagged_interface_and_out_by_another() -> Result<()> {
    let config = modes::lab(modes::ALL, BACKENDS)
        .farm(Farm::Apart)
        .tagged(TAG);
    all_is_balanced(modes::ALL, config)
}

#[test]
fn every_tunnel_works_through_a_gateway() -> Result<()> {
    let config = modes::lab(modes::TUNNELS, BACKENDS).farm(Farm::Routed);
    all_is_balanced(modes::TUNNELS, config)
}
