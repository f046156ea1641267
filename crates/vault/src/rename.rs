//! Renames. Each thing that carries its place learns of it, durably, before the store does.

use std::sync::{Arc, PoisonError};

use runvault_format::keys::Place;
use runvault_format::ledger::Named;
use runvault_format::name::{self, Stored};
use runvault_store::backend::{Kind, Rename, Stat};

use crate::api::{Ino, ROOT};
use crate::directory::{OpenDir, holds_nothing, new_record};
use crate::file::FileObject;
use crate::files::Kept;
use crate::nodes::{Name, number};
use crate::outcome::{is_not_found, opened, outcome};
use crate::remove::remove_sides;
use crate::{Damage, Error, Posix, Result, Vault, links, record};

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
        if dir.lacks(stored) {
            return Ok(None);
        }
        match dir.dir.stat(&stored.text) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(outcome("look up a name in", dir.object(), e)),
        }
    }

    /// What stood there has lost this name, or may have.
    fn moved(&self) {
        if let Some(stat) = &self.stat {
            self.dir.body.context.moved((stat.kind != Kind::Dir).then_some(number(stat.ino)));
        }
    }

    /// The place of a file of that name.
    fn file_place(&self) -> Place {
        self.dir.place(Kind::File, &self.name.text)
    }

    /// The text of the link that stands there, if its target is long.
    fn long_text(&self) -> Result<Option<Vec<u8>>> {
        let Some(stat) = &self.stat else { return Ok(None) };
        links::long_text(&*self.dir.dir, &self.stored.text, stat)
            .map_err(|e| outcome("read the link in", self.dir.object(), e))
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
        if let Some(run) = self.run_named(parent, name)? {
            return self.rename_run((parent, name), &run, (to, new), how);
        }
        let source = self.parent_of_present(parent, name)?;
        let parent = *source;
        let from = self.directory(parent)?;
        self.check_same_run(&from.run, to)?;
        let place = self.parent_to_replace(to, new, how)?;
        let to = *place;
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
        if self.run_named(to, new)?.is_some() {
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
        // Of what is found only the number counts, not a size.
        let looked = self.files.looked(stat);
        self.found(&end.dir, &end.name.text, &end.stored.text, &looked).map(|attr| attr.ino)
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
        let texts = (source.long_text()?, target.long_text().ok().flatten());
        let _same = self.keep_file(&stat);
        let (object, changing) =
            (self.object_of(source, &stat), (source.dir.changing(), target.dir.changing()));
        let moved = self.put_sides(source, texts.0.as_deref(), target).and_then(|()| match stat.kind {
            Kind::Dir => self.move_directory(source, &stat, target),
            Kind::File => self.move_file(source, &stat, target),
            _ => self.replacing(target, &mut || self.rename_names(source, ino, target)),
        });
        // Of the links that might stand there now, only the one that does keeps its target.
        for text in [&texts.0, &texts.1].into_iter().flatten() {
            links::drop_side(&*target.dir.dir, &target.stored.text, text);
        }
        if let Err(error) = moved {
            changing.0.name(&source.stored.text, Named::Unknown);
            changing.1.name(&target.stored.text, Named::Unknown);
            return Err(self.abandon(&target.dir, &target.stored, false, error));
        }
        changing.0.name(&source.stored.text, Named::Nothing);
        changing.1.name(&target.stored.text, object);
        drop(changing);
        self.unsynced.renamed(ino, source.dir.node, target.dir.node);
        if let Some(there) = target.stat.filter(|there| there.kind == Kind::File && there.nlink > 1) {
            self.unsynced.unlinked(number(there.ino), target.dir.node);
        }
        remove_sides(&*source.dir.dir, &source.stored, texts.0.as_deref());
        Ok(())
    }

    /// What is noted of a file stays what it is until it has its new name.
    fn keep_file(&self, stat: &Stat) -> Option<Kept<'_>> {
        if stat.kind == Kind::File { self.keep_object(number(stat.ino)) } else { None }
    }

    /// What stands there, for the ledger.
    fn object_of(&self, end: &End, stat: &Stat) -> Named {
        let at = (&*end.dir.dir, &end.stored.text[..]);
        self.ledger_object(&end.dir.body, number(stat.ino), at, stat)
    }

    /// The side files that the new name needs, before it is there. `text`: of a link with a long target.
    fn put_sides(&self, source: &End, text: Option<&[u8]>, target: &End) -> Result<()> {
        if let Some(side) = &target.stored.side {
            Self::put_side(&*target.dir.dir, &name::side_name_of(&target.stored.text), side)
                .map_err(|e| outcome("write a side file in", target.dir.object(), e))?;
        }
        text.map_or(Ok(()), |text| Self::copy_target(source, target, text))
    }

    /// The long target of the link at `from`, for the name of `to` too.
    fn copy_target(from: &End, to: &End, text: &[u8]) -> Result<()> {
        let ends = [from, to].map(|end| (&*end.dir.dir, &end.stored.text[..]));
        links::copy_side(ends[0], ends[1], text)
            .map_err(|e| outcome("copy a side file to", to.dir.object(), e))
    }

    /// The rename itself, in the store and then in memory.
    fn rename_names(&self, source: &End, ino: Ino, target: &End) -> Result<()> {
        target.dir.will_have(&target.stored);
        let was = target.stat.and_then(|there| self.nodes.generation(number(there.ino)));
        // What must not be replaced was looked for under the locks; not every store knows the flag.
        let renamed =
            source.dir.dir.rename(&source.stored.text, &*target.dir.dir, &target.stored.text, Rename::Over);
        source.moved();
        if target.stat.is_some_and(|there| there.kind != Kind::Dir && there.nlink > 1)
            || self.losing(target).is_some()
        {
            target.moved();
        }
        renamed.map_err(|e| outcome("rename in", source.dir.object(), e))?;
        if let Some(there) = target.stat {
            let last = there.nlink <= 1 || there.kind == Kind::Dir;
            self.nodes.remove_name(number(there.ino), was, &target.name, last);
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
        let (old, new) = (source.file_place(), target.file_place());
        let force = target.stat.is_some_and(|t| t.kind == Kind::File && t.size > 0);
        let act = || self.rename_names(source, ino, target);
        self.with_file(ino, |file| {
            let held = file.prepare_rename(old, new, force)?;
            match self.losing(target) {
                Some((other, false)) => {
                    // Two files' paths change at once: no record may be written meanwhile, which
                    // needs neither of them locked.
                    held.done();
                    let moved = other.prepare_unlink(false).map(drop).and_then(|()| {
                        let _records = source.dir.body.context.hold_records()?;
                        act()
                    });
                    moved.inspect_err(|_| Self::place_again(file, source, target))
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

    /// A rename to `other` did not happen, as the store says: the file's header names its old place first again.
    fn place_again(file: &Arc<FileObject>, end: &End, other: &End) {
        match file.prepare_rename(other.file_place(), end.file_place(), true) {
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
        if self.has_runs_below(ino)? {
            return Err(Posix::Busy.into());
        }
        self.settle_rename(ino)?;
        let _records = source.dir.body.context.hold_records()?;
        self.relocate(source, target)?;
        let act = || self.rename_names(source, ino, target);
        let Some(there) = target.stat else { return act() };
        let _still_open = self.remove_empty(&target.dir, &target.name.text, act)?;
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
            if self.has_runs_below(ino)? {
                return Err(Posix::Busy.into());
            }
            self.settle_rename(ino)?;
        }
        let texts = (a.long_text()?, b.long_text()?);
        let _same = (self.keep_file(&first), self.keep_file(&second));
        let objects = (self.object_of(a, &first), self.object_of(b, &second));
        let changing = (a.dir.changing(), b.dir.changing());
        let put = |from, to, text: &Option<Vec<u8>>| {
            text.as_deref().map_or(Ok(()), |text| Self::copy_target(from, to, text))
        };
        let exchanged = put(a, b, &texts.0).and_then(|()| put(b, a, &texts.1)).and_then(|()| {
            self.with_bound(i, first, |one| {
                self.with_bound(j, second, |other| self.exchange_now((a, first, one), (b, second, other)))
            })
        });
        for text in [&texts.0, &texts.1].into_iter().flatten() {
            for end in [a, b] {
                links::drop_side(&*end.dir.dir, &end.stored.text, text);
            }
        }
        let now = if exchanged.is_ok() { objects } else { (Named::Unknown, Named::Unknown) };
        changing.0.name(&a.stored.text, now.1);
        changing.1.name(&b.stored.text, now.0);
        drop(changing);
        exchanged?;
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
        let exchanged =
            self.bind(a, &first, one, b).and_then(|()| self.bind(b, &second, other, a)).and_then(|()| {
                // Two paths change at once: no record may be written meanwhile.
                let _records = a.dir.body.context.hold_records()?;
                let renamed = a.dir.dir.rename(&a.stored.text, &*b.dir.dir, &b.stored.text, Rename::Exchange);
                a.moved();
                b.moved();
                renamed.map_err(|e| outcome("exchange in", a.dir.object(), e))
            });
        if let Err(error) = exchanged {
            one.inspect(|file| Self::place_again(file, a, b));
            other.inspect(|file| Self::place_again(file, b, a));
            return Err(error);
        }
        self.nodes.moved(number(first.ino), &a.name, &b.name);
        self.nodes.moved(number(second.ino), &b.name, &a.name);
        Ok(())
    }

    /// What stands at `from` names the place of `to` too, durably.
    fn bind(&self, from: &End, stat: &Stat, file: Option<&Arc<FileObject>>, to: &End) -> Result<()> {
        if stat.kind == Kind::Dir {
            self.relocate(from, to)?;
        }
        if let Some(file) = file {
            file.prepare_rename(from.file_place(), to.file_place(), true)?.done();
        }
        Ok(())
    }

    /// Lets `act` use a file's object.
    pub(crate) fn with_file<T>(
        &self,
        ino: Ino,
        act: impl FnOnce(&Arc<FileObject>) -> Result<T>,
    ) -> Result<T> {
        let (file, ..) = self.file_object(ino, false, false)?;
        let result = act(&file);
        drop(file);
        self.let_go(ino);
        result
    }
}
