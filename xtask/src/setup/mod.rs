//! `cargo xtask setup`: gets what a machine lacks to build and run xdp-lb, without root, into the
//! user's cache folder.
//!
//! Everything is made in a temporary folder and renamed into place, under a lock: an interrupted
//! setup leaves nothing half-made, and two at once do not meet.

mod apt;
mod install;
pub mod kernels;
mod linker;
mod progress;
mod suite;
pub mod toolchain;
mod tools;
pub mod vm;

use std::cell::OnceCell;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use self::tools::Tools;
use self::{apt::Apt, toolchain::Toolchain, tools::Occasion};
use crate::paths;

/// Prefix of temporary folders; what carries it and is older than the lock was left by a crash.
const TEMPORARY: &str = "new-";

/// What is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Compiler and linker for BPF.
    pub toolchain: Toolchain,
    /// Programs for lab, tests and demo.
    pub tools: Tools,
}

impl Setup {
    /// What is set up, if nothing is lacking.
    fn check(cache: &Path) -> Option<Self> {
        let tools = Tools::in_cache(cache);
        let toolchain = install::check()?;
        tools
            .complete(Occasion::Setup)
            .then_some(Self { toolchain, tools })
    }

    /// Prints what is where.
    pub fn print(&self) {
        println!(
            "BPF compiler  {} ({})",
            self.toolchain.rustc.display(),
            self.toolchain.way
        );
        println!("BPF linker    {}", self.toolchain.linker.display());
        for (program, path) in self.tools.all(Occasion::Setup) {
            println!("{program:<13} {}", path.unwrap_or_default().display());
        }
    }
}

/// Makes sure that everything is there; quick and silent when it is.
pub fn run() -> Result<Setup> {
    let cache = paths::cache()?;
    if let Some(setup) = Setup::check(&cache) {
        return Ok(setup);
    }
    let workshop = Workshop::enter(&cache)?;
    // Another setup may have done it while we waited.
    if let Some(setup) = Setup::check(&cache) {
        return Ok(setup);
    }
    workshop.begin()?;
    let toolchain = match install::check() {
        Some(toolchain) => toolchain,
        None => install::install(&workshop)?,
    };
    let tools = Tools::in_cache(&cache);
    tools.install(&workshop, Occasion::Setup)?;
    Ok(Setup { toolchain, tools })
}

fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("another setup is running; waiting for it"),
        Err(TryLockError::Error(error)) => {
            return Err(error).context("cannot lock the cache folder");
        }
    }
    file.lock().context("cannot lock the cache folder")?;
    Ok(file)
}

fn remove_leftovers(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let path = entry.path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes a file so that readers see the old one or the new one.
fn replace_file(path: &Path, text: &str) -> Result<()> {
    // Build scripts watch the time of the pointer file.
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!("{TEMPORARY}{name}"));
    fs::write(&temporary, text).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Where things are made; there is one while a setup holds the lock.
struct Workshop {
    cache: PathBuf,
    _lock: File,
    /// Opened when the first package is needed: that takes seconds and the network.
    apt: OnceCell<Apt>,
}

impl Workshop {
    /// Waits until no other setup works on this cache.
    fn enter(cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache)
            .with_context(|| format!("cannot make the cache folder {}", cache.display()))?;
        Ok(Self {
            cache: cache.to_owned(),
            _lock: lock(cache)?,
            apt: OnceCell::new(),
        })
    }

    /// To be called before the first thing is made.
    fn begin(&self) -> Result<()> {
        eprintln!("setting up in {}", self.cache.display());
        remove_leftovers(&self.cache)
    }

    fn apt(&self) -> Result<&Apt> {
        if self.apt.get().is_none() {
            // It was empty, so this cannot fail.
            let _ = self.apt.set(Apt::open(&self.cache)?);
        }
        self.apt.get().context("apt is not open")
    }

    /// Where the thing called `name` is going to be.
    fn place(&self, name: &str) -> PathBuf {
        self.cache.join(name)
    }

    /// Has `build` fill a temporary folder, and renames it to `name`; returns where it is then.
    fn make(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let temporary = self.place(&format!("{TEMPORARY}{}", name.replace('/', "-")));
        let place = self.place(name);
        remove_folder(&temporary)?;
        fs::create_dir_all(&temporary)
            .with_context(|| format!("cannot make {}", temporary.display()))?;
        build(&temporary)?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        remove_folder(&place)?;
        fs::rename(&temporary, &place)
            .with_context(|| format!("cannot make {}", place.display()))?;
        Ok(place)
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
