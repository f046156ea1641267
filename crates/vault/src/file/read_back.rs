//! A whole file as the store gives it back: what a seal says of it.

use runvault_crypto::digest::{Stream, update_both};
use runvault_format::chunk;
use runvault_format::ids::{Digest, FileId};
use runvault_format::pins::{HOLE, NONCE};
use runvault_format::size::{HEADER, OVERHEAD};

use super::FileObject;
use crate::{Damage, Result, pace};

/// Stored bytes that are read at once: they stay in a core's own cache until they were hashed and opened.
const STRETCH: u64 = 256 << 10;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Its identity; zeros where nothing of it is stored.
    pub(crate) id: FileId,
    pub(crate) epoch: u32,
    /// Plaintext bytes.
    pub(crate) size: u64,
    /// SHA-256 of the plaintext.
    pub(crate) sha256: Digest,
    /// SHA-256 of what is stored.
    pub(crate) stored: Digest,
}

impl FileObject {
    /// Reads the file to its end, past what the kernel has of it, and gives the nonce of each chunk in turn; zeros
    /// for a hole. Every chunk must authenticate and nothing may follow the last.
    ///
    /// # Errors
    /// [`Damage::Chunk`], [`Damage::Short`], [`Damage::Header`]; the store's; `nonce`'s.
    pub(crate) fn read_back(&self, nonce: &mut dyn FnMut(&[u8; NONCE]) -> Result<()>) -> Result<Content> {
        let state = self.shared();
        let geometry = &self.run.geometry;
        self.file.will_not_need();
        let len = self.file.stat().map_err(self.io("stat"))?.size;
        if geometry.plain_len(len) != Ok(state.size) {
            return Err(self.damaged(Damage::Short));
        }
        let (mut plain_hash, mut stored_hash) = (Stream::default(), Stream::default());
        let at_once = (STRETCH / geometry.stored_chunk()).max(1);
        let mut stored = vec![0; (at_once * geometry.stored_chunk()).max(HEADER) as usize];
        let mut plain = vec![0; geometry.chunk() as usize];
        let head = len.min(HEADER) as usize;
        self.read_exactly(stored.get_mut(..head).unwrap_or_default(), 0)?;
        stored_hash.update(stored.get(..head).unwrap_or_default());
        let chunks = state.size.div_ceil(geometry.chunk());
        let mut i = 0;
        while i < chunks {
            let until = (i + at_once).min(chunks);
            let from = geometry.chunk_offset(i);
            let last = geometry.chunk_len(until - 1, state.size) as u64 + OVERHEAD;
            let want = (geometry.chunk_offset(until - 1) + last - from) as usize;
            let bytes = stored.get_mut(..want).unwrap_or_default();
            self.read_exactly(bytes, from)?;
            pace::keep(bytes.len() as u64);
            for bytes in bytes.chunks(geometry.stored_chunk() as usize) {
                let out = plain.get_mut(..geometry.chunk_len(i, state.size)).unwrap_or_default();
                let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
                match (chunk::open(&header.file_key, i, bytes, out), bytes.first_chunk::<NONCE>()) {
                    (Ok(()), Some(found)) => nonce(found)?,
                    _ if state.holes.contains(i) => {
                        out.fill(0);
                        nonce(&HOLE)?;
                    }
                    _ => return Err(self.damaged(Damage::Chunk(i))),
                }
                update_both((&mut stored_hash, bytes), (&mut plain_hash, out));
                i += 1;
            }
        }
        Ok(Content {
            id: state.header.as_ref().map_or(FileId::ROOT, |header| header.clear.file_id),
            epoch: state.epoch,
            size: state.size,
            sha256: Digest(plain_hash.finish()),
            stored: Digest(stored_hash.finish()),
        })
    }

    fn read_exactly(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let got = self.file.read_at(buf, offset).map_err(self.io("read"))?;
        if got == buf.len() { Ok(()) } else { Err(self.damaged(Damage::Short)) }
    }
}
