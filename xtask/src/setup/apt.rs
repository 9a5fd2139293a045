//! Debian packages without root: apt with lists and cache of our own, and `dpkg -x` into a folder.
//!
//! Sources and keys are the system's, or one suite of Debian whatever the system is. Nothing of the
//! system is written to, and its package lists, which are empty or stale on many machines, do not
//! matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::progress::{self, Step};
use super::suite::{self, KEYRING, Newest, Suite};
use crate::paths;

/// apt, ready to look packages up and download them.
pub(super) struct Apt {
    config: PathBuf,
    /// For logs.
    folder: PathBuf,
}

impl Apt {
    /// Reads the lists of the system's sources afresh, into the folder `apt` of the cache.
    pub(super) fn open(cache: &Path) -> Result<Self> {
        Self::with(cache.join("apt"), None)
            .context("cannot read Debian's package lists; is the network up, and does /etc/apt name a mirror that answers?")
    }

    /// Reads the lists of one suite of Debian afresh, into a folder of its own below `apt`; the
    /// system's sources and what is installed do not matter.
    pub(super) fn open_suite(cache: &Path, suite: &Suite) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).is_file(),
            "Debian's keys are not in {KEYRING}; on Debian and Ubuntu: apt-get install debian-archive-keyring"
        );
        Self::with(cache.join("apt").join(suite.name), Some(suite)).with_context(|| {
            format!(
                "cannot read the package list of {} from {}; is the network up?",
                suite.name, suite.mirror
            )
        })
    }

    fn with(folder: PathBuf, suite: Option<&Suite>) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg"] {
            ensure!(
                paths::program(program).is_some(),
                "this machine has no {program}, so it is not a Debian"
            );
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}/{part}", folder.display()))?;
        }
        let config = folder.join("apt.conf");
        let mut text = configuration(&folder);
        if let Some(suite) = suite {
            text += &suite::only(suite, &folder);
            fs::write(folder.join("sources.list"), suite.source())?;
        }
        fs::write(&config, text)?;
        let apt = Self { config, folder };
        let step = Step::start(match suite {
            Some(suite) => format!("reading the package list of {}", suite.name),
            None => "reading Debian's package lists".to_owned(),
        });
        progress::run(
            apt.command("apt-get").arg("update"),
            &apt.log("update"),
            || (),
        )?;
        step.done();
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("-qq")
            .arg("-c")
            .arg(&self.config);
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn output(
        &self,
        program: &str,
        arguments: &[&str],
        packages: &[impl AsRef<str>],
    ) -> Result<String> {
        let names: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
        let output = self
            .command(program)
            .args(arguments)
            .args(&names)
            .output()?;
        ensure!(
            output.status.success(),
            "{program} {} {} failed: {}",
            arguments.join(" "),
            names.join(" "),
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What an installation of these packages would add to the system: they and all that they need,
    /// as far as the system lacks it.
    pub(super) fn lacking(&self, packages: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let simulated = self.output(
            "apt-get",
            &["-s", "install", "--no-install-recommends"],
            packages,
        )?;
        Ok(to_install(&simulated))
    }

    /// These packages and all that they depend on, directly or not, installed or not.
    pub(super) fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut arguments = vec!["depends", "--recurse"];
        arguments.extend([
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
        ]);
        arguments.extend(["--no-replaces", "--no-enhances"]);
        let listed = self.output("apt-cache", &arguments, packages)?;
        let mut names: Vec<String> = listed
            .lines()
            // A dependency is indented, a virtual package in angle brackets.
            .filter(|line| !line.starts_with([' ', '|', '<']) && !line.is_empty())
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The newest version of a package that the sources have, and the packages that it needs directly.
    pub(super) fn newest(&self, package: &str) -> Result<Newest> {
        let shown = self.output("apt-cache", &["show", "--no-all-versions"], &[package])?;
        Newest::parse(&shown)
            .with_context(|| format!("apt does not say which version {package} has"))
    }

    /// Downloads these packages and unpacks them into the folder `into`.
    pub(super) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let debs = into.with_extension("debs");
        fs::create_dir_all(&debs)?;
        fs::create_dir_all(into)?;
        let total =
            download_size(&self.output("apt-get", &["download", "--print-uris"], packages)?);
        let step = Step::start(format!(
            "downloading {} ({})",
            packages.join(", "),
            progress::size(total)
        ));
        let mut download = self.command("apt-get");
        download.arg("download").args(packages).current_dir(&debs);
        progress::run(&mut download, &self.log("download"), || {
            step.bytes(folder_size(&debs), total);
        })?;
        step.done();
        let step = Step::start(format!("unpacking {}", packages.join(", ")));
        for entry in fs::read_dir(&debs)? {
            let deb = entry?.path();
            if deb.extension().is_some_and(|extension| extension == "deb") {
                progress::run(
                    Command::new("dpkg").arg("-x").arg(&deb).arg(into),
                    &self.log("unpack"),
                    || (),
                )?;
            }
        }
        fs::remove_dir_all(&debs)?;
        step.done();
        Ok(())
    }
}

/// What makes apt work on `folder` alone.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r##"Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Debug::NoLocking "true";
// Root's apt would download as another user, who cannot write here.
APT::Sandbox::User "root";
// Hooks of the system clean the system's folders.
#clear APT::Update;
#clear DPkg::Post-Invoke;
// Descriptions and icons are of no use here.
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
"##
    )
}

/// The packages in what `apt-get -s install` prints.
fn to_install(simulated: &str) -> Vec<String> {
    simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The sum of the sizes in what `apt-get download --print-uris` prints: 'URI' FILE SIZE HASH.
fn download_size(uris: &str) -> u64 {
    uris.lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum()
}

fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// The folder below an unpacked system that holds shared libraries.
pub(super) fn library_folder(root: &Path) -> Result<PathBuf> {
    Ok(root.join("usr/lib").join(triplet()?))
}

/// Debian's name for this machine, which its folders of libraries have.
pub(super) fn triplet() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("x86_64-linux-gnu"),
        "aarch64" => Ok("aarch64-linux-gnu"),
        other => bail!("Debian's packages are taken on x86_64 and aarch64 only, not on {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_installation_names_its_packages() {
        let simulated = "NOTE: This is only a simulation!\n\
            Inst libluajit-5.1-2 (2.1.0 Debian:12.15/oldstable [amd64])\n\
            Inst openssl [3.0.1] (3.0.2 Debian-Security:12/oldstable-security [amd64]) []\n\
            Inst wrk (4.1.0-3+b2 Debian:12.15/oldstable [amd64])\n\
            Conf wrk (4.1.0-3+b2 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(to_install(simulated), ["libluajit-5.1-2", "openssl", "wrk"]);
        assert!(to_install("").is_empty());
    }

    #[test]
    fn sizes_of_downloads_add_up() {
        let uris = "'http://mirror/a_1%2b2_amd64.deb' a_1+2_amd64.deb 4450500 SHA256:8f\n\
            'http://mirror/b_1_all.deb' b_1_all.deb 10 SHA256:00\n";
        assert_eq!(download_size(uris), 4_450_510);
    }
}
