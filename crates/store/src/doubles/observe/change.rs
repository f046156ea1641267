//! What a call changes or makes durable.

use std::borrow::Cow;

use crate::backend::{Kind, Rename, SetTime};

/// Bytes that a call borrows and a log owns.
type Bytes<'a> = Cow<'a, [u8]>;

/// A change of the store, or a sync. Files and directories are told by inode number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change<'a> {
    /// `ino` is filled in when the call has been made.
    Create {
        dir: u64,
        name: Bytes<'a>,
        ino: u64,
        made: Made<'a>,
    },
    Link {
        dir: u64,
        name: Bytes<'a>,
        to: u64,
        new: Bytes<'a>,
    },
    Rename {
        dir: u64,
        name: Bytes<'a>,
        to: u64,
        new: Bytes<'a>,
        how: Rename,
    },
    /// unlink and rmdir.
    Remove {
        dir: u64,
        name: Bytes<'a>,
    },
    Write {
        ino: u64,
        offset: u64,
        bytes: Bytes<'a>,
    },
    SetLen {
        ino: u64,
        len: u64,
    },
    Allocate {
        ino: u64,
        offset: u64,
        len: u64,
        keep_size: bool,
    },
    Punch {
        ino: u64,
        offset: u64,
        len: u64,
    },
    /// The following are about `name` in directory `ino`, or about `ino` itself without a name.
    Mode {
        ino: u64,
        name: Option<Bytes<'a>>,
        mode: u32,
    },
    Owner {
        ino: u64,
        name: Option<Bytes<'a>>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Times {
        ino: u64,
        name: Option<Bytes<'a>>,
        atime: SetTime,
        mtime: SetTime,
    },
    SetXattr {
        ino: u64,
        key: Bytes<'a>,
        value: Bytes<'a>,
    },
    RemoveXattr {
        ino: u64,
        key: Bytes<'a>,
    },
    /// fdatasync (`data_only`) or fsync of a file.
    SyncFile {
        ino: u64,
        data_only: bool,
    },
    SyncDir {
        ino: u64,
    },
    SyncFs,
}

/// What a new name was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Made<'a> {
    File { mode: u32 },
    Dir { mode: u32 },
    Symlink { target: Bytes<'a> },
    Node { kind: Kind, mode: u32, rdev: u64 },
}

impl Change<'_> {
    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Change<'static> {
        let own = |bytes: Bytes<'_>| Cow::Owned(bytes.into_owned());
        let own_name = |name: Option<Bytes<'_>>| name.map(own);
        match self {
            Self::Create { dir, name, ino, made } => {
                Change::Create { dir, name: own(name), ino, made: made.into_owned() }
            }
            Self::Link { dir, name, to, new } => Change::Link { dir, name: own(name), to, new: own(new) },
            Self::Rename { dir, name, to, new, how } => {
                Change::Rename { dir, name: own(name), to, new: own(new), how }
            }
            Self::Remove { dir, name } => Change::Remove { dir, name: own(name) },
            Self::Write { ino, offset, bytes } => Change::Write { ino, offset, bytes: own(bytes) },
            Self::SetLen { ino, len } => Change::SetLen { ino, len },
            Self::Allocate { ino, offset, len, keep_size } => {
                Change::Allocate { ino, offset, len, keep_size }
            }
            Self::Punch { ino, offset, len } => Change::Punch { ino, offset, len },
            Self::Mode { ino, name, mode } => Change::Mode { ino, name: own_name(name), mode },
            Self::Owner { ino, name, uid, gid } => Change::Owner { ino, name: own_name(name), uid, gid },
            Self::Times { ino, name, atime, mtime } => {
                Change::Times { ino, name: own_name(name), atime, mtime }
            }
            Self::SetXattr { ino, key, value } => Change::SetXattr { ino, key: own(key), value: own(value) },
            Self::RemoveXattr { ino, key } => Change::RemoveXattr { ino, key: own(key) },
            Self::SyncFile { ino, data_only } => Change::SyncFile { ino, data_only },
            Self::SyncDir { ino } => Change::SyncDir { ino },
            Self::SyncFs => Change::SyncFs,
        }
    }
}

impl Made<'_> {
    fn into_owned(self) -> Made<'static> {
        match self {
            Self::File { mode } => Made::File { mode },
            Self::Dir { mode } => Made::Dir { mode },
            Self::Symlink { target } => Made::Symlink { target: Cow::Owned(target.into_owned()) },
            Self::Node { kind, mode, rdev } => Made::Node { kind, mode, rdev },
        }
    }
}
