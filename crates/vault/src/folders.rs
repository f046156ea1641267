//! Directories in which runs may lie, and the runs that are found there by name.

use std::sync::Arc;

use crate::api::{Ino, ROOT};
use crate::run::Run;
use crate::run_table::joined;
use crate::{Result, Vault};

/// Components of a folder's path above which no run is looked for.
const DEPTH_MAX: usize = 8;

impl Vault {
    /// The plaintext path of a directory in which runs may lie: the root, and folders of loose runs.
    pub(crate) fn folder_path(&self, dir: Ino) -> Option<Vec<u8>> {
        if dir == ROOT {
            return Some(Vec::new());
        }
        if !self.nodes.is_loose_folder(dir) {
            return None;
        }
        Some(self.nodes.plain_path(dir, DEPTH_MAX)?.join(&b'/'))
    }

    /// Whether runs may lie in a directory: in the root, and in folders of loose runs.
    pub fn may_hold_runs(&self, dir: Ino) -> bool {
        self.folder_path(dir).is_some()
    }

    /// The run that stands under a name.
    ///
    /// # Errors
    /// [`crate::Error::Closed`], where it was to be opened before that can be told.
    pub(crate) fn run_named(&self, parent: Ino, name: &[u8]) -> Result<Option<Arc<Run>>> {
        let Some(path) = self.folder_path(parent) else { return Ok(None) };
        self.among_runs(|| self.table().folder(&path)?.by_name.get(name).cloned())
    }

    /// Whether the run that stands under a name is sealed; `None`: no run does.
    ///
    /// # Errors
    /// [`crate::Error::Closed`], where it was to be opened before that can be told.
    pub fn is_sealed_run(&self, parent: Ino, name: &[u8]) -> Result<Option<bool>> {
        let run = self.run_named(parent, name)?.filter(|run| !run.is_loose());
        Ok(run.map(|run| run.is_sealed()))
    }

    /// Whether a run lies in a folder or below it.
    ///
    /// # Errors
    /// As of [`Vault::run_named`].
    pub(crate) fn has_runs_below(&self, folder: Ino) -> Result<bool> {
        let Some(path) = self.folder_path(folder) else { return Ok(false) };
        Ok(self.among_runs(|| self.table().has_runs_below(&path).then_some(()))?.is_some())
    }

    /// Whether a name of a loose run is left out: what lies outside runs is under no seal, but its folders lead to some
    /// that are.
    ///
    /// # Errors
    /// As of [`Vault::run_named`].
    pub(crate) fn is_left_out(&self, dir: Ino, name: &[u8]) -> Result<bool> {
        if !self.options.sealed_only {
            return Ok(false);
        }
        let Some(folder) = self.nodes.plain_path(dir, DEPTH_MAX) else { return Ok(true) };
        let path = joined(&folder.join(&b'/'), name);
        Ok(self.among_runs(|| self.table().has_runs_below(&path).then_some(()))?.is_none())
    }

    /// Whether a directory made in `parent` is a run; another gateway's folders get none of ours.
    pub(crate) fn is_run_depth(&self, parent: Ino) -> bool {
        let ours = |loose: Arc<Run>| self.nodes.known(parent).is_some_and(|k| Arc::ptr_eq(&k.run, &loose));
        if parent != ROOT && !self.loose_run().is_some_and(ours) {
            return false;
        }
        let depth = |path: Vec<u8>| if path.is_empty() { 0 } else { path.split(|c| *c == b'/').count() };
        self.folder_path(parent).map(depth) == usize::try_from(self.options.run_depth.saturating_sub(1)).ok()
    }
}
