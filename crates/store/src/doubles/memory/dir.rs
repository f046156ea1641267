//! An open directory of the memory tree: names, and the rules of link and rename.

use std::any::Any;
use std::io::Result;
use std::ops::Bound;
use std::sync::Arc;

use super::super::{component, errno};
use super::file::MemoryFile;
use super::sparse::Sparse;
use super::tree::{Body, Entries, Node, Tree};
use super::{Handle, Inner, attributes};
use crate::backend::{Access, Dir, Entry, File, Kind, Rename, SetTime, Space, Stat, Stream, Xattrs};

/// A directory in memory.
pub struct MemoryDir(Handle);

impl MemoryDir {
    pub(super) fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// A copy of everything as it is now.
    pub(crate) fn tree(&self) -> Tree {
        self.0.fs.lock().tree.clone()
    }

    fn sibling<'a>(&self, other: &'a dyn Dir) -> Result<&'a Self> {
        let other = other.as_any().downcast_ref::<Self>().ok_or_else(|| errno(libc::EXDEV))?;
        if Arc::ptr_eq(&self.0.fs, &other.0.fs) { Ok(other) } else { Err(errno(libc::EXDEV)) }
    }

    /// A new inode under a free name, owned as a setgid directory wants it.
    fn make(&self, inner: &mut Inner, name: &[u8], node: Node) -> Result<u64> {
        let name = component(name)?;
        let parent = inner.tree.node(self.0.ino)?;
        if parent.entries()?.names.contains_key(name) {
            return Err(errno(libc::EEXIST));
        }
        require_alive(parent)?;
        let node = node.made_in(parent);
        let ino = inner.tree.add(node);
        inner.tree.enter(self.0.ino, name, ino)?;
        Ok(ino)
    }

    fn lookup(&self, inner: &Inner, name: &[u8]) -> Result<u64> {
        inner.tree.lookup(self.0.ino, component(name)?)
    }

    fn change(&self, name: &[u8], change: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        change(inner.tree.node_mut(ino)?)
    }
}

fn require_alive(dir: &Node) -> Result<()> {
    if dir.nlink == 0 { Err(errno(libc::ENOENT)) } else { Ok(()) }
}

fn is_dir(node: &Node) -> bool {
    node.kind() == Kind::Dir
}

impl Dir for MemoryDir {
    fn open_dir(&self, name: &[u8]) -> Result<Arc<dyn Dir>> {
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        match inner.tree.node(ino)?.kind() {
            Kind::Dir => Ok(Arc::new(Self(Handle::counted(&mut inner, &self.0.fs, ino)))),
            _ => Err(errno(libc::ENOTDIR)),
        }
    }

    fn open_file(&self, name: &[u8], access: Access) -> Result<Arc<dyn File>> {
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        match inner.tree.node(ino)?.kind() {
            Kind::File => Ok(Arc::new(MemoryFile::new(Handle::counted(&mut inner, &self.0.fs, ino), access))),
            Kind::Symlink => Err(errno(libc::ELOOP)),
            Kind::Dir => Err(errno(libc::EISDIR)),
            _ => Err(errno(libc::EINVAL)),
        }
    }

    fn create_file(&self, name: &[u8], mode: u32) -> Result<Arc<dyn File>> {
        let mut inner = self.0.fs.lock();
        let ino = self.make(&mut inner, name, Node::new(Body::File(Sparse::default()), mode))?;
        let handle = Handle::counted(&mut inner, &self.0.fs, ino);
        Ok(Arc::new(MemoryFile::new(handle, Access::ReadWrite)))
    }

    fn create_dir(&self, name: &[u8], mode: u32) -> Result<()> {
        let mut inner = self.0.fs.lock();
        // mkdir ignores suid and sgid.
        let node = Node::new(Body::Dir(Entries::default()), mode & 0o1777);
        self.make(&mut inner, name, node).map(drop)
    }

    fn create_node(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()> {
        component(name)?;
        let rdev = match kind {
            Kind::Fifo | Kind::Socket => 0,
            Kind::CharDevice | Kind::BlockDevice => rdev,
            Kind::File | Kind::Dir | Kind::Symlink => return Err(errno(libc::EINVAL)),
        };
        let mut inner = self.0.fs.lock();
        self.make(&mut inner, name, Node::new(Body::Node { kind, rdev }, mode)).map(drop)
    }

    fn create_symlink(&self, name: &[u8], target: &[u8]) -> Result<()> {
        component(name)?;
        if target.is_empty() {
            return Err(errno(libc::ENOENT));
        }
        if target.contains(&0) {
            return Err(errno(libc::EINVAL));
        }
        if target.len() >= 4096 {
            return Err(errno(libc::ENAMETOOLONG));
        }
        let mut inner = self.0.fs.lock();
        self.make(&mut inner, name, Node::new(Body::Symlink(target.to_vec()), 0o777)).map(drop)
    }

    fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let inner = self.0.fs.lock();
        match &inner.tree.node(self.lookup(&inner, name)?)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(errno(libc::EINVAL)),
        }
    }

    fn stat(&self, name: &[u8]) -> Result<Stat> {
        let inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        Ok(inner.tree.node(ino)?.stat(ino))
    }

    fn stat_self(&self) -> Result<Stat> {
        Ok(self.0.fs.lock().tree.node(self.0.ino)?.stat(self.0.ino))
    }

    fn set_mode(&self, name: &[u8], mode: u32) -> Result<()> {
        self.change(name, |node| {
            if node.kind() == Kind::Symlink {
                return Err(errno(libc::EOPNOTSUPP));
            }
            attributes::set_mode(node, mode);
            Ok(())
        })
    }

    fn set_owner(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.change(name, |node| {
            attributes::set_owner(node, uid, gid);
            Ok(())
        })
    }

    fn set_times(&self, name: &[u8], atime: SetTime, mtime: SetTime) -> Result<()> {
        self.change(name, |node| attributes::set_times(node, atime, mtime))
    }

    fn entry_xattrs(&self, name: &[u8]) -> Result<Box<dyn Xattrs + '_>> {
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        Ok(Box::new(Handle::counted(&mut inner, &self.0.fs, ino)))
    }

    fn link(&self, name: &[u8], to: &dyn Dir, new: &[u8]) -> Result<()> {
        let (new, to) = (component(new)?, self.sibling(to)?);
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        let parent = inner.tree.node(to.0.ino)?;
        if parent.entries()?.names.contains_key(new) {
            return Err(errno(libc::EEXIST));
        }
        require_alive(parent)?;
        if is_dir(inner.tree.node(ino)?) {
            return Err(errno(libc::EPERM));
        }
        inner.tree.enter(to.0.ino, new, ino)
    }

    fn rename(&self, name: &[u8], to: &dyn Dir, new: &[u8], how: Rename) -> Result<()> {
        let (name, new, to) = (component(name)?, component(new)?, self.sibling(to)?);
        let mut inner = self.0.fs.lock();
        let (from, into) = ((self.0.ino, name), (to.0.ino, new));
        let Some(replaced) = check_rename(&inner.tree, from, into, how)? else { return Ok(()) };
        let moved = inner.tree.leave(from.0, from.1)?;
        if let Some(other) = replaced {
            inner.tree.leave(into.0, into.1)?;
            if how == Rename::Exchange {
                inner.tree.enter(from.0, from.1, other)?;
            } else {
                inner.dropped(other);
            }
        }
        inner.tree.enter(into.0, into.1, moved)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        if is_dir(inner.tree.node(ino)?) {
            return Err(errno(libc::EISDIR));
        }
        inner.tree.leave(self.0.ino, name)?;
        inner.dropped(ino);
        Ok(())
    }

    fn remove_dir(&self, name: &[u8]) -> Result<()> {
        let mut inner = self.0.fs.lock();
        let ino = self.lookup(&inner, name)?;
        if !inner.tree.node(ino)?.entries()?.names.is_empty() {
            return Err(errno(libc::ENOTEMPTY));
        }
        inner.tree.leave(self.0.ino, name)?;
        inner.dropped(ino);
        Ok(())
    }

    fn entries_of(
        &self,
        _stream: &mut Stream,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        require_alive(self.0.fs.lock().tree.node(self.0.ino)?)?;
        let mut last = cookie;
        loop {
            let inner = self.0.fs.lock();
            let dir = inner.tree.node(self.0.ino)?.entries()?;
            let Some((cookie, name)) = dir.order.range((Bound::Excluded(last), Bound::Unbounded)).next()
            else {
                return Ok(());
            };
            last = *cookie;
            let (ino, _) = *dir.names.get(name).ok_or_else(|| errno(libc::EIO))?;
            let kind = Some(inner.tree.node(ino)?.kind());
            let entry = Entry { name: name.clone(), ino, kind, next: last };
            drop(inner);
            if !visit(entry) {
                return Ok(());
            }
        }
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn sync_fs(&self) -> Result<()> {
        Ok(())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn space(&self) -> Result<Space> {
        let (blocks, files) = (1 << 30, 1 << 30);
        Ok(Space { block: 4096, blocks, free: blocks, available: blocks, files, files_free: files })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What stands under the new name; `None` outside: both names are one inode, nothing to do.
#[expect(clippy::option_option, reason = "the two answers are told apart at once, by the one caller")]
fn check_rename(
    tree: &Tree,
    from: (u64, &[u8]),
    into: (u64, &[u8]),
    how: Rename,
) -> Result<Option<Option<u64>>> {
    let moved = tree.lookup(from.0, from.1)?;
    let replaced = match tree.lookup(into.0, into.1) {
        Ok(ino) => Some(ino),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(error) => return Err(error),
    };
    match (how, replaced) {
        (Rename::NoReplace, Some(_)) => return Err(errno(libc::EEXIST)),
        (Rename::Exchange, None) => return Err(errno(libc::ENOENT)),
        _ => {}
    }
    require_alive(tree.node(into.0)?)?;
    if tree.lies_in(into.0, moved) {
        return Err(errno(libc::EINVAL));
    }
    let Some(other) = replaced else { return Ok(Some(None)) };
    if tree.lies_in(from.0, other) {
        return Err(errno(if how == Rename::Exchange { libc::EINVAL } else { libc::ENOTEMPTY }));
    }
    if other == moved {
        return Ok(None);
    }
    if how != Rename::Exchange {
        let (moved, other) = (tree.node(moved)?, tree.node(other)?);
        match (is_dir(moved), is_dir(other)) {
            (true, false) => return Err(errno(libc::ENOTDIR)),
            (false, true) => return Err(errno(libc::EISDIR)),
            (true, true) if !other.entries()?.names.is_empty() => return Err(errno(libc::ENOTEMPTY)),
            _ => {}
        }
    }
    Ok(Some(Some(other)))
}

impl Xattrs for MemoryDir {
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.0.xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<Vec<u8>>> {
        self.0.xattrs()
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.0.set_xattr(name, value, flags)
    }
    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        self.0.remove_xattr(name)
    }
}
