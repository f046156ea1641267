//! The files of `<state dir>/<vault id>/`, 0700: one per machine and vault that writes.
//!
//! ```text
//! identity      the gateway's key file, no lock but its mode 0600
//! kek/<t>       KEK_t, 32 bytes, 0600: seals the resume entries; replaced at every seal
//! kek/home      which NV indices of the TPM hold KEK_t instead, and what opens them
//! resume/<t>/<run id>   key and session of each open run, sealed under KEK_t
//! head          {seq, hash, run}: the newest run of this gateway
//! pending       run.json of a run that is being made
//! ledger/<run id>       what was written to each open run, for its seal to compare
//! seals         {n, hash, run}: the newest seal of this gateway
//! pending-seal  seal.note of a run that is being sealed
//! sealed-names  which names were sealed here, as keyed hashes, a line each
//! index/<identity id>   what earlier mounts of an identity found out about sealed runs, sealed under it
//! sealed        which seals this machine has seen, a line each
//! checked/      what a `verify` or `scrub` that is at work has found as it was sealed
//! pins          what this machine has seen of the vault's chain
//! rollbacks     which older chains a person accepted, a line each
//! lock          flock of the one writing mount: its pid and mount point, a line each
//! pins.lock     flock of whoever changes `pins`
//! control.sock  of the writing mount
//! ```
//! Everything but the locks, the socket, and `sealed`, `sealed-names` and ledgers, to which lines are appended, is written by temporary, fsync, rename, fsync.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use runvault_format::ids::VaultId;
use runvault_store::backend::{Access, Dir};
use runvault_store::posix::open_root;
use runvault_store::replace::replace;
use rustix::fs::FlockOperation;

use crate::layout::{self, SECRET_MODE};
use crate::{Error, Result};

/// Larger files were not written by this program.
const FILE_MAX: usize = 1 << 20;
/// A path and a number.
const LOCK_MAX: u64 = 16 << 10;
/// How long the last calls of a killed process are waited for.
const LAST_CALLS: Duration = Duration::from_secs(10);

/// One folder, opened; locked where it was opened so.
pub(crate) struct Folder {
    path: PathBuf,
    dir: Arc<dyn Dir>,
    lock: Option<Mutex<File>>,
}

impl Folder {
    /// Makes or opens the folder of a vault, without its lock.
    pub(crate) fn open(state_dir: &Path, vault: &VaultId) -> Result<Self> {
        let path = state_dir.join(vault.to_string());
        let shown = path.display().to_string();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|e| Error::io("mkdir", shown.clone(), e))?;
        let dir = open_root(&path).map_err(|e| Error::io("open", shown, e))?;
        Ok(Self { path, dir, lock: None })
    }

    /// The folder of a vault, without its lock and without making anything; `None` where there is none.
    pub(crate) fn existing(state_dir: &Path, vault: &VaultId) -> Result<Option<Self>> {
        let path = state_dir.join(vault.to_string());
        match open_root(&path) {
            Ok(dir) => Ok(Some(Self { path, dir, lock: None })),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(Error::io("open", path.display().to_string(), e)),
        }
    }

    /// The folder in any directory: for the doubles of the store.
    #[cfg(test)]
    pub(crate) fn on(dir: Arc<dyn Dir>) -> Self {
        Self { path: PathBuf::from("state"), dir, lock: None }
    }

    /// Takes the lock of the one writer; it is held until the folder is dropped. A holder that was killed is waited
    /// for: it lets go once its last call to the store has ended.
    pub(crate) fn locked(mut self) -> Result<Self> {
        let mut file = self.lock_file("lock")?;
        let until = Instant::now() + LAST_CALLS;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(e) => return Err(Error::io("lock", self.shown("lock"), e.into())),
            }
            let (pid, mountpoint) = holder(&mut file);
            if !runvault_vault::is_on_its_way_out(pid) || Instant::now() >= until {
                return Err(Error::Busy { pid, mountpoint });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.lock = Some(Mutex::new(file));
        self.note_holder(None)?;
        Ok(self)
    }

    /// Opens or makes a file that is locked. What is no regular file is refused, and a fifo does not make
    /// this wait.
    pub(crate) fn lock_file(&self, name: &str) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(SECRET_MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(self.path.join(name));
        let odd = || Error::Damaged { object: self.shown(name), why: "not a regular file".to_owned() };
        match file {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file()) => Ok(file),
            Ok(_) => Err(odd()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO)) => {
                Err(odd())
            }
            Err(e) => Err(Error::io("open", self.shown(name), e)),
        }
    }

    /// Writes who holds the lock: this process, and where it is mounted.
    pub(crate) fn note_holder(&self, mountpoint: Option<&Path>) -> Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let mut text = format!("{}\n", std::process::id()).into_bytes();
        if let Some(mountpoint) = mountpoint {
            text.extend_from_slice(mountpoint.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let mut file = lock.lock().unwrap_or_else(PoisonError::into_inner);
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(&text))
            .map_err(|e| Error::io("write", self.shown("lock"), e))
    }

    /// How messages name a file of the folder.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Arc<dyn Dir> {
        &self.dir
    }

    /// A subfolder, made if it is missing.
    pub(crate) fn subfolder(&self, name: &str) -> Result<Self> {
        let dir = layout::ensure_dir(&self.dir, name, 0o700, &self.shown(name))?;
        self.dir.sync().map_err(|e| Error::io("sync", self.shown(""), e))?;
        Ok(Self { path: self.path.join(name), dir, lock: None })
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        layout::read_if_there(&self.dir, name, &self.shown(name), FILE_MAX)
    }

    /// A file with a secret in the clear: refused where others can read it.
    pub(crate) fn read_secret(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        let mode = self.dir.stat(name.as_bytes()).map_err(|e| Error::io("stat", self.shown(name), e))?.mode;
        if mode & 0o077 != 0 {
            return Err(Error::Permissions { path: self.path.join(name), mode });
        }
        Ok(Some(bytes))
    }

    /// Durable and whole, or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace(&*self.dir, name.as_bytes(), bytes, SECRET_MODE)
            .map_err(|e| Error::io("write", self.shown(name), e))
    }

    /// Another handle on it, without its lock.
    pub(crate) fn again(&self) -> Self {
        Self { path: self.path.clone(), dir: self.dir.clone(), lock: None }
    }

    /// Overwritten in its place, then gone; durable. A file system that writes elsewhere, and a backup, keep it.
    pub(crate) fn wipe(&self, name: &str) -> Result<()> {
        let io = |operation| move |e| Error::io(operation, self.shown(name), e);
        let file = self.dir.open_file(name.as_bytes(), Access::ReadWrite).map_err(io("open"))?;
        let len = file.stat().map_err(io("stat"))?.size.min(FILE_MAX as u64);
        file.write_at(&vec![0; len as usize], 0).and_then(|()| file.sync_all()).map_err(io("overwrite"))?;
        self.remove(name)
    }

    /// An empty subfolder goes.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<()> {
        let removed = self.dir.remove_dir(name.as_bytes()).and_then(|()| self.dir.sync());
        removed.map_err(|e| Error::io("remove", self.shown(name), e))
    }

    /// Gone, durably; nothing if it was not there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match self.dir.unlink(name.as_bytes()) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(e) => Err(Error::io("remove", self.shown(name), e)),
            Ok(()) => self.dir.sync().map_err(|e| Error::io("sync", self.shown(""), e)),
        }
    }
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Folder({})", self.path.display())
    }
}

/// Who holds the lock, as the lock file tells: process and mount point.
fn holder(file: &mut File) -> (u32, Option<PathBuf>) {
    let mut text = Vec::new();
    // What cannot be read is told as process 0: busy it is all the same.
    let _ = file.rewind().and_then(|()| file.take(LOCK_MAX).read_to_end(&mut text));
    let mut lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let pid = lines.next().and_then(|l| std::str::from_utf8(l).ok()?.parse().ok()).unwrap_or(0);
    let mountpoint = lines.next().map(|l| PathBuf::from(std::ffi::OsString::from_vec(l.to_vec())));
    (pid, mountpoint)
}
