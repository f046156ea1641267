//! One regular file of a run: the write path of docs/architecture.md.
//!
//! A [`FileObject`] is shared by all handles of an inode. Its invariants, tried on the crash model
//! and on the recording store:
//!
//! * a chunk that is durable is never written over before its new version is durable in the journal;
//! * a header copy that is known durable is never written over;
//! * shrinking and punching wait until the slot that says so is durable; growing waits for nothing.

mod allocate;
mod batch;
mod beyond;
mod context;
mod extents;
mod header;
mod holes;
mod names;
mod noting;
mod open;
mod patience;
mod read;
mod read_back;
mod registry;
mod room;
mod settle;
mod state;
mod sync;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod times;
mod truncate;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use runvault_format::ids::FileId;
use runvault_format::ledger::Owner;
use runvault_store::backend::{File, Stat};

pub(crate) use self::beyond::Stored;
pub(crate) use self::context::lock;
pub use self::context::{Locate, RecordsHeld, RunContext};
pub(crate) use self::extents::Extents;
pub(crate) use self::header::{Found, UNRECORDED_LIMIT, Unreadable};
pub use self::names::Held;
use self::open::may_settle;
pub(crate) use self::read_back::Content;
use self::registry::Residue;
use self::state::State;
use crate::noted_names::owner_given;
use crate::{Damage, Error, Result};

/// A writer elsewhere is in the middle of a write: whoever asks for the size looks so often, and has no turn of those who
/// read.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// An open or dirty regular file; one object for each inode of a run.
pub struct FileObject {
    run: Arc<RunContext>,
    pub(crate) ino: u64,
    /// Tells objects of one inode apart that follow each other.
    serial: u64,
    file: Arc<dyn File>,
    state: RwLock<State>,
}

impl FileObject {
    fn new(run: &Arc<RunContext>, ino: u64, file: Arc<dyn File>, state: State) -> Arc<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { run: run.clone(), ino, serial, file, state: RwLock::new(state) })
    }

    fn shared(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, damage: Damage) -> Error {
        Error::damaged(self.run.object(self.ino), damage)
    }

    fn io(&self, operation: &'static str) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::store(operation, self.run.object(self.ino), source)
    }

    /// The plaintext's size in bytes.
    pub fn size(&self) -> u64 {
        match self.run.read_only().then(|| self.file.stat()) {
            Some(Ok(stat)) => self.size_beside_a_writer(stat.size),
            _ => self.shared().size,
        }
    }

    /// The plaintext's size in bytes as it was found when the file was last read from the store.
    pub fn vouched_size(&self) -> u64 {
        self.shared().size
    }

    /// The writer may be elsewhere: what is stored now counts.
    fn size_beside_a_writer(&self, stored: u64) -> u64 {
        self.run.geometry.plain_len_floor(stored).unwrap_or(0)
    }

    /// With how much of it can be read beside a writer elsewhere: what is stored is ahead of that where a chunk waits for
    /// the writer's journal, or is on its way. Where nothing can be told, what is stored.
    fn attr_beside_a_writer(&self, mut stat: Stat) -> Result<Stat> {
        let mut looks = 1;
        loop {
            let stored = self.size_beside_a_writer(stat.size);
            if self.shared().size == stored {
                return Ok(Stat { size: stored, ..stat });
            }
            let loaded = self.load(&stat, None);
            if looks < LOOKS && (may_settle(&loaded) || self.lacks_only_its_end(&loaded, stored)) {
                std::thread::sleep(PAUSE);
                stat = self.file.stat().map_err(self.io("stat"))?;
                looks += 1;
                continue;
            }
            let Ok(now) = loaded else { return Ok(Stat { size: stored, ..stat }) };
            let mut state = self.exclusive();
            *state = now;
            return Ok(Stat { size: state.size, ..stat });
        }
    }

    /// Its last chunk is being written, perhaps over a shorter one, so that it seems to be shorter than it was.
    fn lacks_only_its_end(&self, loaded: &Result<State>, stored: u64) -> bool {
        let chunk = self.run.geometry.chunk();
        loaded.as_ref().is_ok_and(|now| now.size < stored && now.size / chunk == (stored - 1) / chunk)
    }

    /// `fstat` with the plaintext's size and the application's mtime.
    ///
    /// # Errors
    /// The store's.
    pub fn attr(&self) -> Result<Stat> {
        self.attr_of(None)
    }

    /// [`FileObject::attr`], where the store was asked already.
    pub(crate) fn attr_of(&self, stat: Option<Stat>) -> Result<Stat> {
        let look = || stat.map_or_else(|| self.file.stat(), Ok).map_err(self.io("stat"));
        if self.run.read_only() {
            return self.attr_beside_a_writer(look()?);
        }
        let state = self.shared();
        let mut stat = look()?;
        stat.size = state.size;
        if let Some(mtime) = state.mtime {
            stat.mtime = mtime;
        }
        Ok(stat)
    }

    /// Some byte of it was acknowledged by a sync, or it was found on disk.
    pub fn is_durable(&self) -> bool {
        let state = self.shared();
        state.durable > 0 || state.safe.is_some()
    }

    /// Its identity; `None` while nothing was ever stored of it.
    pub fn file_id(&self) -> Option<FileId> {
        self.shared().header.as_ref().filter(|h| h.written).map(|h| h.clear.file_id)
    }

    /// Whether it was opened for reading only.
    pub fn read_only(&self) -> bool {
        self.run.read_only()
    }

    /// fchmod.
    ///
    /// # Errors
    /// The store's.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        self.set_noted(
            || self.file.set_mode(mode).map_err(self.io("change the mode of")),
            |stat| Owner { mode: Some((stat.mode & 0o7777) as u16), ..Owner::default() },
        )
    }

    /// fchown.
    ///
    /// # Errors
    /// The store's.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.set_noted(
            || self.file.set_owner(uid, gid).map_err(self.io("change the owner of")),
            // Set-id bits may have gone with it.
            |stat| Owner { mode: Some((stat.mode & 0o7777) as u16), ..owner_given(stat, uid, gid) },
        )
    }

    /// Lets `act` change mode or owner, and notes what they are then.
    fn set_noted(&self, act: impl FnOnce() -> Result<()>, now: impl FnOnce(&Stat) -> Owner) -> Result<()> {
        let Some(ledger) = self.run.ledger() else { return act() };
        let act = || act().and_then(|()| self.file.stat().map_err(self.io("stat")));
        ledger.changing_owner(self.ledger_group(), act, now).map(drop)
    }

    /// The stored file, for attributes that pass through.
    pub fn stored(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Something was written that the next sync of the file or the store covers.
    fn mark_unsynced(&self, state: &mut State) {
        state.undelivered = self.run.writer.as_ref().is_some_and(|writer| !writer.syncs_all());
        if !std::mem::replace(&mut state.unsynced, true) {
            self.note_residue(state);
        }
    }

    /// Keeps what a later object of this inode must know up to date.
    fn note_residue(&self, state: &State) {
        let (Some(writer), Some(header)) = (&self.run.writer, &state.header) else { return };
        if state.unsynced && !state.detached {
            let file_id = header.clear.file_id;
            let (safe, durable, owner) = (state.safe, state.durable, self.serial);
            writer.residues.note(self.ino, Residue { file_id, safe, durable, owner });
        } else {
            writer.residues.settle(self.ino, self.serial);
        }
    }

    /// Has the run hold a reference while bytes or records are on their way, and no longer.
    fn keep_while_needed(self: &Arc<Self>, state: &mut State) {
        let Some(writer) = &self.run.writer else { return };
        match (state.must_stay(), state.kept_alive) {
            (true, false) => writer.keep_alive(self),
            (false, true) => writer.let_go(self),
            _ => return,
        }
        state.kept_alive = !state.kept_alive;
    }
}

impl std::fmt::Debug for FileObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileObject(inode {})", self.ino)
    }
}

impl Drop for FileObject {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        noting::end_noting(&self.run, state);
        if let Some(writer) = &self.run.writer {
            let waiting: usize = state.overlay.values().map(Vec::len).sum();
            writer.overlay_bytes.fetch_sub(waiting as u64, Ordering::Relaxed);
            writer.residues.orphan(self.ino, self.serial);
        }
        self.run.files.leave(self);
    }
}
