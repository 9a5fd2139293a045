//! What leads packets to a service: every VIP with every port, each an address or a prefix.

use std::collections::BTreeSet;

use xdp_lb_common::abi::{PrefixKey, ServiceKey};

use super::desired::mapped;
use crate::config::{Service, Vip};

/// A key of one of the maps that lead to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// One address.
    Address(ServiceKey),
    /// Every address that begins with the first `length` bits of the key's.
    Prefix { key: PrefixKey, length: u32 },
}

impl Key {
    /// The key by which packets without ports are known to be for the same VIP.
    pub(super) const fn of_its_vip(self) -> Self {
        match self {
            Self::Address(key) => Self::Address(ServiceKey::of_vip(key.vip)),
            Self::Prefix { key, length } => Self::Prefix {
                key: PrefixKey {
                    protocol: 0,
                    port_be: [0; 2],
                    ..key
                },
                length,
            },
        }
    }
}

/// Every VIP with every port.
pub(super) fn keys(service: &Service) -> BTreeSet<Key> {
    let protocol = service.protocol.number();
    service
        .vips
        .iter()
        .flat_map(|&vip| service.ports.iter().map(move |port| (vip, port)))
        .map(|(vip, port)| key(vip, protocol, port.to_be_bytes()))
        .collect()
}

fn key(vip: Vip, protocol: u8, port_be: [u8; 2]) -> Key {
    let address = mapped(vip.address());
    let Some(length) = vip.prefix_length() else {
        return Key::Address(ServiceKey {
            vip: address,
            port_be,
            protocol,
            reserved: 0,
        });
    };
    Key::Prefix {
        key: PrefixKey {
            protocol,
            version: if vip.address().is_ipv4() { 4 } else { 6 },
            port_be,
            address,
        },
        // Those that the mapped form has in front.
        length: u32::from(length) + if vip.address().is_ipv4() { 96 } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn each_vip_has_a_key_for_each_port() {
        let text = "interfaces: [eth0]\nservices:\n- { name: dns, vip: [192.0.2.10, 10.1.0.0/16, \
                    \"2001:db8:1::/48\"], protocol: udp, port: [53, 443], backends: [] }\n";
        let config = config::parse(text, "test").unwrap();
        let keys = keys(&config.services[0]);
        let port_be = [0, 53];
        let prefix = |address: &str, version, length| Key::Prefix {
            key: PrefixKey {
                protocol: 17,
                version,
                port_be,
                address: mapped(address.parse().unwrap()),
            },
            length,
        };
        let address = Key::Address(ServiceKey {
            vip: mapped([192, 0, 2, 10].into()),
            port_be,
            protocol: 17,
            reserved: 0,
        });
        assert_eq!(keys.len(), 6);
        let prefixes = [prefix("10.1.0.0", 4, 112), prefix("2001:db8:1::", 6, 48)];
        for key in [address].into_iter().chain(prefixes) {
            assert!(keys.contains(&key), "{key:?}");
        }
    }

    #[test]
    fn the_key_of_a_mere_vip_has_neither_protocol_nor_port() {
        let key = PrefixKey {
            protocol: 6,
            version: 6,
            port_be: [0, 80],
            address: [1; 16],
        };
        let Key::Prefix { key, length } = (Key::Prefix { key, length: 9 }).of_its_vip() else {
            panic!("another kind of key");
        };
        assert_eq!((key.protocol, key.port_be, length), (0, [0; 2], 9));
        assert_eq!(key.address, [1; 16]);
    }
}
