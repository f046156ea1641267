//! From the overlay into the journal, and from there into place.

use std::sync::{Arc, RwLockWriteGuard};

use runvault_format::chunk;
use runvault_format::redo_record::Record;

use super::FileObject;
use super::state::State;
use crate::redos::{Change, Redos};
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
        let mut bytes = 0;
        let fit = state.overlay.iter().take_while(|(_, plain)| {
            bytes += Record::encoded_len(path, plain.len() + chunk::OVERHEAD) as u64;
            bytes <= limit
        });
        let fit = fit.count().max(1);
        self.seal_redos(state, state.overlay.iter().take(fit).map(|(i, plain)| (*i, plain.as_slice())))
    }

    fn seal_redos<'a>(&self, state: &State, chunks: impl Iterator<Item = (u64, &'a [u8])>) -> Result<Redos> {
        let whole = self.run.geometry.chunk();
        let change = |(chunk, plain): (u64, &'a [u8])| {
            let size_after = ((plain.len() as u64) < whole).then_some(state.size);
            Change { chunk, size_after, plain }
        };
        self.seal_changes(state, &chunks.map(change).collect::<Vec<_>>())
    }

    pub(super) fn seal_changes(&self, state: &State, changes: &[Change<'_>]) -> Result<Redos> {
        let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
        Redos::seal(&header.file_key, changes)
    }

    /// Records, J, and the chunks to their places, as one act before the eyes of a checkpoint: the
    /// journal was entered before. Where no record is durable nothing was written over: the chunks wait on.
    fn redo_in_place(&self, state: &mut State, path: &[u8], redos: &Redos) -> std::result::Result<(), Stop> {
        let writer = self.run.require_writer()?;
        let file_id = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?.clear.file_id;
        self.run.settle_path(self.ino)?;
        self.is_changing(state);
        let Ok(number) = writer.journal.append(file_id, state.epoch, path, redos)? else {
            return Err(Stop::JournalFull);
        };
        writer.journal.sync(number)?;
        state.live = true;
        state.last_record = number;
        let placed = self
            .in_place(state, redos)
            .and_then(|()| self.tell_last_chunk(state, redos))
            .and_then(|()| self.have_arrived(state, redos));
        if let Err(error) = &placed {
            self.poison_unless_full(state, error);
            // Until its chunks are in place a record must not be forgotten, whoever checkpoints.
            writer.journal.keep_from(self.serial, number + 1 - redos.len() as u64);
            state.unplaced.extend(redos.chunks());
        }
        Ok(placed?)
    }

    /// Without records, which could not find a file that has no name.
    fn over_in_place(&self, state: &mut State, redos: &Redos) -> Result<()> {
        self.run.settle_path(self.ino)?;
        let placed = self.in_place(state, redos).and_then(|()| self.have_arrived(state, redos));
        placed.inspect_err(|error| self.poison_unless_full(state, error))
    }

    fn poison_unless_full(&self, state: &mut State, error: &Error) {
        if !error.is_out_of_space() {
            self.poison(state);
        }
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
            let n = (stored.len() as u64).div_ceil(self.run.geometry.stored_chunk());
            self.before_chunks(state, first..first + n);
            let written = self.file.write_at(stored, offset);
            if written.is_err() {
                Self::chunks_failed(state);
            }
            written.map_err(self.io("write"))?;
            self.chunks_written(state, first, stored);
        }
        self.count_writes(state, redos.len() as u64);
        Ok(())
    }

    /// Chunks in place count as there, and a checkpoint may let their records go. One that does not sync them must not:
    /// they are synced first.
    fn have_arrived(&self, state: &mut State, redos: &Redos) -> Result<()> {
        if !state.detached && !self.run.require_writer()?.syncs_all() {
            self.sync_file(state)?;
        }
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
        let unplaced = state.unplaced.iter();
        let redos = self.seal_redos(
            &state,
            unplaced.filter_map(|i| state.overlay.get(i).map(|plain| (*i, plain.as_slice()))),
        )?;
        if redos.is_empty() {
            return Ok(());
        }
        self.in_place(&mut state, &redos)?;
        self.have_arrived(&mut state, &redos)
    }
}
