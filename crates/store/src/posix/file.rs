//! An open regular file.

use std::io::Result;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use super::attributes::{self, OfFd};
use super::descriptor::{self, Descriptor};
use super::shut;
use crate::backend::{File, SetTime, Stat, Xattrs};

pub(super) struct PosixFile(Descriptor);

impl PosixFile {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(Descriptor::new(fd))
    }
}

impl File for PosixFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        Ok(self.0.ask(|fd| {
            let mut done = 0;
            while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match retry_on_intr(|| rustix::io::pread(fd, &mut *rest, offset + done as u64))? {
                    0 => break,
                    n => done += n,
                }
            }
            Ok(done)
        })?)
    }

    fn write_at(&self, mut buf: &[u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let n = self.0.change(|fd| rustix::io::pwrite(fd, buf, offset))?;
            if n == 0 {
                return Err(Errno::IO.into());
            }
            buf = buf.get(n..).unwrap_or_default();
            offset += n as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        Ok(self.0.change(|fd| rustix::fs::ftruncate(fd, len))?)
    }

    fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let flags = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        Ok(self.0.change(|fd| rustix::fs::fallocate(fd, flags, offset, len))?)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(self.0.change(|fd| rustix::fs::fallocate(fd, flags, offset, len))?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.0.flush(descriptor::close_another)?)
    }

    fn sync_data(&self) -> Result<()> {
        Ok(self.0.sync(|fd| rustix::fs::fdatasync(fd))?)
    }

    fn sync_all(&self) -> Result<()> {
        Ok(self.0.sync(|fd| rustix::fs::fsync(fd))?)
    }

    fn stat(&self) -> Result<Stat> {
        attributes::statx(&self.0.ask(attributes::ask)?)
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        let _turn = shut::turn();
        Ok(self.0.ask(|fd| rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)))?)
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = attributes::owner(uid, gid);
        Ok(self.0.ask(|fd| rustix::fs::fchown(fd, uid, gid))?)
    }

    fn set_times(&self, atime: SetTime, mtime: SetTime) -> Result<()> {
        Ok(self.0.ask(|fd| rustix::fs::futimens(fd, &attributes::timestamps(atime, mtime)))?)
    }

    fn will_read(&self, len: u64) {
        // A hint: file systems that know nothing of it do as well without.
        let _ = rustix::fs::fadvise(self.0.fd(), 0, NonZeroU64::new(len), Advice::WillNeed);
    }

    fn will_not_need(&self) {
        let _ = rustix::fs::fadvise(self.0.fd(), 0, None, Advice::DontNeed);
    }

    fn seek(&self, offset: u64, data: bool) -> Result<u64> {
        let to = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        Ok(self.0.ask(|fd| rustix::fs::seek(fd, to))?)
    }

    fn try_lock(&self) -> Result<()> {
        Ok(self.0.lock(|fd| rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive))?)
    }
}

impl Xattrs for PosixFile {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        OfFd(&self.0.fd()).xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        OfFd(&self.0.fd()).xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        OfFd(&self.0.fd()).set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        OfFd(&self.0.fd()).remove_xattr(name)
    }
}
