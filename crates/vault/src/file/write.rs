//! Writing: durable chunks into the overlay, everything else straight to the store.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use runvault_format::chunk;
use runvault_format::size::{COPY, HEADER};
use runvault_store::backend::Time;

use super::open::UNRECORDED_LIMIT;
use super::state::{State, Tail};
use super::{FileObject, lock};
use crate::{Error, Posix, Result};

/// An overlay of this many bytes is brought in place at once.
pub(super) const OVERLAY_LIMIT: u64 = 4 << 20;
/// No key seals more chunks than this (a quarter of what SP 800-38D allows for random nonces).
const WRITES_LIMIT: u64 = 1 << 31;
/// Stored bytes in one backing write.
const BATCH: usize = 1 << 20;

impl FileObject {
    /// Writes `data` at `offset`; a gap below it becomes a hole.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::WornOut`], damage of a chunk that is written in part, the
    /// store's (ENOSPC: nothing of `data` counts, the file is as before).
    pub fn write(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.writable()?;
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).filter(|e| *e <= self.run.geometry.max_size());
        let end = end.ok_or(Error::Posix(Posix::FileTooLarge))?;
        if offset > state.size {
            self.extend(&mut state, offset)?;
        }
        let before = state.size;
        let tail = state.tail.as_ref().map(|t| Tail { chunk: t.chunk, plain: t.plain.clone() });
        if let Err(error) = self.write_chunks(&mut state, offset, end, data) {
            state.tail = tail;
            self.undo_growth(&mut state, before, &error);
            return Err(error);
        }
        self.note_application_write(&mut state);
        self.wait_or_settle(state)
    }

    /// Locks for a change: refused to readers, after a failure, and when the key is worn out.
    pub(super) fn writable(&self) -> Result<std::sync::RwLockWriteGuard<'_, State>> {
        self.run.require_writer()?;
        let state = self.exclusive();
        if state.poisoned {
            return Err(Error::Poisoned { object: self.run.object(self.ino) });
        }
        if state.writes >= WRITES_LIMIT {
            return Err(Error::WornOut { object: self.run.object(self.ino) });
        }
        Ok(state)
    }

    fn write_chunks(&self, state: &mut State, offset: u64, end: u64, data: &[u8]) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let mut batch = Batch::default();
        for i in offset / chunk..=(end - 1) / chunk {
            let start = i * chunk;
            let from = offset.max(start);
            let to = end.min(start + chunk);
            let piece = &data[(from - offset) as usize..(to - offset) as usize];
            self.examine(state, i)?;
            if self.is_durable_chunk(state, i) {
                self.flush_batch(state, &mut batch)?;
                self.overlay_write(state, i, from - start, piece)?;
            } else {
                self.direct_write(state, &mut batch, i, from - start, piece)?;
            }
            state.size = state.size.max(to);
        }
        self.flush_batch(state, &mut batch)
    }

    pub(super) fn is_durable_chunk(&self, state: &State, i: u64) -> bool {
        i * self.run.geometry.chunk() < state.durable && !state.holes.contains(i)
    }

    /// A durable chunk changes in memory only, until its record is durable.
    fn overlay_write(&self, state: &mut State, i: u64, at: u64, piece: &[u8]) -> Result<()> {
        let at = at as usize;
        if !state.overlay.contains_key(&i) {
            let covers = at == 0 && piece.len() >= self.run.geometry.chunk_len(i, state.size);
            let plain = if covers { Vec::new() } else { self.load_chunk(state, i)? };
            self.count_overlay(plain.len() as i64);
            state.overlay.insert(i, plain);
        }
        let Some(plain) = state.overlay.get_mut(&i) else { return Ok(()) };
        let before = plain.len();
        put(plain, at, piece);
        self.count_overlay(plain.len() as i64 - before as i64);
        state.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    pub(super) fn count_overlay(&self, change: i64) {
        if let Some(writer) = &self.run.writer {
            writer.overlay_bytes.fetch_add(change as u64, Ordering::Relaxed); // wraps for negatives
        }
    }

    /// A chunk that no sync has acknowledged goes out as it is; a partial last one waits.
    fn direct_write(&self, state: &mut State, batch: &mut Batch, i: u64, at: u64, piece: &[u8]) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let whole = at == 0 && piece.len() as u64 == chunk;
        if whole {
            if state.tail.as_ref().is_some_and(|t| t.chunk == i) {
                state.tail = None;
            }
            return self.batch_chunk(state, batch, i, piece);
        }
        let start = i * chunk;
        let new_end = (start + at + piece.len() as u64).max(state.size.min(start + chunk));
        if let Some(tail) = state.tail.as_mut().filter(|t| t.chunk == i) {
            put(&mut tail.plain, at as usize, piece);
        } else {
            let mut plain = if start < state.size { self.load_chunk_past(state, batch, i)? } else { Vec::new() };
            put(&mut plain, at as usize, piece);
            if new_end - start == chunk {
                return self.batch_chunk(state, batch, i, &plain);
            }
            // Another tail can only be one that is full by now, and that went out.
            state.tail = Some(Tail { chunk: i, plain });
        }
        state.waiting_since.get_or_insert_with(Instant::now);
        if new_end - start == chunk
            && let Some(tail) = state.tail.take()
        {
            return self.batch_chunk(state, batch, i, &tail.plain);
        }
        Ok(())
    }

    /// [`FileObject::load_chunk`] for a chunk that is not in the batch.
    fn load_chunk_past(&self, state: &mut State, batch: &mut Batch, i: u64) -> Result<Vec<u8>> {
        if batch.chunks.contains(&i) {
            self.flush_batch(state, batch)?;
        }
        self.load_chunk(state, i)
    }

    /// Seals a chunk into the batch, which goes out when it cannot grow.
    fn batch_chunk(&self, state: &mut State, batch: &mut Batch, i: u64, plain: &[u8]) -> Result<()> {
        if !batch.chunks.is_empty() && (batch.chunks.end != i || batch.stored.len() >= BATCH) {
            self.flush_batch(state, batch)?;
        }
        let header = self.ensure_header(state)?;
        if batch.chunks.is_empty() {
            batch.chunks = i..i;
            batch.stored.clear();
            batch.with_header = i == 0 && !header.written;
            if batch.with_header {
                batch.stored.resize(HEADER as usize, 0);
            }
        }
        let from = batch.stored.len();
        batch.stored.resize(from + plain.len() + chunk::OVERHEAD, 0);
        chunk::seal(&header.file_key, i, plain, &mut batch.stored[from..])?;
        batch.chunks.end = i + 1;
        batch.end = i * self.run.geometry.chunk() + plain.len() as u64;
        Ok(())
    }

    /// One backing write for a run of chunks; the first of a file carries its header.
    fn flush_batch(&self, state: &mut State, batch: &mut Batch) -> Result<()> {
        if batch.chunks.is_empty() {
            return Ok(());
        }
        let chunks = std::mem::replace(&mut batch.chunks, 0..0);
        let geometry = &self.run.geometry;
        let mut offset = geometry.chunk_offset(chunks.start);
        let claimed = state.size.max(batch.end);
        if batch.with_header {
            let sector = self.next_slot(state, 0, claimed)?;
            batch.stored[..COPY as usize].copy_from_slice(&sector);
            offset = 0;
        } else if !state.header.as_ref().is_some_and(|h| h.written) {
            self.write_slot(state)?;
        }
        state.unsynced = true;
        state.direct = true;
        self.file.write_at(&batch.stored, offset).map_err(self.io("write"))?;
        if batch.with_header {
            self.slot_was_written(state, 0, claimed);
        }
        self.count_writes(state, chunks.end - chunks.start);
        if state.holes.next_from(chunks.start).is_some_and(|h| h.start < chunks.end) {
            for i in chunks.filter(|i| state.holes.contains(*i)).collect::<Vec<_>>() {
                state.filled.insert(i..i + 1);
            }
        }
        Ok(())
    }

    /// Counts chunk writes; a slot notes them before too many are on no record.
    pub(super) fn count_writes(&self, state: &mut State, n: u64) {
        state.writes += n;
        state.unrecorded = state.unrecorded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// The partial last chunk goes out.
    pub(super) fn write_tail(&self, state: &mut State) -> Result<()> {
        let Some(tail) = state.tail.take() else { return Ok(()) };
        let keep = self.mtime_to_keep(state)?;
        let mut batch = Batch::default();
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
        self.restore_mtime(state, keep)
    }

    /// A write that failed accepted nothing: the file ends where it did.
    fn undo_growth(&self, state: &mut State, before: u64, error: &Error) {
        let full = matches!(error, Error::Store { source, .. }
            if matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)));
        let chunk = self.run.geometry.chunk();
        let border = before / chunk;
        let lost: Vec<u64> = state.overlay.range(border..).map(|(i, _)| *i).collect();
        for i in lost {
            if let Some(plain) = state.overlay.get_mut(&i) {
                let keep = before.saturating_sub(i * chunk).min(plain.len() as u64) as usize;
                self.count_overlay(keep as i64 - plain.len() as i64);
                plain.truncate(keep);
            }
        }
        state.overlay.retain(|i, _| i * chunk < before);
        state.size = before;
        state.forget_holes_from(before.div_ceil(chunk));
        let restored = match &state.header {
            Some(header) if header.written => self.file.set_len(self.run.geometry.stored_len(before)),
            _ => self.file.set_len(0),
        };
        if !full || restored.is_err() {
            self.poison(state);
        }
    }

    /// Chunks in memory: the store's mtime lags, so the application's is kept here.
    pub(super) fn note_application_write(&self, state: &mut State) {
        state.mtime = state.is_waiting().then(now);
    }

    /// After a change: kept for the timer, or out at once where much is waiting.
    pub(super) fn wait_or_settle(
        self: &Arc<Self>,
        mut state: std::sync::RwLockWriteGuard<'_, State>,
    ) -> Result<()> {
        let writer = self.run.require_writer()?;
        if state.unrecorded >= UNRECORDED_LIMIT && state.overlay.is_empty() {
            self.write_tail(&mut state)?;
            let keep = self.mtime_to_keep(&state)?;
            self.write_slot(&mut state)?;
            self.restore_mtime(&mut state, keep)?;
        }
        if state.is_waiting() {
            writer.retain(self);
        }
        let waiting = state.overlay.len() as u64 * self.run.geometry.chunk();
        let limit = OVERLAY_LIMIT.min(writer.journal.batch_limit());
        if waiting >= limit || (waiting > 0 && writer.overlay_is_large()) {
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

    /// The mtime that must stand after a write of ours.
    pub(super) fn mtime_to_keep(&self, state: &State) -> Result<Time> {
        match state.mtime {
            Some(time) => Ok(time),
            None => Ok(self.file.stat().map_err(self.io("stat"))?.mtime),
        }
    }

    pub(super) fn restore_mtime(&self, state: &mut State, keep: Time) -> Result<()> {
        use runvault_store::backend::SetTime;
        self.file.set_times(SetTime::Omit, SetTime::At(keep)).map_err(self.io("set times of"))?;
        state.mtime = state.is_waiting().then_some(keep);
        Ok(())
    }
}

/// Consecutive chunks on their way to one backing write.
#[derive(Default)]
struct Batch {
    chunks: Range<u64>,
    stored: Vec<u8>,
    /// Where their plaintext ends in the file.
    end: u64,
    with_header: bool,
}

/// Lays `piece` over `plain` at `at`, which grows with zeros where needed.
fn put(plain: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = at + piece.len();
    if plain.len() < end {
        plain.resize(end, 0);
    }
    plain[at..end].copy_from_slice(piece);
}

/// The wall clock, which is what an mtime is.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: since.as_secs() as i64, nsec: since.subsec_nanos() }
}
