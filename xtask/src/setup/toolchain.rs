//! Where the BPF toolchain is: the pointer file that `cargo xtask setup` leaves in the cache folder.
//!
//! The build script of `xdp-lb` takes this file in by path, so that both sides agree on place and
//! form without a crate between them. Hence: nothing but std here, and nothing that only one needs.

use std::env;
use std::fs;
use std::path::PathBuf;

/// Version of what setup installs. Count it up when an installed cache would not do any longer: what
/// is installed carries it in its name, so that checkouts of different ages do not disturb each other.
pub const RECIPE: u32 = 1;

/// A compiler and a linker that build for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Where it comes from, for people: `debian` or `rustup`.
    pub way: String,
    /// What `rustc -vV` says, in one line: it tells an updated compiler from the one set up.
    pub version: String,
    /// The compiler.
    pub rustc: PathBuf,
    /// The cargo to use with it; the caller's own when there is none.
    pub cargo: Option<PathBuf>,
    /// The linker, `bpf-linker`.
    pub linker: PathBuf,
    /// Folder of the shared libraries that compiler and linker need.
    pub libraries: PathBuf,
}

impl Toolchain {
    /// Reads the pointer file's text, lines of `key=value`; `None` when a key is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let get = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.to_owned())
        };
        Some(Self {
            way: get("way")?,
            version: get("version")?,
            rustc: get("rustc")?.into(),
            cargo: get("cargo").map(PathBuf::from),
            linker: get("linker")?.into(),
            libraries: get("libraries")?.into(),
        })
    }

    /// The toolchain that setup left, if its files are (still) there.
    pub fn find() -> Option<Self> {
        let found = Self::parse(&fs::read_to_string(pointer_file()?).ok()?)?;
        let complete = found.rustc.is_file() && found.linker.is_file() && found.libraries.is_dir();
        complete.then_some(found)
    }
}

/// The user's cache folder of xdp-lb, below `$XDG_CACHE_HOME` or `~/.cache`; `None` without a home.
pub fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("xdp-lb"))
}

/// Where the pointer file lies.
pub fn pointer_file() -> Option<PathBuf> {
    Some(cache_folder()?.join(format!("toolchain-{RECIPE}.pointer")))
}
