//! A vault that is open: the calls that a mount, or a program without one, makes.

use std::sync::Arc;
use std::time::Duration;

use runvault_format::ids::RunId;
use runvault_store::backend::{Dir, Kind, Rename, Space};

use crate::Result;
use crate::api::{Allocate, Attr, Caller, DirEntry, Handle, Ino, OpenFlags, Opened, SetAttr};
use crate::authority::{Authority, Gateway};

/// How a vault is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Depth at which a directory is a run: 1 for `<run>/`, 2 for `<instrument>/<run>/`.
    pub run_depth: u32,
    /// Owner, group and the mode bits that are kept, for everything that is shown (readers' mounts;
    /// the store's own are not trusted there). `None`: the store's.
    pub owner: Option<(u32, u32, u32)>,
    /// How long changed bytes of durable chunks and a partial tail may wait in memory.
    pub delay: Duration,
    /// Bytes of each of a run's two journal files.
    pub journal_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { run_depth: 1, owner: None, delay: Duration::from_secs(1), journal_bytes: 16 << 20 }
    }
}

/// One run, as `status` shows it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct RunStatus {
    pub run: RunId,
    /// Its plaintext name; `None` where it does not open for this identity.
    pub name: Option<Vec<u8>>,
    /// Written by this mount.
    pub writing: bool,
    /// Who writes it, where that is someone else.
    pub holder: Option<String>,
    /// Why it cannot be used, where that is so.
    pub trouble: Option<String>,
}

/// What a live vault tells of itself.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Status {
    pub runs: Vec<RunStatus>,
    pub files_written: u64,
    pub bytes_written: u64,
    pub bytes_read: u64,
    pub open_handles: u64,
    pub known_nodes: u64,
    /// Names in tree/ that are not ours, hidden.
    pub foreign_names: u64,
    /// Seconds since the last completed sync of the store, where there was one.
    pub last_sync_seconds: Option<u64>,
}

/// An open vault: POSIX calls on plaintext names, ciphertext in the store.
///
/// Read-write exactly when a [`Gateway`] is given. All calls may come from many threads.
pub struct Vault {}

#[allow(unused_variables, missing_docs)]
impl Vault {
    /// Opens the store's runs, recovers those that this gateway holds (journals), makes or adopts
    /// nothing else. `root` is the store's root directory.
    pub fn open(
        root: Arc<dyn Dir>,
        authority: Arc<dyn Authority>,
        gateway: Option<Arc<dyn Gateway>>,
        options: Options,
    ) -> Result<Arc<Vault>> {
        todo!()
    }
    /// Looks for runs that came since (readers), renews leases (writers), lets waiting bytes out.
    /// Called by one thread every 250 ms while the vault is open.
    pub fn tick(&self) -> Result<()> {
        todo!()
    }
    /// Everything durable, journals removed, leases given up. Later calls fail with `Closed`.
    pub fn close(&self) -> Result<()> {
        todo!()
    }
    pub fn status(&self) -> Status {
        todo!()
    }
    pub fn read_only(&self) -> bool {
        todo!()
    }

    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        todo!()
    }
    /// Takes `n` lookup references of the kernel back.
    pub fn forget(&self, ino: Ino, n: u64) {
        todo!()
    }
    pub fn getattr(&self, ino: Ino, handle: Option<Handle>) -> Result<Attr> {
        todo!()
    }
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Option<Handle>,
        change: &SetAttr,
    ) -> Result<Attr> {
        todo!()
    }
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        todo!()
    }
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        rdev: u64,
    ) -> Result<Attr> {
        todo!()
    }
    /// At run depth this makes a run.
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        todo!()
    }
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        todo!()
    }
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        todo!()
    }
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        todo!()
    }
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        todo!()
    }
    /// EXDEV (`CrossRun`) between runs.
    pub fn rename(&self, parent: Ino, name: &[u8], to: Ino, new: &[u8], how: Rename) -> Result<()> {
        todo!()
    }

    /// O_CREAT | O_EXCL by the kernel's view: an existing name is `Exists`.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Attr, Opened)> {
        todo!()
    }
    pub fn open_file(&self, ino: Ino, flags: OpenFlags) -> Result<Opened> {
        todo!()
    }
    /// Bytes read; fewer than asked only at the end of the file.
    pub fn read(&self, handle: Handle, offset: u64, buf: &mut [u8]) -> Result<usize> {
        todo!()
    }
    /// All of `data`. `kill_suidgid`: strip suid and sgid (FUSE_WRITE_KILL_SUIDGID). With an append
    /// handle the kernel has resolved the offset.
    pub fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_suidgid: bool) -> Result<()> {
        todo!()
    }
    pub fn flush(&self, handle: Handle) -> Result<()> {
        todo!()
    }
    pub fn release(&self, handle: Handle) -> Result<()> {
        todo!()
    }
    pub fn fsync(&self, handle: Handle, data_only: bool) -> Result<()> {
        todo!()
    }
    pub fn fallocate(&self, handle: Handle, offset: u64, len: u64, mode: Allocate) -> Result<()> {
        todo!()
    }
    /// SEEK_DATA (`data`) or SEEK_HOLE.
    pub fn seek(&self, handle: Handle, offset: u64, data: bool) -> Result<u64> {
        todo!()
    }

    pub fn opendir(&self, ino: Ino) -> Result<Handle> {
        todo!()
    }
    /// Entries after `cookie` (0: the start), `.` and `..` first, until `visit` gives false.
    /// `plus`: entries carry attributes, and each visited entry took a lookup reference (not `.` and
    /// `..`); when `visit` gives false the entry that it refused took none.
    pub fn readdir(
        &self,
        handle: Handle,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        todo!()
    }
    pub fn releasedir(&self, handle: Handle) -> Result<()> {
        todo!()
    }
    pub fn fsyncdir(&self, handle: Handle) -> Result<()> {
        todo!()
    }
    pub fn statfs(&self) -> Result<Space> {
        todo!()
    }

    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        todo!()
    }
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        todo!()
    }
    /// `flags` as for setxattr(2).
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        todo!()
    }
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        todo!()
    }
}
