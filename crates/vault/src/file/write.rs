//! Writing: durable chunks into the overlay, everything else straight to the store.

use std::ops::Range;
use std::sync::{Arc, RwLockWriteGuard};
use std::time::Instant;

use super::FileObject;
use super::batch::Batch;
use super::beyond::Stored;
use super::state::{State, Tail};
use crate::{Damage, Error, Posix, Result};

/// An overlay of this many bytes is brought in place at once.
const OVERLAY_LIMIT: u64 = 4 << 20;
/// What a record takes beside the chunk, at most for all but very long paths: so that an overlay that small writes have
/// filled goes into the journal in one piece, with one sync.
const AROUND: u64 = 1 << 10;
/// No key seals more chunks than this (a quarter of what SP 800-38D allows for random nonces).
pub(super) const WRITES_LIMIT: u64 = 1 << 31;

/// What makes a write that failed not have happened.
pub(super) struct Undo {
    before: u64,
    /// The partial last chunk as it was.
    tail: Option<Tail>,
}

impl Undo {
    pub(super) fn of(state: &State) -> Self {
        Self { before: state.size, tail: None }
    }

    /// The chunk that ends the file is about to grow in place.
    fn remember(&mut self, chunk: u64, plain: &[u8], len: u64) {
        if self.tail.is_none() {
            let plain = plain.get(..len as usize).unwrap_or(plain).to_vec();
            self.tail = Some(Tail { chunk, plain });
        }
    }
}

impl FileObject {
    /// Writes `data` at `offset`; a gap below it becomes a hole.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::WornOut`], damage of a chunk that is written in part, the
    /// store's (ENOSPC: nothing of `data` counts, the file is as before).
    pub fn write(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.accepting()?;
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).filter(|e| *e <= self.run.geometry.max_size());
        end.ok_or(Error::Posix(Posix::FileTooLarge))?;
        if offset - offset % self.run.geometry.chunk() < state.durable && !state.detached {
            self.run.check_room_to_wait()?;
        }
        let mut undo = Undo::of(&state);
        let gap = if offset > state.size { self.extend(&mut state, &mut undo, offset) } else { Ok(()) };
        if let Err(error) = gap.and_then(|()| self.write_range(&mut state, &mut undo, offset, data)) {
            self.undo(&mut state, undo, offset, &error);
            self.keep_while_needed(&mut state);
            return Err(error);
        }
        self.note_application_write(&mut state);
        self.wait_or_settle(state)
    }

    /// Locks for a change: refused to readers and after a failure.
    pub(super) fn writable(&self) -> Result<RwLockWriteGuard<'_, State>> {
        self.run.require_writer()?;
        let state = self.exclusive();
        if state.poisoned {
            return Err(Error::Poisoned { object: self.run.object(self.ino) });
        }
        Ok(state)
    }

    /// Locks for new bytes: refused also when the key is worn out. What was accepted before still
    /// goes out.
    pub(super) fn accepting(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let state = self.writable()?;
        if state.writes >= WRITES_LIMIT {
            return Err(self.worn_out());
        }
        Ok(state)
    }

    /// `offset` is not beyond the end. What may fail comes first, then the overlay.
    pub(super) fn write_range(
        &self,
        state: &mut State,
        undo: &mut Undo,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let all = Pieces { chunk, offset, data };
        let mut durable = Vec::new();
        if offset - offset % chunk < state.durable || !state.unexamined.is_empty() {
            for (i, at, piece) in all.iter() {
                self.examine(state, i)?;
                if self.is_durable_chunk(state, i) {
                    durable.push((i, at, piece, self.before_overlay(state, i, at, piece.len())?));
                }
            }
        }
        if !durable.is_empty() && !state.detached {
            self.run.require_writer()?.journal.ensure_files()?;
        }
        self.write_direct(state, undo, &all)?;
        for (i, at, piece, before) in durable {
            self.overlay_write(state, i, at, piece, before);
        }
        state.size = state.size.max(offset + data.len() as u64);
        Ok(())
    }

    pub(super) fn is_durable_chunk(&self, state: &State, i: u64) -> bool {
        i * self.run.geometry.chunk() < state.durable && !state.holes.contains(i)
    }

    /// The durable chunk that is written in part; empty where all of it is written over.
    fn before_overlay(&self, state: &mut State, i: u64, at: usize, len: usize) -> Result<Vec<u8>> {
        let covers = at == 0 && len >= self.run.geometry.chunk_len(i, state.size);
        if covers || state.overlay.contains_key(&i) { Ok(Vec::new()) } else { self.load_chunk(state, i) }
    }

    /// A durable chunk changes in memory only, until its record is durable.
    fn overlay_write(&self, state: &mut State, i: u64, at: usize, piece: &[u8], before: Vec<u8>) {
        let mut added = 0;
        let plain = state.overlay.entry(i).or_insert_with(|| {
            added = before.len();
            before
        });
        let old = plain.len();
        put(plain, at, piece);
        let grown = (plain.len() - old + added) as i64;
        self.count_overlay(grown);
        state.waiting_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn count_overlay(&self, change: i64) {
        if let Some(writer) = &self.run.writer {
            // Wraps for negatives.
            writer.overlay_bytes.fetch_add(change as u64, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn write_direct(&self, state: &mut State, undo: &mut Undo, all: &Pieces<'_>) -> Result<()> {
        let mut batch = Batch::of(all.count());
        for (i, at, piece) in all.iter() {
            if !self.is_durable_chunk(state, i) {
                self.direct_write(state, &mut batch, undo, i, at, piece)?;
                state.size = state.size.max(i * all.chunk + (at + piece.len()) as u64);
            }
        }
        self.flush_batch(state, &mut batch)
    }

    /// A chunk that no sync has acknowledged goes out as it is; a partial last one waits.
    fn direct_write(
        &self,
        state: &mut State,
        batch: &mut Batch,
        undo: &mut Undo,
        i: u64,
        at: usize,
        piece: &[u8],
    ) -> Result<()> {
        let whole = self.run.geometry.chunk() as usize;
        let there = self.run.geometry.chunk_len(i, state.size);
        let ends_file = there > 0 && there < whole;
        let mut plain = match state.tail.take_if(|t| t.chunk == i) {
            Some(tail) => tail.plain,
            None if at == 0 && piece.len() == whole && !ends_file => {
                return self.batch_chunk(state, batch, i, piece);
            }
            None if there == 0 || (at == 0 && piece.len() >= there && !ends_file) => Vec::new(),
            None => self.load_chunk_past(state, batch, i)?,
        };
        let len = there.max(at + piece.len());
        // Behind the first chunks of a file it goes with them: most files are written in one piece.
        let joins = batch.carries_header();
        let waits = len < whole && !joins && self.run.require_writer()?.is_roomy();
        if ends_file && !waits {
            undo.remember(i, &plain, undo.before.saturating_sub(i * whole as u64));
        }
        put(&mut plain, at, piece);
        if waits {
            state.tail = Some(Tail { chunk: i, plain });
            state.waiting_since.get_or_insert_with(Instant::now);
            return Ok(());
        }
        self.batch_chunk(state, batch, i, &plain)
    }

    /// [`FileObject::load_chunk`] for a chunk that may be in the batch.
    fn load_chunk_past(&self, state: &mut State, batch: &mut Batch, i: u64) -> Result<Vec<u8>> {
        if batch.chunks.contains(&i) {
            self.flush_batch(state, batch)?;
        }
        self.load_chunk(state, i)
    }

    /// The partial last chunk goes out; the application's mtime stays.
    pub(super) fn write_tail(&self, state: &mut State) -> Result<()> {
        self.write_tail_and_slot(state, |_| false)
    }

    /// [`FileObject::write_tail`], and a slot behind it where one is wanted then.
    pub(super) fn write_tail_and_slot(
        &self,
        state: &mut State,
        wants_slot: impl Fn(&State) -> bool,
    ) -> Result<()> {
        if state.tail.is_none() && !wants_slot(state) {
            return Ok(());
        }
        let keep = self.what_to_keep(state)?;
        self.tail_out(state)?;
        let told = if wants_slot(state) { self.write_slot(state) } else { Ok(()) };
        told.and(self.restore(state, keep))
    }

    fn tail_out(&self, state: &mut State) -> Result<()> {
        let Some(tail) = state.tail.take() else { return Ok(()) };
        let mut batch = Batch::of(1);
        let written = self
            .batch_chunk(state, &mut batch, tail.chunk, &tail.plain)
            .and_then(|()| self.flush_batch(state, &mut batch));
        if let Err(error) = written {
            // Accepted bytes are never dropped while the file lives: they wait for the next try.
            state.tail = Some(tail);
            return Err(error);
        }
        if state.overlay.is_empty() {
            state.waiting_since = None;
        }
        Ok(())
    }

    /// A write from `offset` on that failed accepted nothing: the file ends where it did.
    pub(super) fn undo(&self, state: &mut State, undo: Undo, offset: u64, error: &Error) {
        let (before, chunk) = (undo.before, self.run.geometry.chunk());
        state.stale |= state.size != before || state.slot_size > before;
        state.size = before;
        state.direct = true;
        Self::chunks_failed(state);
        self.before_cut(state, before);
        state.forget_holes_from(before.div_ceil(chunk));
        if let Some(plain) = state.overlay.get_mut(&(before / chunk)) {
            let old = plain.len();
            plain.truncate((before % chunk) as usize);
            let cut = plain.len() as i64 - old as i64;
            self.count_overlay(cut);
        }
        self.shorten_tail(state, before);
        if let Some(tail) = undo.tail {
            // It was in place, or is: its room is its own.
            state.tail = Some(tail);
            state.waiting_since.get_or_insert_with(Instant::now);
        }
        if self.restore_length(state, offset / chunk..before / chunk).is_err() || !error.is_out_of_space() {
            self.poison(state);
        }
    }

    /// The stored length that goes with the size; `touched` chunks must have survived.
    fn restore_length(&self, state: &mut State, touched: Range<u64>) -> Result<()> {
        if !state.has_written_header() {
            return self.file.set_len(0).map_err(self.io("truncate"));
        }
        let length = self.run.geometry.stored_len_with_header(state.size);
        self.file.set_len(length).map_err(self.io("truncate"))?;
        if state.slot_size > state.size && state.overlay.is_empty() {
            // Where even this finds no room the next close or sync owes it; the safe copy stands.
            let _ = self.write_slot(state);
        }
        let torn = self.stored_chunks(state)?.first_unreadable(touched, state.size, &state.holes);
        match torn.map_err(self.io("read"))? {
            Some(i) => Err(self.damaged(Damage::Chunk(i))),
            None => Ok(()),
        }
    }

    fn shorten_tail(&self, state: &mut State, size: u64) {
        let Some(tail) = &mut state.tail else { return };
        let keep = size.saturating_sub(tail.chunk * self.run.geometry.chunk());
        tail.plain.truncate(keep as usize);
        if tail.plain.is_empty() {
            state.tail = None;
        }
    }

    /// After a change: kept for the timer, or out at once where much is waiting.
    pub(super) fn wait_or_settle(self: &Arc<Self>, mut state: RwLockWriteGuard<'_, State>) -> Result<()> {
        let writer = self.run.require_writer()?;
        if state.unrecorded >= super::header::UNRECORDED_LIMIT && state.overlay.is_empty() {
            self.write_tail_and_slot(&mut state, |_| true)?;
        }
        self.keep_while_needed(&mut state);
        let waiting = state.overlay.len() as u64 * (self.run.geometry.chunk() + AROUND);
        let limit = OVERLAY_LIMIT.min(writer.journal.batch_limit());
        if waiting + self.run.geometry.chunk() + AROUND > limit || (waiting > 0 && writer.overlay_is_large())
        {
            drop(state);
            drop(self.settled()?);
        }
        Ok(())
    }

    pub(super) fn poison(&self, state: &mut State) {
        if !state.poisoned {
            log::error!("{}: a write or sync failed; refused until it is closed", self.run.object(self.ino));
        }
        state.poisoned = true;
    }

    /// The stored chunks of this file, to look through.
    pub(super) fn stored_chunks<'a>(&'a self, state: &'a State) -> Result<Stored<'a>> {
        let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
        Ok(Stored { run: &self.run, file: &*self.file, key: &header.file_key })
    }
}

/// A write, cut at chunk borders.
struct Pieces<'a> {
    chunk: u64,
    offset: u64,
    data: &'a [u8],
}

impl<'a> Pieces<'a> {
    fn count(&self) -> usize {
        let first = self.offset % self.chunk;
        (first + self.data.len() as u64).div_ceil(self.chunk) as usize
    }

    /// (chunk, offset in it, bytes)
    fn iter(&self) -> impl Iterator<Item = (u64, usize, &'a [u8])> + use<'a> {
        let (chunk, mut at, mut rest) = (self.chunk, self.offset, self.data);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (i, from) = (at / chunk, (at % chunk) as usize);
            let (piece, others) = rest.split_at(rest.len().min(chunk as usize - from));
            rest = others;
            at += piece.len() as u64;
            Some((i, from, piece))
        })
    }
}

/// Lays `piece` over `plain` at `at`, which grows with zeros where needed.
fn put(plain: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    if plain.len() < end {
        plain.resize(end, 0);
    }
    if let Some(place) = plain.get_mut(at..end) {
        place.copy_from_slice(piece);
    }
}
