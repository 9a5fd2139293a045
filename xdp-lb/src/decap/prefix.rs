//! Networks, as one writes them: `10.0.0.2`, `10.0.0.0/24`, `2001:db8::/32`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::ParseIntError,
    str::FromStr,
};

use serde::{Serialize, Serializer};

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why something is no [`Prefix`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PrefixError {
    #[error("`{0}` is neither an address nor one with a prefix length, as in 10.0.0.0/24")]
    Address(String),
    #[error("`{text}` is no prefix length")]
    Length { text: String, source: ParseIntError },
    #[error("/{length} is more bits than {address} has")]
    TooLong { address: IpAddr, length: u8 },
    #[error("{address}/{length} has bits behind its prefix; write {meant}")]
    HostBits {
        address: IpAddr,
        length: u8,
        meant: Prefix,
    },
    #[error("{0} is an IPv4 address in IPv6's clothes; write {1}")]
    Mapped(Ipv6Addr, Ipv4Addr),
}

impl Prefix {
    /// The network of the first `length` bits of `address`.
    ///
    /// # Errors
    ///
    /// If there are bits behind the prefix, if the length is more than the address has bits, or if it
    /// is an IPv4-mapped IPv6 address, which no packet comes from.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        if length > bits(address) {
            return Err(PrefixError::TooLong { address, length });
        }
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(PrefixError::Mapped(v6, v4));
        }
        let network = network(address, length);
        if network != address {
            return Err(PrefixError::HostBits {
                address,
                length,
                meant: Self {
                    address: network,
                    length,
                },
            });
        }
        Ok(Self { address, length })
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits are the same in all of its addresses.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `address` with zeros behind its first `length` bits.
fn network(address: IpAddr, length: u8) -> IpAddr {
    let rest = u32::from(bits(address) - length);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| PrefixError::Address(text.to_owned()))?;
        let length = match length {
            Some(length) => length.parse().map_err(|source| PrefixError::Length {
                text: length.to_owned(),
                source,
            })?,
            None => bits(address),
        };
        Self::new(address, length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == bits(self.address) {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.length)
        }
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "10.0.0.2",
            "10.0.0.0/24",
            "0.0.0.0/0",
            "2001:db8::1",
            "2001:db8::/32",
            "::/0",
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10.0.0.2/32".parse::<Prefix>(),
            "10.0.0.2".parse::<Prefix>()
        );
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "neither an address"),
            ("10.0.0", "neither an address"),
            ("10.0.0.0/", "no prefix length"),
            ("10.0.0.0/x", "no prefix length"),
            ("10.0.0.0/24/1", "no prefix length"),
            ("10.0.0.0/-1", "no prefix length"),
            ("10.0.0.0/33", "more bits than"),
            ("::/129", "more bits than"),
            ("10.0.0.1/24", "write 10.0.0.0/24"),
            ("10.0.0.1/0", "write 0.0.0.0/0"),
            ("2001:db8::1/64", "write 2001:db8::/64"),
            ("::1/0", "write ::/0"),
            ("::ffff:10.0.0.2", "write 10.0.0.2"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
