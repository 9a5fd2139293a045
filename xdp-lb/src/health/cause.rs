//! Why a check failed.

use std::{borrow::Cow, fmt, io};

use serde::Serialize;

/// Why a check failed, in a few words for the log: "connect: refused", "status 503", "timeout after 1s".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What kind of reason it is.
    pub kind: Kind,
    /// The words.
    pub text: Cow<'static, str>,
}

/// Kinds of reasons; the metrics count by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It took too long.
    Timeout,
    /// The backend refused the connection, or said that the port is closed.
    Refused,
    /// The connection broke.
    Reset,
    /// There is no way to the backend, or not the one that was to be checked.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// An answer came, and is not what was expected.
    Answer,
    /// This host lacks what a check takes (sockets, ports, a file): it tells nothing about the backend.
    Local,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Refused,
        Self::Reset,
        Self::Unreachable,
        Self::Tls,
        Self::Answer,
        Self::Local,
    ];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Answer => "answer",
            Self::Local => "local",
        }
    }
}

impl Cause {
    /// A cause in these words.
    pub fn new(kind: Kind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// What went wrong with a socket while `doing` something: "connect".
    #[must_use]
    pub fn io(doing: &str, error: &io::Error) -> Self {
        use io::ErrorKind;
        let (kind, reason): (_, Cow<'static, str>) = match error.kind() {
            // Of a route here, or of a firewall on the way that says so. What this process may not do is
            // EPERM, which is of the same kind.
            _ if error.raw_os_error() == Some(libc::EACCES) => {
                (Kind::Unreachable, "prohibited".into())
            }
            ErrorKind::ConnectionRefused => (Kind::Refused, "refused".into()),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                (Kind::Reset, "reset".into())
            }
            ErrorKind::UnexpectedEof => (Kind::Reset, "closed".into()),
            ErrorKind::TimedOut => (Kind::Timeout, "timed out".into()),
            ErrorKind::HostUnreachable => (Kind::Unreachable, "host unreachable".into()),
            ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                (Kind::Unreachable, "network unreachable".into())
            }
            ErrorKind::AddrInUse
            | ErrorKind::AddrNotAvailable
            | ErrorKind::OutOfMemory
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound => (Kind::Local, error.to_string().into()),
            _ => (local_or_answer(error), error.to_string().into()),
        };
        Self::new(kind, format!("{doing}: {reason}"))
    }
}

/// Errors without a kind of their own: those that say that this host has run out of something.
fn local_or_answer(error: &io::Error) -> Kind {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => {
            Kind::Local
        }
        // A setting that the kernel does not take, or a family that is switched off here.
        Some(libc::EINVAL | libc::EAFNOSUPPORT) => Kind::Local,
        _ => Kind::Answer,
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_sockets_say_what_happened_in_a_word() {
        for (code, kind, text) in [
            (libc::ECONNREFUSED, Kind::Refused, "connect: refused"),
            (libc::ECONNRESET, Kind::Reset, "connect: reset"),
            (
                libc::EHOSTUNREACH,
                Kind::Unreachable,
                "connect: host unreachable",
            ),
            (
                libc::ENETUNREACH,
                Kind::Unreachable,
                "connect: network unreachable",
            ),
            (libc::EACCES, Kind::Unreachable, "connect: prohibited"),
            (
                libc::EPERM,
                Kind::Local,
                "connect: Operation not permitted (os error 1)",
            ),
            (
                libc::EAFNOSUPPORT,
                Kind::Local,
                "connect: Address family not supported by protocol (os error 97)",
            ),
            (
                libc::EMFILE,
                Kind::Local,
                "connect: Too many open files (os error 24)",
            ),
            (
                libc::EADDRNOTAVAIL,
                Kind::Local,
                "connect: Cannot assign requested address (os error 99)",
            ),
        ] {
            let cause = Cause::io("connect", &io::Error::from_raw_os_error(code));
            assert_eq!((cause.kind, &*cause.text), (kind, text));
        }
    }
}
