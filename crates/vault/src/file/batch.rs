//! Chunks on their way to the store: sealed straight into one buffer, one backing write a run.

use std::ops::Range;

use runvault_crypto::random::Nonces;
use runvault_format::chunk;
use runvault_format::size::{COPY, HEADER};

use super::FileObject;
use super::state::State;
use crate::buffers::{Buffer, Pool};
use crate::{Damage, Result};

/// Stored bytes in one backing write.
const LIMIT: usize = 1 << 20;

/// A write of no more than this is whole or not there when the process is killed in it: the kernel ends one at a page.
const PAGE: usize = 4096;

/// Ciphertext only.
static BUFFERS: Pool = Pool::new();

/// Consecutive chunks for one backing write.
pub(super) struct Batch {
    pub(super) chunks: Range<u64>,
    /// The first `used` bytes are to be written.
    buffer: Buffer,
    nonces: Nonces,
    used: usize,
    /// Where their plaintext ends in the file.
    end: u64,
    with_header: bool,
}

impl Batch {
    /// For a request that seals about so many chunks.
    pub(super) fn of(chunks: usize) -> Self {
        let (buffer, nonces) = (BUFFERS.take(0), Nonces::new(chunks));
        Self { chunks: 0..0, buffer, nonces, used: 0, end: 0, with_header: false }
    }

    /// It begins the stored file.
    pub(super) fn carries_header(&self) -> bool {
        self.with_header && !self.chunks.is_empty()
    }

    /// Room for `n` more bytes, their old content undefined.
    fn room(&mut self, n: usize) -> Option<(&mut [u8], &mut Nonces)> {
        let start = self.used;
        self.used += n;
        if self.buffer.len() < self.used {
            self.buffer.resize(self.used, 0);
        }
        Some((self.buffer.get_mut(start..self.used)?, &mut self.nonces))
    }
}

impl FileObject {
    /// Seals a chunk into the batch, which goes out when it cannot grow.
    pub(super) fn batch_chunk(
        &self,
        state: &mut State,
        batch: &mut Batch,
        i: u64,
        plain: &[u8],
    ) -> Result<()> {
        if !batch.chunks.is_empty() && (batch.chunks.end != i || batch.used >= LIMIT) {
            self.flush_batch(state, batch)?;
        }
        let header = self.ensure_header(state)?;
        if batch.chunks.is_empty() {
            batch.chunks = i..i;
            batch.used = 0;
            batch.with_header = i == 0 && !header.written;
            if batch.with_header
                && let Some((copies, _)) = batch.room(HEADER as usize)
            {
                copies.fill(0);
            }
        }
        let room = batch.room(plain.len() + chunk::OVERHEAD);
        let (out, nonces) = room.ok_or_else(|| self.damaged(Damage::Header))?;
        chunk::seal(&header.file_key, nonces, i, plain, out)?;
        batch.chunks.end = i + 1;
        batch.end = i * self.run.geometry.chunk() + plain.len() as u64;
        Ok(())
    }

    /// One backing write for a run of chunks; the first of a file carries its header.
    pub(super) fn flush_batch(&self, state: &mut State, batch: &mut Batch) -> Result<()> {
        if batch.chunks.is_empty() {
            return Ok(());
        }
        let chunks = std::mem::replace(&mut batch.chunks, 0..0);
        let mut offset = self.run.geometry.chunk_offset(chunks.start);
        // What a kill cuts short is no shorter than its header says.
        let claim = if batch.used <= PAGE { batch.end } else { 0 };
        if batch.with_header {
            let holes = state.listed_holes();
            let sector = self.next_slot(state, 0, claim, &holes)?;
            let copy = batch.buffer.get_mut(..COPY as usize).ok_or_else(|| self.damaged(Damage::Header))?;
            copy.copy_from_slice(&sector);
            offset = 0;
        } else if !state.has_written_header() {
            self.write_first_header(state)?;
        }
        self.mark_unsynced(state);
        state.direct = true;
        self.before_chunks(state, chunks.clone());
        let stored = batch.buffer.get(..batch.used).unwrap_or_default();
        let written = self.file.write_at(stored, offset);
        if written.is_err() {
            Self::chunks_failed(state);
        }
        written.map_err(self.io("write"))?;
        let header = if batch.with_header { HEADER as usize } else { 0 };
        self.chunks_written(state, chunks.start, stored.get(header..).unwrap_or_default());
        if batch.with_header {
            let holes = state.listed_holes();
            self.slot_was_written(state, 0, claim, &holes);
            if claim < batch.end {
                // Not in the other copy: a file that claims nothing in one of both may be cut unseen.
                let sector = self.next_slot(state, 0, batch.end, &holes)?;
                self.file.write_at(&sector, 0).map_err(self.io("write"))?;
                self.slot_was_written(state, 0, batch.end, &holes);
            }
        }
        state.stale |= batch.end > state.slot_size;
        self.count_writes(state, chunks.end - chunks.start);
        if !state.holes.is_empty() {
            chunks.for_each(|i| state.fill_hole(i));
        }
        Ok(())
    }

    /// A header that claims nothing, where data must go out before its size is known.
    fn write_first_header(&self, state: &mut State) -> Result<()> {
        let size = std::mem::replace(&mut state.size, 0);
        let written = self.write_slot(state);
        state.size = size;
        state.stale = true;
        written
    }

    /// Counts chunk writes; a slot notes them before too many are on no record.
    pub(super) fn count_writes(&self, state: &mut State, n: u64) {
        state.writes = state.writes.saturating_add(n);
        state.unrecorded = state.unrecorded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
    }
}
