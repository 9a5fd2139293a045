//! What an operator has changed by hand: kept in a file, so that it survives a restart.

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU8,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::priority::Lowered;
use crate::json_file;

/// Name of the file in the state directory.
const FILE: &str = "vrrp.json";

/// A change of an entry by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Its priority is lowered.
    Demote {
        /// By this; at least 1 is left.
        by: NonZeroU8,
    },
    /// It takes no part.
    Pause,
    /// Neither any more.
    Promote,
}

/// What is changed of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Adjustment {
    /// What its priority is lowered by.
    pub(super) demoted_by: u8,
    /// Whether it takes no part.
    pub(super) is_paused: bool,
}

impl Adjustment {
    fn changed(self, change: Change) -> Self {
        match change {
            Change::Demote { by } => Self {
                demoted_by: by.get(),
                ..self
            },
            Change::Pause => Self {
                is_paused: true,
                ..self
            },
            Change::Promote => Self::default(),
        }
    }

    /// What it lowers the priority by.
    pub(super) fn lowered(self) -> Option<Lowered> {
        (self.demoted_by > 0).then(|| Lowered {
            what: "demoted by hand".into(),
            weight: self.demoted_by,
        })
    }
}

/// What is changed of all entries, by their names.
#[derive(Debug)]
pub(super) struct Adjustments {
    path: PathBuf,
    by_name: BTreeMap<String, Adjustment>,
}

impl Adjustments {
    /// Reads what an earlier daemon has kept.
    pub(super) fn load(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        let by_name = json_file::load(&path)?.unwrap_or_default();
        Ok(Self { path, by_name })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, name: &str) -> Adjustment {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    /// Changes an entry. If that cannot be kept, nothing has changed.
    pub(super) fn change(&mut self, name: &str, change: Change) -> io::Result<()> {
        let mut by_name = self.by_name.clone();
        let changed = self.get(name).changed(change);
        if changed == Adjustment::default() {
            by_name.remove(name);
        } else {
            by_name.insert(name.to_owned(), changed);
        }
        json_file::save(&self.path, &by_name)?;
        self.by_name = by_name;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_and_are_undone() {
        let directory = tempfile::tempdir().unwrap();
        let load = || Adjustments::load(directory.path()).unwrap();
        let mut adjustments = load();
        let by = |by| Change::Demote {
            by: NonZeroU8::new(by).unwrap(),
        };
        assert_eq!(adjustments.get("main"), Adjustment::default());
        adjustments.change("main", by(30)).unwrap();
        adjustments.change("main", Change::Pause).unwrap();
        adjustments.change("main", by(40)).unwrap();
        let adjustment = load().get("main");
        assert!(adjustment.is_paused);
        assert_eq!(adjustment.lowered().map(|lowered| lowered.weight), Some(40));
        assert_eq!(load().get("other"), Adjustment::default());
        adjustments.change("main", Change::Promote).unwrap();
        assert_eq!(load().get("main"), Adjustment::default());
    }

    #[test]
    fn what_cannot_be_kept_is_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let mut adjustments = Adjustments::load(directory.path()).unwrap();
        directory.close().unwrap();
        assert!(adjustments.change("main", Change::Pause).is_err());
        assert_eq!(adjustments.get("main"), Adjustment::default());
    }
}
