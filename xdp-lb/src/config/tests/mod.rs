//! What is accepted, and what is refused and how.

mod accepted;
mod files;
mod health_checks;
mod prefixes;
mod refused;
mod refused_services;
mod tunnels;
mod vrrp;

use super::*;

/// A service as short as it can be, with `fields` besides, in flow style.
fn service(fields: &str) -> String {
    format!(
        "{{ name: web, vip: 192.0.2.10, protocol: tcp, port: 80, backends: [10.0.0.11]{fields} }}"
    )
}

/// A file with one interface and `services`, one a line, from line 3 on.
fn file(services: &[String]) -> String {
    let mut text = "interfaces: [eth0]\nservices:\n".to_owned();
    for service in services {
        text += "  - ";
        text += service;
        text += "\n";
    }
    text
}
