//! Renames. Each thing that carries its place learns of it, durably, before the store does.

use std::sync::{Arc, PoisonError};

use runvault_format::name::{self, Stored};
use runvault_store::backend::{Dir, Kind, Rename, Stat};

use crate::api::{Ino, ROOT};
use crate::directory::{OpenDir, holds_nothing, new_record};
use crate::file::FileObject;
use crate::nodes::{Name, number};
use crate::outcome::{is_not_found, opened, outcome};
use crate::remove::remove_sides;
use crate::{Damage, Error, Posix, Result, Vault, record};

/// One side of an exchange: what stands there, and its object where it is a file.
type Side<'a> = (&'a End, Stat, Option<&'a Arc<FileObject>>);

/// One side of a rename.
struct End {
    dir: Arc<OpenDir>,
    name: Name,
    stored: Stored,
    stat: Option<Stat>,
}

impl End {
    fn look(dir: &OpenDir, stored: &Stored) -> Result<Option<Stat>> {
        match dir.dir.stat(&stored.text) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(outcome("look up a name in", dir.object(), e)),
        }
    }
}

impl Vault {
    /// EXDEV (`CrossRun`) between runs.
    ///
    /// # Errors
    /// What rename(2) names; damage of a directory's record; the store's.
    pub fn rename(&self, parent: Ino, name: &[u8], to: Ino, new: &[u8], how: Rename) -> Result<()> {
        self.check_open()?;
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        if let Some(run) = self.run_named(parent, name) {
            return self.rename_run((parent, name), &run, (to, new), how);
        }
        let from = self.directory(parent)?;
        from.body.check_writer()?;
        let dest = match self.directory(to) {
            Err(e) if to == ROOT && is_not_found(&e) => return Err(Posix::CrossRun.into()),
            other => other?,
        };
        if !Arc::ptr_eq(&from.run, &dest.run) {
            return Err(Posix::CrossRun.into());
        }
        let _one = (parent != to).then(|| self.moves.lock().unwrap_or_else(PoisonError::into_inner));
        let (old, target) = (from.stored(name)?, dest.stored(new)?);
        let (replaced, _names) = self.lock_with_child(&[parent, to], &mut || End::look(&dest, &target))?;
        let source = End::look(&from, &old)?.ok_or(Posix::NotFound)?;
        let source = End { name: Name::new(from.node, name), dir: from, stored: old, stat: Some(source) };
        let target = End { name: Name::new(dest.node, new), dir: dest, stored: target, stat: replaced };
        if self.run_named(to, new).is_some() {
            return Err(if how == Rename::NoReplace { Posix::Exists } else { Posix::CrossRun }.into());
        }
        let exchanged = if how == Rename::Exchange { Some(&target) } else { None };
        let known = self.make_known(&source)?;
        let renamed = exchanged.map(|end| self.make_known(end)).transpose().and_then(|other| {
            let renamed = match how {
                Rename::Exchange => self.exchange(&source, &target),
                Rename::NoReplace if target.stat.is_some() => Err(Posix::Exists.into()),
                Rename::NoReplace | Rename::Over => self.rename_over(&source, &target),
            };
            if let Some(ino) = other {
                self.nodes.forget(ino, 1);
            }
            renamed
        });
        self.nodes.forget(known, 1);
        renamed
    }

    /// Notes what stands there, until it is forgotten once: nobody need have looked it up before.
    fn make_known(&self, end: &End) -> Result<Ino> {
        let stat = end.stat.ok_or(Posix::NotFound)?;
        self.found(&end.dir, &end.name.text, &end.stored.text, stat).map(|attr| attr.ino)
    }

    fn rename_over(&self, source: &End, target: &End) -> Result<()> {
        let stat = source.stat.ok_or(Posix::NotFound)?;
        let ino = number(stat.ino);
        match target.stat {
            // Two names of one file: POSIX wants nothing done.
            Some(there) if there.ino == stat.ino => return Ok(()),
            Some(there) if stat.kind == Kind::Dir && there.kind != Kind::Dir => {
                return Err(Posix::NotDirectory.into());
            }
            Some(there) if stat.kind != Kind::Dir && there.kind == Kind::Dir => {
                return Err(Posix::IsDirectory.into());
            }
            _ => {}
        }
        self.put_sides(source, &stat, target)?;
        let done = match stat.kind {
            Kind::Dir => self.move_directory(source, &stat, target),
            Kind::File => self.move_file(source, &stat, target),
            _ => self.replacing(target, &mut || self.rename_names(source, ino, target)),
        };
        if let Err(error) = done {
            if target.stat.is_none() {
                self.abandon(&target.dir, &target.stored, false, Posix::NotFound.into());
            }
            return Err(error);
        }
        self.unsynced.renamed(ino, source.dir.node, target.dir.node);
        let kept = stat.kind == Kind::Symlink && source.stored.text == target.stored.text;
        if !kept {
            remove_sides(&*source.dir.dir, &source.stored.text, source.stored.side.is_some(), &stat);
        }
        if let Some(there) = target.stat.filter(|t| t.kind == Kind::Symlink && stat.kind != Kind::Symlink) {
            remove_sides(&*target.dir.dir, &target.stored.text, false, &there);
        }
        Ok(())
    }

    /// The side files that the new name needs, before it is there.
    fn put_sides(&self, source: &End, stat: &Stat, target: &End) -> Result<()> {
        if let Some(side) = &target.stored.side {
            Self::put_side(&*target.dir.dir, &name::side_name_of(&target.stored.text), side)
                .map_err(|e| outcome("write a side file in", target.dir.object(), e))?;
        }
        if stat.kind == Kind::Symlink {
            self.copy_link_side(&source.dir.dir, &source.stored.text, &target.dir, &target.stored.text)?;
        }
        Ok(())
    }

    /// A long target's side file, for a further name of its link.
    pub(crate) fn copy_link_side(
        &self,
        from: &Arc<dyn Dir>,
        stored: &[u8],
        to: &OpenDir,
        new: &[u8],
    ) -> Result<()> {
        match Self::read_side(&**from, &name::side_link_of(stored)) {
            Ok(bytes) => Self::put_side(&*to.dir, &name::side_link_of(new), &bytes)
                .map(drop)
                .map_err(|e| outcome("write a side file in", to.object(), e)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(e) => Err(outcome("read a side file of", to.object(), e)),
        }
    }

    /// The rename itself, in the store and then in memory.
    fn rename_names(&self, source: &End, ino: Ino, target: &End) -> Result<()> {
        // What must not be replaced was looked for under the locks; not every store knows the flag.
        source
            .dir
            .dir
            .rename(&source.stored.text, &*target.dir.dir, &target.stored.text, Rename::Over)
            .map_err(|e| outcome("rename in", source.dir.object(), e))?;
        if let Some(there) = target.stat {
            let last = there.nlink <= 1 || there.kind == Kind::Dir;
            self.nodes.remove_name(number(there.ino), &target.name, last);
        }
        self.nodes.moved(ino, &source.name, &target.name);
        Ok(())
    }

    /// `act` takes the target's name away from what has it: an open file learns of it.
    fn replacing(&self, target: &End, act: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        match self.losing(target) {
            None => act(),
            Some((file, last)) => {
                let held = file.prepare_unlink(last)?;
                act()?;
                held.done();
                Ok(())
            }
        }
    }

    /// The open file that loses the target's name, and whether it is its last.
    fn losing(&self, target: &End) -> Option<(Arc<FileObject>, bool)> {
        let stat = target.stat.filter(|t| t.kind == Kind::File)?;
        Some((self.files.live(number(stat.ino))?, stat.nlink <= 1))
    }

    fn move_file(&self, source: &End, stat: &Stat, target: &End) -> Result<()> {
        let ino = number(stat.ino);
        self.settle_rename(ino)?;
        let place = target.dir.place(Kind::File, &target.name.text);
        let force = target.stat.is_some_and(|t| t.kind == Kind::File && t.size > 0);
        let act = || self.rename_names(source, ino, target);
        self.with_file(ino, |file| {
            let held = file.prepare_rename(place, force)?;
            match self.losing(target) {
                Some((other, false)) => {
                    // Two files' paths change at once: no record may be written meanwhile, which
                    // needs neither of them locked.
                    held.done();
                    let moved = other.prepare_unlink(false).map(drop).and_then(|()| {
                        let _records = source.dir.body.context.hold_records()?;
                        act()
                    });
                    moved.inspect_err(|_| self.place_again(file, source))
                }
                losing => {
                    act()?;
                    held.done();
                    if let Some((other, _)) = losing {
                        other.prepare_unlink(true)?.done();
                    }
                    Ok(())
                }
            }
        })
    }

    /// A rename did not happen: the file's header names its old place again.
    fn place_again(&self, file: &Arc<FileObject>, end: &End) {
        match file.prepare_rename(end.dir.place(Kind::File, &end.name.text), true) {
            Ok(held) => held.done(),
            Err(error) => log::warn!("{}: {error}", end.dir.object()),
        }
    }

    fn move_directory(&self, source: &End, stat: &Stat, target: &End) -> Result<()> {
        let ino = number(stat.ino);
        if self.nodes.is_within(target.dir.node, ino) {
            return Err(Posix::Invalid.into());
        }
        if self.is_run_depth(target.dir.node) {
            return Err(Posix::CrossRun.into());
        }
        if self.folder_path(ino).is_some_and(|path| self.table().has_runs_below(&path)) {
            return Err(Posix::Busy.into());
        }
        self.settle_rename(ino)?;
        let _records = source.dir.body.context.hold_records()?;
        self.relocate(source, target)?;
        let act = || self.rename_names(source, ino, target);
        let Some(there) = target.stat else { return act() };
        self.remove_empty(&target.dir, &target.name.text, act)?;
        self.directory_gone(number(there.ino), &target.name);
        Ok(())
    }

    /// The record of the directory `source` names the place of `target` too.
    fn relocate(&self, source: &End, target: &End) -> Result<()> {
        let object = || source.dir.object();
        let dir = source.dir.dir.open_dir(&source.stored.text).map_err(|e| opened("open", object(), e))?;
        let context = &source.dir.body.context;
        let old = source.dir.place(Kind::Dir, &source.name.text);
        let new = target.dir.place(Kind::Dir, &target.name.text);
        if record::read(context, &*dir, Some(old))?.is_none() {
            if !holds_nothing(&*dir).map_err(|e| outcome("list", object(), e))? {
                return Err(Error::damaged(object(), Damage::DirectoryRecord));
            }
            new_record(context, &*dir, old, &object)?;
        }
        record::rename(context, &*dir, old, new)
    }

    fn exchange(&self, a: &End, b: &End) -> Result<()> {
        let (first, second) = (a.stat.ok_or(Posix::NotFound)?, b.stat.ok_or(Posix::NotFound)?);
        let (i, j) = (number(first.ino), number(second.ino));
        if i == j {
            return Ok(());
        }
        if self.nodes.is_within(b.dir.node, i) || self.nodes.is_within(a.dir.node, j) {
            return Err(Posix::Invalid.into());
        }
        for (end, stat) in [(a, first), (b, second)] {
            let ino = number(stat.ino);
            if stat.kind == Kind::Dir && self.is_run_depth(end.dir.node) {
                return Err(Posix::CrossRun.into());
            }
            if self.folder_path(ino).is_some_and(|path| self.table().has_runs_below(&path)) {
                return Err(Posix::Busy.into());
            }
            self.settle_rename(ino)?;
        }
        self.with_bound(i, first, |one| {
            self.with_bound(j, second, |other| self.exchange_now((a, first, one), (b, second, other)))
        })?;
        self.unsynced.renamed(i, a.dir.node, b.dir.node);
        self.unsynced.renamed(j, b.dir.node, a.dir.node);
        Ok(())
    }

    /// Lets `act` use the object of what is a regular file.
    fn with_bound<T>(
        &self,
        ino: Ino,
        stat: Stat,
        act: impl FnOnce(Option<&Arc<FileObject>>) -> Result<T>,
    ) -> Result<T> {
        if stat.kind == Kind::File { self.with_file(ino, |file| act(Some(file))) } else { act(None) }
    }

    fn exchange_now(&self, (a, first, one): Side<'_>, (b, second, other): Side<'_>) -> Result<()> {
        self.bind(a, &first, one, b)?;
        self.bind(b, &second, other, a)?;
        // Two paths change at once: no record may be written meanwhile.
        let records = a.dir.body.context.hold_records()?;
        let exchanged = a
            .dir
            .dir
            .rename(&a.stored.text, &*b.dir.dir, &b.stored.text, Rename::Exchange)
            .map_err(|e| outcome("exchange in", a.dir.object(), e));
        if let Err(error) = exchanged {
            drop(records);
            one.inspect(|file| self.place_again(file, a));
            other.inspect(|file| self.place_again(file, b));
            return Err(error);
        }
        self.nodes.moved(number(first.ino), &a.name, &b.name);
        self.nodes.moved(number(second.ino), &b.name, &a.name);
        Self::exchange_link_sides(a, b)
    }

    /// What stands at `from` names the place of `to` too, durably.
    fn bind(&self, from: &End, stat: &Stat, file: Option<&Arc<FileObject>>, to: &End) -> Result<()> {
        if stat.kind == Kind::Dir {
            self.relocate(from, to)?;
        }
        if let Some(file) = file {
            file.prepare_rename(to.dir.place(Kind::File, &to.name.text), true)?.done();
        }
        Ok(())
    }

    /// Long link targets follow their links.
    fn exchange_link_sides(a: &End, b: &End) -> Result<()> {
        let (of_a, of_b) = (name::side_link_of(&a.stored.text), name::side_link_of(&b.stored.text));
        let (in_a, in_b) = (a.dir.dir.stat(&of_a).is_ok(), b.dir.dir.stat(&of_b).is_ok());
        let moved = match (in_a, in_b) {
            (true, true) => a.dir.dir.rename(&of_a, &*b.dir.dir, &of_b, Rename::Exchange),
            (true, false) => a.dir.dir.rename(&of_a, &*b.dir.dir, &of_b, Rename::Over),
            (false, true) => b.dir.dir.rename(&of_b, &*a.dir.dir, &of_a, Rename::Over),
            (false, false) => Ok(()),
        };
        moved.map_err(|e| outcome("exchange side files in", a.dir.object(), e))
    }

    /// Lets `act` use a file's object.
    pub(crate) fn with_file<T>(
        &self,
        ino: Ino,
        act: impl FnOnce(&Arc<FileObject>) -> Result<T>,
    ) -> Result<T> {
        let (file, _) = self.file_object(ino, false, false)?;
        let result = act(&file);
        drop(file);
        self.let_go(ino);
        result
    }
}
