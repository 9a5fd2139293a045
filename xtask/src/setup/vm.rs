//! What virtual machines need beyond a plain setup: qemu, kernels, a static busybox. Large, so it is
//! fetched when `cargo xtask vm` is called and not before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Workshop;
use super::kernels::{Kernel, Unpacked};
use super::toolchain::RECIPE;
use super::tools::{Occasion, Tools};
use crate::paths;

/// What is set up.
#[derive(Clone, Debug)]
pub struct Vm {
    /// qemu, and programs to copy into the machine.
    pub tools: Tools,
    /// A busybox that needs no libraries.
    pub busybox: PathBuf,
    /// The kernels asked for, in that order.
    pub kernels: Vec<Unpacked>,
}

/// Whether to look for newer kernels than those in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Look, which takes the network.
    Look,
    /// Take what is there.
    Keep,
}

impl Vm {
    /// What is set up, if nothing is lacking.
    fn check(cache: &Path, kernels: &[&'static Kernel]) -> Option<Self> {
        let tools = Tools::in_cache(cache);
        let busybox = busybox(cache)?;
        let kernels = kernels.iter().map(|kernel| kernel.cached(cache));
        tools.complete(Occasion::Vm).then_some(Self {
            tools,
            busybox,
            kernels: kernels.collect::<Option<_>>()?,
        })
    }
}

/// Makes sure that everything is there; quick and silent when it is and no update is asked for.
pub fn run(kernels: &[&'static Kernel], update: Update) -> Result<Vm> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "virtual machines are for x86_64 only for now, and this machine is {}",
        std::env::consts::ARCH
    );
    let cache = paths::cache()?;
    let check = || Vm::check(&cache, kernels).filter(|_| update == Update::Keep);
    if let Some(vm) = check() {
        return Ok(vm);
    }
    let workshop = Workshop::enter(&cache)?;
    // Another setup may have done it while we waited.
    if let Some(vm) = check() {
        return Ok(vm);
    }
    workshop.begin()?;
    Tools::in_cache(&cache).install(&workshop, Occasion::Vm)?;
    if busybox(&cache).is_none() {
        workshop.make(&busybox_folder(), |folder| {
            let apt = workshop.apt()?;
            apt.unpack(&["busybox-static".to_owned()], folder)
        })?;
    }
    for kernel in kernels {
        if update == Update::Look || kernel.cached(&cache).is_none() {
            kernel
                .fetch(&workshop)
                .with_context(|| format!("cannot get the kernel {}", kernel.name))?;
        }
    }
    Vm::check(&cache, kernels).context("what was just set up for virtual machines is not there")
}

fn busybox_folder() -> String {
    format!("busybox-{RECIPE}")
}

fn busybox(cache: &Path) -> Option<PathBuf> {
    let folder = cache.join(busybox_folder());
    // Its place depends on Debian's version.
    ["usr/bin/busybox", "bin/busybox"]
        .map(|path| folder.join(path))
        .into_iter()
        .find(|path| path.is_file())
}
