//! The topology with its addresses.

use super::screen::Screen;
use super::stage::{Stage, WEIGHTS, address};

const NETWORK: &str = "\
┌───────────────┐           ┌──────────┐  requests  ┌────────────────┐
│ client        │ ────────▶ │ router   │ ─────────▶ │ director       │
│ 198.51.100.10 │           │ 10.0.0.1 │            │ 10.0.0.2       │
└───────────────┘           └──────────┘            │ VIP 192.0.2.10 │
        ▲                        ▲                  │ XDP: xdp-lb    │
        │                        │                  └────────────────┘
        │                        │ replies, from             │ requests, with a
        └────────────────────────┤ the VIP itself            ▼ new MAC address";

/// Shows who is where.
pub(super) fn show(screen: &Screen, stage: &Stage) {
    screen.step("The network: nine hosts, each a network namespace");
    NETWORK.lines().for_each(|line| screen.line(line));
    for (number, weight) in (1..).zip(WEIGHTS) {
        let corner = if number < WEIGHTS.len() { "├" } else { "└" };
        let backend = format!("backend{number}  {}  weight {weight:>3}", address(number));
        screen.line(&format!(
            "                                 {corner}──── {backend}  nginx"
        ));
    }
    let spare = WEIGHTS.len() + 1;
    screen.line(&format!(
        "                                      backend{spare}  {}  stands by",
        address(spare)
    ));
    screen.good(&format!(
        "the lab {} is up, {} answers",
        stage.lab.name(),
        stage.lab.vip()
    ));
}
