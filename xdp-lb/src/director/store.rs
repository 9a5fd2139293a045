//! The file that holds the run-time changes, in the state directory, so that they survive a restart.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::overrides::Overrides;
use crate::json_file;

/// Name of the file in the state directory.
const FILE: &str = "state.json";
/// Version of its format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    backends: Overrides,
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
        let Some(file) = json_file::load::<StateFile>(&self.0)? else {
            return Ok(Overrides::default());
        };
        if file.version != VERSION {
            let found = file.version;
            return Err(io::Error::other(format!(
                "format version {found}; this xdp-lb writes {VERSION}"
            )));
        }
        Ok(file.backends)
    }

    /// Writes the changes, all or nothing: after a crash the file is the old one or the new one.
    pub(super) fn save(&self, overrides: &Overrides) -> io::Result<()> {
        let file = StateFile {
            version: VERSION,
            backends: overrides.clone(),
        };
        json_file::save(&self.0, &file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{config, director::Change};

    fn service() -> config::Service {
        let text = "interfaces: [eth0]\nservices:\n- { name: web, vip: 192.0.2.10, protocol: tcp, \
                    port: 80, backends: [10.0.0.1, 10.0.0.2] }\n";
        config::parse(text, "test").unwrap().services.remove(0)
    }

    fn address(last: u8) -> std::net::IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_state_file_holds_every_change_and_damage_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = StateStore::new(directory.path());
        assert_eq!(store.load().unwrap(), Overrides::default());
        let service = service();
        let mut overrides = Overrides::default();
        overrides
            .change(&service, address(3), Change::Add { weight: Some(7) })
            .unwrap();
        overrides
            .change(&service, address(1), Change::Remove)
            .unwrap();
        overrides
            .change(&service, address(2), Change::Drain)
            .unwrap();
        store.save(&overrides).unwrap();
        assert_eq!(store.load().unwrap(), overrides);
        fs::write(store.path(), "{\"version\": 2, \"backends\": {}}").unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("format version 2"), "{error}");
        for damaged in [
            "",
            "{",
            "[]",
            "{\"version\": 1, \"backends\": {\"web\": {\"x\": {}}}}",
        ] {
            fs::write(store.path(), damaged).unwrap();
            assert!(store.load().is_err(), "{damaged}");
        }
    }
}
