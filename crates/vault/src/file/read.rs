//! Reading: what waits in memory first, then holes, then stored chunks in long runs.

use std::cell::RefCell;
use std::time::Duration;

use runvault_format::chunk;

use super::FileObject;
use super::state::State;
use crate::{Damage, Result};

thread_local! {
    /// Ciphertext on its way; grows to the largest request of the thread.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A reader elsewhere may meet the last chunk while it is being written.
const LAST_CHUNK_RETRIES: u32 = 20;
const LAST_CHUNK_PAUSE: Duration = Duration::from_millis(10);

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

    fn read_beside_a_writer(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut tries = 0;
        loop {
            let size = self.size();
            let state = self.shared();
            match self.read_up_to(&state, size, offset, buf) {
                Err(_) if tries < LAST_CHUNK_RETRIES && offset + buf.len() as u64 + self.run.geometry.chunk() > size => {
                    drop(state);
                    tries += 1;
                    std::thread::sleep(LAST_CHUNK_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn read_up_to(&self, state: &State, size: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if offset >= size || buf.is_empty() {
            return Ok(0);
        }
        let len = buf.len().min(usize::try_from(size - offset).unwrap_or(usize::MAX));
        let buf = &mut buf[..len];
        let chunk = self.run.geometry.chunk();
        let end = offset + len as u64;
        let mut at = offset;
        while at < end {
            let i = at / chunk;
            let in_chunk = (at % chunk) as usize;
            let out = &mut buf[(at - offset) as usize..];
            let take = out.len().min(chunk as usize - in_chunk);
            if let Some(plain) = self.in_memory(state, i) {
                copy_padded(&mut out[..take], plain, in_chunk);
                at += take as u64;
            } else if let Some(hole) = state.holes.covering(i).filter(|_| {
                !state.filled.contains(i) && !state.unexamined.contains(i)
            }) {
                let zeros = self.zeros_until(state, i, hole.end, end) - at;
                out[..zeros as usize].fill(0);
                at += zeros;
            } else {
                let last = self.stored_run(state, i, (end - 1) / chunk);
                let until = end.min((last + 1) * chunk);
                self.read_stored(state, size, i..last + 1, in_chunk, &mut out[..(until - at) as usize])?;
                at = until;
            }
        }
        Ok(len)
    }

    fn in_memory<'a>(&self, state: &'a State, i: u64) -> Option<&'a [u8]> {
        match &state.tail {
            Some(tail) if tail.chunk == i => Some(&tail.plain),
            _ => state.overlay.get(&i).map(Vec::as_slice),
        }
    }

    /// Where the zeros of a bare hole that begins at chunk `i` end, in bytes.
    fn zeros_until(&self, state: &State, i: u64, hole_end: u64, end: u64) -> u64 {
        let chunk = self.run.geometry.chunk();
        let mut until = hole_end;
        for set in [&state.filled, &state.unexamined] {
            if let Some(next) = set.next_from(i) {
                until = until.min(next.start);
            }
        }
        if let Some((&next, _)) = state.overlay.range(i..).next() {
            until = until.min(next);
        }
        if let Some(tail) = &state.tail {
            until = until.min(tail.chunk.max(i));
        }
        end.min(until.saturating_mul(chunk))
    }

    /// The last chunk, up to `last`, that can be read in one go with `i`.
    fn stored_run(&self, state: &State, i: u64, last: u64) -> u64 {
        let mut until = last + 1;
        if let Some((&next, _)) = state.overlay.range(i..).next() {
            until = until.min(next);
        }
        if let Some(tail) = &state.tail {
            until = until.min(tail.chunk);
        }
        if !state.holes.is_empty() {
            let bare = |c: &u64| state.is_bare_hole(*c) && !state.unexamined.contains(*c);
            until = (i + 1..until).find(bare).unwrap_or(until);
        }
        until.max(i + 1) - 1
    }

    /// Reads and opens stored chunks into `out`, which begins `skip` bytes into the first.
    fn read_stored(
        &self,
        state: &State,
        size: u64,
        chunks: std::ops::Range<u64>,
        skip: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let geometry = &self.run.geometry;
        let chunk = geometry.chunk() as usize;
        let Some(header) = &state.header else { return Err(self.damaged(Damage::Header)) };
        let last = chunks.end - 1;
        let start = geometry.chunk_offset(chunks.start);
        let end = geometry.chunk_offset(last) + (geometry.chunk_len(last, size) + chunk::OVERHEAD) as u64;
        SCRATCH.with_borrow_mut(|scratch| {
            let want = (end - start) as usize;
            if scratch.len() < want {
                scratch.resize(want, 0);
            }
            let got = self.file.read_at(&mut scratch[..want], start).map_err(self.io("read"))?;
            let stored = &mut scratch[..want];
            stored[got..].fill(0);
            let mut done = 0;
            for (i, stored) in chunks.clone().zip(stored.chunks_mut(chunk + chunk::OVERHEAD)) {
                let plain_len = stored.len() - chunk::OVERHEAD;
                let from = if i == chunks.start { skip } else { 0 };
                let take = plain_len.saturating_sub(from).min(out.len() - done);
                let piece = &mut out[done..done + take];
                // A listed hole that nobody looked into yet: what authenticates is data.
                if state.unexamined.contains(i) && stored.iter().all(|b| *b == 0) {
                    piece.fill(0);
                } else if from == 0 && take == plain_len {
                    self.open_or_hole(state, header, i, stored, piece)?;
                } else {
                    let mut whole = vec![0u8; plain_len];
                    self.open_or_hole(state, header, i, stored, &mut whole)?;
                    piece.copy_from_slice(&whole[from..from + take]);
                }
                done += take;
            }
            out[done..].fill(0);
            Ok(())
        })
    }

    fn open_or_hole(
        &self,
        state: &State,
        header: &super::state::Header,
        i: u64,
        stored: &[u8],
        plain: &mut [u8],
    ) -> Result<()> {
        if chunk::open(&header.file_key, i, stored, plain).is_ok() {
            return Ok(());
        }
        plain.fill(0);
        if state.unexamined.contains(i) {
            log::warn!("{}: a hole at chunk {i} holds bytes that are not ours", self.run.object(self.ino));
            return Ok(());
        }
        Err(self.damaged(Damage::Chunk(i)))
    }

    /// Plaintext of chunk `i` as it stands, `chunk_len` bytes long.
    pub(super) fn load_chunk(&self, state: &State, i: u64) -> Result<Vec<u8>> {
        let mut plain = vec![0u8; self.run.geometry.chunk_len(i, state.size)];
        self.read_up_to(state, state.size, i * self.run.geometry.chunk(), &mut plain)?;
        Ok(plain)
    }

    /// Looks into a listed hole before the first write: `true` if it is one.
    pub(super) fn examine(&self, state: &mut State, i: u64) -> Result<()> {
        if !state.unexamined.contains(i) {
            return Ok(());
        }
        let Some(header) = &state.header else { return Ok(()) };
        let plain_len = self.run.geometry.chunk_len(i, state.size);
        let mut stored = vec![0u8; plain_len + chunk::OVERHEAD];
        let got = self.file.read_at(&mut stored, self.run.geometry.chunk_offset(i)).map_err(self.io("read"))?;
        let mut plain = vec![0u8; plain_len];
        let is_data = got == stored.len() && chunk::open(&header.file_key, i, &stored, &mut plain).is_ok();
        state.unexamined.remove(i..i + 1);
        if is_data {
            for set in [&mut state.holes, &mut state.filled, &mut state.acknowledged] {
                set.remove(i..i + 1);
            }
        }
        Ok(())
    }
}

/// `out` = `plain` from `from` on, zeros where it ends.
fn copy_padded(out: &mut [u8], plain: &[u8], from: usize) {
    let have = plain.get(from..).unwrap_or(&[]);
    let n = have.len().min(out.len());
    out[..n].copy_from_slice(&have[..n]);
    out[n..].fill(0);
}
