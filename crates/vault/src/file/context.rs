//! What all files of one run share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runvault_format::ids::{FileId, RunId, SessionId};
use runvault_format::keys::RunKeys;
use runvault_format::size::Geometry;
use runvault_store::backend::Dir;

use super::FileObject;
use crate::journal::Journal;
use crate::{Error, Posix, Result};

/// Gives the stored path of a file below `tree/`, `None` when it has no name any more.
pub type Locate = Box<dyn Fn(u64) -> Option<Vec<u8>> + Send + Sync>;

/// Keys, geometry and, for the one writer, the journal of a run.
pub struct RunContext {
    /// The run.
    pub id: RunId,
    /// Everything derived from the run key.
    pub keys: RunKeys,
    /// Chunk size; fixed for the run.
    pub geometry: Geometry,
    /// The run's `tree/`.
    pub tree: Arc<dyn Dir>,
    pub(crate) writer: Option<Writer>,
}

/// What only the writing mount has.
pub(crate) struct Writer {
    pub(crate) session: SessionId,
    pub(crate) journal: Journal,
    pub(crate) locate: Locate,
    /// How long overlay and tail may wait.
    pub(crate) delay: Duration,
    pub(crate) run_dir: Arc<dyn Dir>,
    /// The session before this one ended without a clean unmount.
    pub(crate) after_crash: AtomicBool,
    /// Bytes in all overlays of the run.
    pub(crate) overlay_bytes: AtomicU64,
    active: Mutex<HashMap<u64, Arc<FileObject>>>,
    residue: Mutex<HashMap<u64, Residue>>,
    /// Counts residues, so that a checkpoint removes only those it has seen.
    stamp: AtomicU64,
}

/// What must not be forgotten of a closed file whose last slot is not known durable.
#[derive(Clone, Copy)]
pub(crate) struct Residue {
    pub(crate) file_id: FileId,
    pub(crate) safe: Option<u8>,
    pub(crate) durable: u64,
    stamp: u64,
}

/// Overlays of a whole run above this are brought in place at once.
const RUN_OVERLAY_LIMIT: u64 = 64 << 20;
/// Residues above this make the next tick sync the store.
const RESIDUE_LIMIT: usize = 200_000;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunContext {
    /// A run that this machine only reads.
    pub fn reader(id: RunId, keys: RunKeys, geometry: Geometry, tree: Arc<dyn Dir>) -> Arc<Self> {
        Arc::new(Self { id, keys, geometry, tree, writer: None })
    }

    /// A run that this machine writes in `session`.
    #[expect(clippy::too_many_arguments, reason = "one call, at the start of a run")]
    pub fn writer(
        id: RunId,
        keys: RunKeys,
        geometry: Geometry,
        run_dir: Arc<dyn Dir>,
        tree: Arc<dyn Dir>,
        session: SessionId,
        journal_bytes: u64,
        delay: Duration,
        locate: Locate,
    ) -> Arc<Self> {
        let journal = Journal::new(run_dir.clone(), keys.journal_key(&session), session, journal_bytes);
        Arc::new(Self {
            id,
            keys,
            geometry,
            tree,
            writer: Some(Writer {
                session,
                journal,
                locate,
                delay,
                run_dir,
                after_crash: AtomicBool::new(false),
                overlay_bytes: AtomicU64::new(0),
                active: Mutex::default(),
                residue: Mutex::default(),
                stamp: AtomicU64::new(0),
            }),
        })
    }

    /// Whether this machine only reads the run.
    pub fn read_only(&self) -> bool {
        self.writer.is_none()
    }

    pub(crate) fn require_writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or(Error::Posix(Posix::ReadOnly))
    }

    /// The name of a file in messages: its run and node, never a plaintext name.
    pub(crate) fn object(&self, ino: u64) -> String {
        let path = self.writer.as_ref().and_then(|w| (w.locate)(ino));
        match path {
            Some(path) => format!("runs/{}/tree/{}", self.id, String::from_utf8_lossy(&path)),
            None => format!("runs/{}/tree, inode {ino}", self.id),
        }
    }

    /// Lets waiting bytes of files go out when their time has come; call it every 250 ms.
    ///
    /// # Errors
    /// The first failure of a file; the others were tried all the same.
    pub fn tick(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let mut first = Ok(());
        for file in writer.active_files() {
            if let Err(error) = file.tick(writer.delay) {
                log::warn!("{}: {error}", self.object(file.ino));
                first = first.and(Err(error));
            }
        }
        if writer.journal.wants_checkpoint() || lock(&writer.residue).len() > RESIDUE_LIMIT {
            self.checkpoint()?;
        }
        first
    }

    /// Everything that stands in the journal becomes durable in place, so that its files may be
    /// written over. Holds up nobody but those who are just bringing records in place.
    ///
    /// # Errors
    /// The store's, when syncing.
    pub fn checkpoint(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let newest_residue = writer.stamp.load(Ordering::SeqCst);
        let settled = writer.journal.settled_up_to();
        self.tree.sync_fs().map_err(|e| Error::store("sync", format!("runs/{}", self.id), e))?;
        for file in writer.active_files() {
            file.checkpointed(settled);
        }
        writer.journal.checkpointed(settled);
        lock(&writer.residue).retain(|_, r| r.stamp > newest_residue);
        Ok(())
    }

    /// Ends the session: everything durable in place, the journal gone.
    ///
    /// # Errors
    /// The first failure; the journal then stays for recovery.
    pub fn close(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let mut first = Ok(());
        for file in writer.active_files() {
            first = first.and(file.flush());
        }
        first?;
        self.checkpoint()?;
        writer.journal.remove()?;
        writer.run_dir.sync().map_err(|e| Error::store("sync", format!("runs/{}", self.id), e))
    }
}

impl Writer {
    fn active_files(&self) -> Vec<Arc<FileObject>> {
        lock(&self.active).values().cloned().collect()
    }

    /// Keeps a file in memory while bytes or records of it are on their way.
    pub(crate) fn retain(&self, file: &Arc<FileObject>) {
        lock(&self.active).entry(file.ino).or_insert_with(|| file.clone());
    }

    pub(crate) fn let_go(&self, file: &FileObject) {
        let mut active = lock(&self.active);
        if active.get(&file.ino).is_some_and(|held| std::ptr::eq(&**held, file)) {
            active.remove(&file.ino);
        }
    }

    pub(crate) fn overlay_is_large(&self) -> bool {
        self.overlay_bytes.load(Ordering::Relaxed) > RUN_OVERLAY_LIMIT
    }

    pub(crate) fn leave_residue(&self, ino: u64, file_id: FileId, safe: Option<u8>, durable: u64) {
        let mut residues = lock(&self.residue);
        let stamp = self.stamp.fetch_add(1, Ordering::SeqCst) + 1;
        residues.insert(ino, Residue { file_id, safe, durable, stamp });
    }

    pub(crate) fn take_residue(&self, ino: u64, file_id: &FileId) -> Option<Residue> {
        lock(&self.residue).remove(&ino).filter(|r| r.file_id == *file_id)
    }

    pub(crate) fn after_crash(&self) -> bool {
        self.after_crash.load(Ordering::Relaxed)
    }
}
