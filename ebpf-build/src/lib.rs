//! Builds eBPF crates with the toolchain that `cargo xtask setup` installed: for build scripts.
//!
//! Without a toolchain the object is an empty file and a warning says so: `cargo check` and
//! `cargo clippy` work on any machine, and who loads an empty object refuses it.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../xtask/src/setup/toolchain.rs"]
pub mod toolchain;

use toolchain::Toolchain;

/// The crates that may use unstable features with a stable compiler: BPF needs a few. The same for
/// all objects, or each would have the compiler's dependencies built again.
const UNSTABLE_IN: &str = "aya_ebpf,xdp_lb_ebpf,xdp_lb_decap,xdp_lb_check";

/// A binary to build, which becomes an object of the same name.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Its name.
    pub name: &'static str,
    /// It may read and write words wherever they lie. The kernel lets programs do so in packets, and the compiler
    /// makes eight loads of bytes into one of a word; but the kernel does not on the stack, and which words
    /// the compiler takes there is its own affair.
    pub is_unaligned: bool,
}

/// Builds binaries of `package` and puts their objects into `$OUT_DIR`.
/// Cargo is to run the build script again when something in `sources` changes, folders or files in the
/// root of the workspace.
///
/// Call it from the build script of a crate whose folder lies in that root.
///
/// # Errors
///
/// If the crate does not build, or outside of a build script.
pub fn build(package: &str, objects: &[Object], sources: &[&str]) -> Result<(), Box<dyn Error>> {
    for path in ["Cargo.lock", "Cargo.toml"].iter().chain(sources) {
        println!("cargo::rerun-if-changed=../{path}");
    }
    for variable in ["HOME", "XDG_CACHE_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Some(pointer) = toolchain::pointer_file() {
        println!("cargo::rerun-if-changed={}", pointer.display());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    if let Some(toolchain) = Toolchain::find() {
        for object in objects {
            let built = compile(package, *object, &toolchain, &out)?;
            fs::copy(built, out.join(object.name))?;
        }
    } else {
        println!(
            "cargo::warning=no BPF toolchain, so {package} is left empty; run `cargo xtask setup`"
        );
        for object in objects {
            fs::write(out.join(object.name), [])?;
        }
    }
    Ok(())
}

/// Compiles a binary of the eBPF crate; returns where its object is.
fn compile(
    package: &str,
    object: Object,
    toolchain: &Toolchain,
    out: &Path,
) -> Result<PathBuf, Box<dyn Error>> {
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.to_str() {
        Some("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    // Layouts of kernel structures differ between architectures; aya-ebpf wants to know which.
    let arch = variable("CARGO_CFG_TARGET_ARCH")?
        .into_string()
        .map_err(|_| "odd architecture")?;
    let rustflags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
    ];
    // A folder of its own: the outer cargo holds the lock of the one it builds in. OUT_DIR is
    // target/PROFILE/build/PACKAGE/out, so all profiles share this one.
    let folder = out
        .ancestors()
        .nth(4)
        .ok_or("OUT_DIR is too short")?
        .join("bpf");

    let mut cargo = match &toolchain.cargo {
        Some(cargo) => Command::new(cargo),
        None => Command::new(variable("CARGO")?),
    };
    if toolchain.way == "rustup" {
        // rustup has no core for BPF; Debian has.
        cargo.arg("-Zbuild-std=core");
    }
    cargo
        .args([
            "rustc",
            "--locked",
            "--release",
            "--package",
            package,
            "--bin",
            object.name,
        ])
        .args(["--target", target])
        .arg("--target-dir")
        .arg(&folder)
        .args(
            object
                .is_unaligned
                .then_some([
                    "--",
                    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
                ])
                .iter()
                .flatten(),
        )
        .env("RUSTC", &toolchain.rustc)
        .env("PATH", prepend(toolchain.linker.parent(), "PATH")?)
        .env(
            "LD_LIBRARY_PATH",
            prepend(Some(&toolchain.libraries), "LD_LIBRARY_PATH")?,
        )
        .env("RUSTC_BOOTSTRAP", UNSTABLE_IN)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"))
        // Without it bpf-linker works for seconds on every object.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_BUILD_BUILD_DIR", &folder)
        // What the outer call (clippy, a compiler cache) wants of its own compiler. Empty switches
        // off; removing would let a config file's setting through.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        // The outer call's jobs: another build script may hold one while it waits for this one to give the folder free, and
        // processors would be idle.
        .env_remove("CARGO_MAKEFLAGS")
        .env_remove("MAKEFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    let status = cargo
        .status()
        .map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{package} does not build ({status}); see above").into());
    }
    Ok(folder.join(target).join("release").join(object.name))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not set {name}"))
}

fn prepend(folder: Option<&Path>, name: &str) -> Result<OsString, env::JoinPathsError> {
    let rest = env::var_os(name).unwrap_or_default();
    let folders = folder
        .map(Path::to_owned)
        .into_iter()
        .chain(env::split_paths(&rest));
    env::join_paths(folders)
}
