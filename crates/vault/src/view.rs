//! What `stat` shows: the backing's attributes, with the plaintext's size.

use std::io;
use std::sync::{Arc, RwLockReadGuard};

use runvault_format::keys::Place;
use runvault_store::backend::{Access, Dir, Kind, Stat};

use crate::api::{Attr, Ino, ROOT};
use crate::directory::OpenDir;
use crate::file::FileObject;
use crate::files::Looked;
use crate::nodes::{Name, number};
use crate::outcome::{opened, outcome};
use crate::run::Body;
use crate::sealed::is_sealed;
use crate::{Error, Posix, Result, Vault, links};

/// Where an object of the store stands.
pub(crate) struct At {
    /// The node of the directory; `None` for the top of a run.
    pub(crate) parent: Option<Ino>,
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) stored: Vec<u8>,
    pub(crate) looked: Looked,
    pub(crate) body: Arc<Body>,
}

impl Vault {
    /// Where a node stands, by the first of its names that still leads to it.
    ///
    /// # Errors
    /// [`Posix::NotFound`] where none does, [`Posix::Stale`] where one leads to something else; the store's.
    pub(crate) fn locate_node(&self, ino: Ino) -> Result<At> {
        if is_sealed(ino) {
            return Err(self.sealed_refusal(ino));
        }
        let known = self.nodes.known(ino).ok_or(Posix::Stale)?;
        if known.top {
            let body = self.body(&known.run)?;
            let looked = self.files.look(|| body.dir.stat(b"tree"));
            let looked = looked.map_err(|e| outcome("stat", body.context.object(ino), e))?;
            return Ok(At { parent: None, dir: body.dir.clone(), stored: b"tree".to_vec(), looked, body });
        }
        self.by_a_name(ino, |dir, stored, _| {
            let looked = self.files.look(|| dir.dir.stat(&stored));
            let looked = looked.map_err(|e| outcome("stat", dir.body.context.object(ino), e))?;
            still_leads_to(ino, &looked.stat)?;
            let (parent, backing, body) = (Some(dir.node), dir.dir.clone(), dir.body.clone());
            Ok(At { parent, dir: backing, stored, looked, body })
        })
    }

    /// [`Vault::locate_node`], under the lock of the names that it is found among: while the guard lives no other
    /// object gets that name. Nobody may call this who has locked names.
    ///
    /// # Errors
    /// As of [`Vault::locate_node`].
    pub(crate) fn hold_node(&self, ino: Ino) -> Result<(At, Option<RwLockReadGuard<'_, ()>>)> {
        self.located_under(ino, |parent| parent.and_then(|parent| self.locks.shared(parent)))
    }

    /// Locates a node under what `lock` takes for the directory that it is in, which may have changed before.
    pub(crate) fn located_under<G>(&self, ino: Ino, lock: impl Fn(Option<Ino>) -> G) -> Result<(At, G)> {
        let mut parent = self.nodes.known(ino).and_then(|known| known.name).map(|name| name.parent);
        loop {
            let guard = lock(parent);
            let at = self.locate_node(ino)?;
            if at.parent.is_none() || at.parent == parent {
                return Ok((at, guard));
            }
            parent = at.parent;
        }
    }

    /// The place of a file by its first name, if that is in the directory `locked`, whose names the
    /// caller has locked, and leads to it.
    pub(crate) fn settled_place(&self, ino: Ino, locked: Ino) -> Option<Place> {
        let name = self.nodes.known(ino)?.name.filter(|name| name.parent == locked)?;
        let dir = self.directory(locked).ok()?;
        let stat = dir.dir.stat(&dir.stored(&name.text).ok()?.text).ok()?;
        (number(stat.ino) == ino).then(|| dir.place(Kind::File, &name.text))
    }

    /// What `act` gives for the first of a node's names that it does not fail for; it gets the directory,
    /// the stored name and the plaintext one.
    ///
    /// # Errors
    /// [`Posix::NotFound`] where there is no name, [`Posix::Stale`] where its run is not there any more; the last name's.
    pub(crate) fn by_a_name<T>(
        &self,
        ino: Ino,
        act: impl Fn(Arc<OpenDir>, Vec<u8>, Box<[u8]>) -> Result<T>,
    ) -> Result<T> {
        let mut last = Error::Posix(Posix::NotFound);
        for Name { parent, text } in self.nodes.names(ino) {
            let found = self.directory(parent).and_then(|dir| {
                let stored = dir.stored(&text)?.text;
                act(dir, stored, text)
            });
            match found {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        self.nodes.known(ino).map_or(Ok(()), |known| known.run.check_there())?;
        Err(last)
    }

    /// The plaintext size of what `stat` describes.
    pub(crate) fn plain_size(&self, body: &Body, dir: &dyn Dir, stored: &[u8], stat: &Stat) -> u64 {
        match stat.kind {
            Kind::File => body.context.geometry.plain_len_floor(stat.size).unwrap_or(0),
            Kind::Symlink => links::target_len(dir, stored, stat),
            _ => stat.size,
        }
    }

    /// Attributes of a node from its backing's, whose size is already the plaintext's.
    pub(crate) fn attr(&self, ino: Ino, generation: u32, ours: bool, stat: &Stat, size: u64) -> Attr {
        let (uid, gid, mask) = self.options.owner.unwrap_or((stat.uid, stat.gid, 0o7777));
        Attr {
            ino,
            generation: u64::from(generation),
            kind: stat.kind,
            mode: stat.mode & mask & 0o7777,
            nlink: stat.nlink,
            uid,
            gid,
            rdev: stat.rdev,
            size,
            blocks: stat.blocks,
            blksize: stat.blksize,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            ours,
            open: false,
        }
    }

    /// Attributes of a node that stands there.
    pub(crate) fn attr_at(&self, ino: Ino, generation: u32, at: &At) -> Result<Attr> {
        self.attr_of(ino, generation, &at.body, &*at.dir, &at.stored, &at.looked)
    }

    /// Attributes of the node `stored` in `dir`; an open file's own size and mtime count.
    pub(crate) fn attr_of(
        &self,
        ino: Ino,
        generation: u32,
        body: &Body,
        dir: &dyn Dir,
        stored: &[u8],
        looked: &Looked,
    ) -> Result<Attr> {
        let mut stat = looked.stat;
        if stat.kind == Kind::Dir {
            return Ok(self.dir_attr(ino, generation, body, &stat));
        }
        if stat.kind == Kind::File {
            let mut live = self.files.live(ino);
            if live.is_none() && self.files.is_behind(looked) {
                // The kernel keeps a size, and appends behind it. While this is held no object leaves.
                let _one = self.files.opening(ino);
                live = self.files.live(ino);
                stat = dir.stat(stored).map_err(|e| outcome("stat", body.context.object(ino), e))?;
                still_leads_to(ino, &stat)?;
            }
            if let Some(file) = live {
                return self.live_attr(ino, generation, body, &file);
            }
            if body.may_be_in_writing(&stat)
                && let Ok((file, now)) = dir.open_file_and_stat(stored, Access::Read)
                && number(now.ino) == ino
                && let Ok(stat) = FileObject::glance(&body.context, ino, file, now)
            {
                return Ok(self.attr(ino, generation, false, &stat, stat.size));
            }
        }
        let size = self.plain_size(body, dir, stored, &stat);
        Ok(self.attr(ino, generation, body.is_ours(), &stat, size))
    }

    /// Attributes of a file that is open.
    pub(crate) fn live_attr(
        &self,
        ino: Ino,
        generation: u32,
        body: &Body,
        file: &FileObject,
    ) -> Result<Attr> {
        let stat = file.attr()?;
        Ok(Attr { open: true, ..self.attr(ino, generation, body.is_ours(), &stat, stat.size) })
    }

    /// Attributes of a directory: the runs in it are links to it.
    pub(crate) fn dir_attr(&self, ino: Ino, generation: u32, body: &Body, stat: &Stat) -> Attr {
        let mut attr = self.attr(ino, generation, body.is_ours(), stat, stat.size);
        attr.nlink = attr.nlink.saturating_add(self.runs_in(ino));
        attr
    }

    fn runs_in(&self, dir: Ino) -> u32 {
        let count = |path: Vec<u8>| self.table().folder(&path).map_or(0, |f| f.by_serial.len());
        self.folder_path(dir).map_or(0, |path| u32::try_from(count(path)).unwrap_or(u32::MAX))
    }

    /// The mount's root: 0755 of whoever mounts, the times of `runs/`.
    pub(crate) fn root_attr(&self) -> Result<Attr> {
        self.check_store()?;
        let mut stat = self.runs_dir.stat_self().map_err(|e| outcome("stat", "runs", e))?;
        stat.mode = 0o755;
        stat.uid = rustix::process::geteuid().as_raw();
        stat.gid = rustix::process::getegid().as_raw();
        // As long as nobody knows how many there are nobody counts on it.
        stat.nlink = if self.opening.is_whole() { 2u32.saturating_add(self.runs_in(ROOT)) } else { 1 };
        if let Some(body) = self.loose_run().and_then(|run| run.opened_body())
            && let Ok(tree) = body.tree.stat_self()
        {
            stat.nlink = stat.nlink.saturating_add(tree.nlink.saturating_sub(2));
            stat.mtime = stat.mtime.max(tree.mtime);
            stat.ctime = stat.ctime.max(tree.ctime);
        }
        // Other gateways' runs come and go in it.
        Ok(self.attr(ROOT, 0, false, &stat, stat.size))
    }
}

/// The error of opening the node `ino` of a kind by `stored`. What is of another kind there is damage only if it
/// is that very node: another object may have the name since, or have had it at that moment.
pub(crate) fn not_opened(dir: &OpenDir, stored: &[u8], (ino, kind): (Ino, Kind), error: io::Error) -> Error {
    match opened("open", dir.body.context.object(ino), error) {
        Error::Damaged { .. }
            if dir.dir.stat(stored).is_ok_and(|found| number(found.ino) != ino || found.kind == kind) =>
        {
            Posix::Stale.into()
        }
        error => error,
    }
}

/// Another object may have the name now: the kernel shall look it up again.
pub(crate) fn still_leads_to(ino: Ino, stat: &Stat) -> Result<()> {
    if number(stat.ino) == ino { Ok(()) } else { Err(Posix::Stale.into()) }
}
