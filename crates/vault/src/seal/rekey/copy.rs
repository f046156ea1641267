//! Files, one after the other on every core: read by their pins, encrypted anew, renamed when they are whole.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use runvault_crypto::registers;
use runvault_format::header::Kind;
use runvault_format::ids::FileId;

use super::super::sealed_file::Writer;
use super::early::Early;
use super::tree::OpenDir;
use super::{Copying, Progress, Shard};
use crate::sealed::SealedFile;
use crate::{Error, Posix, Result, cores, pace};

/// Plaintext that is read at once: as it is read, opened and sealed it stays in a core's own cache.
const STRETCH: u64 = 256 << 10;
/// Plaintext after which the disk begins to write: the kernel would wait until much has come together.
const WRITTEN_OUT: u64 = 8 << 20;

impl Copying<'_> {
    /// Copies what is missing of a shard, and has it read back; gives the plaintext bytes of it.
    ///
    /// # Errors
    /// Damage of the old run, [`Error::NoRoom`]; the store's. The first of them ends it.
    pub(super) fn copy(
        &self,
        shard: Shard,
        early: Option<&Early<'_>>,
        progress: Progress<'_>,
    ) -> Result<u64> {
        let mine = |(at, _): &(usize, u32)| at % shard.of.max(1) == shard.number.saturating_sub(1);
        let files: Vec<u32> = self.tree.files().enumerate().filter(mine).map(|(_, file)| file).collect();
        let (mut missing, mut open) = (Vec::new(), None);
        for file in &files {
            if !self.tree.has(&mut open, *file)? {
                missing.push(*file);
            }
        }
        let size = |file: &u32| self.tree.record(*file).map_or(0, |record| record.size);
        let sum = |files: &[u32]| files.iter().map(size).fold(0, u64::saturating_add);
        let (total, needed) = (sum(&files), sum(&missing));
        self.check_room(&missing)?;
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (done, copied) = (AtomicU64::new(total - needed), AtomicU64::new(0));
        progress(total - needed, total);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            let (mut open, mut buf) = (None, vec![0; STRETCH as usize]);
            while let Some(file) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut told = |bytes: u64| {
                    copied.fetch_add(bytes, Ordering::Relaxed);
                    progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
                    stop.load(Ordering::Relaxed)
                };
                let done = self.copy_file(&mut open, *file, &mut buf, &mut told);
                let read_back = |()| match early.filter(|_| !stop.load(Ordering::Relaxed)) {
                    Some(early) => early.read_back(&mut open, *file),
                    None => Ok(()),
                };
                if let Err(error) = done.and_then(read_back) {
                    stop.store(true, Ordering::Relaxed);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        // Two a core: one waits for the store while the other encrypts.
        cores::on((2 * cores::count()).min(missing.len()), &|| {
            work();
            registers::wipe();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(copied.into_inner()),
        }
    }

    /// What is to be written, at least, must fit.
    fn check_room(&self, missing: &[u32]) -> Result<()> {
        let space = self.dir.space().map_err(|e| Error::store("ask for the room of", "the store", e))?;
        let free = space.available.saturating_mul(space.block);
        let len =
            |file: &u32| self.tree.record(*file).map_or(0, |r| self.context.geometry.stored_len(r.size));
        let needed = missing.iter().map(len).fold(0, u64::saturating_add);
        if needed > free && space.blocks > 0 { Err(Error::NoRoom { needed, free }) } else { Ok(()) }
    }

    /// `told` gets plaintext bytes as they are copied, and says whether to stop.
    fn copy_file(
        &self,
        open: &mut OpenDir,
        i: u32,
        buf: &mut [u8],
        told: &mut dyn FnMut(u64) -> bool,
    ) -> Result<()> {
        let from = self.from.open_file(i)?;
        let (temporary, file) = self.tree.begin(i)?;
        let copied = if from.size > 0 || self.tree.has_attributes(i)? {
            let stands = self.tree.stands(i)?;
            let writer = Writer::of(&self.context, file.clone(), self.tree.object(i), Kind::File, stands)?;
            let copied = self.copy_content(&from, writer, buf, told);
            // Here, while others are at work: one thread removes the old run in the end, with all that is in memory.
            from.will_not_need();
            copied.map(Some)
        } else {
            Ok(None)
        };
        match copied {
            Ok(Some(None)) => Ok(()),
            Ok(id) => self.tree.finish(open, i, (temporary, file), id.flatten().as_ref()),
            Err(error) => Err(error),
        }
    }

    /// `None`: it was stopped.
    fn copy_content(
        &self,
        from: &SealedFile,
        mut writer: Writer<'_>,
        buf: &mut [u8],
        told: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<FileId>> {
        let (size, chunk) = (from.size, self.context.geometry.chunk());
        let step = (STRETCH / chunk).max(1) * chunk;
        let mut large = Vec::new();
        let buf = if step > buf.len() as u64 {
            large.resize(step as usize, 0);
            &mut large[..]
        } else {
            buf
        };
        let mut at = 0;
        while at < size {
            let data = next(from, at, true)?;
            if data > at {
                writer.skip((data - at).div_ceil(chunk), size)?;
                if told(data - at) {
                    return Ok(None);
                }
                at = data;
            }
            let end = if at < size { next(from, at, false)? } else { size };
            while at < end {
                let len = (end - at).min(step) as usize;
                let piece = buf.get_mut(..len).unwrap_or_default();
                if from.read(at, piece)? != len {
                    return Err(Posix::Stale.into());
                }
                pace::keep(len as u64);
                writer.write_through(piece)?;
                at += len as u64;
                if at % WRITTEN_OUT < len as u64 {
                    writer.write_out();
                }
                if told(len as u64) {
                    return Ok(None);
                }
            }
        }
        writer.close(size).map(Some)
    }
}

/// The next byte that is data, or lies in a hole, from there on; the end of the file where there is none.
fn next(from: &SealedFile, at: u64, data: bool) -> Result<u64> {
    match from.seek(at, data) {
        Err(Error::Posix(Posix::NoSuchData)) => Ok(from.size),
        found => found,
    }
}
