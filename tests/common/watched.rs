//! A directory that a run is written to, and what its writers met there.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use runvault_sequencer::replay::place::{Directory, How, Opened, Place};

/// Every error, and the longest that anything took.
#[derive(Default)]
pub struct Watched(Mutex<Seen>);

/// What was met.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// errno of every call that failed, but for what is missing: directories are made when they are needed.
    pub errors: Vec<i32>,
    /// Of one call.
    pub longest: Duration,
}

impl Watched {
    /// Up to now.
    pub fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        let done = call();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.longest = seen.longest.max(begun.elapsed());
        if let Err(error) = &done
            && error.kind() != io::ErrorKind::NotFound
        {
            seen.errors.push(error.raw_os_error().unwrap_or_default());
        }
        done
    }
}

impl Place for Watched {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn Opened + '_>> {
        let file = self.note(|| Directory.open(path, how))?;
        Ok(Box::new(File { file, by: self }))
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        self.note(|| Directory.make_dirs(dir))
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(|| Directory.rename_over(from, to))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.note(|| Directory.read(path))
    }
}

struct File<'a> {
    file: Box<dyn Opened + 'a>,
    by: &'a Watched,
}

impl Opened for File<'_> {
    fn size(&self) -> io::Result<u64> {
        self.by.note(|| self.file.size())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.by.note(|| self.file.set_size(size))
    }

    fn read_from(&self, offset: u64) -> io::Result<Vec<u8>> {
        self.by.note(|| self.file.read_from(offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.by.note(|| self.file.write_at(bytes, offset))
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.by.note(|| self.file.set_modified(time))
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        self.by.note(|| self.file.close())
    }
}
