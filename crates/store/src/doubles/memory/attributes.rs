//! Owners, times and extended attributes of an inode, as Linux keeps them for root.

use std::io::Result;

use super::super::errno;
use super::Handle;
use super::tree::{Node, now};
use crate::backend::{Kind, SetTime, Time, Xattrs};

pub(crate) fn set_owner(node: &mut Node, uid: Option<u32>, gid: Option<u32>) {
    let given = |id: Option<u32>| id.filter(|id| *id != u32::MAX);
    node.uid = given(uid).unwrap_or(node.uid);
    node.gid = given(gid).unwrap_or(node.gid);
    if node.kind() != Kind::Dir {
        node.mode &= !0o4000;
        if node.mode & 0o010 != 0 {
            node.mode &= !0o2000;
        }
    }
    node.ctime = now();
}

pub(crate) fn set_times(node: &mut Node, atime: SetTime, mtime: SetTime) -> Result<()> {
    for time in [atime, mtime] {
        if let SetTime::At(Time { nsec: 1_000_000_000.., .. }) = time {
            return Err(errno(libc::EINVAL));
        }
    }
    let apply = |slot: &mut Time, time| match time {
        SetTime::Omit => {}
        SetTime::Now => *slot = now(),
        SetTime::At(time) => *slot = time,
    };
    apply(&mut node.atime, atime);
    apply(&mut node.mtime, mtime);
    node.ctime = now();
    Ok(())
}

/// Checks a name as the kernel does before it asks the file system.
fn check(node: &Node, name: &[u8], refusal: i32) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(errno(libc::ERANGE));
    }
    if let Some(rest) = name.strip_prefix(b"user.") {
        if !matches!(node.kind(), Kind::File | Kind::Dir) {
            return Err(errno(refusal));
        }
        return if rest.is_empty() { Err(errno(libc::EINVAL)) } else { Ok(()) };
    }
    let known = name.starts_with(b"trusted.") || name.starts_with(b"security.");
    if known { Ok(()) } else { Err(errno(libc::EOPNOTSUPP)) }
}

impl Xattrs for Handle {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let inner = self.fs.lock();
        let node = inner.tree.node(self.ino)?;
        check(node, name, libc::ENODATA)?;
        node.xattrs.get(name).cloned().ok_or_else(|| errno(libc::ENODATA))
    }

    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.fs.lock().tree.node(self.ino)?.xattrs.keys().cloned().collect())
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let mut inner = self.fs.lock();
        let node = inner.tree.node_mut(self.ino)?;
        if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
            return Err(errno(libc::EINVAL));
        }
        if value.len() > 65_536 {
            return Err(errno(libc::E2BIG));
        }
        check(node, name, libc::EPERM)?;
        let there = node.xattrs.contains_key(name);
        if flags & libc::XATTR_CREATE != 0 && there {
            return Err(errno(libc::EEXIST));
        }
        if flags & libc::XATTR_REPLACE != 0 && !there {
            return Err(errno(libc::ENODATA));
        }
        node.xattrs.insert(name.to_vec(), value.to_vec());
        node.ctime = now();
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let mut inner = self.fs.lock();
        let node = inner.tree.node_mut(self.ino)?;
        check(node, name, libc::EPERM)?;
        node.xattrs.remove(name).ok_or_else(|| errno(libc::ENODATA))?;
        node.ctime = now();
        Ok(())
    }
}

pub(crate) fn set_mode(node: &mut Node, mode: u32) {
    node.mode = mode & 0o7777;
    node.ctime = now();
}
