//! A run's redo journal, as the writing session uses it: numbers, group commit, two files in turn.
//!
//! Records go to one of two files; when it is full the other is used, once a checkpoint has made
//! everything in it durable in place. Bringing records in place happens under [`Journal::enter`],
//! so that a checkpoint can tell which numbers are settled.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use runvault_format::ids::{FileId, SessionId};
use runvault_format::keys::JournalKey;
use runvault_format::redo_record::Record;
use runvault_store::backend::Dir;
use runvault_store::journal_files::JournalFiles;

use crate::file::lock;
use crate::{Error, Result};

/// One chunk to be recorded.
pub(crate) struct Redo {
    pub(crate) chunk: u64,
    /// The file's size where the chunk is its partial last one.
    pub(crate) size_after: Option<u64>,
    /// The chunk as it will be stored.
    pub(crate) stored: Vec<u8>,
}

/// Both files are full of records that are not known durable in place: checkpoint, then again.
pub(crate) struct Full;

/// The journal of one writing session.
pub(crate) struct Journal {
    run_dir: Arc<dyn Dir>,
    key: JournalKey,
    session: SessionId,
    bytes: u64,
    inner: Mutex<Inner>,
    /// Held for reading from a record's append until its chunk is in place.
    gate: RwLock<()>,
    syncing: Mutex<()>,
    synced: AtomicU64,
    /// Everything up to this number is durable in place.
    settled: AtomicU64,
    wants_checkpoint: AtomicBool,
}

#[derive(Default)]
struct Inner {
    files: Option<JournalFiles>,
    number: u64,
    /// Last number in each file.
    last_in: [u64; 2],
    current: usize,
    /// A sync failed: what was written since may be lost although a later sync succeeds.
    failed: bool,
}

impl Journal {
    pub(crate) fn new(run_dir: Arc<dyn Dir>, key: JournalKey, session: SessionId, bytes: u64) -> Self {
        Self {
            run_dir,
            key,
            session,
            bytes,
            inner: Mutex::default(),
            gate: RwLock::new(()),
            syncing: Mutex::new(()),
            synced: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            wants_checkpoint: AtomicBool::new(false),
        }
    }

    fn broken(&self, operation: &'static str) -> impl Fn(std::io::Error) -> Error {
        move |source| Error::store(operation, "the run's journal", source)
    }

    /// Records of this many bytes fit in one append.
    pub(crate) fn batch_limit(&self) -> u64 {
        self.bytes / 4
    }

    /// Announces records that will be brought in place before the guard goes.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records of one file, not synced yet; gives the last one's number.
    pub(crate) fn append(
        &self,
        file_id: FileId,
        epoch: u32,
        path: &[u8],
        redos: &[Redo],
    ) -> Result<std::result::Result<u64, Full>> {
        let mut inner = lock(&self.inner);
        if inner.failed {
            return Err(self.broken("write")(std::io::Error::from_raw_os_error(libc::EIO)));
        }
        if inner.files.is_none() {
            let files = JournalFiles::create(&self.run_dir, self.bytes).map_err(self.broken("create"))?;
            inner.files = Some(files);
        }
        let mut number = inner.number;
        let mut batch = Vec::with_capacity(redos.iter().map(|r| r.stored.len() + 1024).sum());
        for redo in redos {
            number += 1;
            let record = Record {
                number,
                session: self.session,
                file_id,
                epoch,
                chunk: redo.chunk,
                size_after: redo.size_after,
                path: path.to_vec(),
                blob: redo.stored.clone(),
            };
            batch.extend_from_slice(&record.encode(&self.key)?);
        }
        if !self.write_batch(&mut inner, &batch)? {
            return Ok(Err(Full));
        }
        inner.number = number;
        let current = inner.current;
        inner.last_in[current] = number;
        Ok(Ok(number))
    }

    /// Writes whole batches only, so that a file ends between records; `false`: no room.
    fn write_batch(&self, inner: &mut Inner, batch: &[u8]) -> Result<bool> {
        let settled = self.settled.load(Ordering::SeqCst);
        let other = 1 - inner.current;
        let other_is_free = inner.last_in[other] <= settled;
        let Some(files) = inner.files.as_mut() else { return Ok(false) };
        if files.room(inner.current) < batch.len() as u64 {
            self.wants_checkpoint.store(true, Ordering::SeqCst);
            if !other_is_free || files.capacity() < batch.len() as u64 {
                return Ok(false);
            }
            files.sync(inner.current).map_err(self.broken("sync"))?;
            files.rewind(other);
            inner.current = other;
        }
        let current = inner.current;
        files.append(current, batch).map_err(self.broken("write"))?;
        Ok(true)
    }

    /// J: returns when every record up to `number` is durable. Callers share one sync.
    pub(crate) fn sync(&self, number: u64) -> Result<()> {
        let _turn = lock(&self.syncing);
        if self.synced.load(Ordering::SeqCst) >= number {
            return Ok(());
        }
        let (handle, upto) = {
            let inner = lock(&self.inner);
            match &inner.files {
                Some(files) => (files.handle(inner.current), inner.number),
                None => return Ok(()),
            }
        };
        if let Err(error) = handle.sync_data() {
            lock(&self.inner).failed = true;
            self.wants_checkpoint.store(true, Ordering::SeqCst);
            return Err(self.broken("sync")(error));
        }
        self.synced.store(upto, Ordering::SeqCst);
        Ok(())
    }

    /// The last number whose chunk is in place (not: durable there) with all before it.
    pub(crate) fn settled_up_to(&self) -> u64 {
        let _nobody = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        lock(&self.inner).number
    }

    /// A sync of the whole store came after [`Journal::settled_up_to`] gave `number`.
    pub(crate) fn checkpointed(&self, number: u64) {
        let mut inner = lock(&self.inner);
        self.settled.fetch_max(number, Ordering::SeqCst);
        if inner.number == number {
            self.wants_checkpoint.store(false, Ordering::SeqCst);
            if inner.failed {
                // Nothing in the files is needed any more: new ones, whose syncs can be believed.
                let removed = inner.files.take().map_or(Ok(()), |f| f.remove(&self.run_dir));
                inner.failed = removed.is_err();
                inner.last_in = [0; 2];
                inner.current = 0;
            }
        } else {
            let other = 1 - inner.current;
            let still_full = inner.last_in[other] > number;
            self.wants_checkpoint.store(still_full || inner.failed, Ordering::SeqCst);
        }
    }

    /// Everything up to this number is durable in place, whichever file it was for.
    pub(crate) fn floor(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }

    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.wants_checkpoint.load(Ordering::SeqCst)
    }

    /// Records exist that no checkpoint has covered.
    pub(crate) fn has_unsettled(&self) -> bool {
        lock(&self.inner).number > self.settled.load(Ordering::SeqCst)
    }

    /// Clean end: the journal goes. Only after a checkpoint.
    pub(crate) fn remove(&self) -> Result<()> {
        match lock(&self.inner).files.take() {
            Some(files) => files.remove(&self.run_dir).map_err(self.broken("remove")),
            None => Ok(()),
        }
    }
}
