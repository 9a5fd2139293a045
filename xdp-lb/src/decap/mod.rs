//! Decapsulation on backends: what `xdp-lb decap` is asked for.
//!
//! It needs no daemon and no config file: a program is loaded, attached and pinned, one for each
//! interface, and works on without a process. How that is done is in
//! [`dataplane::decap`](crate::dataplane::decap).

mod prefix;

use std::path::Path;

use serde::Serialize;

pub use self::prefix::{Prefix, PrefixError};
use crate::dataplane::PinDirectory;

/// Where the interfaces' pin directories are where nobody asks for another place.
pub const PINS: &str = "/sys/fs/bpf/xdp-lb-decap";

/// Which packets are decapsulated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// UDP port on which GUE comes in.
    pub gue_port: u16,
    /// Whose packets are decapsulated; those of all where it is empty.
    pub from: Vec<Prefix>,
}

impl Default for Settings {
    /// GUE on its usual port, from everybody.
    fn default() -> Self {
        Self {
            gue_port: xdp_lb_common::decap::GUE_PORT,
            from: Vec::new(),
        }
    }
}

/// The pin directory of an interface, below `base`.
#[must_use]
pub fn pins(base: &Path, interface: &str) -> PinDirectory {
    PinDirectory::new(base.join(folder(interface)))
}

/// An interface's name as that of a folder. A BPF file system takes no names with dots, which those of
/// VLANs have.
fn folder(interface: &str) -> String {
    let mut name = String::new();
    for character in interface.chars() {
        match character {
            '.' => name.push_str("%2e"),
            '/' => name.push_str("%2f"),
            '%' => name.push_str("%25"),
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_a_folder_of_its_own_below_the_base() {
        let names = ["eth0", "eth0.100", "eth0%2e100", "..", "../x", "a/b"];
        let folders = ["eth0", "eth0%2e100", "eth0%252e100", "%2e%2e"];
        for (name, expected) in names.iter().zip(folders) {
            assert_eq!(folder(name), expected);
        }
        for name in names {
            assert!(!folder(name).contains(['.', '/']), "{name}");
        }
    }
}
