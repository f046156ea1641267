//! A run's redo journal, as the writing session uses it: numbers, group commit, two files in turn.
//!
//! Records go to one of two files; when it is full the other is used, once a checkpoint has made
//! everything in it durable in place. Bringing records in place happens under [`Journal::enter`],
//! so that a checkpoint can tell which numbers are settled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use runvault_format::ids::{FileId, SessionId};
use runvault_format::keys::JournalKey;
use runvault_format::redo_record::{Record, RecordRef};
use runvault_store::backend::Dir;
use runvault_store::journal_files::{self, JournalFiles, SECTOR};

use crate::buffers::{Buffer, Pool};
use crate::file::lock;
use crate::redos::{Part, Redos};
use crate::{Error, Result, helpers};

/// Records on their way: a part each of what goes in at once.
static RECORDS: Pool = Pool::keeping(64);

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
    last_append: Option<Instant>,
    /// First record that each of these objects could not bring in place.
    kept: HashMap<u64, u64>,
    /// An append or a sync failed: nothing more goes into these files. What an append left behind would become part
    /// of the log when a later one leads up to it.
    failed: bool,
    /// It was a sync: what was written since may be lost although a later sync succeeds.
    lost: bool,
}

impl Inner {
    fn last_in(&self, file: usize) -> u64 {
        self.last_in.get(file).copied().unwrap_or(u64::MAX)
    }

    /// The last number that is in place with all before it.
    fn placed(&self) -> u64 {
        let first_kept = self.kept.values().min().copied();
        first_kept.map_or(self.number, |kept| self.number.min(kept.saturating_sub(1)))
    }
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

    /// Only a checkpoint, which makes new files possible, undoes it.
    fn fail(&self, inner: &mut Inner, operation: &'static str, error: std::io::Error) -> Error {
        self.give_up(inner);
        self.broken(operation)(error)
    }

    fn give_up(&self, inner: &mut Inner) {
        inner.failed = true;
        self.wants_checkpoint.store(true, Ordering::SeqCst);
    }

    /// Records of this many bytes go in at once.
    pub(crate) fn batch_limit(&self) -> u64 {
        self.bytes / 2
    }

    /// Makes the files at the first overwrite, so that a full store is known before it is accepted.
    pub(crate) fn ensure_files(&self) -> Result<()> {
        self.create_files(&mut lock(&self.inner))
    }

    fn create_files(&self, inner: &mut Inner) -> Result<()> {
        if inner.files.is_some() || inner.failed {
            return Ok(());
        }
        match JournalFiles::create(&self.run_dir, self.bytes) {
            Ok(files) => {
                inner.files = Some(files);
                Ok(())
            }
            Err(error) => {
                // Half of it would only take room.
                let _ = journal_files::remove(&self.run_dir);
                Err(self.broken("create")(error))
            }
        }
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
        redos: &Redos,
    ) -> Result<std::result::Result<u64, Full>> {
        let mut inner = lock(&self.inner);
        if inner.failed {
            return Ok(Err(Full));
        }
        self.create_files(&mut inner)?;
        let blobs = redos.parts().iter().flat_map(Part::iter).map(|(.., blob)| blob.len());
        let len = blobs.map(|blob| Record::encoded_len(path.len(), blob) as u64).sum();
        if !self.find_room(&mut inner, len)? {
            return Ok(Err(Full));
        }
        let before = inner.number;
        let a_part = redos.parts().first().map_or(0, Part::len) as u64;
        let encode = |part: usize| -> Result<Buffer> {
            let mut batch = RECORDS.take(0);
            batch.clear();
            let numbers = before + part as u64 * a_part + 1..;
            let chunks = redos.parts().get(part).into_iter().flat_map(Part::iter);
            for (number, (chunk, size_after, blob)) in numbers.zip(chunks) {
                let session = self.session;
                let record = RecordRef { number, session, file_id, epoch, chunk, size_after, path, blob };
                record.encode_into(&self.key, &mut batch)?;
            }
            Ok(batch)
        };
        let (current, mut begun) = (inner.current, false);
        let Some(files) = inner.files.as_mut() else { return Ok(Err(Full)) };
        let written = helpers::in_order(redos.parts().len(), &encode, |batch| {
            let batch = batch?;
            begun = true;
            files.append(current, &batch).map_err(self.broken("write"))
        });
        if begun {
            // Where it failed the records may be there all the same: their numbers are not given again.
            inner.number = before + redos.len() as u64;
            let number = inner.number;
            if let Some(last) = inner.last_in.get_mut(current) {
                *last = number;
            }
            inner.last_append = Some(Instant::now());
            if written.is_err() {
                self.give_up(&mut inner);
            }
        }
        written.map(|()| Ok(inner.number))
    }

    /// Has the current file take so many bytes more: whole batches only, so that a file ends between records.
    /// `false`: no room.
    fn find_room(&self, inner: &mut Inner, len: u64) -> Result<bool> {
        let (current, other) = (inner.current, 1 - inner.current);
        let other_is_free = inner.last_in(other) <= self.settled.load(Ordering::SeqCst);
        let Some(files) = inner.files.as_mut() else { return Ok(false) };
        if files.capacity() < len {
            return Err(self.broken("write")(std::io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        if files.room(current) >= len {
            return Ok(true);
        }
        self.wants_checkpoint.store(true, Ordering::SeqCst);
        if !other_is_free {
            return Ok(false);
        }
        // The log ends in this file before it begins in the other, and there it begins with what
        // is appended now: a first sector that is left from the last lap must not be met again.
        files.rewind(other);
        let switched = files
            .sync(current)
            .and_then(|()| files.handle(other).write_at(&[0; SECTOR], 0))
            .and_then(|()| files.sync(other));
        if let Err(error) = switched {
            inner.lost = true;
            return Err(self.fail(inner, "sync", error));
        }
        inner.current = other;
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
                Some(files) if !inner.lost => (files.handle(inner.current), inner.number),
                _ => return Err(self.broken("sync")(std::io::Error::from_raw_os_error(libc::EIO))),
            }
        };
        if let Err(error) = handle.sync_data() {
            let mut inner = lock(&self.inner);
            inner.lost = true;
            return Err(self.fail(&mut inner, "sync", error));
        }
        self.synced.store(upto, Ordering::SeqCst);
        Ok(())
    }

    /// Object `serial` could not bring record `number` in place: it stays unsettled.
    pub(crate) fn keep_from(&self, serial: u64, number: u64) {
        let mut inner = lock(&self.inner);
        let first = inner.kept.entry(serial).or_insert(number);
        *first = number.min(*first);
    }

    /// Undoes [`Journal::keep_from`]: everything of the object is in place.
    pub(crate) fn release(&self, serial: u64) {
        lock(&self.inner).kept.remove(&serial);
    }

    /// The last number whose chunk is in place (not: durable there) with all before it.
    pub(crate) fn settled_up_to(&self) -> u64 {
        self.close_gate().1
    }

    /// [`Journal::settled_up_to`], and nobody appends while the guard lives.
    pub(crate) fn close_gate(&self) -> (RwLockWriteGuard<'_, ()>, u64) {
        let nobody = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let placed = lock(&self.inner).placed();
        (nobody, placed)
    }

    /// A sync of the whole store came after [`Journal::settled_up_to`] gave `number`.
    pub(crate) fn checkpointed(&self, number: u64) {
        let mut inner = lock(&self.inner);
        self.settled.fetch_max(number, Ordering::SeqCst);
        let still_full = inner.last_in(1 - inner.current) > number;
        if inner.number == number && inner.failed {
            // Nothing in the files is needed any more: new ones, whose syncs can be believed.
            inner.files = None;
            inner.failed = journal_files::remove(&self.run_dir).is_err();
            inner.lost = inner.failed;
            inner.last_in = [0; 2];
            inner.current = 0;
        }
        self.wants_checkpoint.store(still_full || inner.failed, Ordering::SeqCst);
    }

    /// Everything up to this number is durable in place, whichever file it was for.
    pub(crate) fn floor(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }

    /// The number of the newest record.
    pub(crate) fn last_number(&self) -> u64 {
        lock(&self.inner).number
    }

    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.wants_checkpoint.load(Ordering::SeqCst)
    }

    /// No checkpoint makes room: the file that is to be used next holds a record whose chunk is not in place, or
    /// files that failed cannot be done without.
    pub(crate) fn is_held(&self) -> bool {
        let failed = lock(&self.inner).failed;
        failed || self.is_kept()
    }

    /// [`Journal::is_held`] by a record whose chunk is not in place: nor would a checkpoint have helped.
    pub(crate) fn is_kept(&self) -> bool {
        let inner = lock(&self.inner);
        inner.placed() < inner.last_in(1 - inner.current)
    }

    /// Nothing was appended for so long.
    pub(crate) fn idle_for(&self, time: Duration) -> bool {
        lock(&self.inner).last_append.is_none_or(|at| at.elapsed() >= time)
    }

    /// Records exist that no checkpoint has covered.
    pub(crate) fn has_unsettled(&self) -> bool {
        lock(&self.inner).number > self.settled.load(Ordering::SeqCst)
    }

    /// Clean end: the journal goes. Only after a checkpoint.
    ///
    /// # Errors
    /// EBUSY while a record is not settled; the store's.
    pub(crate) fn remove(&self) -> Result<()> {
        if self.has_unsettled() {
            return Err(self.broken("remove")(std::io::Error::from_raw_os_error(libc::EBUSY)));
        }
        lock(&self.inner).files = None;
        journal_files::remove(&self.run_dir).map_err(self.broken("remove"))
    }
}
