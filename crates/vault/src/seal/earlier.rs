//! A seal that was cut short: what it has read back, so that the next try does not read it again.
//!
//! `runs/<id>/read-back`, under the run's key, which nobody but the machine that writes the run holds: each file's
//! hashes and nonces, and what the stored file was like. It counts for a day, for the gateway that made it, and for a
//! file that the store has not changed since by its number, length and change time. What is written through a mount
//! moves that time, where the store's file system keeps one that nobody can set. The next try writes `read-back.new`,
//! which takes the place of the other as soon as it is as long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use runvault_crypto::digest::sha256;
use runvault_format::header::Kind;
use runvault_format::ids::IdentityId;
use runvault_format::pins::NONCE;
use runvault_format::read_back::{self, COUNT, FILE, FRAME, Frame, HEAD, Stamp};
use runvault_store::backend::{Dir, Rename, SetTime, Stat, Time};

use super::reading::Nonces;
use super::sealed_file::{Reader, Writer};
use super::survey::Survey;
use crate::file::{Content, RunContext};
use crate::{Error, Result};

const NAME: &str = "read-back";
const NEW: &str = "read-back.new";
/// Seconds for which it counts that a file was read back.
const BELIEVED: u64 = 24 * 3600;
/// Within so many seconds of a change another one may bear the same time.
const SETTLED: u64 = 2;
/// How often what was read is made durable.
const EVERY: Duration = Duration::from_secs(2);
/// Nonces of a frame: those of 32 MiB.
const BATCH: usize = 4096;

/// What an earlier try has read back, and what this one has, for each entry of a run.
pub(super) struct Resuming<'a> {
    objects: Vec<Object>,
    earlier: Earlier,
    log: Mutex<Log<'a>>,
}

impl<'a> Resuming<'a> {
    pub(super) fn begin(
        run: &'a Arc<RunContext>,
        dir: &'a dyn Dir,
        gateway: &IdentityId,
        survey: &Survey,
    ) -> Self {
        // Where changes do not show, nothing of earlier counts, and nothing is kept for later.
        let shows = changes_show(dir);
        let earlier = if shows { Earlier::open(run, dir, gateway) } else { Earlier::default() };
        let log = Mutex::new(Log::begin(run, dir, gateway, &earlier, shows));
        let objects = (0..survey.items.len()).map(|i| object(&survey.object(i))).collect();
        Self { objects, earlier, log }
    }

    /// What was found of a file when it was read back before, with the nonces of its chunks.
    ///
    /// # Errors
    /// Those of `nonce`; the store's.
    pub(super) fn content(&self, i: usize, stat: &Stat, nonce: Nonces<'_>) -> Result<Option<Content>> {
        self.objects.get(i).map_or(Ok(None), |object| self.earlier.content(object, stat, nonce))
    }

    /// In turn.
    pub(super) fn nonce(&self, i: usize, nonce: &[u8; NONCE]) {
        self.log().nonce(i, nonce);
    }

    /// A file is done with; whether it was read before, and not now.
    pub(super) fn file(&self, i: usize, content: &Content, stat: &Stat) -> bool {
        let Some(object) = self.objects.get(i) else { return false };
        let read = self.earlier.read(object, stat);
        self.log().file(i, *object, read, content, stat);
        read.is_some()
    }

    fn log(&self) -> MutexGuard<'_, Log<'a>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The start of the hash of an entry's place.
type Object = [u8; 16];

fn object(place: &str) -> Object {
    let mut object = [0; 16];
    object.copy_from_slice(&sha256(&[place.as_bytes()])[..16]);
    object
}

/// What an earlier try has read back.
#[derive(Default)]
struct Earlier {
    log: Option<Reader>,
    files: HashMap<Object, Past>,
    /// Bytes of the log that hold.
    len: u64,
}

struct Past {
    file: read_back::File,
    /// Where its nonces stand: offset and count.
    nonces: Vec<(u64, usize)>,
}

impl Earlier {
    /// What counts of it; what cannot be read counts as nothing.
    fn open(run: &Arc<RunContext>, dir: &dyn Dir, gateway: &IdentityId) -> Self {
        let mut earlier = Self::default();
        let Ok(log) = Reader::open_begun(run, dir, NAME, Kind::Pins) else { return earlier };
        let mut head = [0; HEAD];
        if log.read(0, &mut head).is_err() || head != read_back::head(gateway) {
            return earlier;
        }
        let (now, chunk) = (now(), run.geometry.chunk());
        let (mut at, mut of, mut nonces) = (HEAD as u64, None, Vec::new());
        // It ends where it was cut, or does not authenticate.
        while let Some(frame) = frame_at(&log, at) {
            let after = at.saturating_add(FRAME as u64);
            let end = match frame {
                Frame::Padding => Some(at.saturating_add(1).next_multiple_of(chunk)),
                Frame::Nonces(entry) => nonces_at(&log, after).map(|(from, count)| {
                    if of != Some(entry) {
                        (of, nonces) = (Some(entry), Vec::new());
                    }
                    nonces.push((from, count));
                    from.saturating_add((count * NONCE) as u64)
                }),
                Frame::File(entry) => file_at(&log, after).map(|file| {
                    let nonces = std::mem::take(&mut nonces);
                    let complete = of == Some(entry) || nonces.is_empty();
                    if complete && file.read <= now && now - file.read < BELIEVED {
                        earlier.files.insert(file.object, Past { file, nonces });
                    }
                    of = None;
                    after.saturating_add(FILE as u64)
                }),
            };
            let Some(end) = end else { break };
            (at, earlier.len) = (end, end);
        }
        earlier.log = Some(log);
        earlier
    }

    fn find(&self, object: &Object, stat: &Stat) -> Option<&Past> {
        self.files.get(object).filter(|past| past.file.stamp == stamp(stat))
    }

    /// When that file was read back, if it need not be read again.
    fn read(&self, object: &Object, stat: &Stat) -> Option<u64> {
        self.find(object, stat).map(|past| past.file.read)
    }

    /// What was found of a file, and the nonces of its chunks.
    ///
    /// # Errors
    /// Those of `nonce`; the store's, also where the record does not hold any more.
    fn content(&self, object: &Object, stat: &Stat, nonce: Nonces<'_>) -> Result<Option<Content>> {
        let (Some(Past { file, nonces }), Some(log)) = (self.find(object, stat), &self.log) else {
            return Ok(None);
        };
        for (from, count) in nonces {
            let mut bytes = vec![0; count * NONCE];
            log.read(*from, &mut bytes).map_err(|e| {
                Error::store("read", format!("{NAME} of the run"), std::io::Error::other(e.to_string()))
            })?;
            bytes.as_chunks().0.iter().try_for_each(&mut *nonce)?;
        }
        let (size, sha256, stored) = (file.size, file.sha256, file.digest);
        Ok(Some(Content { id: file.id, epoch: file.epoch, size, sha256, stored }))
    }
}

fn frame_at(log: &Reader, at: u64) -> Option<Frame> {
    let mut first = [0; FRAME];
    log.read(at, &mut first).ok()?;
    Frame::decode(&first).ok()
}

/// Where they begin, and how many they are; they authenticate.
fn nonces_at(log: &Reader, at: u64) -> Option<(u64, usize)> {
    let mut count = [0; COUNT];
    log.read(at, &mut count).ok()?;
    let (from, count) = (at.checked_add(COUNT as u64)?, usize::from(u16::from_le_bytes(count)));
    log.read(from, &mut vec![0; count * NONCE]).ok()?;
    Some((from, count))
}

fn file_at(log: &Reader, at: u64) -> Option<read_back::File> {
    let mut bytes = [0; FILE];
    log.read(at, &mut bytes).ok()?;
    read_back::File::decode(&bytes).ok()
}

/// What this try has read back. Where it cannot be kept, the seal is made all the same.
struct Log<'a> {
    dir: &'a dyn Dir,
    /// `None` where it is not kept, or no more.
    writer: Option<Writer<'a>>,
    /// Bytes that the one before holds.
    before: u64,
    entry: u32,
    waiting: Vec<[u8; NONCE]>,
    synced: Instant,
}

impl<'a> Log<'a> {
    fn begin(
        run: &'a RunContext,
        dir: &'a dyn Dir,
        gateway: &IdentityId,
        earlier: &Earlier,
        wanted: bool,
    ) -> Self {
        let begin = || {
            remove(dir, NEW)?;
            let mut writer = Writer::create(run, dir, NEW, Kind::Pins)?;
            writer.begin()?;
            writer.write(&read_back::head(gateway))?;
            Ok(writer)
        };
        let said = |e: &Error| log::info!("what is read back is not kept: {e}");
        let writer = wanted.then(begin).and_then(|begun| begun.inspect_err(said).ok());
        let (waiting, synced) = (Vec::new(), Instant::now());
        Self { dir, writer, before: earlier.len, entry: 0, waiting, synced }
    }

    fn nonce(&mut self, i: usize, nonce: &[u8; NONCE]) {
        let Ok(entry) = u32::try_from(i) else { return };
        if self.entry != entry {
            // Those of a file that did not authenticate.
            self.waiting.clear();
            self.entry = entry;
        }
        self.waiting.push(*nonce);
        if self.waiting.len() == BATCH {
            self.put_nonces();
        }
    }

    /// It was read to its end.
    fn file(&mut self, i: usize, object: Object, read: Option<u64>, content: &Content, stat: &Stat) {
        let Ok(entry) = u32::try_from(i) else { return };
        if self.entry != entry {
            self.waiting.clear();
        }
        self.put_nonces();
        let (now, changed) = (now(), u64::try_from(stat.ctime.sec).unwrap_or(u64::MAX));
        // What was just changed may be so again, and bear the same time.
        if changed.saturating_add(SETTLED) > now {
            return;
        }
        let file = read_back::File {
            object,
            read: read.unwrap_or(now),
            stamp: stamp(stat),
            size: content.size,
            id: content.id,
            epoch: content.epoch,
            sha256: content.sha256,
            digest: content.stored,
        };
        self.put(&file.encode(entry));
        if self.synced.elapsed() >= EVERY {
            self.sync();
        }
    }

    fn put_nonces(&mut self) {
        if !self.waiting.is_empty() {
            let frame = read_back::nonces(self.entry, &self.waiting);
            self.waiting.clear();
            self.put(&frame);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let written = self.writer.as_mut().map_or(Ok(()), |writer| writer.write(bytes));
        self.keep(written);
    }

    /// What was read until now is kept from now on, once it is as much as before.
    fn sync(&mut self) {
        self.synced = Instant::now();
        let (dir, before) = (self.dir, self.before);
        let Some(writer) = &mut self.writer else { return };
        let synced = writer.sync().and_then(|len| {
            if before != u64::MAX && len >= before {
                dir.rename(NEW.as_bytes(), dir, NAME.as_bytes(), Rename::Over)
                    .and_then(|()| dir.sync())
                    .map_err(|e| Error::store("rename", NEW, e))?;
                self.before = u64::MAX;
            }
            Ok(())
        });
        self.keep(synced);
    }

    fn keep(&mut self, done: Result<()>) {
        if let Err(error) = done {
            log::info!("what is read back is not kept any more: {error}");
            self.writer = None;
        }
    }
}

/// Nothing of it is needed any more.
pub(super) fn forget(dir: &dyn Dir) -> Result<()> {
    remove(dir, NAME).and_then(|()| remove(dir, NEW))
}

fn remove(dir: &dyn Dir, name: &str) -> Result<()> {
    match dir.unlink(name.as_bytes()) {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(Error::store("remove", name, e)),
        _ => Ok(()),
    }
}

/// Whether the store's file system has a change time that nobody sets; `dir` is of the store.
fn changes_show(dir: &dyn Dir) -> bool {
    const LONG_AGO: Time = Time { sec: 1_000_000_000, nsec: 0 };
    let probe = || {
        let _ = dir.unlink(NEW.as_bytes());
        let file = dir.create_file(NEW.as_bytes(), crate::run_life::FILE_MODE)?;
        file.set_times(SetTime::Omit, SetTime::At(LONG_AGO))?;
        file.stat()
    };
    let shows = probe().is_ok_and(|stat| stat.ctime.sec != LONG_AGO.sec && stat.mtime.sec == LONG_AGO.sec);
    let _ = dir.unlink(NEW.as_bytes());
    shows
}

/// What tells that a stored file was changed.
pub(super) fn stamp(stat: &Stat) -> Stamp {
    let time = |time: Time| (time.sec, time.nsec);
    Stamp { ino: stat.ino, stored: stat.size, mtime: time(stat.mtime), ctime: time(stat.ctime) }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
