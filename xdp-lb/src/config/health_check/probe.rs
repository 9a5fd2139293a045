//! What is asked of a backend, and which answer is right.

use std::{fmt, hash, path::PathBuf};

use regex::bytes::{Regex, RegexBuilder};
use serde::{Serialize, Serializer};

/// Memory that a compiled pattern may take, in bytes: more than any sensible one needs.
const PATTERN_BYTES: usize = 1 << 20;

/// A kind of check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Probe {
    /// A TCP connection is accepted.
    Tcp,
    /// A TLS handshake succeeds.
    Tls(Tls),
    /// An HTTP or, with TLS, HTTPS request is answered as expected.
    Http(Http),
    /// A datagram is answered as expected.
    Udp(Udp),
    /// A DNS question is answered.
    Dns(Dns),
    /// The gRPC health service says SERVING.
    Grpc(Grpc),
    /// A ping is answered.
    Icmp,
    /// A program ends with status 0.
    Command(Command),
}

impl Probe {
    /// The word for it in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls(_) => "tls",
            Self::Http(http) if http.tls.is_some() => "https",
            Self::Http(_) => "http",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
            Self::Grpc(_) => "grpc",
            Self::Icmp => "icmp",
            Self::Command(_) => "command",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Http(http) => write!(f, " {} {}", http.method, http.path),
            Self::Dns(dns) => write!(f, " {} {}", dns.name, dns.record.name()),
            Self::Grpc(grpc) if !grpc.service.is_empty() => write!(f, " {}", grpc.service),
            Self::Command(command) => write!(f, " {}", command.words.join(" ")),
            _ => Ok(()),
        }
    }
}

/// How TLS is spoken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Tls {
    /// Whether the certificate is to be valid for the name.
    pub verify: bool,
    /// The name that is asked for and verified; None: the HTTP host, else the address.
    pub server_name: Option<String>,
    /// PEM file with the certificates to trust; None: those that the system trusts.
    pub ca: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            verify: true,
            server_name: None,
            ca: None,
        }
    }
}

/// An HTTP request and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Http {
    /// The method: `GET`.
    pub method: String,
    /// Path and query, from the first `/`.
    pub path: String,
    /// The header `Host`; None: the address that is asked.
    pub host: Option<String>,
    /// The statuses that are right.
    pub status: Statuses,
    /// What is to be found in the first 64 KiB of the body; None: the body is not read.
    pub body: Option<Pattern>,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
}

/// HTTP statuses, as ranges from first to last.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    /// True if `status` is one of them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        let holds = |&(first, last): &(u16, u16)| (first..=last).contains(&status);
        self.0.iter().any(holds)
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![(200, 399)])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// A datagram and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Udp {
    /// What is sent.
    pub send: Payload,
    /// What is to be found in the answer; None: any answer will do.
    pub expect: Option<Pattern>,
}

/// What a datagram carries; at most 1,200 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Payload(pub Vec<u8>);

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.escape_ascii().to_string())
    }
}

words! {
    /// The type of a DNS record.
    RecordType {
        /// An IPv4 address.
        #[default]
        A "A",
        /// An IPv6 address.
        Aaaa "AAAA",
        /// Another name.
        Cname "CNAME",
        /// A mail server.
        Mx "MX",
        /// A name server.
        Ns "NS",
        /// A name of an address.
        Ptr "PTR",
        /// The start of a zone.
        Soa "SOA",
        /// Where a service is.
        Srv "SRV",
        /// Text.
        Txt "TXT",
    }
}

/// A DNS question, to be answered with NOERROR and one record of its type at least.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Dns {
    /// The name that is asked for.
    pub name: String,
    /// The type of record.
    pub record: RecordType,
    /// What is to be found in the text form of one of the records; None: any record will do.
    pub expect: Option<Pattern>,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Grpc {
    /// The name of the gRPC service; empty: the server as a whole.
    pub service: String,
    /// None: HTTP/2 in the clear.
    pub tls: Option<Tls>,
}

/// A program that is run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Command {
    /// Absolute path of the program, and its arguments. No shell reads them.
    pub words: Vec<String>,
}

/// A regular expression that is searched for.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern; `.` does not match line ends, and text is taken for UTF-8 or bytes.
    ///
    /// # Errors
    ///
    /// If it is not a regular expression, or an enormous one.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
        built.map(Self)
    }

    /// True if it is found in `bytes`, in time that grows with their number alone.
    #[must_use]
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl hash::Hash for Pattern {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}
