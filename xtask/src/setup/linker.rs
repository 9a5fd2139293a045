//! bpf-linker, built from crates.io against the LLVM that the compiler uses.
//!
//! It has to read the compiler's bitcode, so its LLVM may not be older; taking the very same library
//! settles that, and needs nothing of the system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::progress::{self, Step};
use crate::cargo;

const VERSION: &str = "0.13.0";
/// The LLVM versions that this version can be built for.
const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// An LLVM shared library: `libLLVM.so.22.1`, or as rustup has it `libLLVM.so.22.1-rust-1.97.0-nightly`.
#[derive(Debug)]
pub(super) struct Llvm {
    library: PathBuf,
    major: u32,
}

impl Llvm {
    /// Finds the one in `folder`, and sees whether bpf-linker knows its version.
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let entries =
            fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let llvm = entries
            .flatten()
            .find_map(|entry| {
                let major = major(entry.file_name().to_str()?)?;
                Some(Self {
                    library: entry.path(),
                    major,
                })
            })
            .with_context(|| format!("no libLLVM.so in {}", folder.display()))?;
        ensure!(
            LLVM_MAJORS.contains(&llvm.major),
            "the compiler uses LLVM {}, bpf-linker {VERSION} knows {LLVM_MAJORS:?} only",
            llvm.major
        );
        Ok(llvm)
    }

    /// Installs bpf-linker into the folder `root`; it then runs with the LLVM library's folder in
    /// `LD_LIBRARY_PATH`.
    pub(super) fn install_linker(&self, root: &Path) -> Result<()> {
        let step = Step::start(format!(
            "building bpf-linker {VERSION} for LLVM {} (about a minute)",
            self.major
        ));
        // The name that a linker looks for, in a place of its own.
        let llvm = root.join("llvm");
        fs::create_dir_all(llvm.join("lib"))?;
        symlink(&self.library, llvm.join("lib/libLLVM.so"))?;
        let build = root.join("build");
        let mut install = cargo::command();
        install
            .args(["install", "--locked", "--no-track", "--no-default-features"])
            .args(["--features", &format!("llvm-{}", self.major)])
            .arg(format!("bpf-linker@{VERSION}"))
            .arg("--root")
            .arg(root)
            .arg("--target-dir")
            .arg(&build)
            .env("LLVM_PREFIX", &llvm)
            // LLVM does the work; the shell around it need only be built soon.
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET");
        let log = root.with_extension("linker.log");
        progress::run(&mut install, &log, || ())
            .context("cannot build bpf-linker; is crates.io reachable?")?;
        fs::remove_dir_all(build)?;
        // Only the build needs it, and it would point to a folder that is about to be renamed.
        fs::remove_dir_all(llvm)?;
        fs::remove_file(log)?;
        let mut version = Command::new(root.join("bin/bpf-linker"));
        version
            .arg("--version")
            .env("LD_LIBRARY_PATH", self.library.parent().unwrap_or(root));
        let output = version.output().context("cannot run the new bpf-linker")?;
        ensure!(
            output.status.success(),
            "the new bpf-linker does not run: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        step.done();
        Ok(())
    }
}

fn major(file_name: &str) -> Option<u32> {
    let (major, _) = file_name.strip_prefix("libLLVM.so.")?.split_once('.')?;
    major.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_versions_are_read_from_file_names() {
        assert_eq!(major("libLLVM.so.22.1"), Some(22));
        assert_eq!(major("libLLVM.so.22.1-rust-1.97.0-nightly"), Some(22));
        assert_eq!(major("libLLVM-22.so"), None);
        assert_eq!(major("librustc_driver-ea0e99b300280386.so"), None);
    }
}
