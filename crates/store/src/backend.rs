//! The one trait pair through which everything reaches the backing directory.
//!
//! [`Dir`] and [`File`] are handles: a `Dir` resolves single components only (no `/`, never
//! following a symlink), so no path can leave the store. Every double implements the same pair.
//! Errors are [`std::io::Error`] carrying a raw errno, also from the doubles.

use std::any::Any;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Seconds and nanoseconds since the epoch, as `stat` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC; may be negative.
    pub sec: i64,
    /// Nanoseconds, 0..1e9.
    pub nsec: u32,
}

/// What `utimensat` may be told for one of the two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Omit,
    /// The backing file system's clock.
    Now,
    /// This instant.
    At(Time),
}

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// `struct stat`, reduced to what the engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub kind: Kind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

/// One entry of a directory, with the cookie from which the listing continues after it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Entry {
    pub name: Vec<u8>,
    pub ino: u64,
    /// `None` where the file system does not say (`DT_UNKNOWN`).
    pub kind: Option<Kind>,
    pub next: u64,
}

/// One reader's way through a directory: what is kept open for it between two calls.
#[derive(Debug, Default)]
pub struct Stream(pub(crate) Option<Opening>);

/// A directory opened for one listing, and the cookie that its offset stands at.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) fd: OwnedFd,
    pub(crate) at: u64,
    /// For raw entries; it grows with the directory.
    pub(crate) buffer: Vec<u8>,
}

/// `renameat2` in its three forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rename {
    Over,
    NoReplace,
    Exchange,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    ReadWrite,
}

/// `statvfs`: `blocks`, `free` and `available` count blocks of `block` bytes, the others names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Space {
    pub block: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// Extended attributes of an object; names include their prefix (`user.`…).
pub trait Xattrs {
    /// The value; ENODATA where there is none.
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>>;
    /// Names, one per element.
    fn xattrs(&self) -> Result<Vec<Vec<u8>>>;
    /// `flags` as for setxattr(2): 0, XATTR_CREATE or XATTR_REPLACE.
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()>;
    /// ENODATA where there is none.
    fn remove_xattr(&self, name: &[u8]) -> Result<()>;
}

/// An open regular file of the store.
pub trait File: Xattrs + Send + Sync {
    /// Fills `buf` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Writes all of `buf`; an error leaves the range undefined.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// ftruncate.
    fn set_len(&self, len: u64) -> Result<()>;
    /// fallocate, plain (`keep_size` false) or FALLOC_FL_KEEP_SIZE.
    fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()>;
    /// FALLOC_FL_PUNCH_HOLE | KEEP_SIZE.
    fn punch(&self, offset: u64, len: u64) -> Result<()>;
    /// What close(2) brings where a network file system keeps errors until then: all that was written has reached
    /// the server, or it is told. Durable it is not.
    fn flush(&self) -> Result<()>;
    /// fdatasync: data, and the length needed to reach it.
    fn sync_data(&self) -> Result<()>;
    /// fsync.
    fn sync_all(&self) -> Result<()>;
    /// fstat.
    fn stat(&self) -> Result<Stat>;
    /// fchmod.
    fn set_mode(&self, mode: u32) -> Result<()>;
    /// fchown; `None` leaves an id.
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()>;
    /// futimens.
    fn set_times(&self, atime: SetTime, mtime: SetTime) -> Result<()>;
    /// posix_fadvise: the first `len` bytes will be read soon, all of them.
    fn will_read(&self, len: u64);
    /// posix_fadvise: what the kernel has of it can go, so that the next read asks the store.
    fn will_not_need(&self);
    /// SEEK_DATA / SEEK_HOLE: the next offset >= `offset` that holds data (`data`) or a hole;
    /// ENXIO past the end.
    fn seek(&self, offset: u64, data: bool) -> Result<u64>;
    /// flock(LOCK_EX | LOCK_NB), until the handle is dropped; EWOULDBLOCK where another handle has it. A store
    /// without locks refuses.
    fn try_lock(&self) -> Result<()>;
}

/// An open directory of the store. Every `name` is one component.
pub trait Dir: Xattrs + Send + Sync {
    /// Opens a subdirectory; ELOOP or ENOTDIR for anything else.
    fn open_dir(&self, name: &[u8]) -> Result<Arc<dyn Dir>>;
    /// Opens an existing regular file; ELOOP for a symlink, EINVAL for a fifo, socket or device
    /// (which is never opened). Opens also what its own mode shuts its owner out of.
    fn open_file(&self, name: &[u8], access: Access) -> Result<Arc<dyn File>>;
    /// [`Dir::open_file`], with the attributes that [`File::stat`] gives.
    fn open_file_and_stat(&self, name: &[u8], access: Access) -> Result<(Arc<dyn File>, Stat)> {
        let file = self.open_file(name, access)?;
        let stat = file.stat()?;
        Ok((file, stat))
    }
    /// O_CREAT | O_EXCL | O_RDWR.
    fn create_file(&self, name: &[u8], mode: u32) -> Result<Arc<dyn File>>;
    /// mkdirat.
    fn create_dir(&self, name: &[u8], mode: u32) -> Result<()>;
    /// mknodat for fifos, sockets and devices (`kind` is one of those).
    fn create_node(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()>;
    /// symlinkat.
    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<()>;
    /// readlinkat.
    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>>;
    /// fstatat, no symlink followed.
    fn stat(&self, name: &[u8]) -> Result<Stat>;
    /// fstat of the directory itself.
    fn stat_self(&self) -> Result<Stat>;
    /// Mode of an entry, no symlink followed (EOPNOTSUPP for a symlink).
    fn set_mode(&self, name: &[u8], mode: u32) -> Result<()>;
    /// Owner of an entry, no symlink followed.
    fn set_owner(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()>;
    /// Times of an entry, no symlink followed.
    fn set_times(&self, name: &[u8], atime: SetTime, mtime: SetTime) -> Result<()>;
    /// Extended attributes of an entry, no symlink followed, nothing opened for I/O.
    fn entry_xattrs(&self, name: &[u8]) -> Result<Box<dyn Xattrs + '_>>;
    /// linkat.
    fn link(&self, name: &[u8], to: &dyn Dir, new: &[u8]) -> Result<()>;
    /// renameat2.
    fn rename(&self, name: &[u8], to: &dyn Dir, new: &[u8], how: Rename) -> Result<()>;
    /// unlinkat.
    fn unlink(&self, name: &[u8]) -> Result<()>;
    /// unlinkat, AT_REMOVEDIR.
    fn remove_dir(&self, name: &[u8]) -> Result<()>;
    /// Entries after `cookie` (0: from the start; `.` and `..` left out), until `visit` says
    /// false or the end. Cookies are the backing file system's own (d_off), and sure to mean the same
    /// in one `stream` from its start on.
    fn entries_of(
        &self,
        stream: &mut Stream,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()>;
    /// [`Dir::entries_of`] in a stream of its own.
    fn entries(&self, cookie: u64, visit: &mut dyn FnMut(Entry) -> bool) -> Result<()> {
        self.entries_of(&mut Stream::default(), cookie, visit)
    }
    /// fsync of the directory.
    fn sync(&self) -> Result<()>;
    /// syncfs of the file system that holds it.
    fn sync_fs(&self) -> Result<()>;
    /// Whether it is on a disk of this machine: errors then come with the write, and [`Dir::sync_fs`] covers what was
    /// written to open files. FUSE passes that call on to nobody, SMB asks the server for nothing.
    fn is_local(&self) -> bool;
    /// fstatvfs.
    fn space(&self) -> Result<Space>;
    /// For `link` and `rename`: the double or the POSIX handle behind `to`.
    fn as_any(&self) -> &dyn Any;
}
