//! A POSIX tree in memory: hard links, symlinks, xattrs, sparse data, files that live on unlinked
//! while they are open. It acts as root does on tmpfs, and never fails but as POSIX says.

mod attributes;
mod dir;
mod file;
pub(crate) mod sparse;
pub(crate) mod tree;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::Dir;

pub(crate) use self::attributes::{set_mode, set_owner, set_times};
pub use self::dir::MemoryDir;
use self::tree::{ROOT, Tree};

/// One file system: what all handles into it share.
pub(crate) struct Fs(Mutex<Inner>);

struct Inner {
    tree: Tree,
    /// Handles by inode number.
    open: HashMap<u64, u32>,
}

impl Fs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryDir {
    /// An empty directory.
    pub fn root() -> Arc<dyn Dir> {
        Self::of(Tree::new())
    }

    /// An empty directory of a file system that gives the number of an inode that has gone to the next one, as ext4.
    pub fn reusing_numbers() -> Arc<dyn Dir> {
        Self::of(Tree::new().reusing_numbers())
    }

    pub(crate) fn of(tree: Tree) -> Arc<dyn Dir> {
        let fs = Arc::new(Fs(Mutex::new(Inner { tree, open: HashMap::new() })));
        Arc::new(Self::new(Handle::new(&fs, ROOT)))
    }
}

/// Keeps an inode alive without a name.
struct Handle {
    fs: Arc<Fs>,
    ino: u64,
}

impl Handle {
    fn new(fs: &Arc<Fs>, ino: u64) -> Self {
        Self::counted(&mut fs.lock(), fs, ino)
    }

    fn counted(inner: &mut Inner, fs: &Arc<Fs>, ino: u64) -> Self {
        *inner.open.entry(ino).or_default() += 1;
        Self { fs: fs.clone(), ino }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut inner = self.fs.lock();
        let left = inner.open.get_mut(&self.ino).map_or(0, |n| {
            *n -= 1;
            *n
        });
        if left == 0 {
            inner.open.remove(&self.ino);
            inner.tree.forget(self.ino);
        }
    }
}

impl Inner {
    /// After a name went: without names and handles the inode goes too.
    fn dropped(&mut self, ino: u64) {
        if !self.open.contains_key(&ino) {
            self.tree.forget(ino);
        }
    }
}
