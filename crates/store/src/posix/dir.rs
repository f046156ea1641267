//! An open directory.

use std::any::Any;
use std::io::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::attributes::{self, OfEntry, OfFd};
use super::file::PosixFile;
use super::open::{self, component};
use super::{listing, local, shut};
use crate::backend::{Access, Dir, Entry, File, Kind, Rename, SetTime, Space, Stat, Stream, Xattrs};

pub(super) struct PosixDir {
    fd: OwnedFd,
}

impl PosixDir {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn within<T>(&self, call: impl Fn() -> rustix::io::Result<T>) -> Result<T> {
        shut::within(&[self.fd()], call)
    }

    /// The same kind of directory behind `other`; another store's is on another file system.
    fn sibling(other: &dyn Dir) -> Result<&Self> {
        other.as_any().downcast_ref().ok_or_else(|| Errno::XDEV.into())
    }
}

impl Dir for PosixDir {
    fn open_dir(&self, name: &[u8]) -> Result<Arc<dyn Dir>> {
        Ok(Arc::new(Self::new(open::directory(self.fd(), component(name)?)?)))
    }

    fn open_file(&self, name: &[u8], access: Access) -> Result<Arc<dyn File>> {
        Ok(self.open_file_and_stat(name, access)?.0)
    }

    fn open_file_and_stat(&self, name: &[u8], access: Access) -> Result<(Arc<dyn File>, Stat)> {
        let (fd, stat) = open::regular_file(self.fd(), component(name)?, access)?;
        Ok((Arc::new(PosixFile::new(fd)), stat))
    }

    fn create_file(&self, name: &[u8], mode: u32) -> Result<Arc<dyn File>> {
        let name = component(name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let fd = self.within(|| open::beneath(self.fd(), name, flags, mode & 0o7777))?;
        Ok(Arc::new(PosixFile::new(fd)))
    }

    fn create_dir(&self, name: &[u8], mode: u32) -> Result<()> {
        let name = component(name)?;
        self.within(|| rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)))
    }

    fn create_node(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()> {
        let name = component(name)?;
        let file_type = match kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::File | Kind::Dir | Kind::Symlink => return Err(Errno::INVAL.into()),
        };
        self.within(|| rustix::fs::mknodat(&self.fd, name, file_type, Mode::from_raw_mode(mode), rdev))
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        let name = component(name)?;
        self.within(|| rustix::fs::symlinkat(target, &self.fd, name))
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let name = component(name)?;
        let target = self.within(|| rustix::fs::readlinkat(&self.fd, name, Vec::with_capacity(256)))?;
        Ok(target.into_bytes())
    }

    fn stat(&self, name: &[u8]) -> Result<Stat> {
        let name = component(name)?;
        attributes::stat(&self.within(|| rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?)
    }

    fn stat_self(&self) -> Result<Stat> {
        attributes::stat(&rustix::fs::fstat(&self.fd)?)
    }

    fn set_mode(&self, name: &[u8], mode: u32) -> Result<()> {
        let handle = open::handle(self.fd(), component(name)?)?;
        let found = FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode);
        if found == FileType::Symlink {
            return Err(Errno::OPNOTSUPP.into());
        }
        let _turn = shut::turn();
        Ok(rustix::fs::chmod(shut::proc_path(&handle), Mode::from_raw_mode(mode))?)
    }

    fn set_owner(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let name = component(name)?;
        let (uid, gid) = attributes::owner(uid, gid);
        self.within(|| rustix::fs::chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
    }

    fn set_times(&self, name: &[u8], atime: SetTime, mtime: SetTime) -> Result<()> {
        let name = component(name)?;
        let times = attributes::timestamps(atime, mtime);
        self.within(|| rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW))
    }

    fn entry_xattrs(&self, name: &[u8]) -> Result<Box<dyn Xattrs + '_>> {
        Ok(Box::new(OfEntry::new(open::handle(self.fd(), component(name)?)?)))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, new: &[u8]) -> Result<()> {
        let (name, new, to) = (component(name)?, component(new)?, Self::sibling(to)?);
        shut::within(&[self.fd(), to.fd()], || {
            rustix::fs::linkat(&self.fd, name, &to.fd, new, AtFlags::empty())
        })
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, new: &[u8], how: Rename) -> Result<()> {
        let (name, new, to) = (component(name)?, component(new)?, Self::sibling(to)?);
        let flags = match how {
            Rename::Over => RenameFlags::empty(),
            Rename::NoReplace => RenameFlags::NOREPLACE,
            Rename::Exchange => RenameFlags::EXCHANGE,
        };
        let call = |flags| {
            shut::within(&[self.fd(), to.fd()], || {
                rustix::fs::renameat_with(&self.fd, name, &to.fd, new, flags)
            })
        };
        match call(flags) {
            // File systems without renameat2's flags; the store has one writer, who looked.
            Err(error) if how == Rename::NoReplace && is(&error, &[Errno::INVAL, Errno::NOSYS]) => {
                match rustix::fs::statat(&to.fd, new, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => call(RenameFlags::empty()),
                    Ok(_) => Err(Errno::EXIST.into()),
                    Err(error) => Err(error.into()),
                }
            }
            done => done,
        }
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let name = component(name)?;
        self.within(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()))
    }

    fn remove_dir(&self, name: &[u8]) -> Result<()> {
        let name = component(name)?;
        self.within(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR))
    }

    fn entries_of(
        &self,
        stream: &mut Stream,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        listing::visit(self.fd(), stream, cookie, visit)
    }

    fn sync(&self) -> Result<()> {
        Ok(retry_on_intr(|| rustix::fs::fsync(&self.fd))?)
    }

    fn sync_fs(&self) -> Result<()> {
        Ok(retry_on_intr(|| rustix::fs::syncfs(&self.fd))?)
    }

    fn is_local(&self) -> bool {
        local::is_local(&self.fd)
    }

    fn space(&self) -> Result<Space> {
        let found = rustix::fs::fstatvfs(&self.fd)?;
        Ok(Space {
            block: found.f_frsize,
            blocks: found.f_blocks,
            free: found.f_bfree,
            available: found.f_bavail,
            files: found.f_files,
            files_free: found.f_ffree,
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Xattrs for PosixDir {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        OfFd(&self.fd).xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        OfFd(&self.fd).xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        OfFd(&self.fd).set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        OfFd(&self.fd).remove_xattr(name)
    }
}

fn is(error: &std::io::Error, wanted: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| wanted.contains(&errno))
}
