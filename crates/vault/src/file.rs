//! One regular file of a run: the write path of docs/format.md, section "Write path".
//!
//! A [`FileObject`] is shared by all handles of an inode. Its invariants, tried on the crash model
//! and on the recording store:
//!
//! * a chunk that is durable is never written over before its new version is durable in the journal;
//! * a header copy that is known durable is never written over;
//! * shrinking and punching wait until the slot that says so is durable; growing waits for nothing.

mod context;
mod extents;
mod open;
mod read;
mod resize;
mod state;
mod sync;
mod write;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use runvault_store::backend::{File, SetTime, Stat};

pub use self::context::{Locate, RunContext};
pub(crate) use self::context::lock;
use self::state::State;
use crate::{Damage, Error, Result};

/// An open or dirty regular file.
pub struct FileObject {
    run: Arc<RunContext>,
    pub(crate) ino: u64,
    file: Arc<dyn File>,
    state: RwLock<State>,
}

impl FileObject {
    fn new(run: &Arc<RunContext>, ino: u64, file: Arc<dyn File>, state: State) -> Arc<Self> {
        Arc::new(Self { run: run.clone(), ino, file, state: RwLock::new(state) })
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
        if self.run.read_only() {
            // The writer may be elsewhere: what is stored now counts.
            if let Ok(stat) = self.file.stat() {
                let stored = self.run.geometry.plain_len_floor(stat.size).unwrap_or(0);
                return stored.max(self.shared().size);
            }
        }
        self.shared().size
    }

    /// `fstat` with the plaintext's size and the application's mtime.
    ///
    /// # Errors
    /// The store's.
    pub fn attr(&self) -> Result<Stat> {
        let state = self.shared();
        let mut stat = self.file.stat().map_err(self.io("stat"))?;
        stat.size = if self.run.read_only() {
            self.run.geometry.plain_len_floor(stat.size).unwrap_or(0).max(state.size)
        } else {
            state.size
        };
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

    /// utimensat by handle; waiting bytes go out first, so that nothing of ours follows.
    ///
    /// # Errors
    /// Those of [`FileObject::flush`], and the store's.
    pub fn set_times(self: &Arc<Self>, atime: SetTime, mtime: SetTime) -> Result<()> {
        let mut state = self.exclusive();
        if !state.poisoned && self.run.writer.is_some() {
            self.write_tail(&mut state)?;
        }
        self.file.set_times(atime, mtime).map_err(self.io("set times of"))?;
        if mtime != SetTime::Omit {
            // An overlay may still wait: its arrival must not move the time just set.
            let waiting = state.is_waiting();
            state.mtime = if waiting { Some(self.file.stat().map_err(self.io("stat"))?.mtime) } else { None };
        }
        Ok(())
    }

    /// fchmod.
    ///
    /// # Errors
    /// The store's.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        self.file.set_mode(mode).map_err(self.io("change the mode of"))
    }

    /// fchown.
    ///
    /// # Errors
    /// The store's.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.file.set_owner(uid, gid).map_err(self.io("change the owner of"))
    }

    /// The stored file, for attributes that pass through.
    pub fn stored(&self) -> &Arc<dyn File> {
        &self.file
    }
}

impl Drop for FileObject {
    fn drop(&mut self) {
        let Some(writer) = &self.run.writer else { return };
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let waiting: usize = state.overlay.values().map(Vec::len).sum();
        writer.overlay_bytes.fetch_sub(waiting as u64, Ordering::Relaxed);
        if let Some(header) = &state.header
            && !state.detached
            && (state.unsynced || state.unsynced_slot.is_some())
        {
            writer.leave_residue(self.ino, header.clear.file_id, state.safe, state.durable);
        }
    }
}
