//! The types that [`crate::Vault`]'s calls take and give: POSIX, without FUSE.

use runvault_store::backend::{Kind, SetTime, Time};

/// Number of a node; stable while the vault is open and, as `st_ino`, across mounts.
pub type Ino = u64;

/// The root of the mount.
pub const ROOT: Ino = 1;

/// An open file or directory.
pub type Handle = u64;

/// What `stat` shows; sizes and times are the plaintext's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Attr {
    pub ino: Ino,
    /// Distinguishes two objects that had the same number one after the other.
    pub generation: u64,
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
    /// Nobody but this mount changes it: what is said here holds until it does.
    pub ours: bool,
    /// It is a file that is open: the next read of it may show another size.
    pub open: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// The process's umask; applied by the vault unless a default ACL governs.
    pub umask: u32,
}

/// What `setattr` changes; `None` and `Omit` leave a thing as it is.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
    /// The kernel asks us to strip suid and sgid (FUSE_HANDLE_KILLPRIV_V2).
    pub kill_suidgid: bool,
}

impl SetAttr {
    /// Leaves everything as it is.
    pub const NOTHING: Self = Self {
        mode: None,
        uid: None,
        gid: None,
        size: None,
        atime: SetTime::Omit,
        mtime: SetTime::Omit,
        kill_suidgid: false,
    };
}

/// How a file is opened, reduced to what matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OpenFlags {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
    pub append: bool,
    /// Strip suid and sgid at a truncating open (FUSE_OPEN_KILL_SUIDGID).
    pub kill_suidgid: bool,
}

/// What `open` learned, for the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle, for read, write, release.
    pub handle: Handle,
    /// Inode, size and mtime are as last seen: cached pages may stay.
    pub keep_cache: bool,
    /// Another process may change it while it is open.
    pub shared: bool,
}

/// One name of a directory listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Plaintext name, also `.` and `..`.
    pub name: Vec<u8>,
    /// Node number, as `lookup` would give it.
    pub ino: Ino,
    /// Its type.
    pub kind: Kind,
    /// Where the listing continues after this entry.
    pub next: u64,
    /// With `readdirplus`: the attributes, and a lookup reference taken for them.
    pub attr: Option<Attr>,
}

/// fallocate(2)'s modes that exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Allocate {
    Plain,
    KeepSize,
    PunchHole,
    ZeroRange { keep_size: bool },
}
