//! A file's descriptor, which may outlive the connection of the file system that gave it: to sshfs, say, it is dead
//! for good once that has connected anew. The file behind it is then opened again.
//!
//! Opening again must hide no loss: what was written through the old descriptor and neither flushed nor synced may never
//! have arrived, and a flush or sync of the new one knows nothing of it. So the next one fails, once. What was flushed
//! may be lost with the server: that fails the next sync only.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result, retry_on_intr};

use super::shut::proc_path;

pub(super) struct Descriptor {
    current: RwLock<Arc<OwnedFd>>,
    /// Changes so far, begun or made.
    changes: AtomicU64,
    /// What flushes say.
    flushed: Word,
    /// What syncs say.
    synced: Word,
    /// It holds a lock, which another descriptor would not have.
    locked: AtomicBool,
}

/// How far one kind of call vouches for what was written.
#[derive(Default)]
struct Word {
    /// So many changes it has covered.
    covers: AtomicU64,
    /// Something that it has not covered may be lost, and nobody was told.
    doubtful: AtomicBool,
}

impl Word {
    /// The descriptor through which so many changes were made is no more.
    fn exchanged(&self, changes: u64) {
        if self.covers.fetch_max(changes, Ordering::SeqCst) < changes {
            self.doubtful.store(true, Ordering::SeqCst);
        }
    }
}

/// Closes another descriptor of the same open file: that alone has a file system tell what it keeps for close(2).
pub(super) fn close_another(fd: &OwnedFd) -> Result<()> {
    let another = rustix::io::fcntl_dupfd_cloexec(fd, 0)?.into_raw_fd();
    // SAFETY: nobody else has that number, and it is not used after this.
    match unsafe { libc::close(another) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

impl Descriptor {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            current: RwLock::new(Arc::new(fd)),
            changes: AtomicU64::new(0),
            flushed: Word::default(),
            synced: Word::default(),
            locked: AtomicBool::new(false),
        }
    }

    /// A call that writes no data, which the file that is opened again is asked once more.
    pub(super) fn ask<T>(&self, mut call: impl FnMut(&OwnedFd) -> Result<T>) -> Result<T> {
        let fd = self.fd();
        match retry_on_intr(|| call(&fd)) {
            Err(error) if self.open_again(&fd, error) => retry_on_intr(|| call(&self.fd())),
            done => done,
        }
    }

    /// A call that changes what the file holds. Where it fails somebody has to be told: it is not made again.
    pub(super) fn change<T>(&self, call: impl Fn(&OwnedFd) -> Result<T>) -> Result<T> {
        let fd = self.fd();
        self.changes.fetch_add(1, Ordering::SeqCst);
        let done = retry_on_intr(|| call(&fd)).inspect_err(|error| {
            self.open_again(&fd, *error);
        });
        // A sync that came in between knows nothing of it.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match Arc::ptr_eq(&current, &fd) {
            true => _ = self.changes.fetch_add(1, Ordering::SeqCst),
            false => {
                for word in [&self.flushed, &self.synced] {
                    word.doubtful.store(true, Ordering::SeqCst);
                }
            }
        }
        done
    }

    pub(super) fn flush(&self, call: impl Fn(&OwnedFd) -> Result<()>) -> Result<()> {
        self.vouch(&[&self.flushed], call)
    }

    pub(super) fn sync(&self, call: impl Fn(&OwnedFd) -> Result<()>) -> Result<()> {
        self.vouch(&[&self.flushed, &self.synced], call)
    }

    /// Fails, once, where one of the words is in doubt.
    fn vouch(&self, words: &[&Word], call: impl Fn(&OwnedFd) -> Result<()>) -> Result<()> {
        let fd = self.fd();
        let covered = self.changes.load(Ordering::SeqCst);
        retry_on_intr(|| call(&fd)).inspect_err(|error| {
            self.open_again(&fd, *error);
        })?;
        // Only now: others write and sync meanwhile, and one that fails covers nothing.
        for word in words {
            word.covers.fetch_max(covered, Ordering::SeqCst);
        }
        let exchanged = !Arc::ptr_eq(&self.fd(), &fd);
        let doubtful = words.iter().filter(|word| word.doubtful.swap(false, Ordering::SeqCst)).count();
        if doubtful > 0 || exchanged { Err(Errno::IO) } else { Ok(()) }
    }

    pub(super) fn lock(&self, call: impl Fn(&OwnedFd) -> Result<()>) -> Result<()> {
        self.locked.store(true, Ordering::SeqCst);
        retry_on_intr(|| call(&self.fd()))
    }

    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is another descriptor than `dead` now.
    fn open_again(&self, dead: &Arc<OwnedFd>, error: Errno) -> bool {
        if !matches!(error, Errno::IO | Errno::STALE | Errno::BADF) || self.locked.load(Ordering::SeqCst) {
            return false;
        }
        // By the kernel's own link, so that it is the same file whatever its name is now. It may take long: no lock is
        // held meanwhile.
        let path = proc_path(dead);
        let opened = rustix::fs::fcntl_getfl(dead).and_then(|flags| {
            let flags = (flags & OFlags::ACCMODE) | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            retry_on_intr(|| rustix::fs::openat(CWD, path.as_str(), flags, Mode::empty()))
        });
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, dead) {
            return true;
        }
        let Ok(fd) = opened else { return false };
        let changes = self.changes.load(Ordering::SeqCst);
        for word in [&self.flushed, &self.synced] {
            word.exchanged(changes);
        }
        *current = Arc::new(fd);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn descriptor() -> (tempfile::NamedTempFile, Descriptor) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let descriptor = Descriptor::new(file.reopen().unwrap().into());
        (file, descriptor)
    }

    /// Fails on the descriptor that is dead.
    fn answers<T>(dead: i32, fd: &OwnedFd, call: impl FnOnce(&OwnedFd) -> Result<T>) -> Result<T> {
        if fd.as_raw_fd() == dead { Err(Errno::IO) } else { call(fd) }
    }

    #[test]
    fn who_reads_never_notices() {
        let (file, descriptor) = descriptor();
        std::fs::write(file.path(), b"there").unwrap();
        let dead = descriptor.fd().as_raw_fd();
        let mut read = [0; 5];
        let n = descriptor.ask(|fd| answers(dead, fd, |fd| rustix::io::pread(fd, &mut read[..], 0)));
        assert_eq!((n, &read), (Ok(5), b"there"));
        assert_ne!(descriptor.fd().as_raw_fd(), dead);
        descriptor.sync(|_| Ok(())).unwrap();
    }

    #[test]
    fn what_was_written_and_not_synced_fails_the_next_sync_once() {
        let (_file, descriptor) = descriptor();
        let sync = || descriptor.sync(|fd| rustix::fs::fdatasync(fd));
        descriptor.change(|fd| rustix::io::pwrite(fd, b"synced", 0)).unwrap();
        sync().unwrap();
        let dead = descriptor.fd().as_raw_fd();
        descriptor.ask(|fd| answers(dead, fd, |_| Ok(()))).unwrap();
        sync().unwrap();
        descriptor.change(|fd| rustix::io::pwrite(fd, b"not", 0)).unwrap();
        let dead = descriptor.fd().as_raw_fd();
        descriptor.ask(|fd| answers(dead, fd, |_| Ok(()))).unwrap();
        assert_eq!(sync(), Err(Errno::IO));
        sync().unwrap();
    }

    #[test]
    fn what_was_flushed_is_in_doubt_for_a_sync_only() {
        let (_file, descriptor) = descriptor();
        let flush = || descriptor.flush(close_another);
        let sync = || descriptor.sync(|fd| rustix::fs::fdatasync(fd));
        let exchange = || {
            let dead = descriptor.fd().as_raw_fd();
            descriptor.ask(|fd| answers(dead, fd, |_| Ok(()))).unwrap();
        };
        let write = || descriptor.change(|fd| rustix::io::pwrite(fd, b"x", 0)).unwrap();
        write();
        flush().unwrap();
        exchange();
        assert_eq!((flush(), sync(), sync()), (Ok(()), Err(Errno::IO), Ok(())));
        write();
        exchange();
        assert_eq!((flush(), flush(), sync()), (Err(Errno::IO), Ok(()), Err(Errno::IO)));
        write();
        sync().unwrap();
        exchange();
        assert_eq!((flush(), sync()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_change_that_failed_is_told_and_the_next_one_works() {
        let (_file, descriptor) = descriptor();
        let dead = descriptor.fd().as_raw_fd();
        let write = |fd: &OwnedFd| answers(dead, fd, |fd| rustix::io::pwrite(fd, b"x", 0));
        assert_eq!(descriptor.change(write), Err(Errno::IO));
        assert_eq!(descriptor.change(write), Ok(1));
        assert_eq!(descriptor.sync(|_| Ok(())), Err(Errno::IO));
        // A sync that failed has told one caller; the next one is told too.
        descriptor.change(write).unwrap();
        let dead = descriptor.fd().as_raw_fd();
        let sync = || descriptor.sync(|fd| answers(dead, fd, |_| Ok(())));
        assert_eq!((sync(), sync(), sync()), (Err(Errno::IO), Err(Errno::IO), Ok(())));
    }

    #[test]
    fn a_write_beside_a_sync_and_an_exchange_is_in_doubt() {
        let (_file, descriptor) = descriptor();
        let sync = || descriptor.sync(|fd| rustix::fs::fdatasync(fd));
        let exchange = || {
            let dead = descriptor.fd().as_raw_fd();
            descriptor.ask(|fd| answers(dead, fd, |_| Ok(())))
        };
        let written = descriptor.change(|fd| {
            sync()?;
            let n = rustix::io::pwrite(fd, b"x", 0)?;
            exchange()?;
            Ok(n)
        });
        assert_eq!(written, Ok(1));
        assert_eq!((sync(), sync()), (Err(Errno::IO), Ok(())));
        assert_eq!(descriptor.sync(|_| exchange()), Err(Errno::IO));
    }

    #[test]
    fn other_errors_and_locks_keep_it() {
        let (_file, descriptor) = descriptor();
        let first = descriptor.fd().as_raw_fd();
        assert_eq!(descriptor.ask(|_| Err::<(), _>(Errno::NOSPC)), Err(Errno::NOSPC));
        assert_eq!(descriptor.fd().as_raw_fd(), first);
        descriptor.lock(|_| Ok(())).unwrap();
        assert_eq!(descriptor.ask(|_| Err::<(), _>(Errno::IO)), Err(Errno::IO));
        assert_eq!(descriptor.fd().as_raw_fd(), first);
    }
}
