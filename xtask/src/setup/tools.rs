//! The programs that lab, tests and demo run: the system's, or Debian's from the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Workshop, apt};
use crate::paths;

/// Version of how programs are installed; it is part of their folder's name. Count it up as
/// [`toolchain::RECIPE`](super::toolchain::RECIPE).
const RECIPE: u32 = 2;
/// Where the starters of a package are. No package has a folder of this name.
const STARTERS: &str = "starters";
/// Where the modules of nginx are, below `/` or the folder of a package.
const MODULES: &str = "usr/lib/nginx/modules";

/// What programs are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Lab, tests and demo: `cargo xtask setup` brings them.
    Setup,
    /// Virtual machines. They are large, so `cargo xtask vm` alone brings them.
    Vm,
}

/// The programs needed, and modules of nginx, by the Debian package that has them.
const NEEDED: &[(Occasion, &str, &[&str])] = &[
    (Occasion::Setup, "iproute2", &["ip", "bridge", "tc"]),
    (Occasion::Setup, "ethtool", &["ethtool"]),
    (Occasion::Setup, "nginx", &["nginx"]),
    (
        Occasion::Setup,
        "libnginx-mod-stream",
        &["ngx_stream_module.so"],
    ),
    (Occasion::Setup, "haproxy", &["haproxy"]),
    (Occasion::Setup, "nftables", &["nft"]),
    (Occasion::Setup, "wrk", &["wrk"]),
    (Occasion::Setup, "dnsmasq-base", &["dnsmasq"]),
    (Occasion::Setup, "knot-dnsutils", &["kdig"]),
    (Occasion::Setup, "keepalived", &["keepalived"]),
    (Occasion::Setup, "tshark", &["tshark"]),
    (Occasion::Vm, "qemu-system-x86", &["qemu-system-x86_64"]),
];

fn needed(occasion: Occasion) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    NEEDED
        .iter()
        .filter(move |(on, ..)| *on == occasion)
        .map(|(_, package, programs)| (*package, *programs))
}

/// A program that can be copied.
#[derive(Clone, Debug)]
pub(crate) struct Executable {
    /// The program itself.
    pub(crate) file: PathBuf,
    /// Folders of libraries to look into before the system's.
    pub(crate) libraries: Vec<PathBuf>,
}

/// Where programs are.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Holds a folder a package.
    folder: PathBuf,
}

impl Tools {
    /// Looks programs up; installs nothing.
    pub fn new() -> Result<Self> {
        Ok(Self::in_cache(&paths::cache()?))
    }

    pub(super) fn in_cache(cache: &Path) -> Self {
        Self {
            folder: cache.join(folder_name()),
        }
    }

    /// Where a program is: the system's if there is one, else a starter in the cache that knows the
    /// libraries of its own, so that it can be handed to `ip netns exec`, to sudo or to a script.
    /// A module of nginx, `ngx_NAME.so`, is the file itself.
    pub fn path(&self, program: &str) -> Option<PathBuf> {
        if is_module(program) {
            let roots = [Some(PathBuf::from("/")), self.place(program)];
            let mut files = roots.into_iter().flatten();
            return files.find_map(|root| {
                let file = root.join(MODULES).join(program);
                file.is_file().then_some(file)
            });
        }
        paths::program(program).or_else(|| {
            let starter = self.place(program)?.join(STARTERS).join(program);
            starter.is_file().then_some(starter)
        })
    }

    /// Where qemu is.
    pub(crate) fn qemu(&self) -> Result<PathBuf> {
        let path = self.path("qemu-system-x86_64");
        path.context("qemu-system-x86_64 is not on this machine; `cargo xtask vm` brings it")
    }

    /// The file that a program is, and where its libraries are beside the system's: what has to be
    /// copied to run it elsewhere.
    pub(crate) fn executable(&self, program: &str) -> Option<Executable> {
        if let Some(file) = paths::program(program) {
            let libraries = Vec::new();
            return Some(Executable { file, libraries });
        }
        let place = self.place(program)?;
        Some(Executable {
            file: place.join(inside(&place, program)?),
            libraries: libraries(&place).ok()?,
        })
    }

    /// The folder in the cache for the package that has a program.
    fn place(&self, program: &str) -> Option<PathBuf> {
        let (_, package, _) = NEEDED
            .iter()
            .find(|(.., programs)| programs.contains(&program))?;
        Some(self.folder.join(package))
    }

    /// A command that runs a program.
    pub fn command(&self, program: &str) -> Result<Command> {
        let path = self.path(program);
        path.map(Command::new).with_context(|| {
            format!("{program} is not on this machine; `cargo xtask setup` brings it")
        })
    }

    /// Every program needed, and where it is.
    pub(super) fn all(
        &self,
        occasion: Occasion,
    ) -> impl Iterator<Item = (&'static str, Option<PathBuf>)> {
        let programs = needed(occasion).flat_map(|(_, programs)| programs);
        programs.map(|program| (*program, self.path(program)))
    }

    fn lacks(&self, programs: &[&str]) -> bool {
        programs.iter().any(|program| self.path(program).is_none())
    }

    /// Says whether all programs needed are there.
    pub(super) fn complete(&self, occasion: Occasion) -> bool {
        needed(occasion).all(|(_, programs)| !self.lacks(programs))
    }

    /// Gets the programs that are not there.
    pub(super) fn install(&self, workshop: &Workshop, occasion: Occasion) -> Result<()> {
        for (package, programs) in needed(occasion) {
            if self.lacks(programs) {
                install(workshop, package, programs).with_context(|| {
                    format!(
                        "{} cannot be had; install it by hand (Debian's package: {package})",
                        programs.join(", ")
                    )
                })?;
            }
        }
        Ok(())
    }
}

fn folder_name() -> String {
    format!("programs-{RECIPE}")
}

fn install(workshop: &Workshop, package: &str, programs: &[&str]) -> Result<()> {
    let name = format!("{}/{package}", folder_name());
    let place = workshop.place(&name);
    let apt = workshop.apt()?;
    workshop.make(&name, |folder| {
        let mut packages = apt.lacking(&[package])?;
        // Nothing would be added when the package is installed, but damaged.
        if !packages.iter().any(|lacking| lacking == package) {
            packages.push(package.to_owned());
        }
        apt.unpack(&packages, folder)?;
        fs::create_dir_all(folder.join(STARTERS))?;
        for program in programs.iter().filter(|program| !is_module(program)) {
            write_starter(folder, &place, program)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Says whether it is a module that nginx loads, which is no program.
fn is_module(name: &str) -> bool {
    name.ends_with(".so")
}

/// Writes the starter of a program into `folder`, which is going to be `place`.
fn write_starter(folder: &Path, place: &Path, program: &str) -> Result<()> {
    let inside =
        inside(folder, program).with_context(|| format!("the package has no {program}"))?;
    let starter = folder.join(STARTERS).join(program);
    let script = starter_script(&place.join(inside), &libraries(place)?)?;
    fs::write(&starter, script)?;
    fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Where a program is below the folder that its package was unpacked into. A link would lead
/// to where the package's files are not: Debian 12 has `/sbin/ip -> /bin/ip`.
fn inside(folder: &Path, program: &str) -> Option<PathBuf> {
    let mut candidates = ["usr/sbin", "usr/bin", "sbin", "bin"]
        .iter()
        .map(|part| Path::new(part).join(program));
    candidates.find(|path| {
        fs::symlink_metadata(folder.join(path)).is_ok_and(|metadata| metadata.is_file())
    })
}

/// Where the libraries of a package are that was unpacked into the folder `place`.
fn libraries(place: &Path) -> Result<Vec<PathBuf>> {
    let triplet = apt::triplet()?;
    // Before Debian 13 some packages have not moved to `usr`.
    let folders = ["usr/lib", "lib"].map(|part| place.join(part));
    Ok(folders
        .iter()
        .map(|folder| folder.join(triplet))
        .chain(folders.iter().cloned())
        .collect())
}

fn starter_script(program: &Path, libraries: &[PathBuf]) -> Result<String> {
    let folders = std::env::join_paths(libraries)?;
    let (program, folders) = (program.display(), folders.display());
    ensure!(
        !format!("{program}{folders}").contains('\''),
        "the cache folder's name has a quote in it; set XDG_CACHE_HOME to another"
    );
    Ok(format!(
        "#!/bin/sh\n\
         LD_LIBRARY_PATH='{folders}'${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\n\
         export LD_LIBRARY_PATH\n\
         exec '{program}' \"$@\"\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starter_quotes_its_paths() {
        let script =
            starter_script(Path::new("/a b/wrk"), &["/a b/lib".into(), "/l".into()]).unwrap();
        assert!(script.contains("LD_LIBRARY_PATH='/a b/lib:/l'"));
        assert!(script.ends_with("exec '/a b/wrk' \"$@\"\n"));
        assert!(starter_script(Path::new("/it's/wrk"), &[]).is_err());
    }

    #[test]
    fn a_program_is_found_where_its_package_has_it_and_not_where_a_link_leads() {
        let folder = std::env::temp_dir().join(format!("xtask-tools-{}", std::process::id()));
        for part in ["bin", "sbin", STARTERS] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        std::os::unix::fs::symlink("/bin/sh", folder.join("sbin/ip")).unwrap();
        fs::write(folder.join("bin/ip"), "").unwrap();
        fs::write(folder.join(STARTERS).join("ip"), "").unwrap();
        assert_eq!(inside(&folder, "ip"), Some("bin/ip".into()));
        assert_eq!(inside(&folder, "bridge"), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_module_is_found_as_the_file_that_it_is() {
        let cache = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        let tools = Tools::in_cache(&cache);
        let module = "ngx_stream_module.so";
        let place = tools.place(module).unwrap().join(MODULES);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(module), "").unwrap();
        let found = tools.path(module).unwrap();
        assert!(found.ends_with(Path::new(MODULES).join(module)));
        fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn a_program_that_is_nowhere_is_an_error_that_names_setup() {
        let tools = Tools::in_cache(Path::new("/nonexistent"));
        let error = tools.command("no-such-program").unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("cargo xtask setup"),
            "{error}"
        );
    }
}
