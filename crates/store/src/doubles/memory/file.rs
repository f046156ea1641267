//! An open regular file of the memory tree.

use std::io::Result;

use super::super::errno;
use super::tree::Node;
use super::{Handle, attributes};
use crate::backend::{Access, File, SetTime, Stat, Xattrs};

/// As ext4 with 4 KiB blocks.
const MAX_LEN: u64 = 16 << 40;

pub(super) struct MemoryFile {
    handle: Handle,
    access: Access,
}

impl MemoryFile {
    pub(super) fn new(handle: Handle, access: Access) -> Self {
        Self { handle, access }
    }

    fn look<T>(&self, look: impl FnOnce(&Node) -> Result<T>) -> Result<T> {
        look(self.handle.fs.lock().tree.node(self.handle.ino)?)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Node) -> Result<T>) -> Result<T> {
        change(self.handle.fs.lock().tree.node_mut(self.handle.ino)?)
    }

    fn require_write(&self, refusal: i32) -> Result<()> {
        if self.access == Access::ReadWrite { Ok(()) } else { Err(errno(refusal)) }
    }

    fn range(offset: u64, len: u64) -> Result<u64> {
        if len == 0 || offset > i64::MAX as u64 || len > i64::MAX as u64 {
            return Err(errno(libc::EINVAL));
        }
        offset.checked_add(len).filter(|end| *end <= MAX_LEN).ok_or_else(|| errno(libc::EFBIG))
    }
}

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.look(|node| Ok(node.data()?.read(buf, offset)))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.require_write(libc::EBADF)?;
        if buf.is_empty() {
            return Ok(());
        }
        Self::range(offset, buf.len() as u64)?;
        self.change(|node| {
            node.data_mut()?.write(buf, offset);
            node.touch();
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.require_write(libc::EINVAL)?;
        if len > MAX_LEN {
            return Err(errno(if len > i64::MAX as u64 { libc::EINVAL } else { libc::EFBIG }));
        }
        self.change(|node| {
            node.data_mut()?.set_len(len);
            node.touch();
            Ok(())
        })
    }

    fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.require_write(libc::EBADF)?;
        let end = Self::range(offset, len)?;
        self.change(|node| {
            let data = node.data_mut()?;
            if !keep_size && end > data.len() {
                data.set_len(end);
                node.touch();
            }
            Ok(())
        })
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.require_write(libc::EBADF)?;
        Self::range(offset, len)?;
        self.change(|node| {
            let data = node.data_mut()?;
            let within = data.len().saturating_sub(offset).min(len);
            if within > 0 {
                data.punch(offset, within);
                node.touch();
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn stat(&self) -> Result<Stat> {
        self.look(|node| Ok(node.stat(self.handle.ino)))
    }

    fn set_mode(&self, mode: u32) -> Result<()> {
        self.change(|node| {
            attributes::set_mode(node, mode);
            Ok(())
        })
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.change(|node| {
            attributes::set_owner(node, uid, gid);
            Ok(())
        })
    }

    fn set_times(&self, atime: SetTime, mtime: SetTime) -> Result<()> {
        self.change(|node| attributes::set_times(node, atime, mtime))
    }

    fn will_read(&self, _len: u64) {}

    fn will_not_need(&self) {}

    /// As a share without locks.
    fn try_lock(&self) -> Result<()> {
        Err(errno(libc::EOPNOTSUPP))
    }

    fn seek(&self, offset: u64, data: bool) -> Result<u64> {
        self.look(|node| {
            let stored = node.data()?;
            let found = if offset < stored.len() { stored.seek(offset, data) } else { None };
            found.ok_or_else(|| errno(libc::ENXIO))
        })
    }
}

impl Xattrs for MemoryFile {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.handle.xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.handle.xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.handle.set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.handle.remove_xattr(name)
    }
}
