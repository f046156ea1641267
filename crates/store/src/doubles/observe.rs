//! A hook around every call to a store: what recording, faulty and delaying stores are made of.

mod change;
mod dir;
mod file;

use std::io::Result;
use std::sync::Arc;

pub use self::change::{Change, Made};
use crate::backend::Dir;

/// Which function of [`Dir`], [`crate::backend::File`] or [`crate::backend::Xattrs`] was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Op {
    Read,
    Write,
    SetLen,
    Allocate,
    Punch,
    Flush,
    SyncData,
    SyncAll,
    SyncDir,
    SyncFs,
    OpenDir,
    OpenFile,
    CreateFile,
    CreateDir,
    CreateNode,
    CreateSymlink,
    ReadLink,
    Stat,
    SetMode,
    SetOwner,
    SetTimes,
    GetXattr,
    SetXattr,
    RemoveXattr,
    Link,
    Rename,
    Unlink,
    RemoveDir,
    Entries,
    Space,
    Advise,
    Forget,
    Seek,
    Lock,
}

/// One call, before it is made.
#[derive(Debug)]
pub struct Call<'a> {
    /// The function.
    pub op: Op,
    /// Inode number of the file or directory whose handle was used.
    pub ino: u64,
    /// The entry it is about; for link and rename the old one. Empty for calls on a handle itself.
    pub name: &'a [u8],
    /// What it will change or sync, if anything.
    pub change: Option<Change<'a>>,
}

/// Stands between the caller and the store.
pub trait Observer: Send + Sync {
    /// Makes the call by `run`, or does not and gives an error in its place. `run` tells the inode
    /// number of what it made, 0 where it makes nothing.
    ///
    /// # Errors
    /// That of `run`, or the observer's own.
    fn around(&self, call: Call<'_>, run: &mut dyn FnMut() -> Result<u64>) -> Result<()>;

    /// It stands for a network: see [`Dir::is_local`].
    fn is_remote(&self) -> bool {
        false
    }
}

/// The same store, with `observer` around every call to it and to what is opened through it.
///
/// # Errors
/// When the directory has no stat.
pub fn observe(store: Arc<dyn Dir>, observer: Arc<dyn Observer>) -> Result<Arc<dyn Dir>> {
    Ok(Arc::new(dir::ObservedDir::new(store, observer)?))
}
