//! Reading: what waits in memory first, then holes, then stored chunks in long runs.

use std::ops::Range;

use runvault_format::chunk;
use runvault_format::pins::NONCE;

use super::FileObject;
use super::state::{Header, State};
use crate::buffers::Pool;
use crate::{Damage, Result};

/// A chunk of which only a part is wanted.
static PART: Pool = Pool::new();

/// Ciphertext on its way.
static STORED: Pool = Pool::new();

impl FileObject {
    /// Fills `buf` from `offset`; gives the number of bytes, fewer only at the end of the file.
    ///
    /// # Errors
    /// [`Damage::Chunk`] for a chunk that does not authenticate; the store's.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if self.run.read_only() {
            return self.read_beside_a_writer(offset, buf);
        }
        let state = self.shared();
        self.read_up_to(&state, state.size, offset, buf)
    }

    /// Another machine may be writing: what is known of the file serves while it serves.
    fn read_beside_a_writer(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let end = offset.saturating_add(buf.len() as u64);
        {
            let state = self.shared();
            if end <= state.size
                && let Ok(n) = self.read_up_to(&state, state.size, offset, buf)
            {
                return Ok(n);
            }
        }
        let mut turns = self.run.patience.turns();
        loop {
            let stat = self.file.stat().map_err(self.io("stat"));
            let outcome = stat.and_then(|stat| self.load(&stat, None)).and_then(|now| {
                let mut state = self.exclusive();
                *state = now;
                let size = state.size;
                self.read_up_to(&state, size, offset, buf)
            });
            if outcome.is_ok() || !turns.another() {
                return outcome;
            }
        }
    }

    fn read_up_to(&self, state: &State, size: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut rest = buf.get_mut(..len).unwrap_or_default();
        let chunk = self.run.geometry.chunk();
        let end = offset + len as u64;
        let mut at = offset;
        while at < end {
            let (i, in_chunk) = (at / chunk, (at % chunk) as usize);
            let next = if let Some(plain) = in_memory(state, i) {
                let until = end.min((i + 1) * chunk);
                copy_padded(take(&mut rest, until - at), plain, in_chunk);
                until
            } else if let Some(hole) = bare_hole(state, i) {
                let until = end.min(zeros_until(state, i, hole.end).saturating_mul(chunk));
                take(&mut rest, until - at).fill(0);
                until
            } else {
                let chunks = i..stored_until(state, i, (end - 1) / chunk + 1);
                let until = end.min(chunks.end * chunk);
                self.read_stored(state, size, chunks, in_chunk, take(&mut rest, until - at))?;
                until
            };
            at = next;
        }
        Ok(len)
    }

    /// Reads and opens stored chunks into `out`, which begins `skip` bytes into the first. Gives the nonce of that.
    fn read_stored(
        &self,
        state: &State,
        size: u64,
        chunks: Range<u64>,
        skip: usize,
        out: &mut [u8],
    ) -> Result<Option<[u8; NONCE]>> {
        let geometry = &self.run.geometry;
        let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
        let last = chunks.end.saturating_sub(1);
        let start = geometry.chunk_offset(chunks.start);
        let end = geometry.chunk_offset(last) + (geometry.chunk_len(last, size) + chunk::OVERHEAD) as u64;
        let want = (end - start) as usize;
        let mut buffer = STORED.take(want);
        let stored = buffer.get_mut(..want).unwrap_or_default();
        let got = self.file.read_at(stored, start).map_err(self.io("read"))?;
        stored.get_mut(got..).unwrap_or_default().fill(0);
        let (mut rest, mut skip) = (out, skip);
        for (i, stored) in chunks.zip(stored.chunks(geometry.stored_chunk() as usize)) {
            let len = stored.len().saturating_sub(chunk::OVERHEAD);
            let piece = take(&mut rest, len.saturating_sub(skip) as u64);
            if piece.len() == len {
                self.open_or_hole(state, header, i, stored, piece)?;
            } else {
                self.open_part(state, header, i, stored, skip, piece)?;
            }
            skip = 0;
        }
        rest.fill(0);
        Ok(stored.first_chunk().copied())
    }

    /// The bytes of a chunk from `skip` on, as many as `piece` takes.
    fn open_part(
        &self,
        state: &State,
        header: &Header,
        i: u64,
        stored: &[u8],
        skip: usize,
        piece: &mut [u8],
    ) -> Result<()> {
        let len = stored.len().saturating_sub(chunk::OVERHEAD);
        let mut buffer = PART.take(len);
        let whole = buffer.get_mut(..len).unwrap_or_default();
        self.open_or_hole(state, header, i, stored, whole)?;
        copy_padded(piece, whole, skip);
        Ok(())
    }

    fn open_or_hole(
        &self,
        state: &State,
        header: &Header,
        i: u64,
        stored: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        if chunk::open(&header.file_key, i, stored, plain).is_ok() {
            return Ok(());
        }
        // A listed hole that nobody looked into yet: what does not authenticate is zeros.
        if !state.unexamined.contains(i) {
            return Err(self.damaged(Damage::Chunk(i)));
        }
        // Beside a writer it may be data on its way.
        if !self.run.read_only() && stored.iter().any(|b| *b != 0) {
            log::warn!("{}: a hole at chunk {i} holds bytes that are not ours", self.run.object(self.ino));
        }
        plain.fill(0);
        Ok(())
    }

    /// Plaintext of chunk `i` as it stands, `chunk_len` bytes long, of which a part will be written over.
    pub(super) fn load_chunk(&self, state: &mut State, i: u64) -> Result<Vec<u8>> {
        let mut plain = vec![0u8; self.run.geometry.chunk_len(i, state.size)];
        if plain.is_empty() || in_memory(state, i).is_some() || bare_hole(state, i).is_some() {
            self.read_up_to(state, state.size, i * self.run.geometry.chunk(), &mut plain)?;
        } else {
            let nonce = self.read_stored(state, state.size, i..i + 1, 0, &mut plain)?;
            self.chunk_loaded(state, i, nonce);
        }
        Ok(plain)
    }

    /// Looks into a listed hole before the first write into it: what authenticates is data.
    pub(super) fn examine(&self, state: &mut State, i: u64) -> Result<()> {
        if !state.unexamined.contains(i) {
            return Ok(());
        }
        let is_data = self.stored_chunks(state)?.authenticates(i, state.size).map_err(self.io("read"))?;
        state.unexamined.remove(i..i + 1);
        if is_data {
            for set in [&mut state.holes, &mut state.filled, &mut state.acknowledged] {
                set.remove(i..i + 1);
            }
            state.stale = true;
        }
        Ok(())
    }
}

fn in_memory(state: &State, i: u64) -> Option<&[u8]> {
    match &state.tail {
        Some(tail) if tail.chunk == i => Some(&tail.plain),
        _ => state.overlay.get(&i).map(Vec::as_slice),
    }
}

/// The hole that chunk `i` lies in, if it is known to be one.
fn bare_hole(state: &State, i: u64) -> Option<Range<u64>> {
    state.holes.covering(i).filter(|_| !state.filled.contains(i) && !state.unexamined.contains(i))
}

/// Where the zeros of a bare hole end that begins at chunk `i`.
fn zeros_until(state: &State, i: u64, hole_end: u64) -> u64 {
    let mut until = hole_end;
    for set in [&state.filled, &state.unexamined] {
        until = set.next_from(i).map_or(until, |next| until.min(next.start));
    }
    memory_from(state, i).map_or(until, |next| until.min(next)).max(i + 1)
}

/// Up to which chunk, at most `until`, stored chunks can be read in one go with `i`.
fn stored_until(state: &State, i: u64, until: u64) -> u64 {
    let mut until = memory_from(state, i).map_or(until, |next| until.min(next));
    if !state.holes.is_empty() {
        until = (i + 1..until).find(|c| bare_hole(state, *c).is_some()).unwrap_or(until);
    }
    until.max(i + 1)
}

/// The first chunk from `i` on that waits in memory.
fn memory_from(state: &State, i: u64) -> Option<u64> {
    let overlay = state.overlay.range(i..).next().map(|(next, _)| *next);
    let tail = state.tail.as_ref().map(|t| t.chunk).filter(|t| *t >= i);
    overlay.into_iter().chain(tail).min()
}

/// The first `n` bytes of `rest`, which then begins after them.
fn take<'a>(rest: &mut &'a mut [u8], n: u64) -> &'a mut [u8] {
    let n = usize::try_from(n).unwrap_or(usize::MAX).min(rest.len());
    let (head, tail) = std::mem::take(rest).split_at_mut(n);
    *rest = tail;
    head
}

/// `out` = `plain` from `from` on, zeros where it ends.
fn copy_padded(out: &mut [u8], plain: &[u8], from: usize) {
    let have = plain.get(from..).unwrap_or(&[]);
    let n = have.len().min(out.len());
    let (copied, zeros) = out.split_at_mut(n);
    copied.copy_from_slice(have.get(..n).unwrap_or_default());
    zeros.fill(0);
}
