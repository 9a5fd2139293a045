//! Why a change was not made.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::flows::FilterError;
use crate::{
    config::{ConfigError, Protocol},
    dataplane::DataplaneError,
};

/// Why a change was not made. What was running goes on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ChangeError {
    #[error("no service `{name}`; there are: {known}")]
    NoService { name: String, known: String },
    #[error(
        "service `{service}` has no backend {address}; `xdp-lb backend list {service}` shows those it has"
    )]
    NoBackend { service: String, address: IpAddr },
    #[error("no service has a backend {address}; `xdp-lb backend list` shows those there are")]
    NoBackendAnywhere { address: IpAddr },
    #[error(
        "no service takes {protocol} to {destination}; `xdp-lb service list` shows those there are"
    )]
    NoServiceAt {
        protocol: Protocol,
        destination: SocketAddr,
    },
    #[error(
        "service `{service}` has the backend {address} already; change it with `xdp-lb backend set`"
    )]
    Exists { service: String, address: IpAddr },
    #[error("no virtual router `{name}`; there are: {known}")]
    NoVirtualRouter { name: String, known: String },
    #[error("no health check asks {backend} for {of}; `xdp-lb health list` shows those there are")]
    NoCheck { of: String, backend: IpAddr },
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "the slots do not fit: {needed} more are needed, of {size} in all; raise `limits.slots` in the config, then `xdp-lb detach` and start again"
    )]
    NoSlots { needed: u32, size: u32 },
    #[error(
        "{what}: {needed} are needed, {size} fit; raise `limits.{limit}` in the config, then `xdp-lb detach` and start again"
    )]
    TooMany {
        what: &'static str,
        needed: usize,
        size: u32,
        limit: &'static str,
    },
    #[error("the change could not be written to {}, and was not made", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error(
        "health checks by way of VIPs cannot be steered; `via: backend` in `health_check` does without"
    )]
    Steering(#[source] DataplaneError),
    #[error("data plane")]
    Dataplane(#[from] DataplaneError),
}
