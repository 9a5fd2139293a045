//! What clients connect to: an address, or every address of a prefix.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Serialize, Serializer};

use super::rules::{RuleError, check_address, parse_address};

/// A VIP: an address, or a prefix without bits behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vip {
    address: IpAddr,
    /// Bits that count; all of them: an address.
    length: u8,
}

impl Vip {
    /// The address, or the first one of the prefix.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Number of the bits that count, where this is a prefix; None: it is an address.
    #[must_use]
    pub const fn prefix_length(self) -> Option<u8> {
        if self.length == all_bits(self.address) {
            None
        } else {
            Some(self.length)
        }
    }

    /// True if every address that is in use is one of this VIP: all of IPv4, or 2000::/3.
    pub(super) const fn is_everything(self) -> bool {
        match self.address {
            IpAddr::V4(_) => self.length == 0,
            IpAddr::V6(_) => self.length <= 3,
        }
    }

    /// The VIP that `text` spells.
    pub(super) fn parse(text: &str) -> Result<Self, RuleError> {
        let Some((address, length)) = text.split_once('/') else {
            return parse_address(text, "vip").map(Self::from);
        };
        let not_a_prefix = || RuleError::NotAPrefix {
            text: text.to_owned(),
        };
        let address: IpAddr = address.parse().map_err(|_| not_a_prefix())?;
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| is_number);
        let most = all_bits(address);
        let length = length
            .filter(|length| *length <= most)
            .ok_or_else(not_a_prefix)?;
        let vip = Self {
            address: masked(address, length),
            length,
        };
        if vip.address != address {
            return Err(RuleError::HostBits {
                text: text.to_owned(),
                prefix: vip,
                address,
            });
        }
        vip.check()?;
        Ok(vip)
    }

    /// True if `address` is it, or lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    fn check(self) -> Result<(), RuleError> {
        let length = self.length;
        let address = match self.address {
            // Not addresses that are special, but room around them.
            IpAddr::V4(v4) if length < 8 && v4.is_unspecified() => return Ok(()),
            IpAddr::V6(v6) if length < 8 && v6.is_unspecified() => return Ok(()),
            IpAddr::V4(_) => return check_address(self.address, "vip"),
            IpAddr::V6(address) => address,
        };
        match address.to_ipv4_mapped() {
            Some(plain) if length < 128 => Err(RuleError::MappedPrefix {
                prefix: self,
                plain: Self {
                    address: plain.into(),
                    length: length.saturating_sub(96),
                },
            }),
            _ => check_address(self.address, "vip"),
        }
    }
}

impl From<IpAddr> for Vip {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            length: all_bits(address),
        }
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_length() {
            None => self.address.fmt(f),
            Some(length) => write!(f, "{}/{length}", self.address),
        }
    }
}

impl Serialize for Vip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

const fn all_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first `length` bits of an address.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & !host).into()
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !host).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_vips_are_shown_as_they_are_written() {
        for (text, length) in [
            ("192.0.2.10", None),
            ("2001:db8::1", None),
            ("10.1.0.0/16", Some(16)),
            ("0.0.0.0/0", Some(0)),
            ("128.0.0.0/1", Some(1)),
            ("2000::/3", Some(3)),
            ("::/0", Some(0)),
            ("2001:db8:1::/48", Some(48)),
            ("2001:db8:1::2/127", Some(127)),
        ] {
            let vip = Vip::parse(text).unwrap();
            assert_eq!(
                (vip.to_string(), vip.prefix_length()),
                (text.into(), length)
            );
        }
        for (text, address) in [
            ("192.0.2.1/32", "192.0.2.1"),
            ("2001:db8::1/128", "2001:db8::1"),
        ] {
            assert_eq!(Vip::parse(text).unwrap(), Vip::parse(address).unwrap());
        }
    }

    #[test]
    fn bad_vips_are_refused() {
        for (text, reason) in [
            (
                "10.1.2.3/16",
                "`10.1.2.3/16` has bits set behind its length; write 10.1.0.0/16, or 10.1.2.3 for that address alone",
            ),
            (
                "10.0.0.0/33",
                "`10.0.0.0/33` is not a prefix; write it like 10.1.0.0/16 (up to /32) or 2001:db8:1::/48 (up to /128)",
            ),
            ("10.0.0.0/+8", "`10.0.0.0/+8` is not a prefix"),
            ("10.0.0.0/", "is not a prefix"),
            ("10.0.0/8", "is not a prefix"),
            ("2001:db8::/129", "is not a prefix"),
            (
                "::ffff:10.0.0.0/104",
                "::ffff:10.0.0.0/104 is an IPv4 prefix in its IPv6 form; write 10.0.0.0/8",
            ),
            ("::/96", "the unspecified address"),
            ("0.0.0.0/8", "the unspecified address"),
            ("127.0.0.0/8", "a loopback address"),
            ("224.0.0.0/4", "a multicast address"),
            ("ff00::/8", "a multicast address"),
            ("255.255.255.255/32", "the broadcast address"),
            ("web", "`web` is not an IP address"),
        ] {
            let error = Vip::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
