//! The programs that lab, tests and demo run: the system's, or Debian's from the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::toolchain::RECIPE;
use super::{Workshop, apt};
use crate::paths;

/// The programs needed, by the Debian package that has them.
const NEEDED: &[(&str, &[&str])] = &[
    ("iproute2", &["ip", "bridge"]),
    ("ethtool", &["ethtool"]),
    ("nginx", &["nginx"]),
    ("wrk", &["wrk"]),
];

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
    pub fn path(&self, program: &str) -> Option<PathBuf> {
        paths::program(program).or_else(|| {
            let (package, _) = NEEDED
                .iter()
                .find(|(_, programs)| programs.contains(&program))?;
            let starter = self.folder.join(package).join("bin").join(program);
            starter.is_file().then_some(starter)
        })
    }

    /// A command that runs a program.
    pub fn command(&self, program: &str) -> Result<Command> {
        let path = self.path(program);
        path.map(Command::new).with_context(|| {
            format!("{program} is not on this machine; `cargo xtask setup` brings it")
        })
    }

    /// Every program needed, and where it is.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, Option<PathBuf>)> {
        let programs = NEEDED.iter().flat_map(|(_, programs)| programs.iter());
        programs.map(|program| (*program, self.path(program)))
    }

    fn lacks(&self, programs: &[&str]) -> bool {
        programs.iter().any(|program| self.path(program).is_none())
    }

    /// Says whether all programs needed are there.
    pub(super) fn complete(&self) -> bool {
        NEEDED.iter().all(|(_, programs)| !self.lacks(programs))
    }

    /// Gets the programs that are not there.
    pub(super) fn install(&self, workshop: &Workshop) -> Result<()> {
        for (package, programs) in NEEDED {
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
        fs::create_dir_all(folder.join("bin"))?;
        for program in programs {
            write_starter(folder, &place, program)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Writes `bin/PROGRAM` into `folder`, which is going to be `place`.
fn write_starter(folder: &Path, place: &Path, program: &str) -> Result<()> {
    let mut candidates = ["usr/sbin", "usr/bin", "sbin", "bin"]
        .iter()
        .map(|part| Path::new(part).join(program));
    let inside = candidates
        .find(|path| folder.join(path).is_file())
        .with_context(|| format!("the package has no {program}"))?;
    let libraries: Vec<PathBuf> = [
        apt::library_folder(place)?,
        place.join("usr/lib"),
        place.join("lib"),
    ]
    .into();
    let starter = folder.join("bin").join(program);
    fs::write(&starter, starter_script(&place.join(inside), &libraries)?)?;
    fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))?;
    Ok(())
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
    fn a_program_that_is_nowhere_is_an_error_that_names_setup() {
        let tools = Tools::in_cache(Path::new("/nonexistent"));
        let error = tools.command("no-such-program").unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("cargo xtask setup"),
            "{error}"
        );
    }
}
