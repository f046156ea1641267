//! New names: files, directories, symlinks, special files, further links.

use std::any::Any;
use std::io;
use std::sync::Arc;

use runvault_format::ledger::{self, Named};
use runvault_format::manifest;
use runvault_format::name::{self, Stored};
use runvault_store::backend::{Dir, Kind, Stat};

use crate::api::{Attr, Caller, Ino, OpenFlags, Opened, ROOT};
use crate::directory::OpenDir;
use crate::file::FileObject;
use crate::nodes::{Found, Name, number};
use crate::noted_names::device_object;
use crate::outcome::{is_not_found, outcome};
use crate::sealed::is_sealed;
use crate::sys;
use crate::view::At;
use crate::{Posix, Result, Vault, links, record, seal};

/// An object is made anew so often.
const APART_TRIES: usize = 16;

impl Vault {
    /// O_CREAT | O_EXCL by the kernel's view: an existing name is `Exists`.
    ///
    /// # Errors
    /// [`Posix::Exists`], [`Posix::ReadOnly`], [`crate::Error::Held`]; the store's.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
    ) -> Result<(Attr, Opened)> {
        let parent = self.parent_to_change(parent, name)?;
        let dir = self.directory_to_change(*parent)?;
        let _names = self.locks.alone(&[*parent]);
        let new = self.new_name(&dir, name)?;
        let _making = dir.making(&new);
        let wanted = wanted_mode(&dir, caller, mode);
        let made = self.make_apart(&*dir.dir, &new.text, false, || dir.dir.create_file(&new.text, wanted));
        let (file, found) = match made {
            Ok(made) => made,
            Err(e) => {
                return Err(self.abandon(&dir, &new, false, outcome("create a file in", dir.object(), e)));
            }
        };
        let owned = self.own(&dir, &new.text, found, caller, wanted);
        let stat = owned.map_err(|e| self.abandon(&dir, &new, true, e))?;
        let ino = number(stat.ino);
        let object = FileObject::create(&dir.body.context, ino, file, Some(dir.place(Kind::File, name)));
        let generation =
            self.nodes.register(ino, Kind::File, &dir.run, Name::new(dir.node, name), Found::Made);
        self.unsynced.names(dir.node);
        dir.note(&new, Named::Object(manifest::Kind::File as u8, object.ledger_group()));
        dir.note_owner(object.ledger_group(), &stat);
        self.counters.files_written.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.keep_live(ino, &object, &dir.body, true);
        let attr = self.attr(ino, generation, dir.body.is_ours(), &stat, 0);
        let opened = self.opened(ino, object, dir.body.clone(), None, flags.write || flags.truncate);
        Ok((attr, opened))
    }

    /// A file without opening it, a fifo, a socket or a device.
    ///
    /// # Errors
    /// As of [`Vault::create`]; [`Posix::Invalid`] for other kinds.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        rdev: u64,
    ) -> Result<Attr> {
        if matches!(kind, Kind::Dir | Kind::Symlink) {
            return Err(Posix::Invalid.into());
        }
        let parent = self.parent_to_change(parent, name)?;
        let dir = self.directory_to_change(*parent)?;
        let _names = self.locks.alone(&[*parent]);
        let new = self.new_name(&dir, name)?;
        let _making = dir.making(&new);
        let wanted = wanted_mode(&dir, caller, mode);
        let made = self.make_apart(&*dir.dir, &new.text, false, || match kind {
            Kind::File => dir.dir.create_file(&new.text, wanted).map(drop),
            _ => dir.dir.create_node(&new.text, kind, wanted, rdev),
        });
        let made =
            made.map_err(|e| self.abandon(&dir, &new, false, outcome("create a node in", dir.object(), e)));
        let stat = self
            .own(&dir, &new.text, made?.1, caller, wanted)
            .map_err(|e| self.abandon(&dir, &new, true, e))?;
        dir.note(&new, Named::Object(seal::kind_of(kind) as u8, device_object(&stat)));
        if kind == Kind::File {
            self.counters.files_written.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(self.made(&dir, name, &stat, stat.size))
    }

    /// At run depth this makes a run.
    ///
    /// # Errors
    /// As of [`Vault::create`].
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        if self.is_run_depth(parent) {
            return self.make_named_run(caller, parent, name, mode);
        }
        let parent = self.parent_to_change(parent, name)?;
        self.make_dir_in(caller, *parent, name, mode)
    }

    /// [`Vault::mkdir`] below a run's top.
    pub(crate) fn make_dir_in(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        let dir = self.directory_to_change(parent)?;
        let _names = self.locks.alone(&[parent]);
        let new = self.new_name(&dir, name)?;
        let _making = dir.making(&new);
        let inherited = if dir.inherited_group().is_some() { 0o2000 } else { 0 };
        let wanted = wanted_mode(&dir, caller, mode & 0o1777) | inherited;
        let object = || dir.object();
        let place = dir.place(Kind::Dir, name);
        let make = || {
            // Open to us until its record is in it, whatever mode it is to have.
            dir.dir.create_dir(&new.text, wanted | 0o700)?;
            let made = dir.dir.open_dir(&new.text).map_err(|e| outcome("open", object(), e));
            Ok(made.and_then(|made| record::create(&dir.body.context, &*made, place)))
        };
        let (id, found) = self
            .make_apart(&*dir.dir, &new.text, true, make)
            .map_err(|e| self.abandon(&dir, &new, false, outcome("make a directory in", object(), e)))?;
        let owned = id.and_then(|id| Ok((id, self.own(&dir, &new.text, found, caller, wanted)?)));
        let (id, stat) = owned.map_err(|e| {
            let _ = remove_made(&*dir.dir, &new.text);
            self.abandon(&dir, &new, false, e)
        })?;
        let attr = self.made(&dir, name, &stat, stat.size);
        dir.note(&new, Named::Object(manifest::Kind::Dir as u8, ledger::group(&id)));
        dir.note_owner(ledger::group(&id), &stat);
        self.nodes.set_dir_id(attr.ino, id);
        dir.body.own_names().begin(id);
        Ok(attr)
    }

    /// A symlink; its target is encrypted.
    ///
    /// # Errors
    /// As of [`Vault::create`]; [`Posix::NameTooLong`] for a target over 4,095 bytes.
    pub fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        let parent = self.parent_to_change(parent, name)?;
        let dir = self.directory_to_change(*parent)?;
        let _names = self.locks.alone(&[*parent]);
        let link = name::encrypt_link(dir.body.context.keys.name_key(), target).map_err(|e| match e {
            runvault_format::Error::TooLong => Posix::NameTooLong.into(),
            runvault_format::Error::Name => Posix::NotFound.into(),
            other => crate::Error::from(other),
        })?;
        let new = self.new_name(&dir, name)?;
        let _making = dir.making(&new);
        let made = || -> Result<Stat> {
            if let Some(side) = &link.side {
                Self::put_side(&*dir.dir, &name::side_link_of(&new.text, &link.text), side)
                    .map_err(|e| outcome("write a side file in", dir.object(), e))?;
            }
            let ((), found) = self
                .make_apart(&*dir.dir, &new.text, false, || dir.dir.create_symlink(&new.text, &link.text))
                .map_err(|e| outcome("make a symlink in", dir.object(), e))?;
            self.own(&dir, &new.text, found, caller, 0o777).inspect_err(|_| drop(dir.dir.unlink(&new.text)))
        };
        let stat = made().map_err(|e| {
            if link.side.is_some() {
                links::drop_side(&*dir.dir, &new.text, &link.text);
            }
            self.abandon(&dir, &new, false, e)
        })?;
        dir.note(&new, Named::Object(manifest::Kind::Symlink as u8, ledger::link_object(&link.text)));
        Ok(self.made(&dir, name, &stat, target.len() as u64))
    }

    /// A further name of a file.
    ///
    /// # Errors
    /// [`Posix::NotPermitted`] for a directory, [`Posix::CrossRun`], [`Posix::Exists`], [`Posix::ReadOnly`],
    /// [`crate::Error::Sealed`]; the store's.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.check_open()?;
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        if is_sealed(ino) {
            return Err(self.refusal_of_a_link(ino));
        }
        let known = self.nodes.known(ino).ok_or(Posix::Stale)?;
        if known.kind == Kind::Dir {
            return Err(Posix::NotPermitted.into());
        }
        self.check_same_run(&known.run, parent)?;
        let parent = self.parent_to_change(parent, name)?;
        let parent = *parent;
        let dir = self.directory_to_change(parent)?;
        if !Arc::ptr_eq(&known.run, &dir.run) {
            return Err(Posix::CrossRun.into());
        }
        // The store links names: the one that it is given must stay this node's.
        let lock = |from: Option<Ino>| self.locks.alone(&[from.unwrap_or(parent), parent]);
        let (at, _names) = self.located_under(ino, lock)?;
        let from = at.parent.ok_or(Posix::NotFound)?;
        // A name that went must not come back: the header soon knows it no more.
        self.settle_rename(ino)?;
        let new = self.new_name(&dir, name)?;
        let _making = dir.making(&new);
        let link_now =
            || at.dir.link(&at.stored, &*dir.dir, &new.text).map_err(|e| outcome("link in", dir.object(), e));
        let linked = if known.kind == Kind::File {
            self.with_file(ino, |file| {
                // The header, also of an empty file, must know both names when it has two.
                let id = file.ensure_written_header()?;
                let held = file.prepare_link(self.settled_place(ino, from), dir.place(Kind::File, name))?;
                let linked = link_now();
                dir.body.context.moved(Some(ino));
                linked.map(|()| held.done())?;
                Ok(Named::Object(manifest::Kind::File as u8, ledger::group(&id)))
            })
        } else {
            let object = self.ledger_object(&dir.body, ino, (&*at.dir, &at.stored), &at.looked.stat);
            link_beside(&at, &dir, &new, link_now).map(|()| object)
        };
        let object = linked.map_err(|e| self.abandon(&dir, &new, false, e))?;
        dir.note(&new, object);
        self.unsynced.names(dir.node);
        self.nodes.register(ino, known.kind, &dir.run, Name::new(dir.node, name), Found::Linked);
        let at = self.locate_node(ino)?;
        self.attr_at(ino, known.generation, &at)
    }

    /// The open directory of a node, which this process may write; the loose run is made where the
    /// mount's root has none.
    pub(crate) fn directory_to_change(&self, ino: Ino) -> Result<Arc<OpenDir>> {
        self.check_open()?;
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        let dir = match self.directory(ino) {
            Err(e) if ino == ROOT && is_not_found(&e) => {
                self.make_loose_run()?;
                self.directory(ino)?
            }
            other => other?,
        };
        dir.body.check_writer()?;
        Ok(dir)
    }

    /// The stored form of a name that is to be made: its side file is durable already.
    pub(crate) fn new_name(&self, dir: &OpenDir, name: &[u8]) -> Result<Stored> {
        if self.run_named(dir.node, name)?.is_some() {
            return Err(Posix::Exists.into());
        }
        let new = dir.stored(name)?;
        dir.will_have(&new);
        if let Some(side) = &new.side {
            Self::put_side(&*dir.dir, &name::side_name_of(&new.text), side)
                .map_err(|e| outcome("write a side file in", dir.object(), e))?;
        }
        Ok(new)
    }

    /// Makes an object of the store, and looks at it. It has not the number of one that has gone while the kernel knows
    /// that: a call on that one may be on its way, and would reach the new one.
    pub(crate) fn make_apart<T>(
        &self,
        dir: &dyn Dir,
        name: &[u8],
        is_dir: bool,
        make: impl Fn() -> io::Result<T>,
    ) -> io::Result<(T, Stat)> {
        let remove = || if is_dir { remove_made(dir, name) } else { dir.unlink(name) };
        let mut taken: Vec<Box<dyn Any>> = Vec::new();
        loop {
            let made = make()?;
            let stat = dir.stat(name).inspect_err(|_| drop(remove()))?;
            if taken.len() == APART_TRIES || self.nodes.generation(number(stat.ino)).is_none() {
                return Ok((made, stat));
            }
            drop(made);
            // While it is open nothing else gets the number.
            taken.push(if is_dir {
                let held: Box<dyn Any> = Box::new(dir.open_dir(name)?);
                remove()?;
                held
            } else {
                remove()?;
                let held = dir.create_file(name, 0o600)?;
                dir.unlink(name)?;
                Box::new(held)
            });
        }
    }

    /// Takes back what a failed creation left; gives the error on.
    pub(crate) fn abandon(
        &self,
        dir: &OpenDir,
        new: &Stored,
        made: bool,
        error: crate::Error,
    ) -> crate::Error {
        // The first error is the one to tell; leftovers are found by `check`.
        if made {
            let _ = dir.dir.unlink(&new.text);
        }
        let gone = || dir.dir.stat(&new.text).is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT));
        if new.side.is_some() && gone() {
            let _ = dir.dir.unlink(&name::side_name_of(&new.text));
        }
        error
    }

    /// Gives a new object, which was looked at, its owner and mode, as the kernel would have, had the caller made it.
    fn own(
        &self,
        dir: &OpenDir,
        stored: &[u8],
        mut found: Stat,
        caller: &Caller,
        wanted: u32,
    ) -> Result<Stat> {
        let stat = || dir.dir.stat(stored).map_err(|e| outcome("stat a new object in", dir.object(), e));
        if sys::is_root() {
            let gid = dir.inherited_group().unwrap_or(caller.gid);
            if (found.uid, found.gid) != (caller.uid, gid) {
                dir.dir
                    .set_owner(stored, Some(caller.uid), Some(gid))
                    .map_err(|e| outcome("change the owner of a new object in", dir.object(), e))?;
                found = stat()?;
            }
        }
        if found.kind != Kind::Symlink && found.mode & 0o7777 != wanted && !dir.has_default_acl() {
            dir.dir
                .set_mode(stored, wanted)
                .map_err(|e| outcome("change the mode of a new object in", dir.object(), e))?;
            found = stat()?;
        }
        Ok(found)
    }

    fn made(&self, dir: &OpenDir, name: &[u8], stat: &Stat, size: u64) -> Attr {
        let ino = number(stat.ino);
        let generation =
            self.nodes.register(ino, stat.kind, &dir.run, Name::new(dir.node, name), Found::Made);
        self.unsynced.names(dir.node);
        self.attr(ino, generation, dir.body.is_ours(), stat, size)
    }
}

/// Removes a directory in which there is a record at most.
fn remove_made(dir: &dyn Dir, name: &[u8]) -> io::Result<()> {
    if let Ok(made) = dir.open_dir(name) {
        let _ = made.unlink(name::RECORD);
    }
    dir.remove_dir(name)
}

/// A further name of what is no regular file: a link's long target lies beside each of its names.
fn link_beside(at: &At, dir: &OpenDir, new: &Stored, link: impl FnOnce() -> Result<()>) -> Result<()> {
    let text = links::long_text(&*at.dir, &at.stored, &at.looked.stat)
        .map_err(|e| outcome("read the link in", dir.object(), e))?;
    let Some(text) = text else { return link() };
    let to = (&*dir.dir, &new.text[..]);
    links::copy_side((&*at.dir, &at.stored), to, &text)
        .map_err(|e| outcome("copy a side file to", dir.object(), e))
        .and_then(|()| link())
        .inspect_err(|_| links::drop_side(&*dir.dir, &new.text, &text))
}

/// The mode that a new object is to have; a default ACL takes the umask's place.
fn wanted_mode(dir: &OpenDir, caller: &Caller, mode: u32) -> u32 {
    let masked = if caller.umask & mode != 0 && !dir.has_default_acl() { mode & !caller.umask } else { mode };
    masked & 0o7777
}
