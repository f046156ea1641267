//! What its own mode shuts its owner out of: root never meets this, anyone else does. The mode is
//! widened for the one call and put back.

use std::io::Result;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::open;

/// Changes of modes take turns, so that none puts back what another had widened.
static MODES: Mutex<()> = Mutex::new(());

pub(super) fn turn() -> MutexGuard<'static, ()> {
    MODES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name by which calls that take a path reach an O_PATH descriptor.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens an entry that is shut by its own mode, or whose directory is; `needed` are the bits of
/// the owner that the call wants.
pub(super) fn open(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags, needed: u32) -> Result<OwnedFd> {
    let handle = open::handle(dir, name)?;
    let path = proc_path(&handle);
    let _turn = turn();
    let widened = Widened::new(handle.as_fd(), needed)?;
    // The link in /proc leads to the very object that the handle holds.
    let flags = flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&*path, flags, Mode::empty());
    widened.map_or(Ok(()), |w| w.put_back())?;
    Ok(opened?)
}

/// Runs `call`, again with wider modes where directories shut their owner out of it.
pub(super) fn within<T>(dirs: &[BorrowedFd<'_>], call: impl Fn() -> rustix::io::Result<T>) -> Result<T> {
    match call() {
        Err(Errno::ACCESS) => {}
        done => return Ok(done?),
    }
    let _turn = turn();
    let mut widened = Vec::new();
    for dir in dirs {
        widened.extend(Widened::new(*dir, 0o700)?);
    }
    let result = call();
    for each in widened.iter().rev() {
        each.put_back()?;
    }
    Ok(result?)
}

struct Widened {
    path: String,
    mode: u32,
}

impl Widened {
    /// `None` where the mode is not what is in the way, or is not ours to change.
    fn new(fd: BorrowedFd<'_>, needed: u32) -> Result<Option<Self>> {
        let stat = rustix::fs::fstat(fd)?;
        let mode = stat.st_mode & 0o7777;
        if stat.st_uid != rustix::process::geteuid().as_raw() || mode & needed == needed {
            return Ok(None);
        }
        let widened = Self { path: proc_path(fd), mode };
        rustix::fs::chmod(&*widened.path, Mode::from_raw_mode(mode | needed))?;
        Ok(Some(widened))
    }

    fn put_back(&self) -> Result<()> {
        Ok(rustix::fs::chmod(&*self.path, Mode::from_raw_mode(self.mode))?)
    }
}
