//! What was changed at run time, apart from the config file: kept in the state directory, so that it
//! survives a restart, and shown as such.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{desired::Origin, error::ChangeError};
use crate::config::{DEFAULT_WEIGHT, Service};

/// Name of the file in the state directory.
const FILE: &str = "state.json";
/// Version of its format.
const VERSION: u32 = 1;

/// What was changed of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Override {
    /// It is not in the config file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    added: bool,
    /// It is in the config file, but taken away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
}

/// All run-time changes: service name → backend address → change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides(BTreeMap<String, BTreeMap<IpAddr, Override>>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    backends: BTreeMap<String, BTreeMap<IpAddr, Override>>,
}

/// A backend with the run-time changes taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effective {
    pub(super) weight: u32,
    pub(super) draining: bool,
    pub(super) origin: Origin,
}

/// A change to one backend of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new backend; None: the default weight, or the one in the config file.
    Add {
        /// Its weight.
        weight: Option<u32>,
    },
    /// Another weight.
    SetWeight(u32),
    /// No new connections.
    Drain,
    /// New connections again.
    Enable,
    /// Away with it; its connections break.
    Remove,
}

impl Overrides {
    /// The backends of `service` that are in force.
    pub(super) fn effective(&self, service: &Service) -> impl Iterator<Item = (IpAddr, Effective)> {
        let overrides = self.0.get(&service.name);
        let of = move |address: &IpAddr| overrides.and_then(|changes| changes.get(address));
        let configured = service.backends.iter().filter_map(move |backend| {
            let change = of(&backend.address);
            if change.is_some_and(|change| change.removed) {
                return None;
            }
            let effective = Effective {
                weight: change
                    .and_then(|change| change.weight)
                    .unwrap_or(backend.weight),
                draining: change.is_some_and(|change| change.draining),
                origin: if change.is_some() {
                    Origin::Changed
                } else {
                    Origin::Config
                },
            };
            Some((backend.address, effective))
        });
        let in_config = |address: &IpAddr| service.backends.iter().any(|b| b.address == *address);
        let added: Vec<_> = overrides
            .into_iter()
            .flatten()
            .filter(|(address, change)| change.added && !in_config(address))
            .map(|(&address, change)| {
                let effective = Effective {
                    weight: change.weight.unwrap_or(DEFAULT_WEIGHT),
                    draining: change.draining,
                    origin: Origin::Runtime,
                };
                (address, effective)
            })
            .collect();
        configured.chain(added)
    }

    /// Makes a change.
    ///
    /// # Errors
    ///
    /// If the backend is there already, or is not there.
    pub(super) fn change(
        &mut self,
        service: &Service,
        address: IpAddr,
        change: Change,
    ) -> Result<(), ChangeError> {
        let configured = service
            .backends
            .iter()
            .any(|backend| backend.address == address);
        let present = self.effective(service).any(|(found, _)| found == address);
        match (change, present) {
            (Change::Add { .. }, true) => {
                return Err(ChangeError::Exists {
                    service: service.name.clone(),
                    address,
                });
            }
            (Change::Add { .. }, false) | (_, true) => {}
            (_, false) => {
                return Err(ChangeError::NoBackend {
                    service: service.name.clone(),
                    address,
                });
            }
        }
        let changes = self.0.entry(service.name.clone()).or_default();
        let entry = changes.entry(address).or_default();
        match change {
            Change::Add { weight } => {
                *entry = Override {
                    added: !configured,
                    weight,
                    ..Override::default()
                }
            }
            Change::SetWeight(weight) => entry.weight = Some(weight),
            Change::Drain => entry.draining = true,
            Change::Enable => entry.draining = false,
            Change::Remove => {
                *entry = Override {
                    removed: configured,
                    ..Override::default()
                }
            }
        }
        if *entry == Override::default() {
            changes.remove(&address);
        }
        if changes.is_empty() {
            self.0.remove(&service.name);
        }
        Ok(())
    }

    /// Forgets changes to services that are no longer there. Returns their names.
    pub(super) fn retain_services(&mut self, services: &[Service]) -> Vec<String> {
        let known = |name: &String| services.iter().any(|service| service.name == *name);
        let forgotten = self.0.keys().filter(|name| !known(name)).cloned().collect();
        self.0.retain(|name, _| known(name));
        forgotten
    }

    /// How many backends differ from the config file.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

/// The file that holds the run-time changes.
#[derive(Clone, Debug)]
pub(super) struct StateStore(PathBuf);

impl StateStore {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.join(FILE))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the changes; none where there is no file.
    pub(super) fn load(&self) -> io::Result<Overrides> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Overrides::default());
            }
            Err(error) => return Err(error),
        };
        let file: StateFile = serde_json::from_slice(&text).map_err(io::Error::other)?;
        if file.version != VERSION {
            let found = file.version;
            return Err(io::Error::other(format!(
                "format version {found}; this xdp-lb writes {VERSION}"
            )));
        }
        Ok(Overrides(file.backends))
    }

    /// Writes the changes, all or nothing: after a crash the file is the old one or the new one.
    pub(super) fn save(&self, overrides: &Overrides) -> io::Result<()> {
        let file = StateFile {
            version: VERSION,
            backends: overrides.0.clone(),
        };
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        let temporary = self.0.with_extension("json.new");
        let mut out = fs::File::create(&temporary)?;
        serde_json::to_writer_pretty(&mut out, &file)?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        fs::File::open(directory)?.sync_all()
    }
}
