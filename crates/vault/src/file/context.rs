//! What all files of one run share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLockWriteGuard};
use std::time::Duration;

use runvault_format::ids::{DirId, RunId, SessionId};
use runvault_format::keys::RunKeys;
use runvault_format::ledger::Named;
use runvault_format::size::Geometry;
use runvault_store::backend::Dir;

use super::FileObject;
use super::patience::Patience;
use super::registry::{Registry, Residues};
use super::room::Room;
use crate::journal::Journal;
use crate::ledger::{Changing, Ledger};
use crate::{Error, Posix, Result};

/// Gives the stored path of a file below `tree/`, `None` when it has no name any more.
///
/// It is called while a file is locked: it must not wait for anything that waits for a file.
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
    pub(super) files: Registry,
    pub(super) patience: Patience,
    pub(crate) writer: Option<Writer>,
}

/// What only the writing mount has.
pub(crate) struct Writer {
    pub(crate) session: SessionId,
    pub(crate) journal: Journal,
    pub(crate) locate: Locate,
    /// How long overlay and tail may wait.
    pub(crate) delay: Duration,
    run_dir: Arc<dyn Dir>,
    /// The session before this one ended without a clean unmount.
    after_crash: AtomicBool,
    /// Files whose two header copies were compared since then.
    compared: Mutex<HashSet<u64>>,
    /// Bytes in all overlays of the run.
    pub(crate) overlay_bytes: AtomicU64,
    /// A sync of the store covers what was written to open files.
    syncs_all: bool,
    /// The store has plainly more room than what may wait in memory.
    room: Room,
    active: Mutex<HashMap<u64, Arc<FileObject>>>,
    /// Files whose last tick failed.
    failing: Mutex<HashSet<u64>>,
    moved: Mutex<Moved>,
    pub(super) residues: Residues,
    /// What is written here, for the seal.
    ledger: OnceLock<Ledger>,
    /// Counts checkpoints that began.
    round: AtomicU64,
    checkpointing: Mutex<()>,
}

/// What has other names than a sync of the store has seen.
#[derive(Default)]
struct Moved {
    /// A directory was renamed.
    all: bool,
    files: HashSet<u64>,
    /// Counts changes.
    stamp: u64,
}

/// More files than this that have moved count as all.
const MOVED_LIMIT: usize = 100_000;
/// Overlays of a whole run above this are brought in place at once.
const RUN_OVERLAY_LIMIT: u64 = 64 << 20;
/// Residues above this make the next tick sync the store.
const RESIDUE_LIMIT: usize = 200_000;
/// What fails where a journal takes nothing, and no checkpoint helps.
const SETTLE: &str = "settle";
/// A journal that nobody writes to for so long is emptied by a checkpoint.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunContext {
    /// A run that this machine only reads.
    pub fn reader(id: RunId, keys: RunKeys, geometry: Geometry, tree: Arc<dyn Dir>) -> Arc<Self> {
        let (files, patience) = (Registry::default(), Patience::default());
        Arc::new(Self { id, keys, geometry, tree, files, patience, writer: None })
    }

    /// A run that this machine writes in `session`, which is fresh and already noted, synced, in
    /// the state folder. Files are opened for reading and writing, whoever asks.
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
        let (room, syncs_all) = (Room::of(&*tree), tree.is_local());
        let writer = Writer {
            session,
            journal,
            locate,
            delay,
            run_dir,
            after_crash: AtomicBool::new(false),
            compared: Mutex::default(),
            overlay_bytes: AtomicU64::new(0),
            syncs_all,
            room,
            active: Mutex::default(),
            failing: Mutex::default(),
            moved: Mutex::default(),
            residues: Residues::default(),
            ledger: OnceLock::new(),
            round: AtomicU64::new(0),
            checkpointing: Mutex::default(),
        };
        let (files, patience) = (Registry::default(), Patience::default());
        Arc::new(Self { id, keys, geometry, tree, files, patience, writer: Some(writer) })
    }

    /// Whether this machine only reads the run.
    pub fn read_only(&self) -> bool {
        self.writer.is_none()
    }

    /// Says that the session before this one ended uncleanly (its lease or journal was there): a
    /// header copy whose sync never completed is then not believed.
    pub fn assume_crash(&self) {
        if let Some(writer) = &self.writer {
            writer.after_crash.store(true, Ordering::Relaxed);
        }
    }

    /// From now on what is written is noted there.
    pub(crate) fn keep_ledger(&self, ledger: Ledger) {
        if let Some(writer) = &self.writer {
            let _ = writer.ledger.set(ledger);
        }
    }

    pub(crate) fn ledger(&self) -> Option<&Ledger> {
        self.writer.as_ref()?.ledger.get()
    }

    /// A new name of a directory.
    pub(crate) fn note_name(&self, dir: &DirId, stored: &[u8], what: Named) {
        if let Some(ledger) = self.ledger() {
            ledger.name(dir, stored, what);
        }
    }

    /// Before names of a directory go, or lead to something else.
    pub(crate) fn changing_names(&self, dir: &DirId) -> Changing<'_> {
        self.ledger().map_or(Changing::unnoted(), |ledger| ledger.changing_names(dir))
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

    fn sync_error(&self) -> impl FnOnce(std::io::Error) -> Error + '_ {
        |source| Error::store("sync", format!("runs/{}", self.id), source)
    }

    /// Lets waiting bytes of files go out when their time has come; call it every 250 ms.
    ///
    /// # Errors
    /// The first failure of a file; the others were tried all the same.
    pub fn tick(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.room.look(&*self.tree);
        let (mut first, mut held) = (Ok(()), false);
        let told = std::mem::take(&mut *lock(&writer.failing));
        let mut failing = HashSet::new();
        for file in writer.active_files() {
            if held && file.waits_for_journal() {
                failing.extend(told.get(&file.ino));
                continue;
            }
            if let Err(error) = file.tick(writer.delay) {
                // What fails until the store is back is one line, not four a second.
                if !told.contains(&file.ino) {
                    log::warn!("{}: {error}", self.object(file.ino));
                }
                failing.insert(file.ino);
                held |= matches!(error, Error::Store { operation: SETTLE, .. });
                first = first.and(Err(error));
            }
        }
        *lock(&writer.failing) = failing;
        let idle = writer.journal.has_unsettled() && writer.journal.idle_for(IDLE);
        let uncovered = writer.ledger.get().is_some_and(Ledger::tick);
        if idle || uncovered || writer.journal.wants_checkpoint() || writer.residues.len() > RESIDUE_LIMIT {
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
        let _one_at_a_time = lock(&writer.checkpointing);
        let round = writer.round.fetch_add(1, Ordering::SeqCst) + 1;
        let newest_residue = writer.residues.newest();
        let moved = lock(&writer.moved).stamp;
        let settled = writer.journal.settled_up_to();
        let noted = writer.ledger.get().map(|ledger| (ledger, ledger.position()));
        self.tree.sync_fs().map_err(self.sync_error())?;
        if let Some((ledger, position)) = noted {
            ledger.durable(position);
        }
        for file in writer.active_files() {
            file.checkpointed(settled, round);
        }
        writer.journal.checkpointed(settled);
        if writer.syncs_all || writer.residues.len() > RESIDUE_LIMIT {
            writer.residues.forget_up_to(newest_residue);
        }
        lock(&writer.moved).were_synced(moved);
        Ok(())
    }

    /// A checkpoint for who found the journal full. EIO where that makes no room, since a chunk of some file
    /// cannot be brought in place and its record must stay: what waits in memory goes on waiting.
    pub(super) fn make_room(&self) -> Result<()> {
        let journal = &self.require_writer()?.journal;
        if journal.is_kept() {
            return Err(self.cannot_settle());
        }
        self.checkpoint()?;
        if journal.is_held() { Err(self.cannot_settle()) } else { Ok(()) }
    }

    /// Before a durable chunk is changed in memory: much waits there already, and the journal takes nothing.
    pub(super) fn check_room_to_wait(&self) -> Result<()> {
        let writer = self.require_writer()?;
        let stuck = writer.overlay_is_large() && writer.journal.is_kept();
        if stuck { Err(self.cannot_settle()) } else { Ok(()) }
    }

    fn cannot_settle(&self) -> Error {
        let failed = std::io::Error::from_raw_os_error(libc::EIO);
        Error::store(SETTLE, format!("runs/{}/journal", self.id), failed)
    }

    /// Names of a file (`None`: of a directory) have changed, or may have: called before any record of what they
    /// lead to may be written. Earlier would be too early: a sync that comes in between does not cover the change.
    pub(crate) fn moved(&self, file: Option<u64>) {
        if let Some(writer) = &self.writer {
            lock(&writer.moved).add(file);
        }
    }

    /// Before a chunk that is durable is written over: the path by which recovery must find its record is durable,
    /// or that no name leads to the file any more.
    pub(super) fn settle_path(&self, ino: u64) -> Result<()> {
        let mut moved = lock(&self.require_writer()?.moved);
        if moved.all || moved.files.contains(&ino) {
            self.tree.sync_fs().map_err(self.sync_error())?;
            let all = moved.stamp;
            moved.were_synced(all);
        }
        Ok(())
    }

    /// Before a directory is renamed: every record is durable in place, and while the guard lives
    /// no record is written that would name an old path.
    ///
    /// # Errors
    /// The first failure to bring a file's bytes in place; the store's, when syncing.
    pub fn hold_records(&self) -> Result<RecordsHeld<'_>> {
        let writer = self.require_writer()?;
        for file in writer.active_files() {
            match file.settled() {
                Ok(_) | Err(Error::Poisoned { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (gate, settled) = writer.journal.close_gate();
        if writer.journal.has_unsettled() {
            self.tree.sync_fs().map_err(self.sync_error())?;
            writer.journal.checkpointed(settled);
        }
        if writer.journal.has_unsettled() {
            // A chunk could not be brought in place: its record must find it by the old path.
            return Err(self.cannot_settle());
        }
        Ok(RecordsHeld { _gate: gate })
    }

    /// Ends the session: everything durable in place, the journal gone.
    ///
    /// # Errors
    /// The first failure; the journal then stays for recovery.
    pub fn close(&self) -> Result<()> {
        self.close_cleanly().inspect_err(|_| self.end_notes())
    }

    /// The session cannot end as it should, and whoever may write to the store can see to that: what was noted is to
    /// count all the same, where the store is synced once more.
    pub(crate) fn end_notes(&self) {
        let Some(ledger) = self.ledger() else { return };
        self.files.all().iter().for_each(|file| file.tell_ledger_at_last());
        let position = ledger.position();
        match self.tree.sync_fs() {
            Ok(()) => {
                ledger.durable(position);
                ledger.end();
            }
            Err(error) => log::warn!("{}", self.sync_error()(error)),
        }
    }

    fn close_cleanly(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let mut first = Ok(());
        for file in writer.active_files() {
            first = first.and(file.finish());
        }
        first?;
        self.files.all().iter().for_each(|file| file.tell_ledger());
        self.checkpoint()?;
        writer.journal.remove()?;
        writer.run_dir.sync().map_err(self.sync_error())?;
        if let Some(ledger) = writer.ledger.get() {
            ledger.end();
        }
        Ok(())
    }
}

impl Moved {
    fn add(&mut self, file: Option<u64>) {
        self.stamp += 1;
        match file.filter(|_| self.files.len() < MOVED_LIMIT) {
            Some(ino) => _ = self.files.insert(ino),
            None => self.all = true,
        }
    }

    /// A sync of the store covered every change up to `stamp`.
    fn were_synced(&mut self, stamp: u64) {
        if self.stamp == stamp {
            self.all = false;
            self.files.clear();
        }
    }
}

/// While it lives, no record goes into the run's journal.
#[must_use = "records are held only while this lives"]
pub struct RecordsHeld<'a> {
    _gate: RwLockWriteGuard<'a, ()>,
}

impl Writer {
    fn active_files(&self) -> Vec<Arc<FileObject>> {
        lock(&self.active).values().cloned().collect()
    }

    /// Keeps a file in memory while bytes or records of it are on their way.
    pub(super) fn keep_alive(&self, file: &Arc<FileObject>) {
        lock(&self.active).entry(file.ino).or_insert_with(|| file.clone());
    }

    /// Undoes [`Writer::keep_alive`]; the caller still holds a reference of its own.
    pub(super) fn let_go(&self, file: &FileObject) {
        let mut active = lock(&self.active);
        if active.get(&file.ino).is_some_and(|held| std::ptr::eq(&**held, file)) {
            active.remove(&file.ino);
        }
    }

    pub(super) fn overlay_is_large(&self) -> bool {
        self.overlay_bytes.load(Ordering::Relaxed) > RUN_OVERLAY_LIMIT
    }

    /// Whether a checkpoint makes what was written to files durable.
    pub(super) fn syncs_all(&self) -> bool {
        self.syncs_all
    }

    pub(super) fn is_roomy(&self) -> bool {
        self.room.is_plain()
    }

    pub(super) fn round(&self) -> u64 {
        self.round.load(Ordering::SeqCst)
    }

    /// Whether the two copies of this file's header are still to be compared after a crash.
    pub(super) fn compare_once(&self, ino: u64) -> bool {
        self.after_crash.load(Ordering::Relaxed) && lock(&self.compared).insert(ino)
    }
}
