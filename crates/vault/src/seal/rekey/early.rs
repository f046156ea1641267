//! Large files are read back by whoever copied them, past what the kernel has of them, while others are copied: the disk
//! writes while processors hash. The seal takes what was found of a file that has not changed since.
//!
//! Only for a process that does all the work, on a store whose files are synced here: whoever seals believes nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_format::header::Kind;
use runvault_format::pins::NONCE;
use runvault_format::read_back::Stamp;
use runvault_store::backend::Stat;

use super::super::earlier::stamp;
use super::super::reading::Nonces;
use super::super::sealed_file::{Reader, Stands, Writer};
use super::super::survey::damage_of;
use super::tree::{OpenDir, Tree};
use super::{Copying, Shard};
use crate::Result;
use crate::file::{Content, FileObject, RunContext};

/// Of smaller ones a sync of the whole store is cheaper than one each.
const LARGE: u64 = 4 << 20;
/// Nonces that are put away at once: those of 8 MiB.
const BATCH: usize = 1024;

/// What was read back until now.
pub(super) struct Early<'a> {
    context: &'a Arc<RunContext>,
    tree: &'a Tree,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    files: HashMap<u32, Found>,
    /// Nonces of all of them, in a file without a name: those of terabytes do not fit into memory.
    nonces: Writer<'a>,
    len: u64,
}

struct Found {
    stamp: Stamp,
    content: Content,
    nonces: Batches,
}

/// Where nonces stand: offset and count.
type Batches = Vec<(u64, usize)>;

impl<'a> Early<'a> {
    /// `None` where the seal reads all.
    pub(super) fn begin(copying: &'a Copying<'_>, shard: Shard) -> Result<Option<Self>> {
        if shard.of > 1 || !copying.dir.is_local() {
            return Ok(None);
        }
        let (context, tree) = (&copying.context, &copying.tree);
        let file = tree.nameless()?;
        let nonces = Writer::of(context, file, tree.object(0), Kind::Pins, Stands::ANYWHERE)?;
        let state = Mutex::new(State { files: HashMap::new(), nonces, len: 0 });
        Ok(Some(Self { context, tree, state }))
    }

    /// A file has its name. What does not hold, or is gone, is left to the seal, which has it copied again.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn read_back(&self, open: &mut OpenDir, i: u32) -> Result<()> {
        let record = self.tree.record(i)?;
        // Further names are given later, and change its times.
        if record.size < LARGE || record.nlink > 1 {
            return Ok(());
        }
        match self.find(open, i) {
            Ok(found) => {
                self.state().files.insert(i, found);
                Ok(())
            }
            Err(error) => damage_of(error).map(drop),
        }
    }

    fn find(&self, open: &mut OpenDir, i: u32) -> Result<Found> {
        let (file, here) = self.tree.named(open, i)?;
        // What is not on the disk yet would be read from memory.
        file.sync_data().map_err(|e| self.tree.failed("sync", i, e))?;
        let stat = file.stat().map_err(|e| self.tree.failed("stat", i, e))?;
        let (mut waiting, mut nonces) = (Vec::with_capacity(BATCH), Vec::new());
        let mut put_away = |waiting: &mut Vec<[u8; NONCE]>| {
            nonces.push((self.state().put(waiting.as_flattened())?, waiting.len()));
            waiting.clear();
            Ok(())
        };
        let opened = FileObject::open(self.context, stat.ino, file, &stat, Some(here))?;
        let content = opened.read_back(&mut |nonce| {
            waiting.push(*nonce);
            if waiting.len() == BATCH { put_away(&mut waiting) } else { Ok(()) }
        })?;
        put_away(&mut waiting)?;
        Ok(Found { stamp: stamp(&stat), content, nonces })
    }

    /// For the seal.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn finish(self) -> Result<ReadBack> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(ReadBack { files: state.files, nonces: state.nonces.into_reader(self.context)? })
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State<'_> {
    /// Gives where it stands.
    fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.len;
        self.nonces.write(bytes)?;
        self.len += bytes.len() as u64;
        Ok(at)
    }
}

/// What was read back while files were copied.
pub(super) struct ReadBack {
    files: HashMap<u32, Found>,
    nonces: Reader,
}

impl ReadBack {
    /// What was found of an entry that has not changed since, and the nonces of its chunks.
    ///
    /// # Errors
    /// Those of `nonce`; the store's.
    pub(super) fn content(&self, i: usize, stat: &Stat, nonce: Nonces<'_>) -> Result<Option<Content>> {
        let found = u32::try_from(i).ok().and_then(|i| self.files.get(&i));
        let Some(found) = found.filter(|found| found.stamp == stamp(stat)) else { return Ok(None) };
        for (at, count) in &found.nonces {
            let mut bytes = vec![0; count * NONCE];
            self.nonces.read(*at, &mut bytes)?;
            bytes.as_chunks().0.iter().try_for_each(&mut *nonce)?;
        }
        Ok(Some(found.content.clone()))
    }
}
