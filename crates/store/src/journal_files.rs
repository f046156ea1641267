//! The two files of a run's journal: zero-written and synced once, then written over in place, so
//! that a sync of a record commits no metadata. What the records say is not known here.

use std::io::{Error, Result};
use std::sync::Arc;

use crate::backend::{Access, Dir, File};

/// The directory of a run that holds them.
pub const DIRECTORY: &[u8] = b"journal";
/// Their names in it.
pub const NAMES: [&[u8]; 2] = [b"0", b"1"];
/// Records are aligned to it, and the disk keeps one old or new.
pub const SECTOR: usize = 512;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Both files, and where the next record goes in each.
pub struct JournalFiles {
    files: [JournalFile; 2],
}

struct JournalFile {
    file: Arc<dyn File>,
    length: u64,
    next: u64,
}

impl JournalFiles {
    /// Makes `journal/` with two files of `bytes` zeros each, durable with their names. What a
    /// killed attempt left is completed: it holds no record that anyone was promised.
    ///
    /// # Errors
    /// The store's, ENOSPC among them.
    pub fn create(run_dir: &Arc<dyn Dir>, bytes: u64) -> Result<Self> {
        match run_dir.create_dir(DIRECTORY, 0o700) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            done => done?,
        }
        let dir = run_dir.open_dir(DIRECTORY)?;
        let file = |name| JournalFile::create(&*dir, name, bytes);
        let files = [file(NAMES[0])?, file(NAMES[1])?];
        dir.sync()?;
        run_dir.sync()?;
        Ok(Self { files })
    }

    /// The files that an earlier session left, `None` without a `journal/` that holds both.
    ///
    /// # Errors
    /// The store's; ELOOP, EISDIR or EINVAL where something else was put in their place.
    pub fn open_existing(run_dir: &Arc<dyn Dir>) -> Result<Option<Self>> {
        Self::existing(run_dir, Access::ReadWrite)
    }

    /// [`JournalFiles::open_existing`], for reading alone: of a store that may take nothing.
    ///
    /// # Errors
    /// As of [`JournalFiles::open_existing`].
    pub fn read_existing(run_dir: &Arc<dyn Dir>) -> Result<Option<Self>> {
        Self::existing(run_dir, Access::Read)
    }

    fn existing(run_dir: &Arc<dyn Dir>, access: Access) -> Result<Option<Self>> {
        let Some(dir) = present(run_dir.open_dir(DIRECTORY))? else { return Ok(None) };
        let open = |name| present(JournalFile::open(&*dir, name, access));
        let (Some(first), Some(second)) = (open(NAMES[0])?, open(NAMES[1])?) else { return Ok(None) };
        Ok(Some(Self { files: [first, second] }))
    }

    /// Bytes that still fit in file `i` (0 or 1).
    pub fn room(&self, i: usize) -> u64 {
        self.files.get(i).map_or(0, |f| f.length.saturating_sub(f.next))
    }

    /// Bytes that fit in an empty one.
    pub fn capacity(&self) -> u64 {
        self.files.iter().map(|f| f.length).min().unwrap_or(0)
    }

    /// Length of file `i`, as it was found or made.
    pub fn len(&self, i: usize) -> u64 {
        self.files.get(i).map_or(0, |f| f.length)
    }

    /// Neither file has room for anything.
    pub fn is_empty(&self) -> bool {
        self.capacity() == 0
    }

    /// Writes after what was last appended to file `i`; not synced.
    ///
    /// # Errors
    /// ENOSPC where it does not fit: files never grow. The store's: any of it may be there then.
    pub fn append(&mut self, i: usize, bytes: &[u8]) -> Result<()> {
        let room = self.room(i);
        let file = self.file_mut(i)?;
        let length = bytes.len() as u64;
        if length > room {
            return Err(Error::from_raw_os_error(libc::ENOSPC));
        }
        file.file.write_at(bytes, file.next)?;
        file.next += length;
        Ok(())
    }

    /// The next append to file `i` goes to its start. Only when nobody needs its records any more.
    pub fn rewind(&mut self, i: usize) {
        if let Some(file) = self.files.get_mut(i) {
            file.next = 0;
        }
    }

    /// fdatasync of file `i`.
    ///
    /// # Errors
    /// The store's.
    pub fn sync(&self, i: usize) -> Result<()> {
        self.handle(i).sync_data()
    }

    /// File `i` itself (any odd number is file 1), for a sync without holding up appends.
    pub fn handle(&self, i: usize) -> Arc<dyn File> {
        let [first, second] = &self.files;
        if i.is_multiple_of(2) { first.file.clone() } else { second.file.clone() }
    }

    /// Reads from file `i`; fewer bytes only at its end.
    ///
    /// # Errors
    /// The store's.
    pub fn read_at(&self, i: usize, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.handle(i).read_at(buf, offset)
    }

    /// Ends the log: the first sector of file `older`, then of the other zeroed, each durable before
    /// what follows. In the other order a crash could leave the older records alone, and what they
    /// would bring back has been written over since.
    ///
    /// # Errors
    /// The store's.
    pub fn reset(&mut self, older: usize) -> Result<()> {
        for i in [older, older + 1] {
            let file = self.file_mut(i % 2)?;
            file.file.write_at(&[0; SECTOR], 0)?;
            file.file.sync_data()?;
            file.next = 0;
        }
        Ok(())
    }

    /// Removes both files and `journal/`; the caller syncs the run's directory.
    ///
    /// # Errors
    /// The store's.
    pub fn remove(self, run_dir: &Arc<dyn Dir>) -> Result<()> {
        remove(run_dir)
    }

    fn file_mut(&mut self, i: usize) -> Result<&mut JournalFile> {
        self.files.get_mut(i).ok_or_else(|| Error::from_raw_os_error(libc::EINVAL))
    }
}

/// Removes whatever `journal/` holds of our files, and it; nothing to do where there is none.
///
/// # Errors
/// The store's; ENOTEMPTY where it holds more.
pub fn remove(run_dir: &Arc<dyn Dir>) -> Result<()> {
    let Some(dir) = present(run_dir.open_dir(DIRECTORY))? else { return Ok(()) };
    for name in NAMES {
        present(dir.unlink(name))?;
    }
    run_dir.remove_dir(DIRECTORY)
}

impl JournalFile {
    fn create(dir: &dyn Dir, name: &[u8], length: u64) -> Result<Self> {
        let file = match dir.create_file(name, 0o600) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                let left = dir.open_file(name, Access::ReadWrite)?;
                left.set_len(0)?;
                left
            }
            done => done?,
        };
        let mut at = 0;
        while at < length {
            let n = ZEROS.len().min(usize::try_from(length - at).unwrap_or(ZEROS.len()));
            file.write_at(ZEROS.get(..n).unwrap_or(&ZEROS), at)?;
            at += n as u64;
        }
        file.sync_all()?;
        Ok(Self { file, length, next: 0 })
    }

    fn open(dir: &dyn Dir, name: &[u8], access: Access) -> Result<Self> {
        let file = dir.open_file(name, access)?;
        let length = file.stat()?.size;
        Ok(Self { file, length, next: 0 })
    }
}

fn present<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
