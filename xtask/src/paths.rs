//! Folders: this checkout, and the user's cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup::toolchain;

/// The root of this checkout.
pub fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The user's cache folder of xdp-lb; it need not exist.
pub fn cache() -> Result<PathBuf> {
    toolchain::cache_folder().context("no cache folder: set HOME or XDG_CACHE_HOME to a folder")
}

/// Looks a program up in `PATH` and in the folders of system programs, which users do not have there.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}
