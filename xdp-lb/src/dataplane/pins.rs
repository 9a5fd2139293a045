//! The directory in which maps and links are pinned.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use tracing::warn;

use super::{DataplaneError, detach};

/// Where distributions mount the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";

/// Who uses a pin directory, and does not share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The daemon, for as long as it runs.
    Daemon,
    /// `xdp-lb decap`, for a moment.
    Decap,
}

impl User {
    /// What is said to a second one.
    fn busy(self) -> &'static str {
        match self {
            Self::Daemon => {
                "another daemon uses it; stop that one, or give this one a directory of its own \
                 with --pin-dir"
            }
            Self::Decap => "another `xdp-lb decap` is at work on it; try again",
        }
    }
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many pins.
    pub pins: usize,
    /// What others have in the directory, and what was left there.
    pub left: Vec<PathBuf>,
}

/// A directory on a BPF file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinDirectory(PathBuf);

impl PinDirectory {
    /// Used where nobody asks for another.
    pub const DEFAULT: &str = "/sys/fs/bpf/xdp-lb";

    /// The directory at `path`; it need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory and locks it against other `user`s; the lock ends with what is returned.
    /// Mounts the BPF file system at its usual place where it is missing.
    pub(super) fn prepare(&self, user: User) -> Result<fs::File, DataplaneError> {
        if self.0.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            mount(
                Some("bpf"),
                BPFFS,
                Some("bpf"),
                MsFlags::empty(),
                Some("mode=0700"),
            )
            .map_err(|errno| self.error(format!("cannot mount {BPFFS}: {errno}")))?;
        }
        let existing = self
            .0
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        if !is_bpffs(existing) {
            return Err(self.error(format!(
                "not on a BPF file system; choose one below {BPFFS}, or mount one: \
                 `mount -t bpf bpf {}`",
                existing.display()
            )));
        }
        if user == User::Daemon && is_private(existing) {
            warn!(
                pins = %self.0.display(),
                "this process has a BPF file system of its own (`ip netns exec`, PrivateMounts): pins, and packets \
                 with them, end with it; `nsenter --net=/run/netns/NAME` enters a network alone"
            );
        }
        fs::create_dir_all(&self.0).map_err(|error| self.error(error.to_string()))?;
        self.lock(user)
    }

    /// Locks the directory against others that would use it as well.
    fn lock(&self, user: User) -> Result<fs::File, DataplaneError> {
        let directory = fs::File::open(&self.0).map_err(|error| self.error(error.to_string()))?;
        directory.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => self.error(user.busy().into()),
            fs::TryLockError::Error(error) => self.error(format!("cannot lock it: {error}")),
        })?;
        Ok(directory)
    }

    /// The pins whose names begin with `prefix`; none where the directory is missing.
    pub(super) fn named(&self, prefix: &str) -> Result<Vec<PathBuf>, DataplaneError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.error(error.to_string())),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.error(error.to_string()))?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// [`remove`](Self::remove) where no other `user` is at work. Nothing where there is nothing.
    ///
    /// # Errors
    ///
    /// If another `user` is at work here, and as `remove`.
    pub fn remove_unused(&self, user: User) -> Result<Removed, DataplaneError> {
        match self.0.try_exists() {
            Ok(false) => return Ok(Removed::default()),
            Ok(true) => {}
            // A folder above that is not for this user's eyes.
            Err(error) => return Err(self.error(error.to_string())),
        }
        let _lock = self.lock(user)?;
        self.remove()
    }

    /// Removes one pin. What it was of ends, unless something else refers to it; a link at once.
    pub(super) fn unpin(&self, pin: &Path) -> Result<(), DataplaneError> {
        if is_link(pin) {
            // A kernel that cannot detach it does so soon after the pin is gone.
            let _ = detach::detach(pin);
        }
        fs::remove_file(pin)
            .map_err(|error| self.error(format!("cannot remove {}: {error}", pin.display())))
    }

    /// Takes everything away: the links first, so that packets go to the kernel at once, then the
    /// maps, then the directory. What others have put there stays, and the directory with it.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read or a pin cannot be removed; then nothing was removed, unless it went
    /// wrong on the way.
    pub fn remove(&self) -> Result<Removed, DataplaneError> {
        let (mut pins, left): (Vec<_>, Vec<_>) =
            self.named("")?.into_iter().partition(|path| is_ours(path));
        pins.sort_by_key(|path| !is_link(path));
        for pin in &pins {
            self.unpin(pin)?;
        }
        let pins = pins.len();
        match fs::remove_dir(&self.0) {
            // Others may have put something there meanwhile.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(self.error(error.to_string()))
            }
            _ => Ok(Removed { pins, left }),
        }
    }

    pub(super) fn error(&self, reason: String) -> DataplaneError {
        DataplaneError::Pins {
            path: self.0.clone(),
            reason,
        }
    }
}

fn is_link(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(super::attach::LINK))
}

/// Whether a pin is one that the daemon, or `xdp-lb decap`, makes, of this version or another: maps have names in
/// capitals.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_map = |name: &str| {
        let mut bytes = name.bytes();
        bytes
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    };
    !path.is_dir() && (is_link(path) || is_map(&name))
}

/// Whether a path is on another file system for this process than for the first one of the system.
fn is_private(path: &Path) -> bool {
    let of_first = Path::new("/proc/1/root").join(path.strip_prefix("/").unwrap_or(path));
    match (fs::metadata(path), fs::metadata(of_first)) {
        (Ok(ours), Ok(theirs)) => ours.dev() != theirs.dev(),
        (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
        (Err(_), _) => false,
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}
