//! `cargo xtask build`: the program with the XDP object in it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cargo::{self, Artifact};
use crate::setup;

/// Which profile to build with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build; for tests.
    Debug,
    /// Optimised; for operation and measurement.
    Release,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The program `xdp-lb`.
    pub binary: PathBuf,
    /// The XDP object that is also inside it.
    pub object: PathBuf,
}

impl Built {
    /// Finds both in what cargo built; an error if the XDP object is empty.
    pub(crate) fn find(artifacts: &[Artifact]) -> Result<Self> {
        let binary = artifacts.iter().find_map(|artifact| match artifact {
            Artifact::Binary { name, path } if name == "xdp-lb" => Some(path.clone()),
            _ => None,
        });
        let object = artifacts.iter().find_map(|artifact| match artifact {
            Artifact::BuildScript { package, out } if package.contains("/xdp-lb#") => {
                Some(out.join("xdp-lb-ebpf"))
            }
            _ => None,
        });
        let binary = binary.context("cargo does not say where xdp-lb is")?;
        let object = object.context("cargo does not say where the XDP object is")?;
        let size = fs::metadata(&object)
            .with_context(|| format!("no XDP object {}", object.display()))?
            .len();
        ensure!(
            size > 0,
            "the XDP object {} is empty: the build script found no BPF toolchain, although setup did",
            object.display()
        );
        Ok(Self { binary, object })
    }
}

/// Builds `xdp-lb`, after setup where that is lacking. Fails rather than leave the XDP program empty.
pub fn run(profile: Profile) -> Result<Built> {
    setup::run()?;
    let mut arguments = vec!["build", "--locked", "--package", "xdp-lb"];
    if profile == Profile::Release {
        arguments.push("--release");
    }
    Built::find(&cargo::build(&arguments)?)
}
