//! From the overlay into the journal, and from there into place.

use std::sync::{Arc, RwLockWriteGuard};

use runvault_format::chunk;
use runvault_format::redo_record::Record;

use super::FileObject;
use super::state::State;
use crate::redos::Redos;
use crate::{Damage, Error, Result};

/// Why a settling stopped half-way: nothing is lost, a checkpoint makes room.
pub(super) enum Stop {
    JournalFull,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl FileObject {
    /// Locks with an empty overlay, making room in the journal where needed.
    pub(super) fn settled(self: &Arc<Self>) -> Result<RwLockWriteGuard<'_, State>> {
        loop {
            let mut state = self.writable()?;
            let stopped = self.settle(&mut state);
            self.keep_while_needed(&mut state);
            match stopped {
                Ok(()) => return Ok(state),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::JournalFull) => {
                    drop(state);
                    self.run.make_room()?;
                }
            }
        }
    }

    /// J, then in place: the overlay is empty afterwards.
    fn settle(&self, state: &mut State) -> std::result::Result<(), Stop> {
        if state.overlay.is_empty() {
            return Ok(());
        }
        let writer = self.run.require_writer()?;
        let keep = self.what_to_keep(state)?;
        while !state.overlay.is_empty() {
            // Entered first: the rename of a directory, which changes the path, waits outside.
            let _settling = writer.journal.enter();
            let path = if state.detached { None } else { (writer.locate)(self.ino) };
            let redos = self.next_redos(state, path.as_ref().map_or(0, Vec::len))?;
            let placed = match &path {
                Some(path) => self.redo_in_place(state, path, &redos),
                None => self.over_in_place(state, &redos).map_err(Stop::Failed),
            };
            if let Err(Stop::Failed(error)) = &placed
                && !error.is_out_of_space()
            {
                self.poison(state);
            }
            placed?;
            for i in redos.chunks() {
                if let Some(plain) = state.overlay.remove(&i) {
                    self.count_overlay(-(plain.len() as i64));
                }
            }
        }
        if state.tail.is_none() {
            state.waiting_since = None;
        }
        if state.detached {
            // No name comes back any more: what comes now goes straight out.
            state.durable = 0;
        }
        self.restore(state, keep)?;
        Ok(())
    }

    /// As many of the overlay's chunks, from the first on, as go into the journal at once.
    fn next_redos(&self, state: &State, path: usize) -> Result<Redos> {
        let limit = self.run.require_writer()?.journal.batch_limit();
        let count = state.overlay.len();
        let stored = (count as u64 * self.run.geometry.stored_chunk()).min(limit);
        let mut redos = Redos::of(count, stored as usize);
        let mut bytes = 0;
        for (&i, plain) in &state.overlay {
            let len = Record::encoded_len(path, plain.len() + chunk::OVERHEAD) as u64;
            if bytes > 0 && bytes + len > limit {
                break;
            }
            bytes += len;
            self.seal_redo(state, i, plain, &mut redos)?;
        }
        Ok(redos)
    }

    fn seal_redo(&self, state: &State, i: u64, plain: &[u8], redos: &mut Redos) -> Result<()> {
        let partial = (plain.len() as u64) < self.run.geometry.chunk();
        self.seal_redo_of(state, i, partial.then_some(state.size), plain, redos)
    }

    /// Of a chunk with the size that the file will have.
    pub(super) fn seal_redo_of(
        &self,
        state: &State,
        i: u64,
        size_after: Option<u64>,
        plain: &[u8],
        redos: &mut Redos,
    ) -> Result<()> {
        let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
        redos.add(i, size_after, plain.len() + chunk::OVERHEAD, |nonces, stored| {
            Ok(chunk::seal(&header.file_key, nonces, i, plain, stored)?)
        })
    }

    /// Records, J, and the chunks to their places, as one act before the eyes of a checkpoint: the
    /// journal was entered before.
    fn redo_in_place(&self, state: &mut State, path: &[u8], redos: &Redos) -> std::result::Result<(), Stop> {
        let writer = self.run.require_writer()?;
        let file_id = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?.clear.file_id;
        self.run.settle_path(self.ino)?;
        let Ok(number) = writer.journal.append(file_id, state.epoch, path, redos)? else {
            return Err(Stop::JournalFull);
        };
        writer.journal.sync(number)?;
        state.live = true;
        state.last_record = number;
        let placed = self.in_place(state, redos).and_then(|()| self.tell_last_chunk(state, redos));
        if placed.is_err() {
            // Until its chunks are in place a record must not be forgotten, whoever checkpoints.
            writer.journal.keep_from(self.serial, number + 1 - redos.len() as u64);
            state.unplaced.extend(redos.chunks());
        }
        Ok(placed?)
    }

    /// Without records, which could not find a file that has no name.
    fn over_in_place(&self, state: &mut State, redos: &Redos) -> Result<()> {
        self.run.settle_path(self.ino)?;
        self.in_place(state, redos)
    }

    /// A slot that tells how long a partial last chunk is now, at the latest when a checkpoint lets
    /// its record go: once the file has grown further nothing else would. It needs no sync of its own.
    fn tell_last_chunk(&self, state: &mut State, redos: &Redos) -> Result<()> {
        if redos.sizes_after().all(|size| size == state.slot_size) {
            return Ok(());
        }
        let owes_sync = state.direct || state.stale;
        self.write_slot(state)?;
        state.direct = owes_sync;
        Ok(())
    }

    /// Chunks to their places; durable ones only under a durable record.
    fn in_place(&self, state: &mut State, redos: &Redos) -> Result<()> {
        self.mark_unsynced(state);
        for (first, stored) in redos.runs() {
            let offset = self.run.geometry.chunk_offset(first);
            self.file.write_at(stored, offset).map_err(self.io("write"))?;
        }
        self.count_writes(state, redos.len() as u64);
        if !state.unplaced.is_empty() {
            for i in redos.chunks() {
                state.unplaced.remove(&i);
            }
            self.release_if_placed(state);
        }
        Ok(())
    }

    pub(super) fn release_if_placed(&self, state: &State) {
        if let Some(writer) = self.run.writer.as_ref().filter(|_| state.unplaced.is_empty()) {
            writer.journal.release(self.serial);
        }
    }

    /// A poisoned file whose record is durable while its chunk may be torn: tries again to bring
    /// it in place, so that the journal may be written over one day.
    pub(super) fn retry_in_place(self: &Arc<Self>) -> Result<()> {
        let mut state = self.exclusive();
        let chunks: Vec<u64> = state.unplaced.iter().copied().collect();
        let stored = chunks.len() * self.run.geometry.stored_chunk() as usize;
        let mut redos = Redos::of(chunks.len(), stored);
        for i in chunks {
            if let Some(plain) = state.overlay.get(&i) {
                self.seal_redo(&state, i, plain, &mut redos)?;
            }
        }
        if redos.is_empty() { Ok(()) } else { self.in_place(&mut state, &redos) }
    }
}
