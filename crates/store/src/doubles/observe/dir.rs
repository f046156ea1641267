//! A directory whose calls are observed.

use std::any::Any;
use std::io::Result;
use std::sync::Arc;

use super::super::errno;
use super::file::{ObservedFile, ObservedXattrs, Watch};
use super::{Change, Made, Observer, Op};
use crate::backend::{Access, Dir, Entry, File, Kind, Rename, SetTime, Space, Stat, Stream, Xattrs};

pub(super) struct ObservedDir {
    inner: Arc<dyn Dir>,
    watch: Watch,
}

impl ObservedDir {
    pub(super) fn new(inner: Arc<dyn Dir>, observer: Arc<dyn Observer>) -> Result<Self> {
        let ino = inner.stat_self()?.ino;
        Ok(Self { inner, watch: Watch { observer, ino } })
    }

    fn ask<T>(&self, op: Op, name: &[u8], run: impl FnMut() -> Result<T>) -> Result<T> {
        self.watch.call(op, name, None, run)
    }

    fn change<T>(
        &self,
        op: Op,
        name: &[u8],
        change: Change<'_>,
        run: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        self.watch.call(op, name, Some(change), run)
    }

    fn create(&self, op: Op, name: &[u8], made: Made<'_>, mut run: impl FnMut() -> Result<()>) -> Result<()> {
        let change = Change::Create { dir: self.watch.ino, name: name.into(), ino: 0, made };
        self.watch.made(op, name, Some(change), || {
            run()?;
            Ok(((), self.inner.stat(name)?.ino))
        })
    }

    fn sibling(other: &dyn Dir) -> Result<&Self> {
        other.as_any().downcast_ref().ok_or_else(|| errno(libc::EXDEV))
    }

    fn attributes(&self) -> ObservedXattrs<&dyn Dir> {
        ObservedXattrs { inner: &*self.inner, watch: self.watch.clone() }
    }
}

impl Dir for ObservedDir {
    fn open_dir(&self, name: &[u8]) -> Result<Arc<dyn Dir>> {
        let opened = self.ask(Op::OpenDir, name, || self.inner.open_dir(name))?;
        Ok(Arc::new(Self::new(opened, self.watch.observer.clone())?))
    }

    fn open_file(&self, name: &[u8], access: Access) -> Result<Arc<dyn File>> {
        let opened = self.ask(Op::OpenFile, name, || self.inner.open_file(name, access))?;
        Ok(Arc::new(ObservedFile::new(opened, self.watch.observer.clone())?))
    }

    fn create_file(&self, name: &[u8], mode: u32) -> Result<Arc<dyn File>> {
        let made = Made::File { mode };
        let change = Change::Create { dir: self.watch.ino, name: name.into(), ino: 0, made };
        let file = self.watch.made(Op::CreateFile, name, Some(change), || {
            let file = ObservedFile::new(self.inner.create_file(name, mode)?, self.watch.observer.clone())?;
            let ino = file.ino();
            Ok((file, ino))
        })?;
        Ok(Arc::new(file))
    }

    fn create_dir(&self, name: &[u8], mode: u32) -> Result<()> {
        self.create(Op::CreateDir, name, Made::Dir { mode }, || self.inner.create_dir(name, mode))
    }

    fn create_node(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()> {
        let made = Made::Node { kind, mode, rdev };
        self.create(Op::CreateNode, name, made, || self.inner.create_node(name, kind, mode, rdev))
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        let made = Made::Symlink { target: target.into() };
        self.create(Op::CreateSymlink, name, made, || self.inner.create_symlink(name, target))
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.ask(Op::ReadLink, name, || self.inner.read_link(name))
    }

    fn stat(&self, name: &[u8]) -> Result<Stat> {
        self.ask(Op::Stat, name, || self.inner.stat(name))
    }

    fn stat_self(&self) -> Result<Stat> {
        self.ask(Op::Stat, b"", || self.inner.stat_self())
    }

    fn set_mode(&self, name: &[u8], mode: u32) -> Result<()> {
        let change = Change::Mode { ino: self.watch.ino, name: Some(name.into()), mode };
        self.change(Op::SetMode, name, change, || self.inner.set_mode(name, mode))
    }

    fn set_owner(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let change = Change::Owner { ino: self.watch.ino, name: Some(name.into()), uid, gid };
        self.change(Op::SetOwner, name, change, || self.inner.set_owner(name, uid, gid))
    }

    fn set_times(&self, name: &[u8], atime: SetTime, mtime: SetTime) -> Result<()> {
        let change = Change::Times { ino: self.watch.ino, name: Some(name.into()), atime, mtime };
        self.change(Op::SetTimes, name, change, || self.inner.set_times(name, atime, mtime))
    }

    fn entry_xattrs(&self, name: &[u8]) -> Result<Box<dyn Xattrs + '_>> {
        let inner = self.inner.entry_xattrs(name)?;
        let ino = self.inner.stat(name)?.ino;
        let watch = Watch { observer: self.watch.observer.clone(), ino };
        Ok(Box::new(ObservedXattrs { inner, watch }))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, new: &[u8]) -> Result<()> {
        let to = Self::sibling(to)?;
        let change =
            Change::Link { dir: self.watch.ino, name: name.into(), to: to.watch.ino, new: new.into() };
        self.change(Op::Link, name, change, || self.inner.link(name, &*to.inner, new))
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, new: &[u8], how: Rename) -> Result<()> {
        let to = Self::sibling(to)?;
        let (dir, into) = (self.watch.ino, to.watch.ino);
        let change = Change::Rename { dir, name: name.into(), to: into, new: new.into(), how };
        self.change(Op::Rename, name, change, || self.inner.rename(name, &*to.inner, new, how))
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let change = Change::Remove { dir: self.watch.ino, name: name.into() };
        self.change(Op::Unlink, name, change, || self.inner.unlink(name))
    }

    fn remove_dir(&self, name: &[u8]) -> Result<()> {
        let change = Change::Remove { dir: self.watch.ino, name: name.into() };
        self.change(Op::RemoveDir, name, change, || self.inner.remove_dir(name))
    }

    fn entries_of(
        &self,
        stream: &mut Stream,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        self.ask(Op::Entries, b"", || self.inner.entries_of(stream, cookie, visit))
    }

    fn sync(&self) -> Result<()> {
        let change = Change::SyncDir { ino: self.watch.ino };
        self.change(Op::SyncDir, b"", change, || self.inner.sync())
    }

    fn sync_fs(&self) -> Result<()> {
        self.change(Op::SyncFs, b"", Change::SyncFs, || self.inner.sync_fs())
    }

    fn is_local(&self) -> bool {
        self.inner.is_local() && !self.watch.observer.is_remote()
    }

    fn space(&self) -> Result<Space> {
        self.ask(Op::Space, b"", || self.inner.space())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Xattrs for ObservedDir {
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
