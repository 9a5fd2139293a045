//! Kernels to test on: Debian's for virtual machines in the cloud, unpacked into the cache.
//!
//! Each comes from one suite, whichever Debian this machine is. What is in the cache is used as it
//! is, without the network; `update` looks for a newer one. They lie in a folder a version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use super::apt::Apt;
use super::suite::Suite;
use super::toolchain::RECIPE;
use super::{Workshop, remove_folder};

/// The package that needs the newest kernel of a suite.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Modules that the tests need, in the order in which they are to be loaded.
const MODULES: &[&str] = &["veth"];
/// From this age on, a kernel in the cache is worth a look for a newer one.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

const SECURITY: &str = "http://deb.debian.org/debian-security";

/// A kernel that the tests can run on.
#[derive(Debug)]
pub struct Kernel {
    /// `5.10`; or the suite's name, where its version moves on.
    pub name: &'static str,
    suite: Suite,
}

/// The kernels there are, oldest first. A suite's support may end: then its row goes.
const KERNELS: &[Kernel] = &[
    Kernel::new("5.10", "bullseye-security", SECURITY),
    Kernel::new("6.1", "bookworm-security", SECURITY),
    Kernel::new("6.12", "trixie-security", SECURITY),
    // Debian's newest. It may change from day to day, so it runs only where it is asked for.
    Kernel::new("sid", "sid", "http://deb.debian.org/debian"),
];

/// Names of the kernels that are tested on when none is named.
const USUAL: &[&str] = &["5.10", "6.1", "6.12"];

impl Kernel {
    const fn new(name: &'static str, suite: &'static str, mirror: &'static str) -> Self {
        let suite = Suite {
            name: suite,
            mirror,
            architecture: "amd64",
        };
        Self { name, suite }
    }

    /// The kernel of this name.
    fn find(name: &str) -> Option<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.name == name)
    }

    /// A folder a kernel, a folder a version in it.
    fn folder_name(&self) -> String {
        format!("kernels-{RECIPE}/{}", self.name)
    }

    /// The one in the cache, if there is one.
    pub(super) fn cached(&'static self, cache: &Path) -> Option<Unpacked> {
        let entries = fs::read_dir(cache.join(self.folder_name())).ok()?;
        let newest = entries
            .flatten()
            .max_by_key(|entry| modified(&entry.path()))?;
        let version = newest.file_name().into_string().ok()?;
        let folder = newest.path();
        let image = folder.join("vmlinuz");
        image.is_file().then_some(Unpacked {
            kernel: self,
            version,
            folder,
        })
    }

    /// The newest that the suite has: the one in the cache, if that is it.
    pub(super) fn fetch(&'static self, workshop: &Workshop) -> Result<Unpacked> {
        let apt = Apt::open_suite(&workshop.cache, &self.suite)?;
        let newest = apt.newest(PACKAGE)?;
        let cached = self.cached(&workshop.cache);
        if let Some(cached) = cached.filter(|cached| cached.version == newest.version) {
            return Ok(cached);
        }
        let image = newest
            .needs
            .into_iter()
            .find(|name| name.starts_with("linux-image-"))
            .with_context(|| format!("{PACKAGE} of {} needs no kernel", self.suite.name))?;
        remove_folder(&workshop.place(&self.folder_name()))?;
        let name = format!("{}/{}", self.folder_name(), newest.version);
        let folder = workshop.make(&name, |folder| {
            let whole = folder.join("package");
            apt.unpack(&parts(&apt, &image)?, &whole)?;
            keep(&whole, folder)?;
            remove_folder(&whole)
        })?;
        Ok(Unpacked {
            kernel: self,
            version: newest.version,
            folder,
        })
    }
}

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Which one.
    pub kernel: &'static Kernel,
    /// The version of Debian's package.
    pub version: String,
    folder: PathBuf,
}

impl Unpacked {
    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules to load, in this order; those whose name ends in `.xz` are compressed.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        MODULES
            .iter()
            .map(|module| {
                find(&self.folder, &|name| is_module(name, module))?
                    .with_context(|| format!("{} has no module {module}", self.folder.display()))
            })
            .collect()
    }

    /// The kernel is so old that there may be a newer one.
    pub fn is_old(&self) -> bool {
        let age = modified(&self.image()).and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age > OLD)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn is_module(file_name: &str, module: &str) -> bool {
    file_name
        .strip_prefix(module)
        .is_some_and(|rest| rest == ".ko" || rest == ".ko.xz")
}

/// The packages that a kernel consists of: one, or several for image and modules since Debian 14.
fn parts(apt: &Apt, image: &str) -> Result<Vec<String>> {
    let release = image.strip_prefix("linux-image").unwrap_or(image);
    let mut packages = apt.closure(&[image])?;
    packages.retain(|name| name.starts_with("linux-") && name.ends_with(release));
    Ok(packages)
}

/// Moves the few files that a test needs from an unpacked package into `folder`.
fn keep(package: &Path, folder: &Path) -> Result<()> {
    // Its place depends on Debian's version: `boot`, or beside the modules.
    let Some(image) = find(package, &|name| name.starts_with("vmlinuz"))? else {
        bail!("the kernel's package has no vmlinuz");
    };
    fs::copy(&image, folder.join("vmlinuz"))?;
    for module in MODULES {
        let Some(file) = find(package, &|name| is_module(name, module))? else {
            bail!("the kernel's package has no module {module}");
        };
        fs::rename(&file, folder.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// The first regular file below a folder whose name is wanted.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), wanted)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(wanted) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// The names that the command line takes.
pub fn names() -> PossibleValuesParser {
    KERNELS.iter().map(|kernel| kernel.name).into()
}

/// The kernels of these names, each once; the usual ones when there is none.
pub fn choose(names: &[String]) -> Result<Vec<&'static Kernel>> {
    let names: Vec<&str> = match names {
        [] => USUAL.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let mut chosen: Vec<&'static Kernel> = Vec::new();
    for name in names {
        let kernel = Kernel::find(name).with_context(|| format!("there is no kernel {name}"))?;
        if chosen.iter().all(|other| other.name != name) {
            chosen.push(kernel);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Vec<&'static str> {
        let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
        let chosen = choose(&asked).unwrap();
        chosen.iter().map(|kernel| kernel.name).collect()
    }

    #[test]
    fn kernels_are_chosen_once_each_and_the_usual_ones_without_a_choice() {
        assert_eq!(names(&[]), USUAL);
        assert_eq!(names(&["6.1", "5.10", "6.1"]), ["6.1", "5.10"]);
        let error = choose(&["4.19".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("4.19"), "{error}");
    }

    #[test]
    fn modules_are_known_by_their_file_names() {
        assert!(is_module("veth.ko", "veth") && is_module("veth.ko.xz", "veth"));
        assert!(!is_module("veth2.ko", "veth") && !is_module("veth.ko.sig", "veth"));
    }

    #[test]
    fn image_and_modules_are_kept_of_a_package_and_found_again() {
        let folder = std::env::temp_dir().join(format!("xtask-kernel-{}", std::process::id()));
        let modules = folder.join("package/usr/lib/modules/7.2");
        fs::create_dir_all(modules.join("kernel/drivers/net")).unwrap();
        fs::write(modules.join("vmlinuz"), "image").unwrap();
        fs::write(modules.join("kernel/drivers/net/veth.ko.xz"), "module").unwrap();
        keep(&folder.join("package"), &folder).unwrap();
        fs::remove_dir_all(folder.join("package")).unwrap();
        let unpacked = Unpacked {
            kernel: &KERNELS[0],
            version: "7.2.1-1".to_owned(),
            folder: folder.clone(),
        };
        assert_eq!(fs::read_to_string(unpacked.image()).unwrap(), "image");
        assert_eq!(unpacked.modules().unwrap(), [folder.join("veth.ko.xz")]);
        assert!(!unpacked.is_old());
        fs::remove_dir_all(folder).unwrap();
    }
}
