//! Names that cannot be there: whatever lies in a directory that this session made, it put there itself. So who asks for
//! a name before making it, as every client does, need not wait for a store behind a network.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use runvault_format::ids::DirId;

/// Names that are remembered of a run, 8 bytes each; above it all are forgotten, and the store is asked.
const MOST: usize = 1 << 18;

/// Of the directories made in this session: the hash of each stored name that was ever to be made there.
#[derive(Default)]
pub(crate) struct OwnNames(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    dirs: HashMap<DirId, HashSet<u64>>,
    count: usize,
}

/// Two names of one hash cost a question.
fn hash(stored: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(stored);
    hasher.finish()
}

impl OwnNames {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory was made just now, and nobody can have put a name into it.
    pub(crate) fn begin(&self, dir: DirId) {
        self.inner().dirs.insert(dir, HashSet::new());
    }

    /// A name is about to come into the directory.
    pub(crate) fn add(&self, dir: &DirId, stored: &[u8]) {
        let mut inner = self.inner();
        let added = inner.dirs.get_mut(dir).is_some_and(|names| names.insert(hash(stored)));
        inner.count += usize::from(added);
        if inner.count > MOST {
            *inner = Inner::default();
        }
    }

    /// Whether the name never was in the directory.
    pub(crate) fn lack(&self, dir: &DirId, stored: &[u8]) -> bool {
        self.inner().dirs.get(dir).is_some_and(|names| !names.contains(&hash(stored)))
    }
}
