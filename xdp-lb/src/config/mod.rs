//! What the operator writes: the YAML file, read, checked and resolved.
//!
//! [`load`] and [`parse`] give a [`Config`] in which every default is filled in and every rule
//! holds, or all that is wrong with the file at once, each problem with line, column, field, reason
//! and the way out. Nothing here knows of maps, interfaces or addresses that exist: only of what is
//! written.
//!
//! The way of a file: `yaml` makes a tree of it in which each value knows its place; `reader`
//! takes values out of the tree; `document`, `tunnel`, `service` and `options` know the fields; `rules` are the
//! ones that hold for a backend that is added later too; `validate` checks what spans services.

#[macro_use]
mod words;

mod document;
mod duration;
mod error;
mod health_check;
mod options;
mod reader;
mod rules;
mod service;
mod suggest;
#[cfg(test)]
mod tests;
mod tunnel;
mod types;
mod validate;
mod vip;
mod vrrp;
mod yaml;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

pub use duration::format as format_duration;
pub use error::{ConfigError, Problem};
pub use health_check::*;
pub use rules::{RuleError, validate_backend};
pub use tunnel::{DEFAULT_GUE_PORT, Tunnel};
pub use types::{
    AttachMode, Backend, Config, ConnectionTracking, DEFAULT_WEIGHT, Forwarding, FramesTaken,
    IdleTimeout, Interface, Limits, Protocol, Service,
};
pub use vip::Vip;
pub use vrrp::{
    DEFAULT_PRIORITY, Track, TrackedGateway, TrackedHealth, TrackedInterface, VirtualRouter,
};

use crate::lookup::Scheduler;
use error::Problems;
use reader::Field;

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// If the file cannot be read, is larger than [`MAX_FILE_BYTES`] or is not UTF-8, and for all that
/// [`parse`] refuses.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::IsADirectory => ConfigError::Directory { path: path.into() },
        _ => ConfigError::Unreadable {
            path: path.into(),
            error,
        },
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, whatever its length claims.
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.into() });
    }
    let text = String::from_utf8(bytes).map_err(|error| ConfigError::not_utf8(path, &error))?;
    parse(&text, &path.display().to_string())
}

/// Checks `text`. `name` stands for the file in what is said about it.
///
/// # Errors
///
/// If `text` is not YAML, where the first mistake ends the reading, or breaks a rule of the file
/// format; then the error holds every problem that was found.
pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
    let problems = Problems::new(name, text);
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err((at, reason)) => return Err(problems.only(at, reason)),
    };
    let draft = document::read(Field::root(&root, &problems));
    if let Some(draft) = &draft {
        validate::check(draft, &problems);
    }
    problems.finish(draft.map(document::Draft::into_config))
}
