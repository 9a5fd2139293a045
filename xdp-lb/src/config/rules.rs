//! Rules for single values, the same for the file and for changes that are made at runtime.

use std::net::{IpAddr, Ipv4Addr};

use super::types::Service;
use super::vip::Vip;
use crate::lookup::MAX_WEIGHT;

/// A rule that a value breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The text is not an IP address.
    #[error(
        "`{text}` is not an IP address; write it like 192.0.2.10, without port or prefix length"
    )]
    NotAnAddress {
        /// What is written.
        text: String,
    },
    /// The text is not a prefix.
    #[error(
        "`{text}` is not a prefix; write it like 10.1.0.0/16 (up to /32) or 2001:db8:1::/48 (up to \
         /128)"
    )]
    NotAPrefix {
        /// What is written.
        text: String,
    },
    /// Bits are set that do not count.
    #[error(
        "`{text}` has bits set behind its length; write {prefix}, or {address} for that address alone"
    )]
    HostBits {
        /// What is written.
        text: String,
        /// The prefix that it lies in.
        prefix: Vip,
        /// The address without its length.
        address: IpAddr,
    },
    /// An IPv4 prefix is written as an IPv6 prefix.
    #[error("{prefix} is an IPv4 prefix in its IPv6 form; write {plain}")]
    MappedPrefix {
        /// The prefix as it is written.
        prefix: Vip,
        /// The same prefix as it should be written.
        plain: Vip,
    },
    /// The address is not one that a single host can be reached by.
    #[error("{address} is {kind}; a {role} needs an address of its own")]
    SpecialAddress {
        /// The address.
        address: IpAddr,
        /// What it is: "a loopback address".
        kind: &'static str,
        /// What it was given for: "vip" or "backend".
        role: &'static str,
    },
    /// An IPv4 address is written as an IPv6 address.
    #[error("{address} is an IPv4 address in its IPv6 form; write {plain}")]
    MappedAddress {
        /// The address as it is written.
        address: IpAddr,
        /// The same address as it should be written.
        plain: Ipv4Addr,
    },
    /// The backend's address is one of the service's VIPs.
    #[error("{address} is a vip of this service; give the backend's own address")]
    BackendIsVip {
        /// The address.
        address: IpAddr,
    },
    /// The weight is too large.
    #[error("{weight} is out of range; a weight is from 0 (drained) to {MAX_WEIGHT}")]
    Weight {
        /// The weight.
        weight: u32,
    },
}

/// Checks a backend that is to be added to `service`, or changed, with the rules that hold for one
/// in the file. That the service does not have the address yet is left to the caller.
///
/// # Errors
///
/// If the address is not one of a single host or is a VIP of the service, or if the weight is above
/// 65535.
pub fn validate_backend(service: &Service, address: IpAddr, weight: u32) -> Result<(), RuleError> {
    check_address(address, "backend")?;
    if service.vips.contains(&address.into()) {
        return Err(RuleError::BackendIsVip { address });
    }
    if weight > MAX_WEIGHT {
        return Err(RuleError::Weight { weight });
    }
    Ok(())
}

/// The address that `text` spells, if it may be that of a `role`: "vip" or "backend".
pub(super) fn parse_address(text: &str, role: &'static str) -> Result<IpAddr, RuleError> {
    let address = text.parse().map_err(|_| RuleError::NotAnAddress {
        text: text.to_owned(),
    })?;
    check_address(address, role)?;
    Ok(address)
}

/// Refuses addresses that do not lead to one host.
pub(super) fn check_address(address: IpAddr, role: &'static str) -> Result<(), RuleError> {
    if let IpAddr::V6(v6) = address
        && let Some(plain) = v6.to_ipv4_mapped()
    {
        return Err(RuleError::MappedAddress { address, plain });
    }
    let kind = match address {
        IpAddr::V4(v4) if v4.is_unspecified() => "the unspecified address",
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "an address of \"this network\"",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        _ => return Ok(()),
    };
    Err(RuleError::SpecialAddress {
        address,
        kind,
        role,
    })
}
