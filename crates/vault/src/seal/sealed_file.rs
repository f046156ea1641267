//! Files of the run's own format that are written once from start to end: manifest and pins, which are read by range,
//! and the content of a run that is re-keyed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_crypto::aead::AeadKey;
use runvault_crypto::random::{self, Nonces};
use runvault_format::chunk;
use runvault_format::header::{self, Clear, Kind};
use runvault_format::ids::FileId;
use runvault_format::keys::Place;
use runvault_format::size::{COPY, HEADER};
use runvault_format::state_slot::{Extent, HOLES_MAX, SEVERAL_LINKS, SlotState};
use runvault_store::backend::{Access, Dir, File};

use crate::file::{Found, RunContext};
use crate::outcome::part_opened;
use crate::run_life::FILE_MODE;
use crate::{Damage, Error, Result};

/// Chunks that are written at once.
const AT_ONCE: usize = 128;

/// One that is being written.
pub(super) struct Writer<'a> {
    run: &'a RunContext,
    object: String,
    file: Arc<dyn File>,
    clear: Clear,
    key: AeadKey,
    nonces: Nonces,
    /// Plaintext that is not written yet, from chunk `next` on.
    waiting: Vec<u8>,
    next: u64,
    stands: Stands,
    holes: Vec<Extent>,
    stored: Vec<u8>,
}

/// What a header says of a file's names.
pub(super) struct Stands {
    pub(super) flags: u16,
    pub(super) place: Place,
    pub(super) previous: Place,
}

impl Stands {
    /// Under any name.
    pub(super) const ANYWHERE: Stands =
        Stands { flags: SEVERAL_LINKS, place: Place([0; 16]), previous: Place([0; 16]) };
}

impl<'a> Writer<'a> {
    /// Makes the file, which must not be there.
    pub(super) fn create(run: &'a RunContext, dir: &dyn Dir, name: &str, kind: Kind) -> Result<Self> {
        let object = format!("runs/{}/seal.new/{name}", run.id);
        let file = dir.create_file(name.as_bytes(), FILE_MODE);
        let file = file.map_err(|e| Error::store("create", object.clone(), e))?;
        Self::of(run, file, object, kind, Stands::ANYWHERE)
    }

    /// Of a file that was just made.
    pub(super) fn of(
        run: &'a RunContext,
        file: Arc<dyn File>,
        object: String,
        kind: Kind,
        stands: Stands,
    ) -> Result<Self> {
        let mut id = [0; 32];
        random::fill(&mut id)?;
        let clear = Clear::new(kind, run.geometry, FileId(id), run.id);
        let key = run.keys.file_key(&clear, 0);
        let (nonces, waiting, stored) = (Nonces::new(AT_ONCE), Vec::new(), Vec::new());
        Ok(Self {
            run,
            object,
            file,
            clear,
            key,
            nonces,
            waiting,
            next: 0,
            stands,
            holes: Vec::new(),
            stored,
        })
    }

    /// Whole chunks, and at the end of the file the rest: nothing waits.
    pub(super) fn write_through(&mut self, bytes: &[u8]) -> Result<()> {
        self.put_all(bytes)
    }

    /// What was written begins to go to the disk; nobody waits for it.
    pub(super) fn write_out(&self) {
        // That it is not needed is how the kernel is told.
        self.file.will_not_need();
    }

    /// So many chunks without data, behind those that were written: where the header can list no more holes, zeros.
    pub(super) fn skip(&mut self, chunks: u64, size: u64) -> Result<()> {
        if self.holes.len() < HOLES_MAX {
            self.holes.push(Extent { first: self.next, count: chunks });
            self.next += chunks;
            return Ok(());
        }
        let zeros = vec![0; self.run.geometry.chunk() as usize];
        for _ in 0..chunks {
            let len = self.run.geometry.chunk_len(self.next, size);
            self.put(zeros.get(..len).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The header of a file of that size, all of which was written through or skipped; not synced.
    pub(super) fn close(self, size: u64) -> Result<FileId> {
        self.put_header(size)?;
        if self.holes.last().is_some_and(|last| last.first + last.count == self.next) {
            let len = self.run.geometry.stored_len(size);
            self.file.set_len(len).map_err(|e| Error::store("write", self.object.clone(), e))?;
        }
        Ok(self.clear.file_id)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(bytes);
        let batch = AT_ONCE * self.run.geometry.chunk() as usize;
        while self.waiting.len() > batch {
            let rest = self.waiting.split_off(batch);
            let whole = std::mem::replace(&mut self.waiting, rest);
            self.put(&whole)?;
        }
        Ok(())
    }

    /// The rest and the header, durable; gives the file's id.
    pub(super) fn finish(mut self) -> Result<FileId> {
        let last = std::mem::take(&mut self.waiting);
        let size = self.next * self.run.geometry.chunk() + last.len() as u64;
        self.put_all(&last)?;
        self.put_header(size)?;
        self.file.sync_all().map_err(|e| Error::store("write", self.object.clone(), e))?;
        Ok(self.clear.file_id)
    }

    /// All that was written, to be read again here: it has no header.
    pub(super) fn into_reader(mut self, run: &Arc<RunContext>) -> Result<Reader> {
        let last = std::mem::take(&mut self.waiting);
        let size = self.next * self.run.geometry.chunk() + last.len() as u64;
        self.put_all(&last)?;
        let (object, file, key) = (self.object, self.file, self.key);
        Ok(Reader { run: run.clone(), object, file, key, size, kept: Mutex::default() })
    }

    /// The header of one that [`Reader::open_begun`] reads while it is not finished.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.put_header(0)
    }

    /// All that was written, and zeros to the end of a chunk, durable; gives its plaintext bytes.
    pub(super) fn sync(&mut self) -> Result<u64> {
        let mut last = std::mem::take(&mut self.waiting);
        last.resize(last.len().next_multiple_of(self.run.geometry.chunk() as usize), 0);
        self.put_all(&last)?;
        self.file.sync_data().map_err(|e| Error::store("write", self.object.clone(), e))?;
        Ok(self.next * self.run.geometry.chunk())
    }

    fn put_all(&mut self, plain: &[u8]) -> Result<()> {
        plain.chunks(AT_ONCE * self.run.geometry.chunk() as usize).try_for_each(|batch| self.put(batch))
    }

    fn put_header(&self, size: u64) -> Result<()> {
        let slot = SlotState {
            seq: 1,
            size,
            jskip: 0,
            jsession: [0; 8],
            writes: self.next,
            epoch: 0,
            flags: self.stands.flags,
            place: self.stands.place,
            previous: self.stands.previous,
            holes: self.holes.clone(),
        };
        let slot_key = self.run.keys.slot_key(&self.clear);
        let mut both = [0; HEADER as usize];
        both[..COPY as usize].copy_from_slice(&header::seal_copy(0, &self.clear, &slot_key, &slot)?);
        self.file.write_at(&both, 0).map_err(|e| Error::store("write", self.object.clone(), e))
    }

    fn put(&mut self, plain: &[u8]) -> Result<()> {
        let geometry = &self.run.geometry;
        let (chunk, stored_chunk) = (geometry.chunk() as usize, geometry.stored_chunk() as usize);
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(plain.len() + plain.len().div_ceil(chunk) * chunk::OVERHEAD, 0);
        let at = geometry.chunk_offset(self.next);
        for (plain, out) in plain.chunks(chunk).zip(stored.chunks_mut(stored_chunk)) {
            chunk::seal(&self.key, &mut self.nonces, self.next, plain, out)?;
            self.next += 1;
        }
        let written =
            self.file.write_at(&stored, at).map_err(|e| Error::store("write", self.object.clone(), e));
        self.stored = stored;
        written
    }
}

/// One that is read.
pub(crate) struct Reader {
    run: Arc<RunContext>,
    object: String,
    file: Arc<dyn File>,
    key: AeadKey,
    /// Plaintext bytes.
    pub(crate) size: u64,
    /// Chunks that were read last, by their numbers.
    kept: Mutex<HashMap<u64, Arc<[u8]>>>,
}

/// Chunks that are kept: of 8 KiB 2 MiB.
const KEPT: usize = 256;

impl Reader {
    /// Opens `seal/<name>`, which must have this id.
    pub(crate) fn open(
        run: &Arc<RunContext>,
        seal: &dyn Dir,
        name: &str,
        kind: Kind,
        id: &FileId,
    ) -> Result<Self> {
        let object = format!("runs/{}/seal/{name}", run.id);
        let file = seal.open_file(name.as_bytes(), Access::Read);
        let file = file.map_err(|e| part_opened("open", object.clone(), e))?;
        let found = Found::read(run, &*file, kind).map_err(|e| e.named(object.clone()))?;
        if found.clear.file_id != *id {
            return Err(Error::damaged(object, Damage::Place));
        }
        let slot = found.copies.first().map(|(_, slot)| slot);
        let slot = slot.ok_or_else(|| Error::damaged(object.clone(), Damage::Header))?;
        let stored = file.stat().map_err(|e| Error::store("stat", object.clone(), e))?.size;
        if run.geometry.plain_len(stored) != Ok(slot.size) {
            return Err(Error::damaged(object, Damage::Short));
        }
        let (key, size) = (run.keys.file_key(&found.clear, slot.epoch), slot.size);
        Ok(Self { run: run.clone(), object, file, key, size, kept: Mutex::default() })
    }

    /// Opens one that was begun and not finished: its whole chunks.
    pub(super) fn open_begun(run: &Arc<RunContext>, dir: &dyn Dir, name: &str, kind: Kind) -> Result<Self> {
        let object = format!("runs/{}/{name}", run.id);
        let file = dir.open_file(name.as_bytes(), Access::Read);
        let file = file.map_err(|e| part_opened("open", object.clone(), e))?;
        let found = Found::read(run, &*file, kind).map_err(|e| e.named(object.clone()))?;
        let stored = file.stat().map_err(|e| Error::store("stat", object.clone(), e))?.size;
        let chunks = stored.saturating_sub(HEADER) / run.geometry.stored_chunk();
        let (key, size) = (run.keys.file_key(&found.clear, 0), chunks * run.geometry.chunk());
        Ok(Self { run: run.clone(), object, file, key, size, kept: Mutex::default() })
    }

    /// Plaintext from `offset` on, all of `buf`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let chunk = self.run.geometry.chunk();
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or_else(|| Error::damaged(self.object.clone(), Damage::Short))?;
        let (mut at, mut rest) = (offset, buf);
        while at < end {
            let (plain, skip) = (self.chunk(at / chunk)?, (at % chunk) as usize);
            let piece = plain.get(skip..).unwrap_or_default();
            let n = piece.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(piece.get(..n).unwrap_or_default());
            rest = tail;
            at += n as u64;
        }
        Ok(())
    }

    fn chunk(&self, i: u64) -> Result<Arc<[u8]>> {
        if let Some(kept) = self.kept().get(&i) {
            return Ok(kept.clone());
        }
        let geometry = &self.run.geometry;
        let len = geometry.chunk_len(i, self.size);
        let mut stored = vec![0; len + chunk::OVERHEAD];
        let got = self.file.read_at(&mut stored, geometry.chunk_offset(i));
        got.map_err(|e| Error::store("read", self.object.clone(), e))?;
        let mut plain = vec![0; len];
        chunk::open(&self.key, i, &stored, &mut plain)
            .map_err(|_| Error::damaged(self.object.clone(), Damage::Chunk(i)))?;
        let plain: Arc<[u8]> = plain.into();
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(i, plain.clone());
        Ok(plain)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<u64, Arc<[u8]>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies there does not hold together.
    pub(crate) fn damaged(&self, error: runvault_format::Error) -> Error {
        Error::damaged(self.object.clone(), Damage::Run(error.to_string()))
    }
}
