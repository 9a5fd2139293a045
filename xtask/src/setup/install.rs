//! Gets the BPF toolchain: rustup's nightly where it can build for BPF, Debian's compiler otherwise.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use super::apt::{self, Apt};
use super::linker::Llvm;
use super::toolchain::{self, RECIPE, Toolchain};
use super::{Workshop, replace_file};
use crate::paths;

/// Debian ships a compiler for web browsers with a precompiled `core` for BPF.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// The toolchain that is set up, if it is the one of this recipe and still runs.
pub(super) fn check() -> Option<Toolchain> {
    let found = Toolchain::find()?;
    (version(&found.rustc, &found.libraries).ok()? == found.version).then_some(found)
}

/// Sets a toolchain up and writes the pointer file.
pub(super) fn install(workshop: &Workshop) -> Result<Toolchain> {
    ensure!(
        paths::program("cc").is_some(),
        "there is no C compiler `cc`, which Rust links with; on Debian: apt-get install gcc libc6-dev"
    );
    let toolchain = match rustup(workshop) {
        Ok(toolchain) => toolchain,
        Err(no_rustup) => debian(workshop).map_err(|no_debian| neither(&no_rustup, &no_debian))?,
    };
    let pointer = toolchain::pointer_file().context("no cache folder")?;
    replace_file(&pointer, &render(&toolchain)?)?;
    Ok(toolchain)
}

fn neither(no_rustup: &anyhow::Error, no_debian: &anyhow::Error) -> anyhow::Error {
    anyhow!(
        "there is no compiler for BPF to be had\n  \
         rustup: {no_rustup:#}\n  \
         Debian: {no_debian:#}\n\
         with rustup this helps on every distribution: \
         rustup toolchain install nightly --component rust-src"
    )
}

fn folder_name() -> String {
    format!("toolchain-{RECIPE}")
}

/// rustup's nightly with the sources of `core`, which the build script then builds for BPF, and a
/// linker on the LLVM library that it comes with.
///
/// The build of `core` is what aya's documentation describes; it has not been run by this project's
/// CI, whose machines have no such nightly.
fn rustup(workshop: &Workshop) -> Result<Toolchain> {
    let output = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        // Looking must not install anything.
        .env("RUSTUP_AUTO_INSTALL", "0")
        .output()
        .context("there is no rustup")?;
    ensure!(output.status.success(), "there is no nightly toolchain");
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
    ensure!(
        sysroot.join("lib/rustlib/src/rust/library").is_dir(),
        "the nightly toolchain has no rust-src component"
    );
    let libraries = sysroot.join("lib");
    let llvm = Llvm::find(&libraries)?;
    let folder = workshop.make(&folder_name(), |folder| llvm.install_linker(folder))?;
    let rustc = sysroot.join("bin/rustc");
    Ok(Toolchain {
        way: "rustup".to_owned(),
        version: version(&rustc, &libraries)?,
        rustc,
        cargo: Some(sysroot.join("bin/cargo")),
        linker: folder.join("bin/bpf-linker"),
        libraries,
    })
}

/// Debian's compiler, unpacked beside whatever compiler the system has, with the caller's own cargo.
fn debian(workshop: &Workshop) -> Result<Toolchain> {
    let apt = workshop.apt()?;
    let folder = workshop.make(&folder_name(), |folder| {
        let wanted = compiler_packages(apt)?;
        // Libraries that LLVM needs and a bare system lacks. Not so for the development packages:
        // they would bring a C compiler, which is here already.
        let runtime: Vec<&String> = wanted
            .iter()
            .filter(|name| !name.contains("web-dev") && *name != "rustc-web")
            .collect();
        let mut packages = apt.lacking(&runtime)?;
        packages.extend(wanted.iter().cloned());
        packages.sort();
        packages.dedup();
        apt.unpack(&packages, folder)?;
        Llvm::find(&apt::library_folder(folder)?)?.install_linker(folder)
    })?;
    let libraries = apt::library_folder(&folder)?;
    let rustc = folder.join("usr/bin/rustc");
    Ok(Toolchain {
        way: "debian".to_owned(),
        version: version(&rustc, &libraries)?,
        rustc,
        cargo: None,
        linker: folder.join("bin/bpf-linker"),
        libraries,
    })
}

/// The compiler, its standard libraries and its LLVM, out of all that they depend on.
fn compiler_packages(apt: &Apt) -> Result<Vec<String>> {
    let mut packages = apt.closure(&DEBIAN_PACKAGES).with_context(|| {
        format!(
            "the apt sources of this machine do not have {}; Debian 12's security suite has them",
            DEBIAN_PACKAGES.join(" and ")
        )
    })?;
    packages.retain(|name| is_compiler_package(name));
    Ok(packages)
}

fn is_compiler_package(name: &str) -> bool {
    let llvm = name
        .strip_prefix("libllvm")
        .is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()));
    // `libstd-rust-web-dev-wasm32` and others for further targets are recommended, not needed.
    name == "rustc-web" || name.starts_with("libstd-rust-web-") || llvm
}

/// What `rustc -vV` says, in one line.
fn version(rustc: &Path, libraries: &Path) -> Result<String> {
    let output = Command::new(rustc)
        .arg("-vV")
        .env("LD_LIBRARY_PATH", libraries)
        .output()
        .with_context(|| format!("cannot run {}", rustc.display()))?;
    ensure!(
        output.status.success(),
        "{} does not run: {}",
        rustc.display(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .collect::<Vec<_>>()
        .join("; "))
}

/// The pointer file's text.
fn render(toolchain: &Toolchain) -> Result<String> {
    let mut text = format!("way={}\nversion={}\n", toolchain.way, toolchain.version);
    let mut add = |key: &str, path: &Path| {
        let path = path
            .to_str()
            .with_context(|| format!("the path {} is not UTF-8", path.display()))?;
        text.push_str(&format!("{key}={path}\n"));
        anyhow::Ok(())
    };
    add("rustc", &toolchain.rustc)?;
    if let Some(cargo) = &toolchain.cargo {
        add("cargo", cargo)?;
    }
    add("linker", &toolchain.linker)?;
    add("libraries", &toolchain.libraries)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Toolchain {
        Toolchain {
            way: "rustup".to_owned(),
            version: "rustc 1.97.0-nightly; LLVM version: 22.1.4".to_owned(),
            rustc: "/a folder/bin/rustc".into(),
            cargo: Some("/a folder/bin/cargo".into()),
            linker: "/cache/bin/bpf-linker".into(),
            libraries: "/a=b/lib".into(),
        }
    }

    #[test]
    fn a_pointer_file_reads_back_as_written() {
        for cargo in [None, Some(PathBuf::from("/bin/cargo"))] {
            let toolchain = Toolchain { cargo, ..example() };
            assert_eq!(
                Toolchain::parse(&render(&toolchain).unwrap()),
                Some(toolchain)
            );
        }
    }

    #[test]
    fn a_pointer_file_without_a_linker_is_none() {
        let text = render(&example()).unwrap().replace("linker=", "other=");
        assert_eq!(Toolchain::parse(&text), None);
        assert_eq!(Toolchain::parse(""), None);
    }

    #[test]
    fn compiler_and_llvm_are_told_from_other_dependencies() {
        for name in [
            "rustc-web",
            "libstd-rust-web-1.96",
            "libstd-rust-web-dev-bpf",
            "libllvm22",
        ] {
            assert!(is_compiler_package(name), "{name}");
        }
        for name in [
            "gcc",
            "libc6",
            "rustc",
            "libllvm22-dev",
            "libstd-rust-dev",
            "cargo-web",
        ] {
            assert!(!is_compiler_package(name), "{name}");
        }
    }
}
