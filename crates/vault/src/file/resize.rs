//! Growing, shrinking, holes. Destructive steps wait until the slot that says so is durable.

use std::ops::Range;
use std::sync::Arc;

use runvault_format::chunk;

use super::FileObject;
use super::state::{State, Tail};
use super::sync::Stop;
use crate::api::Allocate;
use crate::journal::Redo;
use crate::{Damage, Error, Posix, Result};

/// Zeros written at once where the backing cannot punch.
const ZEROS: usize = 256 << 10;

impl FileObject {
    /// ftruncate to `size` bytes.
    ///
    /// # Errors
    /// [`Error::Poisoned`], damage of the chunk that is cut, the store's.
    pub fn truncate(self: &Arc<Self>, size: u64) -> Result<()> {
        if size > self.run.geometry.max_size() {
            return Err(Error::Posix(Posix::FileTooLarge));
        }
        loop {
            let mut state = self.writable()?;
            let chunk = self.run.geometry.chunk();
            if size >= state.size {
                if size > state.size {
                    self.extend(&mut state, size)?;
                } else if state.header.as_ref().is_some_and(|h| h.written) {
                    // POSIX: the times change also when the size does not.
                    let now = super::write::now();
                    self.restore_mtime(&mut state, now)?;
                }
                self.note_application_write(&mut state);
                return self.wait_or_settle(state);
            }
            let cuts_durable = size < state.durable
                || (!size.is_multiple_of(chunk) && (size / chunk) * chunk < state.durable);
            if !cuts_durable {
                self.cut_unacknowledged(&mut state, size)?;
                self.note_application_write(&mut state);
                return self.wait_or_settle(state);
            }
            drop(state);
            let mut state = self.settled()?;
            match self.cut_durable(&mut state, size) {
                Ok(()) => {
                    if state.live {
                        self.run.require_writer()?.retain(self);
                    }
                    state.mtime = None;
                    return Ok(());
                }
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::JournalFull) => {
                    drop(state);
                    self.run.checkpoint()?;
                }
            }
        }
    }

    /// Grows the file: its partial last chunk is padded, new chunks are holes.
    pub(super) fn extend(&self, state: &mut State, size: u64) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let last = state.size / chunk;
        let mut first_hole = last;
        if !state.size.is_multiple_of(chunk) {
            first_hole += 1;
            self.examine(state, last)?;
            let in_tail = state.tail.as_ref().is_some_and(|t| t.chunk == last);
            if in_tail || !state.is_bare_hole(last) {
                self.pad(state, last, size.min(first_hole * chunk))?;
            }
        }
        let holes = first_hole..size.div_ceil(chunk).max(first_hole);
        state.filled.remove(holes.clone());
        state.unexamined.remove(holes.clone());
        state.holes.insert(holes);
        self.ensure_header(state)?;
        self.file.set_len(self.run.geometry.stored_len(size)).map_err(self.io("extend"))?;
        state.size = size;
        state.unsynced = true;
        state.direct = true;
        if !state.header.as_ref().is_some_and(|h| h.written) {
            self.write_slot(state)?;
        }
        Ok(())
    }

    /// Zeros from the end of the file to `to`, within its partial last chunk `i`.
    fn pad(&self, state: &mut State, i: u64, to: u64) -> Result<()> {
        let zeros = vec![0u8; (to - state.size) as usize];
        self.write_chunks(state, state.size, to, &zeros)?;
        debug_assert_eq!(to.div_ceil(self.run.geometry.chunk()), i + 1);
        Ok(())
    }

    /// Nothing that a sync acknowledged goes: no order is owed.
    fn cut_unacknowledged(&self, state: &mut State, size: u64) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let last = size / chunk;
        let kept = self.cut_chunk(state, size)?;
        if state.tail.as_ref().is_some_and(|t| t.chunk >= last) {
            state.tail = None;
        }
        state.forget_holes_from(size.div_ceil(chunk));
        if state.header.as_ref().is_some_and(|h| h.written) {
            self.file.set_len(self.run.geometry.stored_len_with_header(size)).map_err(self.io("truncate"))?;
        }
        state.size = size;
        state.unsynced = true;
        state.direct = true;
        if let Some(plain) = kept {
            state.tail = Some(Tail { chunk: last, plain });
            state.waiting_since.get_or_insert_with(std::time::Instant::now);
        }
        if state.slot_size > size && state.header.is_some() {
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

    fn cut_durable(&self, state: &mut State, size: u64) -> std::result::Result<(), Stop> {
        let chunk = self.run.geometry.chunk();
        self.write_tail(state)?;
        if state.live || state.filled.contains(size / chunk) {
            self.sync_file(state)?;
        }
        if size == 0 {
            return self.cut_to_nothing(state).map_err(Stop::Failed);
        }
        let kept = self.cut_chunk(state, size)?;
        let writer = self.run.require_writer()?;
        let _settling = writer.journal.enter();
        let mut record = None;
        if let Some(plain) = &kept {
            let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
            let mut stored = vec![0u8; plain.len() + chunk::OVERHEAD];
            chunk::seal(&header.file_key, size / chunk, plain, &mut stored).map_err(Error::from)?;
            let file_id = header.clear.file_id;
            let redo = [Redo { chunk: size / chunk, size_after: Some(size), stored }];
            if let Some(path) = (writer.locate)(self.ino) {
                let Ok(number) = writer.journal.append(file_id, state.epoch, &path, &redo)? else {
                    return Err(Stop::JournalFull);
                };
                writer.journal.sync(number)?;
                record = Some(number);
            }
            let [redo] = redo;
            return self.finish_cut(state, size, Some((redo.stored, record))).map_err(Stop::Failed);
        }
        self.finish_cut(state, size, None).map_err(Stop::Failed)
    }

    /// Slot, F, then the cut itself and the shortened chunk.
    fn finish_cut(&self, state: &mut State, size: u64, kept: Option<(Vec<u8>, Option<u64>)>) -> Result<()> {
        let geometry = &self.run.geometry;
        state.size = size;
        state.forget_holes_from(size.div_ceil(geometry.chunk()));
        let cut = self.write_slot(state).and_then(|()| self.sync_file(state)).and_then(|()| {
            self.file.set_len(geometry.stored_len(size)).map_err(self.io("truncate"))?;
            state.unsynced = true;
            state.direct = true;
            let Some((stored, record)) = kept else { return Ok(()) };
            self.file.write_at(&stored, geometry.chunk_offset(size / geometry.chunk())).map_err(self.io("write"))?;
            self.count_writes(state, 1);
            if let Some(number) = record {
                state.last_record = number;
                state.live = true;
            }
            Ok(())
        });
        state.durable = state.durable.min(size);
        if cut.is_err() {
            self.poison(state);
        }
        cut
    }

    /// A new epoch: what was there before never authenticates again.
    fn cut_to_nothing(&self, state: &mut State) -> Result<()> {
        state.size = 0;
        state.epoch += 1;
        state.writes = 0;
        state.forget_all_holes();
        if let Some(header) = &mut state.header {
            header.file_key = self.run.keys.file_key(&header.clear, state.epoch);
        }
        let cut = self.write_slot(state).and_then(|()| self.sync_file(state)).and_then(|()| {
            self.file.set_len(self.run.geometry.stored_len_with_header(0)).map_err(self.io("truncate"))
        });
        state.unsynced = true;
        state.direct = true;
        state.durable = 0;
        if cut.is_err() {
            self.poison(state);
        }
        cut
    }

    /// fallocate(2) on `len` bytes from `offset`.
    ///
    /// # Errors
    /// EOPNOTSUPP where the store cannot; those of [`FileObject::write`].
    pub fn allocate(self: &Arc<Self>, offset: u64, len: u64, mode: Allocate) -> Result<()> {
        let end = offset.checked_add(len).filter(|e| *e <= self.run.geometry.max_size());
        let end = end.ok_or(Error::Posix(Posix::FileTooLarge))?;
        match mode {
            Allocate::Plain => {
                self.reserve(offset, end)?;
                self.grow_to(end)
            }
            Allocate::KeepSize => self.reserve(offset, end),
            Allocate::PunchHole => self.punch(offset, end),
            Allocate::ZeroRange { keep_size } => {
                self.punch(offset, end)?;
                self.reserve(offset, end)?;
                if keep_size { Ok(()) } else { self.grow_to(end) }
            }
        }
    }

    fn grow_to(self: &Arc<Self>, end: u64) -> Result<()> {
        let mut state = self.writable()?;
        if end > state.size {
            self.extend(&mut state, end)?;
        }
        self.note_application_write(&mut state);
        self.wait_or_settle(state)
    }

    /// Room in the backing for the stored form of `offset..end`, so that later writes find it.
    fn reserve(&self, offset: u64, end: u64) -> Result<()> {
        drop(self.writable()?);
        let geometry = &self.run.geometry;
        let from = if offset == 0 { 0 } else { geometry.chunk_offset(offset / geometry.chunk()) };
        let to = geometry.stored_len(end);
        self.file.allocate(from, to - from, true).map_err(self.io("allocate room for"))
    }

    fn punch(self: &Arc<Self>, offset: u64, end: u64) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let end = end.min(self.size());
        if offset >= end {
            drop(self.writable()?);
            return Ok(());
        }
        let whole = offset.div_ceil(chunk)..end / chunk;
        if whole.is_empty() {
            return self.write(offset, &vec![0u8; (end - offset) as usize]);
        }
        let (first, last) = (whole.start * chunk, whole.end * chunk);
        self.write(offset, &vec![0u8; (first - offset) as usize])?;
        self.write(last, &vec![0u8; (end - last) as usize])?;
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        self.punch_chunks(&mut state, whole)
    }

    fn punch_chunks(&self, state: &mut State, chunks: Range<u64>) -> Result<()> {
        let geometry = &self.run.geometry;
        if state.live {
            self.sync_file(state)?;
        }
        let durable = chunks.start * geometry.chunk() < state.durable;
        state.holes.insert(chunks.clone());
        state.filled.remove(chunks.clone());
        state.unexamined.remove(chunks.clone());
        if durable {
            self.write_slot(state)?;
            self.sync_file(state)?;
        }
        state.unsynced = true;
        state.direct = true;
        let stored = geometry.chunk_offset(chunks.start)..geometry.chunk_offset(chunks.end);
        let punched = self.file.punch(stored.start, stored.end - stored.start);
        let punched = match punched {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => self.write_zeros(stored),
            other => other.map_err(self.io("punch a hole into")),
        };
        if punched.is_err() {
            // What lies there still authenticates, and would be data again after a restart.
            self.poison(state);
        }
        state.mtime = None;
        punched
    }

    fn write_zeros(&self, stored: Range<u64>) -> Result<()> {
        let zeros = vec![0u8; ZEROS];
        let end = stored.end.min(self.file.stat().map_err(self.io("stat"))?.size);
        let mut at = stored.start;
        while at < end {
            let n = zeros.len().min((end - at) as usize);
            self.file.write_at(&zeros[..n], at).map_err(self.io("write"))?;
            at += n as u64;
        }
        Ok(())
    }

    /// SEEK_DATA (`data`) or SEEK_HOLE from `offset`, by whole chunks.
    ///
    /// # Errors
    /// [`Posix::NoSuchData`] past the end.
    pub fn seek(&self, offset: u64, data: bool) -> Result<u64> {
        let state = self.shared();
        let chunk = self.run.geometry.chunk();
        if offset >= state.size {
            return Err(Error::Posix(Posix::NoSuchData));
        }
        let mut at = offset;
        while at < state.size {
            let i = at / chunk;
            let (is_hole, until) = self.zeros_from(&state, i);
            if is_hole != data {
                return Ok(at);
            }
            at = until.saturating_mul(chunk);
        }
        if data { Err(Error::Posix(Posix::NoSuchData)) } else { Ok(state.size) }
    }

    /// Whether chunk `i` reads as a hole, and the chunk where that may change.
    fn zeros_from(&self, state: &State, i: u64) -> (bool, u64) {
        let waiting = state.overlay.contains_key(&i) || state.tail.as_ref().is_some_and(|t| t.chunk == i);
        let Some(hole) = state.holes.covering(i).filter(|_| !waiting && !state.filled.contains(i)) else {
            return (false, i + 1);
        };
        let mut until = hole.end;
        for set in [&state.filled, &state.unexamined] {
            if let Some(next) = set.next_from(i + 1) {
                until = until.min(next.start.max(i + 1));
            }
        }
        if let Some(tail) = state.tail.as_ref().filter(|t| t.chunk > i) {
            until = until.min(tail.chunk);
        }
        if !state.unexamined.contains(i) {
            return (true, until);
        }
        // Listed on disk, not looked into: where the store holds bytes there may be data.
        match self.file.seek(self.run.geometry.chunk_offset(i), true) {
            Ok(stored) => {
                let next = self.run.geometry.chunk_at(stored).max(i);
                if next == i { (false, i + 1) } else { (true, until.max(next).min(hole.end).max(i + 1)) }
            }
            Err(_) => (true, hole.end),
        }
    }
}
