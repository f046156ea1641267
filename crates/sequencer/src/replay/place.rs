//! Where a run is written: the calls that copy services make, of a file system or of a protocol.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

/// What becomes of a file that is there when it is opened for writing. One that is missing is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is emptied.
    Anew,
    /// It stays, and is read too.
    Keep,
    /// It stays, and every write goes to its end.
    Append,
}

/// A directory tree that takes a run. Errors are the ones of the same calls of `std::fs`.
pub trait Place: Send + Sync {
    /// Opens a file for writing; [`io::ErrorKind::NotFound`] where its directory is missing.
    ///
    /// # Errors
    /// The place's.
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn Opened + '_>>;

    /// Makes a directory and all above it that are missing.
    ///
    /// # Errors
    /// The place's.
    fn make_dirs(&self, dir: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of the one that has it.
    ///
    /// # Errors
    /// The place's.
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// A whole file, as somebody beside the writer sees it.
    ///
    /// # Errors
    /// The place's.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// A file of a [`Place`] that is open for writing. Offsets and sizes are in bytes.
pub trait Opened {
    /// Its size.
    ///
    /// # Errors
    /// The place's.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or grows it.
    ///
    /// # Errors
    /// The place's.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// All bytes from an offset on.
    ///
    /// # Errors
    /// The place's.
    fn read_from(&self, offset: u64) -> io::Result<Vec<u8>>;

    /// Writes all bytes at an offset, which is the file's end for one that is appended to.
    ///
    /// # Errors
    /// The place's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sets its time, and whatever else a copy brings along after the data.
    ///
    /// # Errors
    /// The place's.
    fn set_modified(&self, time: SystemTime) -> io::Result<()>;

    /// Closes it. Where data goes over a network this may be what says that it did not arrive.
    ///
    /// # Errors
    /// The place's.
    fn close(self: Box<Self>) -> io::Result<()>;

    /// The link drops: nobody closes it, and the place is reached anew. Without a link it is closed.
    ///
    /// # Errors
    /// The place's, of a link that does not come back.
    fn drop_link(self: Box<Self>) -> io::Result<()> {
        self.close()
    }
}

/// A directory of this machine.
pub struct Directory;

impl Place for Directory {
    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn Opened + '_>> {
        let mut options = OpenOptions::new();
        options.create(true);
        let file = match how {
            How::Anew => options.write(true).truncate(true),
            How::Keep => options.read(true).write(true).truncate(false),
            How::Append => options.append(true),
        }
        .open(path)?;
        Ok(Box::new(file))
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }
}

impl Opened for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn read_from(&self, offset: u64) -> io::Result<Vec<u8>> {
        let (mut file, mut bytes) = (self, Vec::new());
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        File::set_modified(self, time)
    }

    fn close(self: Box<Self>) -> io::Result<()> {
        // SAFETY: the descriptor is this file's, which has just given it up.
        match unsafe { libc::close(self.into_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
