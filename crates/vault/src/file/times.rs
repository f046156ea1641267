//! mtime is the application's, whatever is written later.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use runvault_store::backend::{SetTime, Time};

use super::FileObject;
use super::state::State;
use crate::Result;

impl FileObject {
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
            state.mtime = None;
            if state.is_waiting() {
                // Its arrival must not move the time just set.
                state.mtime = Some(self.mtime_to_keep(&state)?);
            }
        }
        self.keep_while_needed(&mut state);
        Ok(())
    }

    /// Chunks in memory: the store's mtime lags, so the application's is kept here.
    pub(super) fn note_application_write(&self, state: &mut State) {
        state.mtime = state.is_waiting().then(now);
    }

    /// The mtime that must stand after a write of ours.
    pub(super) fn mtime_to_keep(&self, state: &State) -> Result<Time> {
        match state.mtime {
            Some(time) => Ok(time),
            None => Ok(self.file.stat().map_err(self.io("stat"))?.mtime),
        }
    }

    /// Before a write of ours that the application has not asked for.
    pub(super) fn what_to_keep(&self, state: &State) -> Result<Kept> {
        // Root's writes leave suid and sgid alone; anyone else's strip them.
        let mode = if crate::sys::is_root() { 0 } else { self.file.stat().map_err(self.io("stat"))?.mode };
        Ok(Kept { mtime: self.mtime_to_keep(state)?, set_id_mode: (mode & 0o6000 != 0).then_some(mode) })
    }

    /// After it.
    pub(super) fn restore(&self, state: &mut State, kept: Kept) -> Result<()> {
        if let Some(mode) = kept.set_id_mode {
            self.file.set_mode(mode).map_err(self.io("change the mode of"))?;
        }
        self.restore_mtime(state, kept.mtime)
    }

    pub(super) fn restore_mtime(&self, state: &mut State, keep: Time) -> Result<()> {
        self.file.set_times(SetTime::Omit, SetTime::At(keep)).map_err(self.io("set times of"))?;
        state.mtime = state.is_waiting().then_some(keep);
        Ok(())
    }
}

/// What a write of ours must leave as it was.
pub(super) struct Kept {
    mtime: Time,
    /// Suid or sgid with the rest of the mode, where a write of this process would strip them.
    set_id_mode: Option<u32>,
}

/// The wall clock, which is what an mtime is.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: since.as_secs() as i64, nsec: since.subsec_nanos() }
}
