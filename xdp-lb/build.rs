//! Builds the XDP programs with the toolchain that `cargo xtask setup` installed, and puts the objects
//! at `$OUT_DIR/xdp-lb-ebpf` (the director's) and `$OUT_DIR/xdp-lb-decap` (the backends').
//!
//! Without a toolchain the objects are empty files and a warning says so: `cargo check` and
//! `cargo clippy` work on any machine, and an empty object is refused when it is to be loaded.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../xtask/src/setup/toolchain.rs"]
pub mod toolchain;

use toolchain::Toolchain;

const PACKAGE: &str = "xdp-lb-ebpf";
/// The programs of the package, and the names of their objects.
const OBJECTS: [&str; 2] = ["xdp-lb-ebpf", "xdp-lb-decap"];
/// The crates that may use unstable features with a stable compiler: BPF needs a few.
const UNSTABLE_IN: &str = "aya_ebpf,xdp_lb_ebpf,xdp_lb_decap";

fn main() -> Result<(), Box<dyn Error>> {
    for path in ["Cargo.lock", "Cargo.toml", "xdp-lb-ebpf", "xdp-lb-common"] {
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
        let built = build(&toolchain, &out)?;
        for object in OBJECTS {
            fs::copy(built.join(object), out.join(object))?;
        }
    } else {
        println!(
            "cargo::warning=no BPF toolchain, so the XDP programs are left empty; run `cargo xtask setup`"
        );
        for object in OBJECTS {
            fs::write(out.join(object), [])?;
        }
    }
    Ok(())
}

/// Builds the eBPF crate; returns the folder of the objects.
fn build(toolchain: &Toolchain, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
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
            "build",
            "--locked",
            "--release",
            "--package",
            PACKAGE,
            "--bins",
        ])
        .args(["--target", target])
        .arg("--target-dir")
        .arg(&folder)
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
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    let status = cargo
        .status()
        .map_err(|error| format!("cannot run {cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("the XDP programs do not build ({status}); see above").into());
    }
    Ok(folder.join(target).join("release"))
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
