//! Inodes and names. Plain data that is cheap to copy: a copy shares every inode until one of the
//! two changes it.

use std::collections::BTreeMap;
use std::io::Result;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::errno;
use super::sparse::{PAGE, Sparse};
use crate::backend::{Kind, Stat, Time};

pub(crate) const ROOT: u64 = 1;

#[derive(Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Arc<Node>>,
    next_ino: u64,
    /// Numbers of inodes that have gone, where they are used again.
    free: Option<Vec<u64>>,
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) body: Body,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone)]
pub(crate) enum Body {
    File(Sparse),
    Dir(Entries),
    Symlink(Vec<u8>),
    Node { kind: Kind, rdev: u64 },
}

#[derive(Clone, Default)]
pub(crate) struct Entries {
    pub(crate) parent: u64,
    /// Name to inode number and cookie.
    pub(crate) names: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Cookie to name: the order in which they are listed.
    pub(crate) order: BTreeMap<u64, Vec<u8>>,
    last_cookie: u64,
}

impl Node {
    pub(crate) fn new(body: Body, mode: u32) -> Self {
        let now = now();
        Self {
            body,
            mode: mode & 0o7777,
            nlink: 0,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
        }
    }

    /// Owned as a setgid directory wants it.
    pub(crate) fn made_in(mut self, parent: &Self) -> Self {
        if parent.mode & 0o2000 != 0 {
            self.gid = parent.gid;
            if matches!(self.body, Body::Dir(_)) {
                self.mode |= 0o2000;
            }
        }
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        match &self.body {
            Body::File(_) => Kind::File,
            Body::Dir(_) => Kind::Dir,
            Body::Symlink(_) => Kind::Symlink,
            Body::Node { kind, .. } => *kind,
        }
    }

    pub(crate) fn data(&self) -> Result<&Sparse> {
        if let Body::File(data) = &self.body { Ok(data) } else { Err(errno(libc::EINVAL)) }
    }

    pub(crate) fn data_mut(&mut self) -> Result<&mut Sparse> {
        if let Body::File(data) = &mut self.body { Ok(data) } else { Err(errno(libc::EINVAL)) }
    }

    pub(crate) fn entries(&self) -> Result<&Entries> {
        if let Body::Dir(entries) = &self.body { Ok(entries) } else { Err(errno(libc::ENOTDIR)) }
    }

    pub(crate) fn touch(&mut self) {
        self.mtime = now();
        self.ctime = self.mtime;
    }

    pub(crate) fn stat(&self, ino: u64) -> Stat {
        let (size, blocks, rdev) = match &self.body {
            Body::File(data) => (data.len(), data.pages() * (PAGE / 512), 0),
            Body::Dir(entries) => (entries.names.len() as u64 * 32, 0, 0),
            Body::Symlink(target) => (target.len() as u64, 0, 0),
            Body::Node { rdev, .. } => (0, 0, *rdev),
        };
        Stat {
            dev: 1,
            ino,
            kind: self.kind(),
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev,
            size,
            blocks,
            blksize: PAGE as u32,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        let mut root = Node::new(Body::Dir(Entries { parent: ROOT, ..Entries::default() }), 0o755);
        root.nlink = 2;
        Self { nodes: BTreeMap::from([(ROOT, Arc::new(root))]), next_ino: ROOT + 1, free: None }
    }

    /// What is made gets the number of what went last.
    pub(crate) fn reusing_numbers(self) -> Self {
        Self { free: Some(Vec::new()), ..self }
    }

    pub(crate) fn node(&self, ino: u64) -> Result<&Node> {
        self.nodes.get(&ino).map(|n| &**n).ok_or_else(|| errno(libc::ENOENT))
    }

    pub(crate) fn node_mut(&mut self, ino: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).map(Arc::make_mut).ok_or_else(|| errno(libc::ENOENT))
    }

    pub(crate) fn lookup(&self, dir: u64, name: &[u8]) -> Result<u64> {
        let found = self.node(dir)?.entries()?.names.get(name);
        found.map(|(ino, _)| *ino).ok_or_else(|| errno(libc::ENOENT))
    }

    /// Adds an inode without a name.
    pub(crate) fn add(&mut self, node: Node) -> u64 {
        let ino = self.free.as_mut().and_then(Vec::pop).unwrap_or(self.next_ino);
        self.add_as(ino, node);
        ino
    }

    /// The same under a number of the caller's choice, at least as large as any before.
    pub(crate) fn add_as(&mut self, ino: u64, node: Node) {
        self.next_ino = self.next_ino.max(ino + 1);
        self.nodes.insert(ino, Arc::new(node));
    }

    /// Gives an inode a name, which is not taken.
    pub(crate) fn enter(&mut self, dir: u64, name: &[u8], ino: u64) -> Result<()> {
        let subdirs = self.subdirs(ino)?;
        let node = self.node_mut(ino)?;
        node.ctime = now();
        // A directory has one name, its own "." and the ".." of those in it.
        node.nlink = subdirs.map_or(node.nlink + 1, |n| n + 2);
        if let Body::Dir(entries) = &mut node.body {
            entries.parent = dir;
        }
        let is_dir = subdirs.is_some();
        let parent = self.node_mut(dir)?;
        parent.touch();
        parent.nlink += u32::from(is_dir);
        let Body::Dir(entries) = &mut parent.body else { return Err(errno(libc::ENOTDIR)) };
        entries.last_cookie += 1;
        let cookie = entries.last_cookie;
        entries.names.insert(name.to_vec(), (ino, cookie));
        entries.order.insert(cookie, name.to_vec());
        Ok(())
    }

    /// How many directories a directory holds; `None` for anything else.
    fn subdirs(&self, ino: u64) -> Result<Option<u32>> {
        let Ok(entries) = self.node(ino)?.entries() else { return Ok(None) };
        let is_dir = |ino: &u64| self.node(*ino).is_ok_and(|n| n.kind() == Kind::Dir);
        Ok(Some(entries.names.values().filter(|(ino, _)| is_dir(ino)).count() as u32))
    }

    /// Takes a name away; the inode stays until it is forgotten.
    pub(crate) fn leave(&mut self, dir: u64, name: &[u8]) -> Result<u64> {
        let parent = self.node_mut(dir)?;
        let Body::Dir(entries) = &mut parent.body else { return Err(errno(libc::ENOTDIR)) };
        let (ino, cookie) = entries.names.remove(name).ok_or_else(|| errno(libc::ENOENT))?;
        entries.order.remove(&cookie);
        parent.touch();
        let node = self.node_mut(ino)?;
        node.ctime = now();
        if matches!(node.body, Body::Dir(_)) {
            node.nlink = 0;
            self.node_mut(dir)?.nlink -= 1;
        } else {
            node.nlink -= 1;
        }
        Ok(ino)
    }

    /// Drops an inode that has no name.
    pub(crate) fn forget(&mut self, ino: u64) {
        if self.nodes.get(&ino).is_some_and(|n| n.nlink == 0) {
            self.nodes.remove(&ino);
            if let Some(free) = &mut self.free {
                free.push(ino);
            }
        }
    }

    /// Whether `dir` is `ancestor` or lies beneath it.
    pub(crate) fn lies_in(&self, mut dir: u64, ancestor: u64) -> bool {
        loop {
            if dir == ancestor {
                return true;
            }
            match self.node(dir).and_then(Node::entries) {
                Ok(entries) if entries.parent != dir => dir = entries.parent,
                _ => return false,
            }
        }
    }
}

pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: since.as_secs().cast_signed(), nsec: since.subsec_nanos() }
}
