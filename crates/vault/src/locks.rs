//! Locks on names, a directory at a time: shared by those who look, alone for those who change.
//!
//! Always taken before a file's own lock, and all those of one call at once and in one order.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::api::Ino;

const STRIPES: usize = 256;

/// One lock for every so many directories.
pub(crate) struct NameLocks(Vec<RwLock<()>>);

impl Default for NameLocks {
    fn default() -> Self {
        Self((0..STRIPES).map(|_| RwLock::new(())).collect())
    }
}

fn stripe(ino: Ino) -> usize {
    // Fibonacci hashing: neighbouring inodes land apart.
    (ino.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % STRIPES
}

impl NameLocks {
    /// The names of `dir` stay what they are.
    pub(crate) fn shared(&self, dir: Ino) -> Option<RwLockReadGuard<'_, ()>> {
        self.0.get(stripe(dir)).map(|lock| lock.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nobody else looks at or changes the names of `dirs`.
    pub(crate) fn alone(&self, dirs: &[Ino]) -> Vec<RwLockWriteGuard<'_, ()>> {
        let mut stripes: Vec<usize> = dirs.iter().map(|dir| stripe(*dir)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let locks = stripes.into_iter().filter_map(|n| self.0.get(n));
        locks.map(|lock| lock.write().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}
