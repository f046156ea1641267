//! From names to nodes.

use std::collections::HashSet;
use std::sync::Arc;

use runvault_format::name;
use runvault_store::backend::{Kind, Stat};

use crate::api::{Attr, Handle, Ino, ROOT};
use crate::directory::OpenDir;
use crate::files::Looked;
use crate::nodes::{Found, Name, number};
use crate::outcome::{is_not_found, outcome};
use crate::run::Run;
use crate::sealed::is_sealed;
use crate::{Damage, Error, Posix, Result, Vault, links, runs};

impl Vault {
    /// The node of a name, with one more lookup reference.
    ///
    /// # Errors
    /// [`Posix::NotFound`]; damage of a directory that does not belong there; the store's.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.check_open()?;
        if name.len() > name::NAME_MAX {
            return Err(Posix::NameTooLong.into());
        }
        if is_sealed(parent) {
            return match self.sealed_lookup(parent, name) {
                Err(error) if is_not_found(&error) => self.lookup_later(parent, name),
                found => found,
            };
        }
        if let Some(run) = self.run_named(parent, name)? {
            return self.lookup_run(parent, name, &run);
        }
        if self.is_left_out(parent, name)? {
            return Err(Posix::NotFound.into());
        }
        let dir = self.directory(parent)?;
        let _names = self.locks.shared(parent);
        self.lookup_in(&dir, name)
    }

    /// The node of a name; the caller has locked the directory's names.
    pub(crate) fn lookup_in(&self, dir: &Arc<OpenDir>, text: &[u8]) -> Result<Attr> {
        let stored = dir.stored(text)?;
        if dir.lacks(&stored) {
            return Err(Posix::NotFound.into());
        }
        let stored = stored.text;
        let looked = self.files.look(|| dir.dir.stat(&stored));
        let looked = looked.map_err(|e| outcome("look up a name in", dir.object(), e))?;
        self.found(dir, text, &stored, &looked)
    }

    /// Notes what was found under a name, and shows it. A directory must belong there.
    pub(crate) fn found(
        &self,
        dir: &Arc<OpenDir>,
        text: &[u8],
        stored: &[u8],
        looked: &Looked,
    ) -> Result<Attr> {
        let stat = &looked.stat;
        let ino = number(stat.ino);
        let name = Name::new(dir.node, text);
        let opened = if stat.kind == Kind::Dir { self.verified(dir, ino, &name)? } else { None };
        let found = Found::There { nlink: stat.nlink };
        let generation = self.nodes.register(ino, stat.kind, &dir.run, name, found);
        if let Some(opened) = opened.filter(|d| d.lasts) {
            self.nodes.set_dir_id(ino, opened.id);
        }
        self.attr_of(ino, generation, &dir.body, &*dir.dir, stored, looked)
            .inspect_err(|_| self.nodes.forget(ino, 1))
    }

    /// Opens a directory that was not seen under this name before: its record must name the place.
    fn verified(&self, parent: &Arc<OpenDir>, ino: Ino, name: &Name) -> Result<Option<Arc<OpenDir>>> {
        let known = self.nodes.known(ino);
        if known.is_some_and(|k| k.dir_id.is_some() && k.name.as_ref() == Some(name)) {
            return Ok(None);
        }
        if let Some(open) = self.still_open(ino, &name.text, parent) {
            return Ok(Some(open));
        }
        match self.open_child(parent, ino, &name.text, None) {
            Ok(open) => Ok(Some(open)),
            // Its mode shuts us out: seen from outside it may be; its place counts when it is opened.
            Err(Error::Store { source, .. }) if source.raw_os_error() == Some(libc::EACCES) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The top directory of a run, which is only looked at: its journal and lease are touched when
    /// something in it is asked for.
    pub(crate) fn lookup_run(&self, parent: Ino, name: &[u8], run: &Arc<Run>) -> Result<Attr> {
        if run.is_sealed() {
            return self.sealed_top(run);
        }
        let (stat, ours) = self.top_stat(run)?;
        let ino = number(stat.ino);
        let generation = self.nodes.register_top(ino, run, Name::new(parent, name));
        Ok(self.attr(ino, generation, ours, &stat, stat.size))
    }

    /// With whether only this mount changes it.
    fn top_stat(&self, run: &Run) -> Result<(Stat, bool)> {
        run.check_there()?;
        let object = || format!("runs/{}/tree", run.id);
        let (stat, ours) = match run.opened_body() {
            Some(body) => (body.tree.stat_self(), body.is_ours()),
            None => (runs::run_dir(&self.root, &run.id)?.stat(b"tree"), false),
        };
        let stat = match stat.map_err(|e| outcome("stat", object(), e)) {
            Err(e) if is_not_found(&e) && !runs::is_gone(&self.root, &run.id) => {
                return Err(Error::damaged(object(), Damage::Run("it is missing".into())));
            }
            stat => stat?,
        };
        if stat.kind == Kind::Dir { Ok((stat, ours)) } else { Err(Error::damaged(object(), Damage::Kind)) }
    }

    /// Takes `n` lookup references of the kernel back.
    pub fn forget(&self, ino: Ino, n: u64) {
        self.nodes.forget(ino, n);
    }

    /// How many nodes the kernel knows, or something in here needs.
    pub fn known_nodes(&self) -> u64 {
        self.nodes.count()
    }

    /// The nodes that only the kernel's lookups keep, of `places` places of the table from `hand` on (0 at
    /// first): about those that came first. `hand` moves on, and begins anew at the table's end.
    pub fn idle_nodes(&self, hand: &mut usize, places: usize) -> Vec<Ino> {
        self.nodes.idle(hand, places)
    }

    /// Whether the kernel may know the node.
    pub fn knows_node(&self, ino: Ino) -> bool {
        self.nodes.sight(ino).kind.is_some()
    }

    /// The nodes of runs that were sealed here since this was asked last: nothing of them may stay in memory.
    pub fn nodes_sealed_since(&self) -> Vec<Ino> {
        std::mem::take(&mut *self.sealed_away())
    }

    /// The nodes of runs that another machine has taken over and that `told` does not have yet: runs by the number
    /// that this mount counts them with.
    pub fn nodes_lost_since(&self, told: &mut HashSet<u32>) -> Vec<Ino> {
        let bodies = self.bodies().into_iter();
        let lost = bodies.filter(|(run, body)| body.is_lost() && told.insert(run.serial()));
        lost.flat_map(|(run, _)| self.nodes.of_run(&run)).collect()
    }

    /// Attributes of a node.
    ///
    /// # Errors
    /// [`Posix::Stale`] for a node that was forgotten, [`Posix::NotFound`]; the store's.
    pub fn getattr(&self, ino: Ino, handle: Option<Handle>) -> Result<Attr> {
        self.check_open()?;
        if ino == ROOT {
            return self.root_attr();
        }
        if is_sealed(ino) {
            return match self.sealed_attr(ino) {
                // Closed to this identity, while a program has it open.
                Err(error) => {
                    let open = self.handles.all_sealed().into_iter().find(|(_, file)| file.ino() == ino);
                    open.map_or(Err(error), |(_, file)| file.attr(self))
                }
                found => found,
            };
        }
        let open = handle.and_then(|h| self.handles.file(h).ok());
        let node = self.nodes.sight(ino);
        let generation = node.generation;
        if let Some(run) = node.top_of {
            let (stat, ours) = self.top_stat(&run)?;
            return Ok(self.attr(ino, generation, ours, &stat, stat.size));
        }
        let open = open.map(|open| (open.file.clone(), open.body.clone()));
        if let Some((file, body)) = open.or_else(|| self.files.live_in(ino)) {
            return self.live_attr(ino, generation, &body, &file);
        }
        // A directory that is open anyway need not be looked for, unless it was removed.
        if node.kind == Some(Kind::Dir)
            && let Some(dir) = self.kept_directory(ino)
            && let Ok(stat) = dir.dir.stat_self()
            && stat.nlink > 0
        {
            return Ok(self.dir_attr(ino, generation, &dir.body, &stat));
        }
        match self.locate_node(ino) {
            Ok(at) => self.attr_at(ino, generation, &at),
            Err(error) => {
                // A directory that was removed while someone stands in it.
                let dir = self.kept_directory(ino).ok_or(error)?;
                let stat = dir.dir.stat_self().map_err(|e| outcome("stat", dir.object(), e))?;
                Ok(self.attr(ino, generation, dir.body.is_ours(), &stat, stat.size))
            }
        }
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// [`Posix::Invalid`] for anything else; [`Damage::Name`]; the store's.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.check_open()?;
        if is_sealed(ino) {
            return self.sealed_link(ino);
        }
        let (at, _names) = self.hold_node(ino)?;
        if at.looked.stat.kind != Kind::Symlink {
            return Err(Posix::Invalid.into());
        }
        let object = || at.body.context.object(ino);
        let (text, side) =
            links::read(&*at.dir, &at.stored).map_err(|e| outcome("read the link", object(), e))?;
        let key = at.body.context.keys.name_key();
        name::decrypt_link(key, &text, side.as_deref()).map_err(|_| Error::damaged(object(), Damage::Name))
    }
}
