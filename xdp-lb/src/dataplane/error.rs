//! What can go wrong between the daemon and the kernel.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};
use xdp_lb_common::abi::ABI_VERSION;

/// Why the data plane could not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum DataplaneError {
    #[error("this xdp-lb was built without its XDP programs: build it with `cargo xtask build`")]
    NoObject,
    #[error("the object holds no program `{name}`")]
    NoProgram { name: &'static str },
    #[error("cannot load the object")]
    Object(#[source] EbpfError),
    #[error("the kernel refuses the program")]
    Load(#[source] ProgramError),
    #[error("the object holds no map `{name}`")]
    MissingMap { name: &'static str },
    #[error("map `{name}`")]
    Map {
        name: &'static str,
        source: Box<MapError>,
    },
    #[error("cannot map the memory of map `{name}`")]
    Mapping {
        name: &'static str,
        source: io::Error,
    },
    #[error(
        "map `{name}` is full ({size} entries): raise `limits.{limit}` in the config, then `xdp-lb detach` and start again"
    )]
    Full {
        name: &'static str,
        size: u32,
        limit: &'static str,
    },
    #[error(
        "the maps of this config need {needed_mib} MiB, and this host has {available_mib} MiB left: \
         make `limits` smaller (`xdp-lb config check` shows what takes how much), or free memory"
    )]
    Memory { needed_mib: u64, available_mib: u64 },
    #[error(
        "there can be no more than {most} health checks with `via: vip`: let some of them go to the \
         backends' own addresses"
    )]
    TooManyTargets { most: u32 },
    #[error("pin directory {}: {reason}", path.display())]
    Pins { path: PathBuf, reason: String },
    #[error("pinned link {}", path.display())]
    PinLink { path: PathBuf, source: PinError },
    #[error(
        "the maps pinned in {} have ABI version {found}, this xdp-lb has {ABI_VERSION}: run \
         `xdp-lb detach` (traffic goes to the kernel, flows are forgotten), then start again",
        pins.display()
    )]
    Abi { pins: PathBuf, found: u32 },
    #[error(
        "the maps pinned in {} were filled with another `hash_key`: put the old key back, or run \
         `xdp-lb detach` (traffic goes to the kernel, flows are forgotten), then start again",
        pins.display()
    )]
    HashKey { pins: PathBuf },
    #[error("interface `{interface}` does not exist; `ip link` lists those that do")]
    NoInterface { interface: String },
    #[error(
        "interface `{interface}` has another XDP program already: `ip link set dev {interface} xdp off` \
         takes it away"
    )]
    Busy { interface: String },
    #[error("cannot attach to interface `{interface}`: {reason}")]
    Attach { interface: String, reason: String },
    #[error("cannot read what is attached to interface `{interface}`: {reason}")]
    Inspect { interface: String, reason: String },
    #[error("cannot wait for packets in flight")]
    Barrier(#[source] io::Error),
}

impl DataplaneError {
    pub(super) fn map(name: &'static str, source: MapError) -> Self {
        Self::Map {
            name,
            source: Box::new(source),
        }
    }
}
