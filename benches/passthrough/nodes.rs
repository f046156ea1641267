//! The kernel's node numbers (here the directory's own inode numbers) and where their files are.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

/// A name in a directory.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) name: Vec<u8>,
}

struct Node {
    place: Place,
    lookups: u64,
    /// A directory, once something was looked for in it.
    open: Option<Arc<OwnedFd>>,
}

/// All that the kernel knows, in shards so that threads seldom meet.
pub(crate) struct Nodes {
    root: Arc<OwnedFd>,
    shards: Vec<Mutex<HashMap<u64, Node>>>,
}

const SHARDS: usize = 64;

impl Nodes {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// The kernel learned of `ino` by this name.
    pub(crate) fn remember(&self, ino: u64, dir: &Arc<OwnedFd>, name: &[u8]) {
        let place = || Place { dir: Arc::clone(dir), name: name.to_owned() };
        let mut shard = self.shard(ino);
        let node = shard.entry(ino).or_insert_with(|| Node { place: place(), lookups: 0, open: None });
        node.lookups += 1;
    }

    pub(crate) fn forget(&self, ino: u64, n: u64) {
        let mut shard = self.shard(ino);
        if let Some(node) = shard.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(n);
            if node.lookups == 0 {
                shard.remove(&ino);
            }
        }
    }

    pub(crate) fn moved(&self, ino: u64, dir: &Arc<OwnedFd>, name: &[u8]) {
        if let Some(node) = self.shard(ino).get_mut(&ino) {
            node.place = Place { dir: Arc::clone(dir), name: name.to_owned() };
        }
    }

    pub(crate) fn place(&self, ino: u64) -> Result<Place> {
        if ino == 1 {
            return Ok(Place { dir: Arc::clone(&self.root), name: b".".to_vec() });
        }
        self.shard(ino).get(&ino).map(|node| node.place.clone()).ok_or(Errno::STALE)
    }

    /// A directory, opened once.
    pub(crate) fn dir(&self, ino: u64) -> Result<Arc<OwnedFd>> {
        if ino == 1 {
            return Ok(Arc::clone(&self.root));
        }
        let mut shard = self.shard(ino);
        let node = shard.get_mut(&ino).ok_or(Errno::STALE)?;
        if let Some(open) = &node.open {
            return Ok(Arc::clone(open));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = Arc::new(openat(&node.place.dir, node.place.name.as_slice(), flags, Mode::empty())?);
        node.open = Some(Arc::clone(&open));
        Ok(open)
    }

    fn shard(&self, ino: u64) -> MutexGuard<'_, HashMap<u64, Node>> {
        let index = ino as usize % self.shards.len();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
