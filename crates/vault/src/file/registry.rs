//! One object for each inode, and what must not be forgotten of files that were closed unsynced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use runvault_format::ids::FileId;

use super::{FileObject, lock};

/// Opens of one inode wait for each other, others seldom do.
const SHARDS: u64 = 64;

/// The live objects of a run.
pub(crate) struct Registry {
    live: Mutex<HashMap<u64, Weak<FileObject>>>,
    opening: Vec<Mutex<()>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { live: Mutex::default(), opening: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Registry {
    /// While the guard lives nobody else opens this inode. `None` never happens.
    pub(super) fn opening(&self, ino: u64) -> Option<MutexGuard<'_, ()>> {
        self.opening.get((ino % SHARDS) as usize).map(lock)
    }

    pub(super) fn find(&self, ino: u64) -> Option<Arc<FileObject>> {
        lock(&self.live).get(&ino).and_then(Weak::upgrade)
    }

    pub(super) fn all(&self) -> Vec<Arc<FileObject>> {
        lock(&self.live).values().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn enter(&self, file: &Arc<FileObject>) {
        lock(&self.live).insert(file.ino, Arc::downgrade(file));
    }

    /// Called by the object's own drop.
    pub(super) fn leave(&self, file: &FileObject) {
        let mut live = lock(&self.live);
        if live.get(&file.ino).is_some_and(|held| std::ptr::eq(held.as_ptr(), file)) {
            live.remove(&file.ino);
        }
    }
}

/// What a file whose last slot is not known durable needs to know when it is opened again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Residue {
    pub(super) file_id: FileId,
    pub(super) safe: Option<u8>,
    pub(super) durable: u64,
    /// The object that answers for it.
    pub(super) owner: u64,
}

struct Entry {
    residue: Residue,
    /// The object lives, and knows better.
    alive: bool,
    stamp: u64,
}

/// All residues of a run. A checkpoint forgets those of dead objects that it has seen.
#[derive(Default)]
pub(super) struct Residues(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: HashMap<u64, Entry>,
    stamp: u64,
}

impl Residues {
    pub(super) fn len(&self) -> usize {
        lock(&self.0).entries.len()
    }

    /// The object has bytes or a slot that no sync has covered.
    pub(super) fn note(&self, ino: u64, residue: Residue) {
        let mut inner = lock(&self.0);
        inner.stamp += 1;
        let stamp = inner.stamp;
        inner.entries.insert(ino, Entry { residue, alive: true, stamp });
    }

    /// Everything of the object is durable, or nobody needs it any more.
    pub(super) fn settle(&self, ino: u64, owner: u64) {
        let mut inner = lock(&self.0);
        if inner.entries.get(&ino).is_some_and(|e| e.residue.owner == owner) {
            inner.entries.remove(&ino);
        }
    }

    /// The object is gone.
    pub(super) fn orphan(&self, ino: u64, owner: u64) {
        let mut inner = lock(&self.0);
        inner.stamp += 1;
        let stamp = inner.stamp;
        if let Some(entry) = inner.entries.get_mut(&ino).filter(|e| e.residue.owner == owner) {
            entry.alive = false;
            entry.stamp = stamp;
        }
    }

    /// A new object of the same file takes over.
    pub(super) fn adopt(&self, ino: u64, file_id: &FileId, owner: u64) -> Option<Residue> {
        let mut inner = lock(&self.0);
        let entry = inner.entries.get_mut(&ino)?;
        if entry.residue.file_id != *file_id {
            inner.entries.remove(&ino);
            return None;
        }
        entry.residue.owner = owner;
        entry.alive = true;
        Some(entry.residue)
    }

    pub(super) fn newest(&self) -> u64 {
        lock(&self.0).stamp
    }

    pub(super) fn forget_up_to(&self, stamp: u64) {
        lock(&self.0).entries.retain(|_, e| e.alive || e.stamp > stamp);
    }
}
