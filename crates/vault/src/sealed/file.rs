//! A file of a sealed run: its key and its chunks' versions come from the pins, its header is not looked at.

use std::ops::Range;
use std::sync::Arc;

use runvault_crypto::aead::AeadKey;
use runvault_format::chunk;
use runvault_format::header::{Clear, Kind as Object};
use runvault_format::ids::FileId;
use runvault_format::manifest::Kind;
use runvault_format::pins::{HOLE, NONCE, Pinned};
use runvault_store::backend::{Access, File};

use super::SealedTree;
use crate::api::{Attr, Ino};
use crate::buffers::Pool;
use crate::{Damage, Error, Posix, Result, Vault};

/// Ciphertext on its way.
static STORED: Pool = Pool::new();

/// An open one.
pub(crate) struct SealedFile {
    pub(super) tree: Arc<SealedTree>,
    entry: u32,
    pinned: Pinned,
    pub(crate) size: u64,
    /// `None`: nothing of it is stored.
    file: Option<(Arc<dyn File>, AeadKey)>,
}

impl SealedTree {
    /// Opens the file of an entry.
    ///
    /// # Errors
    /// [`Posix::IsDirectory`], [`Posix::Invalid`]; damage; the store's.
    pub(crate) fn open_file(self: &Arc<Self>, entry: u32) -> Result<SealedFile> {
        let record = self.record(entry)?;
        match record.kind {
            Kind::File => {}
            Kind::Dir => return Err(Posix::IsDirectory.into()),
            _ => return Err(Posix::Invalid.into()),
        }
        let (pinned, size, geometry) = (self.pinned(&record)?, record.size, &self.context.geometry);
        if pinned.chunks != size.div_ceil(geometry.chunk()) {
            return Err(self.manifest.damaged(runvault_format::Error::Manifest("chunks")));
        }
        let stored = self.stored_name(&record)?;
        let file = self.dir(record.parent)?.open_file(&stored, Access::Read);
        let file = file.map_err(|e| self.not_there(entry, e))?;
        let len = file.stat().map_err(|e| Error::store("stat", self.object(entry), e))?.size;
        if geometry.plain_len(len) != Ok(size) {
            let sealed = geometry.stored_len(size);
            let what = Damage::Run(format!("{len} bytes long; {sealed} were sealed"));
            return Err(Error::damaged(self.object(entry), what));
        }
        let file = (pinned.id != FileId::ROOT).then(|| {
            let clear = Clear::new(Object::File, *geometry, pinned.id, self.context.id);
            let key = self.context.keys.file_key(&clear, pinned.epoch);
            file.will_read(len.min(256 << 10));
            (file, key)
        });
        if file.is_none() && size > 0 {
            return Err(self.manifest.damaged(runvault_format::Error::Manifest("id")));
        }
        Ok(SealedFile { tree: self.clone(), entry, pinned, size, file })
    }
}

impl SealedFile {
    /// Its node.
    pub(crate) fn ino(&self) -> Ino {
        self.tree.ino(self.entry)
    }

    /// What `stat` shows, also once nothing else of its run opens.
    pub(crate) fn attr(&self, vault: &Vault) -> Result<Attr> {
        self.tree.attr(vault, self.entry)
    }

    /// Its identity; `None` where nothing of it is stored.
    pub(crate) fn id(&self) -> Option<FileId> {
        (self.pinned.id != FileId::ROOT).then_some(self.pinned.id)
    }

    /// Fills `buf` from `offset`; gives the number of bytes, fewer only at the end of the file.
    ///
    /// # Errors
    /// [`Damage::Chunk`] for a chunk that does not authenticate, [`Damage::Run`] for one of another time; the store's.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len().min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let Some(out) = buf.get_mut(..len).filter(|out| !out.is_empty()) else { return Ok(0) };
        let chunk = self.tree.context.geometry.chunk();
        let chunks = offset / chunk..(offset + len as u64).div_ceil(chunk);
        let nonces = self.tree.pins.nonces(&self.pinned, chunks.clone())?;
        self.open(chunks, &nonces, (offset % chunk) as usize, out)?;
        Ok(len)
    }

    /// What the kernel has of it can go: it was read to its end, and not again soon.
    pub(crate) fn will_not_need(&self) {
        self.file.iter().for_each(|(file, _)| file.will_not_need());
    }

    /// Reads and opens chunks into `out`, which begins `skip` bytes into the first.
    fn open(&self, chunks: Range<u64>, nonces: &[[u8; NONCE]], skip: usize, out: &mut [u8]) -> Result<()> {
        let geometry = &self.tree.context.geometry;
        let Some((file, key)) = &self.file else { return Ok(()) };
        let last = chunks.end.saturating_sub(1);
        let start = geometry.chunk_offset(chunks.start);
        let end =
            geometry.chunk_offset(last) + (geometry.chunk_len(last, self.size) + chunk::OVERHEAD) as u64;
        let mut buffer = STORED.take((end - start) as usize);
        let stored = buffer.get_mut(..(end - start) as usize).unwrap_or_default();
        let got = file.read_at(stored, start);
        let got = got.map_err(|e| Error::store("read", self.tree.object(self.entry), e))?;
        stored.get_mut(got..).unwrap_or_default().fill(0);
        let (mut rest, mut skip, mut part) = (out, skip, Vec::new());
        let pieces = stored.chunks(geometry.stored_chunk() as usize);
        for ((i, stored), nonce) in chunks.zip(pieces).zip(nonces) {
            let len = stored.len().saturating_sub(chunk::OVERHEAD);
            let n = len.saturating_sub(skip).min(rest.len());
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            if *nonce == HOLE {
                piece.fill(0);
            } else if !stored.starts_with(nonce) {
                piece.fill(0);
                let what = format!("chunk {i} is of another time than was sealed");
                return Err(Error::damaged(self.tree.object(self.entry), Damage::Run(what)));
            } else if n == len {
                self.open_chunk(key, i, stored, piece)?;
            } else {
                part.resize(len, 0);
                self.open_chunk(key, i, stored, &mut part)?;
                piece.copy_from_slice(part.get(skip..skip + n).unwrap_or_default());
            }
            skip = 0;
        }
        Ok(())
    }

    fn open_chunk(&self, key: &AeadKey, i: u64, stored: &[u8], plain: &mut [u8]) -> Result<()> {
        chunk::open(key, i, stored, plain)
            .map_err(|_| Error::damaged(self.tree.object(self.entry), Damage::Chunk(i)))
    }

    /// The next byte from `offset` on that is data (`data`) or lies in a hole.
    ///
    /// # Errors
    /// [`Posix::NoSuchData`] past the end.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Result<u64> {
        /// Pins that are looked at together.
        const AT_ONCE: u64 = 4096;
        if offset >= self.size {
            return Err(Posix::NoSuchData.into());
        }
        let chunk = self.tree.context.geometry.chunk();
        let mut i = offset / chunk;
        while i < self.pinned.chunks {
            let until = (i + AT_ONCE).min(self.pinned.chunks);
            let nonces = self.tree.pins.nonces(&self.pinned, i..until)?;
            if let Some(at) = nonces.iter().position(|nonce| (*nonce != HOLE) == data) {
                return Ok(((i + at as u64) * chunk).max(offset));
            }
            i = until;
        }
        if data { Err(Posix::NoSuchData.into()) } else { Ok(self.size) }
    }
}
