//! Names that go.

use std::sync::Arc;

use runvault_format::ledger::Named;
use runvault_format::name::{self, Shape, Stored};
use runvault_store::backend::{Dir, Kind, Stat};

use crate::api::Ino;
use crate::directory::OpenDir;
use crate::nodes::{Name, number};
use crate::outcome::{opened, outcome};
use crate::{Error, Posix, Result, Vault, links, record};

impl Vault {
    /// Removes a name of anything but a directory. Who has the file open keeps it.
    ///
    /// # Errors
    /// [`Posix::IsDirectory`], [`Posix::NotFound`], [`Posix::ReadOnly`]; the store's.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let parent = self.parent_of_present(parent, name)?;
        let dir = self.present_directory(*parent)?;
        if self.run_named(*parent, name)?.is_some() {
            return Err(Posix::IsDirectory.into());
        }
        let names = self.locks.alone(&[*parent]);
        let stored = dir.stored(name)?;
        let stat = dir.dir.stat(&stored.text).map_err(|e| outcome("look up a name in", dir.object(), e))?;
        if stat.kind == Kind::Dir {
            return Err(Posix::IsDirectory.into());
        }
        let ino = number(stat.ino);
        let last = stat.nlink <= 1;
        dir.body.check_remover(self.gateway.as_deref(), last)?;
        let target = links::long_text(&*dir.dir, &stored.text, &stat).ok().flatten();
        // Whoever has it open from now on is told; nobody else opens it before its name has gone.
        let opening = self.files.opening(ino);
        let live = self.files.live(ino).filter(|_| stat.kind == Kind::File);
        let was = self.nodes.generation(ino);
        let act = || -> Result<()> {
            let changing = dir.changing();
            let gone = dir.dir.unlink(&stored.text);
            changing.name(&stored.text, if gone.is_ok() { Named::Nothing } else { Named::Unknown });
            if !last || live.is_some() {
                dir.body.context.moved(Some(ino));
            }
            gone.map_err(|e| outcome("unlink in", dir.object(), e))?;
            self.nodes.remove_name(ino, was, &Name::new(dir.node, name), last);
            Ok(())
        };
        match &live {
            None => {
                act()?;
                drop(opening);
            }
            Some(file) => {
                // It stays the one that everybody gets.
                drop(opening);
                let held = file.prepare_unlink(last)?;
                act()?;
                held.done();
            }
        }
        self.unsynced.names(dir.node);
        if !last {
            self.unsynced.unlinked(ino, dir.node);
        }
        remove_sides(&*dir.dir, &stored, target.as_deref());
        if dir.body.context.read_only() {
            // There is room now: the next call takes the lease.
            drop(names);
            let run = dir.run.clone();
            drop(dir);
            self.close_unused_body(&run);
        }
        Ok(())
    }

    /// Removes an empty directory; an empty open run as a whole.
    ///
    /// # Errors
    /// [`Posix::NotEmpty`], [`Posix::NotDirectory`], [`Posix::NotFound`]; the store's.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.check_open()?;
        if let Some(run) = self.run_named(parent, name)? {
            return self.remove_run(parent, name, &run);
        }
        let parent = self.parent_of_present(parent, name)?;
        let dir = self.present_directory(*parent)?;
        dir.body.check_writer()?;
        let stored = dir.stored(name)?;
        let look = || dir.dir.stat(&stored.text).map_err(|e| outcome("look up a name in", dir.object(), e));
        let (stat, _names) = self.lock_with_child(&[*parent], &mut || look().map(Some))?;
        let stat = stat.ok_or(Posix::NotFound)?;
        if stat.kind != Kind::Dir {
            return Err(Posix::NotDirectory.into());
        }
        let ino = number(stat.ino);
        if self.has_runs_below(ino)? {
            return Err(Posix::NotEmpty.into());
        }
        let changing = dir.changing();
        let removed = self.remove_empty(&dir, name, || {
            dir.dir.remove_dir(&stored.text).map_err(|e| outcome("remove a directory in", dir.object(), e))
        });
        match &removed {
            Ok(_) => changing.name(&stored.text, Named::Nothing),
            Err(Error::Posix(Posix::NotEmpty)) => {}
            Err(_) => changing.name(&stored.text, Named::Unknown),
        }
        drop(changing);
        let _still_open = removed?;
        self.directory_gone(ino, &Name::new(dir.node, name));
        self.unsynced.names(dir.node);
        remove_sides(&*dir.dir, &stored, None);
        Ok(())
    }

    /// The open directory of a node, if there is something in it at all.
    pub(crate) fn present_directory(&self, ino: Ino) -> Result<Arc<OpenDir>> {
        self.check_open()?;
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        self.directory(ino)
    }

    /// Locks the names of `dirs`, and of the directory that `look` finds, which stays that one.
    pub(crate) fn lock_with_child(
        &self,
        dirs: &[Ino],
        look: &mut dyn FnMut() -> Result<Option<Stat>>,
    ) -> Result<(Option<Stat>, Vec<std::sync::RwLockWriteGuard<'_, ()>>)> {
        loop {
            let before = look()?;
            let child = before.filter(|stat| stat.kind == Kind::Dir).map(|stat| number(stat.ino));
            let all: Vec<Ino> = dirs.iter().copied().chain(child).collect();
            let guards = self.locks.alone(&all);
            let now = look()?;
            if now.map(|s| (s.ino, s.kind)) == before.map(|s| (s.ino, s.kind)) {
                return Ok((now, guards));
            }
        }
    }

    /// Lets `act` remove or replace the empty directory `text`: its record goes before, and comes
    /// back with the same id when that or `act` fails. Its names are locked by the caller. While what it gives is open
    /// no other object has the directory's number.
    pub(crate) fn remove_empty(
        &self,
        parent: &OpenDir,
        text: &[u8],
        act: impl FnOnce() -> Result<()>,
    ) -> Result<Arc<dyn Dir>> {
        let object = || parent.object();
        let context = &parent.body.context;
        let dir = parent.dir.open_dir(&parent.stored(text)?.text).map_err(|e| opened("open", object(), e))?;
        let inode = dir.stat_self().map_err(|e| outcome("stat", object(), e))?.ino;
        let left = leftovers(&*dir).map_err(|e| outcome("list", object(), e))?.ok_or(Posix::NotEmpty)?;
        if left.only_foreign {
            log::warn!(
                "{}: the directory of inode {inode} looks empty and is not: it holds names that are not ours; \
                 check names them",
                object()
            );
            return Err(Posix::NotEmpty.into());
        }
        for side in left.sides {
            dir.unlink(&side).map_err(|e| outcome("remove a side file in", object(), e))?;
        }
        // What is damaged may go too: it holds nothing.
        let id = record::read(context, &*dir, None).ok().flatten();
        let unlinked = match dir.unlink(name::RECORD) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                Err(outcome("remove the record of", object(), e))
            }
            _ => Ok(()),
        };
        let removed = unlinked.and_then(|()| act()).inspect_err(|_| {
            let place = parent.place(Kind::Dir, text);
            if let Some(id) = id
                && !matches!(record::read(context, &*dir, None), Ok(Some(_)))
                && let Err(error) = record::put_back(context, &*dir, id, place)
            {
                log::warn!("{}: an empty directory in it gets a new record: {error}", object());
            }
            // What is made in it must be named by the id that its record has, if it still has one.
            self.dirs.drop_one(number(inode));
            self.nodes.forget_dir_id(number(inode));
        });
        if let (Ok(()), Some(id)) = (&removed, id) {
            self.keep_removed(parent, number(inode), dir.clone(), id);
        }
        removed.map(|()| dir)
    }

    /// Forgets a directory that was removed and is still open.
    pub(crate) fn directory_gone(&self, ino: Ino, name: &Name) {
        self.unsynced.forget_dir(ino);
        self.nodes.remove_name(ino, self.nodes.generation(ino), name, true);
        self.foreign_seen(ino, None);
        if self.nodes.known(ino).is_none() {
            self.dirs.drop_one(ino);
        }
    }
}

/// What lies in a directory that shows no names.
#[derive(Default)]
struct Leftovers {
    /// Orphaned side files.
    sides: Vec<Vec<u8>>,
    /// Names that are not ours, and no name that is.
    only_foreign: bool,
}

/// `None` if the directory holds names of ours.
fn leftovers(dir: &dyn Dir) -> std::io::Result<Option<Leftovers>> {
    let mut found = Some(Leftovers::default());
    dir.entries(0, &mut |entry| {
        match (name::shape(&entry.name), &mut found) {
            (Shape::SideName | Shape::SideLink, Some(left)) => left.sides.push(entry.name),
            (Shape::Foreign, Some(left)) => left.only_foreign = true,
            (Shape::Short | Shape::Long, _) => found = None,
            _ => {}
        }
        found.is_some()
    })?;
    Ok(found)
}

/// The side files of a name that has gone, and of the long target that it had. What stays behind costs
/// room only.
pub(crate) fn remove_sides(dir: &dyn Dir, stored: &Stored, target: Option<&[u8]>) {
    if stored.side.is_some() {
        let _ = dir.unlink(&name::side_name_of(&stored.text));
    }
    if let Some(text) = target {
        links::drop_side(dir, &stored.text, text);
    }
}
