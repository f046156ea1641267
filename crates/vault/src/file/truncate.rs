//! Growing and shrinking. What goes waits until the slot that says so is durable.

use std::sync::Arc;
use std::time::Instant;

use super::settle::Stop;
use super::state::{State, Tail};
use super::write::Undo;
use super::{FileObject, times};
use crate::redos::{Change, Redos};
use crate::{Damage, Error, Posix, Result};

/// What remains of the chunk that a cut goes through.
struct Shortened {
    plain: Vec<u8>,
    redo: Redos,
    /// Its durable record; `None` where the file has no name any more.
    record: Option<u64>,
}

impl FileObject {
    /// ftruncate to `size` bytes.
    ///
    /// # Errors
    /// [`Error::Poisoned`], damage of the chunk that is cut, the store's.
    pub fn truncate(self: &Arc<Self>, size: u64) -> Result<()> {
        if size > self.run.geometry.max_size() {
            return Err(Error::Posix(Posix::FileTooLarge));
        }
        let mut state = if size == 0 { self.writable()? } else { self.accepting()? };
        if size >= state.size {
            return self.grow(state, size);
        }
        let chunk = self.run.geometry.chunk();
        let cuts_durable =
            size < state.durable || (!size.is_multiple_of(chunk) && (size / chunk) * chunk < state.durable);
        if cuts_durable {
            drop(state);
            return self.shrink_durable(size);
        }
        self.cut_unacknowledged(&mut state, size)?;
        self.note_application_write(&mut state);
        self.wait_or_settle(state)
    }

    fn grow(self: &Arc<Self>, mut state: std::sync::RwLockWriteGuard<'_, State>, size: u64) -> Result<()> {
        if size == state.size {
            // POSIX: the times change also when the size does not.
            self.restore_mtime(&mut state, times::now())?;
            return Ok(());
        }
        let mut undo = Undo::of(&state);
        let before = state.size;
        if let Err(error) = self.extend(&mut state, &mut undo, size) {
            self.undo(&mut state, undo, before, &error);
            self.keep_while_needed(&mut state);
            return Err(error);
        }
        self.note_application_write(&mut state);
        self.wait_or_settle(state)
    }

    /// Grows the file: its partial last chunk is padded, new chunks are holes.
    pub(super) fn extend(&self, state: &mut State, undo: &mut Undo, size: u64) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let last = state.size / chunk;
        let first_hole = state.size.div_ceil(chunk);
        if first_hole > last {
            self.examine(state, last)?;
            let in_tail = state.tail.as_ref().is_some_and(|t| t.chunk == last);
            if in_tail || !state.is_bare_hole(last) {
                let zeros = vec![0u8; (size.min(first_hole * chunk) - state.size) as usize];
                self.write_range(state, undo, state.size, &zeros)?;
            }
        }
        if state.size == size {
            return Ok(());
        }
        let holes = first_hole..size.div_ceil(chunk).max(first_hole);
        for set in [&mut state.filled, &mut state.unexamined, &mut state.acknowledged] {
            set.remove(holes.clone());
        }
        state.holes.insert(holes.clone());
        let new = holes.clone();
        self.ensure_header(state)?;
        self.mark_unsynced(state);
        state.direct = true;
        state.stale = true;
        let written = state.has_written_header();
        self.is_changing(state);
        if written {
            self.list_hole(state, holes)?;
        }
        self.file.set_len(self.run.geometry.stored_len(size)).map_err(self.io("extend"))?;
        self.holes_added(state, size, &new);
        state.size = size;
        if !written {
            self.write_slot(state)?;
        }
        Ok(())
    }

    /// Nothing that a sync acknowledged goes: no order is owed.
    fn cut_unacknowledged(&self, state: &mut State, size: u64) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let last = size / chunk;
        let kept = self.cut_chunk(state, size)?;
        self.before_cut(state, size);
        state.tail.take_if(|t| t.chunk >= last);
        state.forget_holes_from(size.div_ceil(chunk));
        state.size = size;
        state.stale = true;
        if let Some(plain) = kept {
            state.tail = Some(Tail { chunk: last, plain });
            state.waiting_since.get_or_insert_with(Instant::now);
        }
        if !state.has_written_header() {
            state.stale = false;
            return Ok(());
        }
        self.mark_unsynced(state);
        state.direct = true;
        if let Err(error) = self.file.set_len(self.run.geometry.stored_len_with_header(size)) {
            // What lies there still authenticates, and would be data again where the file grows.
            self.poison(state);
            return Err(self.io("truncate")(error));
        }
        if state.slot_size > size {
            self.write_tail(state)?;
            self.write_slot(state)?;
        }
        Ok(())
    }

    /// What remains of the chunk that `size` cuts through; `None` if it cuts none or a hole.
    fn cut_chunk(&self, state: &mut State, size: u64) -> Result<Option<Vec<u8>>> {
        let chunk = self.run.geometry.chunk();
        let (i, keep) = (size / chunk, (size % chunk) as usize);
        if keep == 0 {
            return Ok(None);
        }
        self.examine(state, i)?;
        let in_tail = state.tail.as_ref().is_some_and(|t| t.chunk == i);
        if state.is_bare_hole(i) && !in_tail {
            return Ok(None);
        }
        let mut plain = self.load_chunk(state, i)?;
        plain.truncate(keep);
        Ok(Some(plain))
    }

    fn shrink_durable(self: &Arc<Self>, size: u64) -> Result<()> {
        loop {
            let mut state = if size == 0 { self.writable()? } else { self.settled()? };
            if size >= state.size {
                // Someone else was here in between.
                drop(state);
                return self.truncate(size);
            }
            let cut =
                if size == 0 { self.cut_to_nothing(&mut state) } else { self.cut_durable(&mut state, size) };
            match cut {
                Ok(()) => state.mtime = None,
                Err(Stop::Failed(error)) => {
                    self.keep_while_needed(&mut state);
                    return Err(error);
                }
                Err(Stop::JournalFull) => {
                    drop(state);
                    self.run.make_room()?;
                    continue;
                }
            }
            self.keep_while_needed(&mut state);
            return Ok(());
        }
    }

    fn cut_durable(&self, state: &mut State, size: u64) -> std::result::Result<(), Stop> {
        let chunk = self.run.geometry.chunk();
        self.write_tail(state)?;
        if state.live || state.filled.contains(size / chunk) {
            self.sync_file(state)?;
        }
        let kept = self.cut_chunk(state, size)?;
        self.is_changing(state);
        let writer = self.run.require_writer()?;
        // No checkpoint may take the record for settled before its chunk is in place.
        let _settling = writer.journal.enter();
        let mut shortened = None;
        if let Some(plain) = kept {
            let change = Change { chunk: size / chunk, size_after: Some(size), plain: &plain };
            let redo = self.seal_changes(state, &[change])?;
            let mut record = None;
            self.run.settle_path(self.ino)?;
            if let Some(path) = (writer.locate)(self.ino).filter(|_| !state.detached) {
                let file_id =
                    state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?.clear.file_id;
                let Ok(number) = writer.journal.append(file_id, state.epoch, &path, &redo)? else {
                    return Err(Stop::JournalFull);
                };
                writer.journal.sync(number)?;
                record = Some(number);
            }
            shortened = Some(Shortened { plain, redo, record });
        }
        let cut = self.finish_cut(state, size, shortened);
        if cut.is_err() {
            self.poison(state);
        }
        Ok(cut?)
    }

    /// Slot, F, then the cut itself and the shortened chunk.
    fn finish_cut(&self, state: &mut State, size: u64, shortened: Option<Shortened>) -> Result<()> {
        let geometry = &self.run.geometry;
        let i = size / geometry.chunk();
        self.before_cut(state, size);
        state.size = size;
        state.forget_holes_from(size.div_ceil(geometry.chunk()));
        self.write_slot(state)?;
        self.sync_file(state)?;
        state.durable = state.durable.min(size);
        self.mark_unsynced(state);
        state.direct = true;
        if let Some(Shortened { plain, record: Some(number), .. }) = &shortened {
            // Should the rest fail: the record must stay until the chunk is in place.
            self.run.require_writer()?.journal.keep_from(self.serial, *number);
            state.unplaced.insert(i);
            self.count_overlay(plain.len() as i64);
            state.overlay.insert(i, plain.clone());
        }
        self.file.set_len(geometry.stored_len(size)).map_err(self.io("truncate"))?;
        let Some(Shortened { redo, record, .. }) = shortened else { return Ok(()) };
        for (first, stored) in redo.runs() {
            self.file.write_at(stored, geometry.chunk_offset(first)).map_err(self.io("write"))?;
            self.chunks_written(state, first, stored);
        }
        self.count_writes(state, 1);
        if let Some(number) = record {
            state.last_record = number;
            state.live = true;
            if let Some(plain) = state.overlay.remove(&i) {
                self.count_overlay(-(plain.len() as i64));
            }
            state.unplaced.remove(&i);
            self.release_if_placed(state);
        }
        Ok(())
    }

    /// A new epoch: what was there before never authenticates again, its records included.
    fn cut_to_nothing(&self, state: &mut State) -> std::result::Result<(), Stop> {
        let epoch = state.epoch.checked_add(1).ok_or_else(|| self.worn_out())?;
        self.before_nothing(state);
        let forgotten: usize = state.overlay.values().map(Vec::len).sum();
        self.count_overlay(-(forgotten as i64));
        state.overlay.clear();
        state.tail = None;
        state.waiting_since = None;
        state.size = 0;
        state.epoch = epoch;
        state.writes = 0;
        state.forget_holes_from(0);
        if let Some(header) = &mut state.header {
            header.file_key = self.run.keys.file_key(&header.clear, state.epoch);
        }
        let length = self.run.geometry.stored_len_with_header(0);
        let cut = self.write_slot(state).and_then(|()| self.sync_file(state)).and_then(|()| {
            state.durable = 0;
            state.direct = true;
            self.mark_unsynced(state);
            self.file.set_len(length).map_err(self.io("truncate"))
        });
        if cut.is_err() {
            self.poison(state);
            return Ok(cut?);
        }
        state.unplaced.clear();
        self.release_if_placed(state);
        Ok(())
    }

    pub(super) fn worn_out(&self) -> Error {
        Error::WornOut { object: self.run.object(self.ino) }
    }
}
