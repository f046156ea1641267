//! A vault's side of a copy: the engine's calls, by path.

mod file;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use runvault_store::backend::{Kind, Rename, SetTime};
use runvault_vault::api::{Attr, Caller, Handle, Ino, OpenFlags, ROOT, SetAttr};
use runvault_vault::{Error, Posix, Vault};

use self::file::File;
use super::{Meta, Names, Sink, Source, Tree};
use crate::exit::{Exit, refuse_with};
use crate::left_out::{self, LeftOut};
use crate::output::{count, shown};

/// The most directories that are kept at hand.
const KEPT: usize = 4096;

/// An open vault, by relative paths.
pub struct InVault {
    vault: Arc<Vault>,
    /// What messages put before a path: the store.
    store: PathBuf,
    directories: RefCell<HashMap<PathBuf, Node>>,
}

/// A node that is held by one lookup reference, given back when dropped.
pub struct Node {
    vault: Arc<Vault>,
    /// As last seen.
    pub attr: Attr,
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.attr.ino != ROOT {
            self.vault.forget(self.attr.ino, 1);
        }
    }
}

impl Node {
    fn meta(&self) -> Meta {
        let attr = &self.attr;
        Meta {
            kind: attr.kind,
            // No device has the number of a place in memory.
            object: (Arc::as_ptr(&self.vault).addr() as u64, attr.ino),
            mode: attr.mode,
            nlink: attr.nlink.into(),
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime,
            mtime: attr.mtime,
        }
    }
}

/// One name of a directory.
pub struct Listed {
    pub name: OsString,
    /// `None`: the reason stands beside it.
    pub meta: Result<Meta>,
}

impl InVault {
    /// Names the store in messages.
    pub fn new(vault: &Arc<Vault>, store: &Path) -> InVault {
        InVault { vault: Arc::clone(vault), store: store.to_owned(), directories: RefCell::default() }
    }

    /// A directory's entries with their metadata, sorted by name; one that is damaged does not hide
    /// the others. And whether these are all, as of [`Names::complete`].
    ///
    /// # Errors
    /// The directory itself cannot be read.
    pub fn entries(&self, path: &Path) -> Result<(Vec<Listed>, Result<()>)> {
        let ino = self.directory(path)?;
        let (names, left_out) = self.names(ino).with_context(|| self.shown(path))?;
        let listed = names.into_iter().map(|name| {
            let found = self.vault.lookup(ino, name.as_bytes()).map_err(anyhow::Error::from);
            let meta =
                found.map(|attr| self.node(attr).meta()).with_context(|| self.shown(&path.join(&name)));
            Listed { meta, name }
        });
        Ok((listed.collect(), self.complete(path, left_out)))
    }

    /// The runs in trouble that may belong below a path, or be what it names; the runs that no key opens
    /// are warned about.
    pub fn left_out(&self, path: &Path) -> Vec<LeftOut> {
        let may_miss_runs = match self.directory(path) {
            Ok(ino) => self.vault.may_hold_runs(ino),
            Err(error) => is_posix(&error, Posix::NotFound),
        };
        if !may_miss_runs {
            return Vec::new();
        }
        left_out::warn_closed(&self.vault);
        left_out::of(&self.vault)
    }

    /// `open` or `sealed`, of a name that is a run's; what is open no seal proves yet.
    pub fn state_of_run(&self, parent: &Path, name: &OsStr) -> Result<Option<&'static str>> {
        let sealed = self.vault.is_sealed_run(self.directory(parent)?, name.as_bytes())?;
        Ok(sealed.map(|sealed| if sealed { "sealed" } else { "open" }))
    }

    /// The names of a directory, and how many are left out because they do not authenticate.
    fn names(&self, ino: Ino) -> runvault_vault::Result<(Vec<OsString>, u64)> {
        let handle = self.vault.opendir(ino)?;
        let mut names = Vec::new();
        let read = self.vault.readdir(handle, 0, false, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push(OsString::from_vec(entry.name.clone()));
            }
            true
        });
        let left_out = read.and_then(|()| self.vault.unreadable_names(handle));
        let released = self.vault.releasedir(handle);
        let left_out = left_out?;
        released?;
        names.sort();
        Ok((names, left_out))
    }

    fn complete(&self, path: &Path, left_out: u64) -> Result<()> {
        match left_out {
            0 => Ok(()),
            n => Err(refuse_with(
                Exit::Damaged,
                format!("{}: {} left out, damaged in the store", self.shown(path), count(n, "name")),
                "runvault check STORE says which",
            )),
        }
    }

    fn node(&self, attr: Attr) -> Node {
        Node { vault: Arc::clone(&self.vault), attr }
    }

    fn lookup(&self, path: &Path) -> Result<Node> {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Ok(self.node(self.vault.getattr(ROOT, None)?));
        };
        let parent = self.directory(parent)?;
        Ok(self.node(self.vault.lookup(parent, name.as_bytes()).with_context(|| self.shown(path))?))
    }

    /// The directory's number, held until this is dropped or too many are.
    fn directory(&self, path: &Path) -> Result<Ino> {
        if path.as_os_str().is_empty() {
            return Ok(ROOT);
        }
        if let Some(node) = self.directories.borrow().get(path) {
            return Ok(node.attr.ino);
        }
        let node = self.lookup(path)?;
        if node.attr.kind != Kind::Dir {
            return Err(Error::Posix(Posix::NotDirectory)).with_context(|| self.shown(path));
        }
        Ok(self.keep(path, node))
    }

    fn keep(&self, path: &Path, node: Node) -> Ino {
        let ino = node.attr.ino;
        let mut kept = self.directories.borrow_mut();
        if kept.len() >= KEPT {
            // Ancestors of the path in hand are in use no longer than this call: all may go.
            kept.clear();
        }
        kept.insert(path.to_owned(), node);
        ino
    }

    /// The directory of a path and the path's last component.
    fn place<'p>(&self, path: &'p Path) -> Result<(Ino, &'p OsStr)> {
        let name = path.file_name().context("the top of a vault cannot be replaced")?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn open_file(&self, path: &Path) -> Result<(Node, Handle)> {
        let node = self.lookup(path)?;
        if node.attr.kind != Kind::File {
            let what = if node.attr.kind == Kind::Dir { Posix::IsDirectory } else { Posix::Invalid };
            return Err(Error::Posix(what)).with_context(|| self.shown(path));
        }
        let opened = self.vault.open_file(node.attr.ino, READ).with_context(|| self.shown(path))?;
        Ok((node, opened.handle))
    }

    fn change(&self, path: &Path, change: &SetAttr) -> Result<()> {
        let node = self.lookup(path)?;
        let changed = self.vault.setattr(&Self::caller(), node.attr.ino, None, change);
        changed.map(drop).with_context(|| self.shown(path))
    }

    fn caller() -> Caller {
        Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            pid: std::process::id(),
            umask: 0,
        }
    }
}

const READ: OpenFlags =
    OpenFlags { read: true, write: false, truncate: false, append: false, kill_suidgid: false };
const WRITE: OpenFlags =
    OpenFlags { read: false, write: true, truncate: false, append: false, kill_suidgid: false };
impl Tree for InVault {
    fn stat(&self, path: &Path) -> Result<Option<Meta>> {
        match self.lookup(path) {
            Ok(node) => Ok(Some(node.meta())),
            Err(e) if is_posix(&e, Posix::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn is_dir(&self, path: &Path) -> Result<bool> {
        Ok(self.stat(path)?.is_some_and(|meta| meta.kind == Kind::Dir))
    }

    fn list(&self, path: &Path) -> Result<Names> {
        let (names, left_out) = self.names(self.directory(path)?).with_context(|| self.shown(path))?;
        Ok(Names { names, complete: self.complete(path, left_out) })
    }

    fn read_link(&self, path: &Path) -> Result<OsString> {
        let node = self.lookup(path)?;
        Ok(OsString::from_vec(self.vault.readlink(node.attr.ino).with_context(|| self.shown(path))?))
    }

    fn open<'a>(&'a self, path: &Path) -> Result<Box<dyn Source + 'a>> {
        let (node, handle) = self.open_file(path)?;
        Ok(Box::new(File { node, handle, size: None }))
    }

    fn create<'a>(&'a self, path: &Path) -> Result<Box<dyn Sink + 'a>> {
        let (parent, name) = self.place(path)?;
        let made = self.vault.create(&Self::caller(), parent, name.as_bytes(), 0o600, WRITE);
        let (attr, opened) = made.with_context(|| self.shown(path))?;
        Ok(Box::new(File { node: self.node(attr), handle: opened.handle, size: Some(0) }))
    }

    fn make_dir(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.place(path)?;
        let made = self.vault.mkdir(&Self::caller(), parent, name.as_bytes(), 0o700);
        let node = self.node(made.with_context(|| self.shown(path))?);
        self.keep(path, node);
        Ok(())
    }

    fn make_link(&self, path: &Path, target: &OsString) -> Result<()> {
        let (parent, name) = self.place(path)?;
        let made = self.vault.symlink(&Self::caller(), parent, name.as_bytes(), target.as_bytes());
        drop(self.node(made.with_context(|| self.shown(path))?));
        Ok(())
    }

    fn make_node(&self, path: &Path, meta: &Meta) -> Result<()> {
        let (parent, name) = self.place(path)?;
        let made = self.vault.mknod(&Self::caller(), parent, name.as_bytes(), meta.kind, 0o600, meta.rdev);
        drop(self.node(made.with_context(|| self.shown(path))?));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let (parent, name) = self.place(path)?;
        self.vault.unlink(parent, name.as_bytes()).with_context(|| self.shown(path))
    }

    fn rename(&self, path: &Path, to: &Path) -> Result<()> {
        let ((parent, name), (to_parent, new)) = (self.place(path)?, self.place(to)?);
        self.vault
            .rename(parent, name.as_bytes(), to_parent, new.as_bytes(), Rename::Over)
            .with_context(|| self.shown(to))
    }

    fn identity(&self, path: &Path, meta: &Meta) -> Result<Vec<u8>> {
        match meta.kind {
            Kind::Symlink => Ok(self.read_link(path)?.into_vec()),
            Kind::File => {
                let (node, handle) = self.open_file(path)?;
                let open = File { node, handle, size: None };
                let id = open.vault().file_id(handle).with_context(|| self.shown(path))?;
                Ok(id.map(|id| id.0.to_vec()).unwrap_or_default())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn link(&self, path: &Path, to: &Path) -> Result<()> {
        let node = self.lookup(path)?;
        let (parent, name) = self.place(to)?;
        let made = self.vault.link(node.attr.ino, parent, name.as_bytes());
        drop(self.node(made.with_context(|| self.shown(to))?));
        Ok(())
    }

    fn attributes(&self, path: &Path) -> Result<Vec<Vec<u8>>> {
        let node = self.lookup(path)?;
        self.vault.listxattr(node.attr.ino).with_context(|| self.shown(path))
    }

    fn attribute(&self, path: &Path, name: &[u8]) -> Result<Vec<u8>> {
        let node = self.lookup(path)?;
        self.vault.getxattr(node.attr.ino, name).with_context(|| self.shown(path))
    }

    fn set_attribute(&self, path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
        let node = self.lookup(path)?;
        self.vault.setxattr(node.attr.ino, name, value, 0).with_context(|| self.shown(path))
    }

    fn set_owner(&self, path: &Path, meta: &Meta) -> Result<()> {
        self.change(path, &SetAttr { uid: Some(meta.uid), gid: Some(meta.gid), ..SetAttr::NOTHING })
    }

    fn finish(&self, path: &Path, meta: &Meta) -> Result<()> {
        let mode = (meta.kind != Kind::Symlink).then_some(meta.mode);
        let (atime, mtime) = (SetTime::At(meta.atime), SetTime::At(meta.mtime));
        self.change(path, &SetAttr { mode, atime, mtime, ..SetAttr::NOTHING })
    }

    fn is_in_sealed_run(&self, path: &Path) -> Result<bool> {
        for folder in path.ancestors() {
            if let (Some(parent), Some(name)) = (folder.parent(), folder.file_name())
                && self.state_of_run(parent, name)? == Some("sealed")
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn shown(&self, path: &Path) -> String {
        format!("{}:/{}", shown(&self.store), shown(path))
    }
}

fn is_posix(error: &anyhow::Error, wanted: Posix) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Posix(found)) if *found == wanted)
}
