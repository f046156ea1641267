//! A file, and extended attributes, whose calls are observed.

use std::io::Result;
use std::ops::Deref;
use std::sync::Arc;

use super::{Call, Change, Observer, Op};
use crate::backend::{File, SetTime, Stat, Xattrs};

/// What a handle needs to have its calls observed.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) observer: Arc<dyn Observer>,
    pub(super) ino: u64,
}

impl Watch {
    /// A call that makes no inode.
    pub(super) fn call<T>(
        &self,
        op: Op,
        name: &[u8],
        change: Option<Change<'_>>,
        mut run: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        self.made(op, name, change, || Ok((run()?, 0)))
    }

    /// A call that tells the inode number of what it made.
    pub(super) fn made<T>(
        &self,
        op: Op,
        name: &[u8],
        change: Option<Change<'_>>,
        mut run: impl FnMut() -> Result<(T, u64)>,
    ) -> Result<T> {
        let mut outcome = None;
        let call = Call { op, ino: self.ino, name, change };
        self.observer.around(call, &mut || {
            let (value, ino) = run()?;
            outcome = Some(value);
            Ok(ino)
        })?;
        outcome.ok_or_else(|| super::super::errno(libc::EIO))
    }
}

pub(super) struct ObservedFile {
    inner: Arc<dyn File>,
    watch: Watch,
}

impl ObservedFile {
    pub(super) fn new(inner: Arc<dyn File>, observer: Arc<dyn Observer>) -> Result<Self> {
        let ino = inner.stat()?.ino;
        Ok(Self { inner, watch: Watch { observer, ino } })
    }

    pub(super) fn ino(&self) -> u64 {
        self.watch.ino
    }

    /// An observer may leave it out and say nothing.
    fn change(&self, op: Op, change: Change<'_>, mut run: impl FnMut() -> Result<()>) -> Result<()> {
        let call = Call { op, ino: self.watch.ino, name: b"", change: Some(change) };
        self.watch.observer.around(call, &mut || run().map(|()| 0))
    }
}

impl File for ObservedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.watch.call(Op::Read, b"", None, || self.inner.read_at(buf, offset))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let change = Change::Write { ino: self.watch.ino, offset, bytes: buf.into() };
        self.change(Op::Write, change, || self.inner.write_at(buf, offset))
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.change(Op::SetLen, Change::SetLen { ino: self.watch.ino, len }, || self.inner.set_len(len))
    }
    fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let change = Change::Allocate { ino: self.watch.ino, offset, len, keep_size };
        self.change(Op::Allocate, change, || self.inner.allocate(offset, len, keep_size))
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let change = Change::Punch { ino: self.watch.ino, offset, len };
        self.change(Op::Punch, change, || self.inner.punch(offset, len))
    }
    fn flush(&self) -> Result<()> {
        self.watch.call(Op::Flush, b"", None, || self.inner.flush())
    }
    fn sync_data(&self) -> Result<()> {
        let change = Change::SyncFile { ino: self.watch.ino, data_only: true };
        self.change(Op::SyncData, change, || self.inner.sync_data())
    }
    fn sync_all(&self) -> Result<()> {
        let change = Change::SyncFile { ino: self.watch.ino, data_only: false };
        self.change(Op::SyncAll, change, || self.inner.sync_all())
    }
    fn stat(&self) -> Result<Stat> {
        self.watch.call(Op::Stat, b"", None, || self.inner.stat())
    }
    fn set_mode(&self, mode: u32) -> Result<()> {
        let change = Change::Mode { ino: self.watch.ino, name: None, mode };
        self.change(Op::SetMode, change, || self.inner.set_mode(mode))
    }
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let change = Change::Owner { ino: self.watch.ino, name: None, uid, gid };
        self.change(Op::SetOwner, change, || self.inner.set_owner(uid, gid))
    }
    fn set_times(&self, atime: SetTime, mtime: SetTime) -> Result<()> {
        let change = Change::Times { ino: self.watch.ino, name: None, atime, mtime };
        self.change(Op::SetTimes, change, || self.inner.set_times(atime, mtime))
    }
    fn will_read(&self, len: u64) {
        // It cannot fail: an observer's error is nobody's.
        let _ = self.watch.call(Op::Advise, b"", None, || {
            self.inner.will_read(len);
            Ok(())
        });
    }
    fn will_not_need(&self) {
        let _ = self.watch.call(Op::Forget, b"", None, || {
            self.inner.will_not_need();
            Ok(())
        });
    }
    fn seek(&self, offset: u64, data: bool) -> Result<u64> {
        self.watch.call(Op::Seek, b"", None, || self.inner.seek(offset, data))
    }
    fn try_lock(&self) -> Result<()> {
        self.watch.call(Op::Lock, b"", None, || self.inner.try_lock())
    }
}

/// Extended attributes of anything, observed.
pub(super) struct ObservedXattrs<X> {
    pub(super) inner: X,
    pub(super) watch: Watch,
}

impl<X: Deref<Target: Xattrs>> Xattrs for ObservedXattrs<X> {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.watch.call(Op::GetXattr, name, None, || self.inner.xattr(name))
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.watch.call(Op::GetXattr, b"", None, || self.inner.xattrs())
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let change = Change::SetXattr { ino: self.watch.ino, key: name.into(), value: value.into() };
        self.watch.call(Op::SetXattr, name, Some(change), || self.inner.set_xattr(name, value, flags))
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let change = Change::RemoveXattr { ino: self.watch.ino, key: name.into() };
        self.watch.call(Op::RemoveXattr, name, Some(change), || self.inner.remove_xattr(name))
    }
}

impl ObservedFile {
    fn attributes(&self) -> ObservedXattrs<&dyn File> {
        ObservedXattrs { inner: &*self.inner, watch: self.watch.clone() }
    }
}

impl Xattrs for ObservedFile {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.attributes().xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.attributes().xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.attributes().set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.attributes().remove_xattr(name)
    }
}
