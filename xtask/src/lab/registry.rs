//! The labs of this machine: a directory each below `/run/xdp-lb-lab`, with its files and state.
//!
//! A lab's namespaces need no cleaning, the kernel does that. What a killed lab leaves is its
//! directory here; whoever looks at the registry next removes it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::host::{Host, Interface};

const ROOT: &str = "/run/xdp-lb-lab";
const STATE: &str = "state.json";

/// A process that can be told from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_time: u64,
}

impl Owner {
    /// This process.
    pub fn this() -> Result<Self> {
        let pid = nix::unistd::Pid::this().as_raw();
        Self::of(pid).context("cannot read this process's start time")
    }

    /// The process that has the id `pid` now; `None` if there is none, or only its zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets, and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start_time })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// What ends a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `lab down`: its owner is a keeper that does nothing else.
    Kept,
    /// The end of its owner, a test or a demo.
    Owned,
}

/// What the registry knows of one lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabState {
    /// The lab's name.
    pub name: String,
    /// The process whose threads hold the namespaces.
    pub owner: Owner,
    /// What ends the lab.
    pub kind: Kind,
    /// When it was begun.
    pub created: SystemTime,
    /// Whether everything in it has been started.
    pub ready: bool,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// The hosts; empty until they exist.
    pub hosts: Vec<HostState>,
}

/// What the registry knows of a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostState {
    /// The host's name.
    pub name: String,
    /// The owner's thread that is in the host's namespaces.
    pub tid: i32,
    /// The host's interfaces.
    pub interfaces: Vec<Interface>,
}

impl LabState {
    /// How long ago the lab was begun.
    pub fn age(&self) -> Duration {
        self.created.elapsed().unwrap_or_default()
    }

    pub(super) fn set_hosts<'a>(&mut self, hosts: impl Iterator<Item = &'a Host>) {
        self.hosts = hosts
            .map(|host| HostState {
                name: host.name().to_owned(),
                tid: host.namespace().tid(),
                interfaces: host.interfaces().to_vec(),
            })
            .collect();
    }
}

/// A lab's place in the registry, removed when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    dir: PathBuf,
}

impl Entry {
    /// Takes the name in `state`, or fails if a living lab has it.
    pub(super) fn register(state: &LabState) -> Result<Self> {
        check_name(&state.name)?;
        let _lock = lock()?;
        sweep()?;
        let dir = Path::new(ROOT).join(&state.name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(taken(&state.name)),
            outcome => outcome.with_context(|| format!("cannot make {}", dir.display()))?,
        }
        let entry = Self { dir };
        entry.write(state)?;
        Ok(entry)
    }

    /// The lab's directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces what the registry knows of the lab.
    pub(super) fn write(&self, state: &LabState) -> Result<()> {
        let path = self.dir.join(STATE);
        let written = self.dir.join("state.new");
        let text = serde_json::to_string_pretty(state).context("cannot write a lab's state")?;
        fs::write(&written, text)
            .and_then(|()| fs::rename(&written, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The next look at the registry removes what is left.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The labs that live, and the names of those whose remains were removed just now.
pub fn labs() -> Result<(Vec<LabState>, Vec<String>)> {
    let _lock = lock()?;
    let swept = sweep()?;
    let mut labs: Vec<LabState> = names()?.iter().filter_map(|name| read(name).ok()).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((labs, swept))
}

/// The message for a name that a living lab has.
pub(super) fn taken(name: &str) -> String {
    format!(
        "a lab named {name} is up already; `cargo xtask lab down {name}` ends it, --name gives another name"
    )
}

/// Removes the directory of the lab `name` if this process owns it, whoever holds the [`Entry`].
pub(super) fn forget(name: &str) -> Result<()> {
    let _lock = lock()?;
    if read(name)
        .is_ok_and(|state| Owner::of(nix::unistd::Pid::this().as_raw()) == Some(state.owner))
    {
        remove(name)?;
    }
    Ok(())
}

/// Removes the directories of all labs that this process owns. No lab can be begun while the result lives.
pub(crate) fn forget_all() -> Result<impl Sized> {
    let lock = lock()?;
    let this = Owner::this()?;
    for name in names()? {
        // A server may have made a file in it meanwhile.
        if read(&name).is_ok_and(|state| state.owner == this) && remove(&name).is_err() {
            remove(&name)?;
        }
    }
    Ok(lock)
}

/// Removes what is left of the lab `name`, unless a new one has taken the name already.
pub(super) fn clear(name: &str) -> Result<()> {
    let _lock = lock()?;
    if read(name).is_ok_and(|state| state.owner.is_alive()) {
        return Ok(());
    }
    remove(name)
}

/// Removes what a lab has below [`ROOT`]; it may be half removed already.
fn remove(name: &str) -> Result<()> {
    let dir = Path::new(ROOT).join(name);
    for outcome in [fs::remove_dir_all(&dir), fs::remove_file(keeper_log(name)?)] {
        match outcome {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The state of the lab `name`, dead or alive; an error if there is none.
pub(super) fn read(name: &str) -> Result<LabState> {
    let path = Path::new(ROOT).join(name).join(STATE);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

/// Where a keeper logs; not in the lab's directory, which it outlives.
pub(super) fn keeper_log(name: &str) -> Result<PathBuf> {
    check_name(name)?;
    Ok(Path::new(ROOT).join(format!(".{name}.log")))
}

/// Removes the directories of labs whose owner has died. The caller holds the lock.
fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for name in names()? {
        // Under the lock no directory is without state, except one left half removed.
        if read(&name).is_ok_and(|state| state.owner.is_alive()) {
            continue;
        }
        remove(&name)?;
        swept.push(name);
    }
    Ok(swept)
}

fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for item in fs::read_dir(ROOT).with_context(|| format!("cannot list {ROOT}"))? {
        let item = item.with_context(|| format!("cannot list {ROOT}"))?;
        let name = item.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// One change of the registry at a time; the kernel unlocks when the file is closed.
fn lock() -> Result<Flock<File>> {
    fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT}; it takes root"))?;
    let path = Path::new(ROOT).join(".lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow!(error).context(format!("cannot lock {}", path.display())))
}

fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let well_formed = !name.is_empty() && name.len() <= 40 && name.chars().all(fits);
    ensure!(
        well_formed,
        "{name:?} is no name for a lab: 1 to 40 letters, digits, - and _"
    );
    Ok(())
}
