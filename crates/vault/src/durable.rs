//! Which names and attributes are not known durable, so that fsync(2) pays only for those.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::Ino;
use crate::outcome::{is_not_found, outcome};
use crate::{Error, Posix, Result, Vault};

/// Above so many notes the next tick syncs the whole store instead.
const MANY: usize = 100_000;

/// Changes that no sync has covered yet, each with the time of its last change.
#[derive(Default)]
pub(crate) struct Unsynced {
    clock: AtomicU64,
    changes: Mutex<Changes>,
}

#[derive(Default)]
struct Changes {
    /// Directories whose names changed.
    dirs: HashMap<Ino, u64>,
    /// Files whose attributes changed.
    attributes: HashMap<Ino, u64>,
    /// The directories between which a file or directory was renamed last, or that it lost a name in.
    renames: HashMap<Ino, Vec<Ino>>,
}

impl Changes {
    /// The node has a name in the directory no more.
    fn left(&mut self, ino: Ino, dir: Ino) {
        let dirs = self.renames.entry(ino).or_default();
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
}

impl Unsynced {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Names of a directory changed.
    pub(crate) fn names(&self, dir: Ino) {
        let now = self.now();
        self.changes().dirs.insert(dir, now);
    }

    /// Mode, owner, times or xattrs of a file changed.
    pub(crate) fn attributes(&self, file: Ino) {
        let now = self.now();
        self.changes().attributes.insert(file, now);
    }

    /// A node went from one directory to another (or the same).
    pub(crate) fn renamed(&self, ino: Ino, from: Ino, to: Ino) {
        let now = self.now();
        let mut changes = self.changes();
        for dir in [from, to] {
            changes.dirs.insert(dir, now);
            changes.left(ino, dir);
        }
    }

    /// A file lost one of several names; its directory is among [`Unsynced::names`].
    pub(crate) fn unlinked(&self, ino: Ino, dir: Ino) {
        self.changes().left(ino, dir);
    }

    /// A directory that is no more.
    pub(crate) fn forget_dir(&self, dir: Ino) {
        self.changes().dirs.remove(&dir);
    }

    fn dir_changed(&self, dir: Ino) -> Option<u64> {
        self.changes().dirs.get(&dir).copied()
    }

    fn dir_synced(&self, dir: Ino, up_to: u64) {
        let mut changes = self.changes();
        if changes.dirs.get(&dir).is_some_and(|at| *at <= up_to) {
            changes.dirs.remove(&dir);
        }
    }

    fn many(&self) -> bool {
        let changes = self.changes();
        changes.dirs.len() + changes.attributes.len() + changes.renames.len() > MANY
    }

    /// The whole store was synced after `up_to`.
    fn all_synced(&self, up_to: u64) {
        let mut changes = self.changes();
        changes.dirs.retain(|_, at| *at >= up_to);
        changes.attributes.retain(|_, at| *at >= up_to);
        let dirs = std::mem::take(&mut changes.dirs);
        changes.renames.retain(|_, of| of.iter().any(|dir| dirs.contains_key(dir)));
        changes.dirs = dirs;
    }
}

impl Vault {
    /// Makes every name that leads to the node durable, up to its run's top.
    pub(crate) fn sync_names_of(&self, ino: Ino) -> Result<()> {
        for name in self.nodes.names(ino) {
            self.sync_dir_and_above(name.parent)?;
        }
        Ok(())
    }

    /// Makes the names in a directory durable, and those that lead to it.
    pub(crate) fn sync_dir_and_above(&self, dir: Ino) -> Result<()> {
        self.sync_dir_if_changed(dir)?;
        for above in self.nodes.ancestors(dir) {
            self.sync_dir_if_changed(above)?;
        }
        Ok(())
    }

    fn sync_dir_if_changed(&self, dir: Ino) -> Result<()> {
        // Not taken out before the sync: another fsync must not return while this one is under way.
        let Some(changed) = self.unsynced.dir_changed(dir) else { return Ok(()) };
        match self.directory(dir) {
            Ok(open) => open.dir.sync().map_err(|e| outcome("sync", open.object(), e))?,
            // Removed meanwhile: it has no names to keep.
            Err(e) if is_not_found(&e) || matches!(e, Error::Posix(Posix::Stale)) => {}
            Err(e) => return Err(e),
        }
        self.unsynced.dir_synced(dir, changed);
        self.synced_now();
        Ok(())
    }

    /// Before a second rename or link: a header can bridge only one change that may be undone.
    pub(crate) fn settle_rename(&self, ino: Ino) -> Result<()> {
        let Some(dirs) = self.unsynced.changes().renames.remove(&ino) else { return Ok(()) };
        let settled = dirs.iter().try_for_each(|dir| self.sync_dir_if_changed(*dir));
        if settled.is_err() {
            let mut changes = self.unsynced.changes();
            dirs.iter().for_each(|dir| changes.left(ino, *dir));
        }
        settled
    }

    /// Makes a file's mode, owner, times and xattrs durable where they changed.
    pub(crate) fn sync_attributes(&self, ino: Ino, file: &crate::file::FileObject) -> Result<()> {
        let Some(changed) = self.unsynced.changes().attributes.get(&ino).copied() else { return Ok(()) };
        file.stored().sync_all().map_err(|e| outcome("sync", format!("inode {ino}"), e))?;
        let mut changes = self.unsynced.changes();
        if changes.attributes.get(&ino).is_some_and(|at| *at <= changed) {
            changes.attributes.remove(&ino);
        }
        Ok(())
    }

    /// Bounds the memory of all these notes.
    pub(crate) fn trim_unsynced(&self) -> Result<()> {
        if !self.unsynced.many() {
            return Ok(());
        }
        let before = self.unsynced.now();
        self.root.sync_fs().map_err(|e| Error::store("sync", "the store", e))?;
        self.unsynced.all_synced(before);
        self.synced_now();
        Ok(())
    }
}
