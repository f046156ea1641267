//! What a file holds beyond what its slot claims: it counts only where it authenticates.

use std::io;
use std::ops::Range;

use runvault_crypto::aead::AeadKey;
use runvault_format::chunk;
use runvault_format::size::OVERHEAD;
use runvault_store::backend::File;

use super::RunContext;
use super::extents::Extents;
use super::header::Found;

/// Stored bytes that are read at once when a stretch of a file is looked through.
const STRETCH: u64 = 1 << 20;

/// A stored file and the key of its chunks.
pub(crate) struct Stored<'a> {
    pub(crate) run: &'a RunContext,
    pub(crate) file: &'a dyn File,
    pub(crate) key: &'a AeadKey,
}

impl Stored<'_> {
    /// Whether chunk `i` of a file of `size` bytes authenticates.
    ///
    /// # Errors
    /// The store's; what cannot be read now is not taken for damage.
    pub(crate) fn authenticates(&self, i: u64, size: u64) -> io::Result<bool> {
        Ok(self.first_unreadable(i..i + 1, size, &Extents::default())?.is_none())
    }

    /// The first of `chunks`, in a file of `size` bytes, that neither authenticates nor is a hole.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn first_unreadable(
        &self,
        chunks: Range<u64>,
        size: u64,
        holes: &Extents,
    ) -> io::Result<Option<u64>> {
        let geometry = &self.run.geometry;
        let at_once = (STRETCH / geometry.stored_chunk()).max(1);
        let mut stored = Vec::new();
        let mut plain = vec![0u8; geometry.chunk() as usize];
        let mut i = chunks.start;
        while i < chunks.end {
            if let Some(hole) = holes.covering(i) {
                i = hole.end;
                continue;
            }
            let until = holes.next_from(i).map_or(u64::MAX, |h| h.start).min(chunks.end).min(i + at_once);
            let (from, last) = (geometry.chunk_offset(i), until - 1);
            let end = geometry.chunk_offset(last) + geometry.chunk_len(last, size) as u64 + OVERHEAD;
            stored.resize((end - from) as usize, 0);
            let got = self.file.read_at(&mut stored, from)?;
            stored.truncate(got);
            for bytes in stored.chunks(geometry.stored_chunk() as usize) {
                let expected = geometry.chunk_len(i, size);
                let out = plain.get_mut(..expected).unwrap_or_default();
                if expected == 0 || chunk::open(self.key, i, bytes, out).is_err() {
                    return Ok(Some(i));
                }
                i += 1;
            }
            if i < until {
                return Ok(Some(i)); // the file ended
            }
        }
        Ok(None)
    }

    /// The plaintext size of a file whose slot claims `claimed` bytes and whose stored length
    /// stands for `stored`.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn authentic_size(&self, claimed: u64, stored: u64, holes: &Extents) -> io::Result<u64> {
        if stored <= claimed {
            return Ok(claimed);
        }
        let chunk = self.run.geometry.chunk();
        let (border, last) = (claimed / chunk, (stored - 1) / chunk);
        if !self.goes_on(claimed, stored, holes)? {
            return Ok(claimed);
        }
        if last == border || self.first_unreadable(last..last + 1, stored, holes)?.is_none() {
            return Ok(stored);
        }
        if self.run.read_only() {
            // Someone is writing: the chunk before is whole, or the next look will tell.
            return Ok(claimed.max(last * chunk));
        }
        self.readable_size(claimed, stored, holes)
    }

    /// Whether a file of `claimed` bytes has become one of `stored`: the chunk that the claim ends in has grown.
    fn goes_on(&self, claimed: u64, stored: u64, holes: &Extents) -> io::Result<bool> {
        let (chunk, border) = (self.run.geometry.chunk(), claimed / self.run.geometry.chunk());
        Ok((claimed.is_multiple_of(chunk) && holes.contains(border)) || self.authenticates(border, stored)?)
    }

    /// Up to where every chunk beyond `claimed` bytes is there.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn readable_size(&self, claimed: u64, stored: u64, holes: &Extents) -> io::Result<u64> {
        let chunk = self.run.geometry.chunk();
        if stored <= claimed || !self.goes_on(claimed, stored, holes)? {
            return Ok(claimed);
        }
        let beyond = claimed / chunk..stored.div_ceil(chunk);
        Ok(match self.first_unreadable(beyond, stored, holes)? {
            Some(i) => claimed.max(i * chunk),
            None => stored,
        })
    }

    /// After an unclean end: whether a chunk between the older and the newer size never arrived,
    /// so that the newer copy's sync never completed. `recorded` chunks will arrive.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn newer_never_completed(
        &self,
        found: &Found,
        stored: u64,
        recorded: &Extents,
    ) -> io::Result<bool> {
        let [(_, newer), (_, older)] = found.copies.as_slice() else { return Ok(false) };
        if newer.epoch != older.epoch || older.size >= newer.size || older.size > stored {
            return Ok(false);
        }
        let chunk = self.run.geometry.chunk();
        let mut fine = Extents::from_slot(&newer.holes);
        for there in recorded.iter() {
            fine.insert(there);
        }
        let border = newer.size / chunk;
        if self.first_unreadable(older.size / chunk..border, stored, &fine)?.is_some() {
            return Ok(true);
        }
        // The last chunk may have grown since, or not have: either way it was there.
        let arrived = newer.size.is_multiple_of(chunk)
            || fine.contains(border)
            || self.authenticates(border, newer.size)?
            || self.authenticates(border, stored)?;
        Ok(!arrived)
    }
}
