//! fallocate and lseek: room, holes, and where they are.

use std::ops::Range;
use std::sync::Arc;

use super::FileObject;
use super::state::State;
use crate::api::Allocate;
use crate::{Error, Posix, Result};

/// Zeros written at once where the backing cannot punch.
const ZEROS: usize = 256 << 10;

impl FileObject {
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
                if keep_size { Ok(()) } else { self.grow_to(end) }
            }
        }
    }

    fn grow_to(self: &Arc<Self>, end: u64) -> Result<()> {
        let size = self.size();
        if end > size { self.truncate(end) } else { Ok(()) }
    }

    /// Room in the backing for the stored form of `offset..end`, so that later writes find it.
    fn reserve(&self, offset: u64, end: u64) -> Result<()> {
        drop(self.accepting()?);
        let geometry = &self.run.geometry;
        let from = if offset == 0 { 0 } else { geometry.chunk_offset(offset / geometry.chunk()) };
        let to = geometry.stored_len(end);
        self.file.allocate(from, to.saturating_sub(from).max(1), true).map_err(self.io("allocate room for"))
    }

    fn punch(self: &Arc<Self>, offset: u64, end: u64) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let end = end.min(self.size());
        if offset >= end {
            drop(self.accepting()?);
            return Ok(());
        }
        let whole = offset.div_ceil(chunk)..end / chunk;
        if whole.is_empty() {
            let border = (offset / chunk + 1) * chunk;
            self.zero_part(offset, end.min(border))?;
            return self.zero_part(border, end);
        }
        self.zero_part(offset, whole.start * chunk)?;
        self.zero_part(whole.end * chunk, end)?;
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        let punched = self.punch_chunks(&mut state, whole);
        self.keep_while_needed(&mut state);
        punched
    }

    /// Zeros over part of one chunk, if it is not a hole already.
    fn zero_part(self: &Arc<Self>, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let i = from / self.run.geometry.chunk();
        let zero_already = {
            let state = self.shared();
            let waiting = state.tail.as_ref().is_some_and(|t| t.chunk == i);
            state.is_bare_hole(i) && !state.unexamined.contains(i) && !waiting
        };
        if zero_already { Ok(()) } else { self.write(from, &vec![0u8; (to - from) as usize]) }
    }

    fn punch_chunks(&self, state: &mut State, chunks: Range<u64>) -> Result<()> {
        let geometry = &self.run.geometry;
        // The file may have shrunk since the range was looked at.
        let chunks = chunks.start..chunks.end.min(state.size / geometry.chunk());
        if chunks.is_empty() {
            return Ok(());
        }
        if state.live {
            self.sync_file(state)?;
        }
        let durable = chunks.start * geometry.chunk() < state.durable;
        self.before_chunks(state, chunks.clone());
        for set in [&mut state.filled, &mut state.unexamined, &mut state.acknowledged] {
            set.remove(chunks.clone());
        }
        state.holes.insert(chunks.clone());
        state.stale = true;
        let stored = geometry.chunk_offset(chunks.start)..geometry.chunk_offset(chunks.end);
        let punched = self.tell_hole(state, chunks, durable).and_then(|()| {
            self.mark_unsynced(state);
            state.direct = true;
            match self.file.punch(stored.start, stored.end - stored.start) {
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => self.write_zeros(stored),
                other => other.map_err(self.io("punch a hole into")),
            }
        });
        if punched.is_err() {
            // What lies there still authenticates, and would be data again after a restart.
            self.poison(state);
        }
        state.mtime = None;
        punched
    }

    fn tell_hole(&self, state: &mut State, hole: Range<u64>, durable: bool) -> Result<()> {
        if durable {
            self.write_slot(state)?;
            return self.sync_file(state);
        }
        if state.has_written_header() { self.list_hole(state, hole) } else { Ok(()) }
    }

    fn write_zeros(&self, stored: Range<u64>) -> Result<()> {
        let zeros = vec![0u8; ZEROS];
        let end = stored.end.min(self.file.stat().map_err(self.io("stat"))?.size);
        let mut at = stored.start;
        while at < end {
            let n = zeros.len().min((end - at) as usize);
            self.file.write_at(zeros.get(..n).unwrap_or(&zeros), at).map_err(self.io("write"))?;
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
        let mut at = offset;
        while at < state.size {
            let (is_hole, until) = self.zeros_from(&state, at / chunk);
            if is_hole != data {
                return Ok(at);
            }
            at = until.saturating_mul(chunk);
        }
        if data || offset >= state.size { Err(Error::Posix(Posix::NoSuchData)) } else { Ok(state.size) }
    }

    /// Whether chunk `i` reads as a hole, and the chunk where that may change.
    fn zeros_from(&self, state: &State, i: u64) -> (bool, u64) {
        let in_tail = state.tail.as_ref().is_some_and(|t| t.chunk == i);
        let hole = match state.holes.next_from(i) {
            Some(hole) if hole.start > i => return (false, hole.start),
            None => return (false, u64::MAX),
            Some(_) if in_tail || state.filled.contains(i) => return (false, i + 1),
            Some(hole) => hole,
        };
        let (is_hole, mut until) = if state.unexamined.contains(i) {
            self.stored_zeros_from(i, hole.end)
        } else {
            let known = [&state.filled, &state.unexamined].into_iter().filter_map(|set| set.next_from(i + 1));
            (true, known.map(|next| next.start.max(i + 1)).fold(hole.end, u64::min))
        };
        // The store does not have it yet.
        if let Some(tail) = state.tail.as_ref().filter(|t| t.chunk > i) {
            until = until.min(tail.chunk);
        }
        (is_hole, until)
    }

    /// Listed on disk, not looked into: where the store holds bytes there may be data.
    fn stored_zeros_from(&self, i: u64, hole_end: u64) -> (bool, u64) {
        match self.file.seek(self.run.geometry.chunk_offset(i), true) {
            Ok(stored) => match self.run.geometry.chunk_at(stored).max(i) {
                next if next == i => (false, i + 1),
                next => (true, next.min(hole_end)),
            },
            Err(_) => (true, hole_end),
        }
    }
}
