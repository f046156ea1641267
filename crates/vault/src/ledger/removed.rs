//! Names that went: who makes one of them again says so before, since it was noted that it is gone.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

use runvault_format::ids::DirId;

/// Names that are remembered of a run, 8 bytes each; where there were more, every name may have been there.
const MOST: usize = 1 << 16;

#[derive(Default)]
pub(super) struct Removed {
    names: HashSet<u64>,
    more: bool,
}

/// Two names of one hash cost a note.
fn hash(dir: &DirId, stored: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&dir.0);
    hasher.write(stored);
    hasher.finish()
}

impl Removed {
    pub(super) fn add(&mut self, dir: &DirId, stored: &[u8]) {
        if self.names.len() < MOST {
            self.names.insert(hash(dir, stored));
        } else {
            self.more = true;
        }
    }

    /// Whether it may have been there, and went.
    pub(super) fn has(&self, dir: &DirId, stored: &[u8]) -> bool {
        self.more || self.names.contains(&hash(dir, stored))
    }
}
