//! What fsync, close and the timer do. J and F are those of docs/architecture.md.

use std::sync::Arc;
use std::time::Duration;

use super::FileObject;
use super::context::Writer;
use super::state::State;
use crate::{Error, Result};

impl FileObject {
    /// F: everything written so far is durable when it returns.
    pub(super) fn sync_file(&self, state: &mut State) -> Result<()> {
        if let Err(error) = self.file.sync_data() {
            self.poison(state);
            return Err(self.io("sync")(error));
        }
        state.unsynced = false;
        state.undelivered = false;
        state.direct = false;
        self.slot_is_safe(state);
        let filled = std::mem::take(&mut state.filled);
        // The newest slot may still list them: the next one will not.
        state.stale |= filled.intersects(&state.listed);
        state.fills_acknowledged = false;
        state.holes.subtract(&filled);
        state.acknowledged = state.holes.clone();
        if state.live {
            state.jskip = state.last_record;
            state.live = false;
        }
        self.note_residue(state);
        Ok(())
    }

    /// What was written has reached a store that says so late: until then a close, or a name that depends on it,
    /// acknowledges nothing.
    pub(super) fn deliver(&self, state: &mut State) -> Result<()> {
        if !state.undelivered {
            return Ok(());
        }
        if let Err(error) = self.file.flush() {
            self.poison(state);
            return Err(self.io("flush")(error));
        }
        state.undelivered = false;
        Ok(())
    }

    /// The newest slot is durable, and with it what it claims: D rises. A tail that waits for a chunk
    /// below it can no longer go straight out.
    fn slot_is_safe(&self, state: &mut State) {
        let Some(copy) = state.unsynced_slot.take() else { return };
        state.safe = Some(copy);
        state.durable = state.durable.max(state.slot_size.min(state.size));
        if let Some(tail) = state.tail.take() {
            if self.is_durable_chunk(state, tail.chunk) {
                self.count_overlay(tail.plain.len() as i64);
                state.overlay.insert(tail.chunk, tail.plain);
            } else {
                state.tail = Some(tail);
            }
        }
    }

    /// What fsync(2) promises for the file itself; its names are the namespace's.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's.
    pub fn fsync(self: &Arc<Self>) -> Result<()> {
        if self.run.read_only() {
            return Ok(());
        }
        let mut state = self.settled()?;
        let synced = self.fsync_settled(&mut state);
        self.keep_while_needed(&mut state);
        synced
    }

    fn fsync_settled(&self, state: &mut State) -> Result<()> {
        self.write_tail_and_slot(state, |state| state.stale)?;
        if state.direct {
            self.sync_file(state)?;
        }
        if state.stale && !state.detached {
            // Its data is durable now: an acknowledged hole leaves the list.
            self.write_slot_quietly(state)?;
        }
        if !state.detached {
            state.durable = state.size;
        }
        self.note_residue(state);
        self.note_content(state);
        Ok(())
    }

    /// What close(2) does: waiting bytes go out, the slot tells the size, the store has them. No sync.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's.
    pub fn flush(self: &Arc<Self>) -> Result<()> {
        if self.run.read_only() {
            return Ok(());
        }
        {
            let state = self.shared();
            let wants_slot = state.wants_slot() || state.fills_acknowledged;
            let owes_slot = wants_slot && !state.detached && !state.slot_due;
            let owes = state.tail.is_some() || owes_slot || state.undelivered;
            if !owes && !state.poisoned {
                drop(state);
                self.tell_ledger();
                return Ok(());
            }
        }
        let mut state = self.writable()?;
        let closed = self.close_state(&mut state);
        if closed.is_ok() {
            self.note_content(&mut state);
        }
        // Also where it failed: who sends the file again must not meet what is left of it.
        self.keep_while_needed(&mut state);
        closed
    }

    fn close_state(&self, state: &mut State) -> Result<()> {
        let wants_slot = |state: &State| state.wants_slot() && !state.detached;
        self.write_tail_and_slot(state, |state| wants_slot(state) && state.overlay.is_empty())?;
        // A slot must not claim what an unsynced record brings, nor leave out an acknowledged hole
        // before its data is durable.
        let waits = wants_slot(state) && !state.overlay.is_empty();
        state.slot_due = waits || (state.fills_acknowledged && !state.detached);
        self.deliver(state)
    }

    /// [`FileObject::close_state`] where what it would leave to the timer is not left.
    fn close_settled(&self, state: &mut State) -> Result<()> {
        self.write_tail(state)?;
        if state.fills_acknowledged && !state.detached {
            self.sync_file(state)?;
        }
        self.close_state(state)
    }

    /// The end of a session: nothing of the file is left in memory only.
    pub(super) fn finish(self: &Arc<Self>) -> Result<()> {
        let mut state = match self.settled() {
            Err(Error::Poisoned { .. }) => return self.retry_in_place(),
            settled => settled?,
        };
        self.close_settled(&mut state)?;
        self.note_content(&mut state);
        Ok(())
    }

    /// The timer: what has waited long enough goes out.
    pub(super) fn tick(self: &Arc<Self>, delay: Duration) -> Result<()> {
        let (due, poisoned) = {
            let state = self.shared();
            let waited = state.waiting_since.is_some_and(|since| since.elapsed() >= delay);
            (waited || (state.slot_due && state.overlay.is_empty()), state.poisoned)
        };
        if poisoned {
            self.retry_in_place()?;
        } else if due {
            let mut state = self.settled()?;
            if state.slot_due { self.close_settled(&mut state)? } else { self.write_tail(&mut state)? }
        }
        let mut state = self.exclusive();
        self.note_content(&mut state);
        self.keep_while_needed(&mut state);
        Ok(())
    }

    /// Only by the journal do the bytes that wait here go out.
    pub(super) fn waits_for_journal(&self) -> bool {
        let state = self.shared();
        !state.overlay.is_empty() && !state.poisoned && !state.detached
    }

    /// A checkpoint made every record up to `number` durable in place, and, where it reaches files, every slot written
    /// before `round`.
    pub(super) fn checkpointed(self: &Arc<Self>, number: u64, round: u64) {
        let mut state = self.exclusive();
        if state.slot_round < round && self.run.writer.as_ref().is_some_and(Writer::syncs_all) {
            self.slot_is_safe(&mut state);
        }
        if state.live && state.last_record <= number {
            state.live = false;
            state.jskip = state.jskip.max(number);
        }
        self.note_residue(&state);
        self.keep_while_needed(&mut state);
    }
}
