//! Directory listings: the backing's own offsets passed through, names decrypted on the way.
//!
//! Cookies: 0 the start, 1 after `.`, 2 after `..`. Then, in a folder that may hold runs, one for
//! each run ever met, and behind them the backing's. The greatest offsets (ext4's end of directory)
//! stay where they are, since a cookie must not become negative.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use runvault_format::name::{self, Shape};
use runvault_store::backend::{Entry, Kind, Stream};

use crate::api::{DirEntry, Handle, Ino, ROOT};
use crate::directory::OpenDir;
use crate::handles::OpenListing;
use crate::nodes::number;
use crate::outcome::{is_not_found, outcome};
use crate::sealed::is_sealed;
use crate::{Posix, Result, Vault, read_ahead};

/// Cookies of `.` and `..`.
const DOTS: u64 = 2;
/// Cookies kept for runs in a folder that may hold some.
const RUNS: u64 = 1 << 20;
/// The greatest cookie.
const END: u64 = i64::MAX as u64;
/// The number shown for a run that cannot be looked at; no node has it.
const NO_NODE: Ino = u64::MAX;
/// Entries taken from the backing at a time, so that nothing of ours is locked while they are shown.
const BATCH: usize = 1024;

type Visit<'a> = &'a mut dyn FnMut(&DirEntry) -> bool;

/// Whether a listing goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    /// The entry is none of those that are shown.
    Hidden,
    Stop,
}

/// Where a listing stands in the backing directory.
#[derive(Default)]
pub(crate) struct Way {
    stream: Stream,
    /// What was read and not shown, and the cookie that it comes behind.
    ahead: Ahead,
    behind: u64,
}

/// Entries that were read together.
#[derive(Default)]
struct Ahead {
    entries: VecDeque<Entry>,
    /// None comes behind them.
    ended: bool,
}

impl Way {
    /// Entries behind a cookie: those kept from last time, or new ones; and whether they are new.
    fn entries(&mut self, dir: &OpenDir, cookie: u64) -> Result<(Ahead, bool)> {
        let kept = std::mem::take(&mut self.ahead);
        if cookie != 0 && cookie == self.behind && (kept.ended || !kept.entries.is_empty()) {
            if kept.entries.is_empty() {
                // Asked once more behind the end: the opening can go.
                self.stream = Stream::default();
            }
            return Ok((kept, false));
        }
        let mut entries = VecDeque::new();
        let mut take = |entry| {
            entries.push_back(entry);
            entries.len() < BATCH
        };
        dir.dir
            .entries_of(&mut self.stream, cookie, &mut take)
            .map_err(|e| outcome("list", dir.object(), e))?;
        let ended = entries.len() < BATCH;
        Ok((Ahead { entries, ended }, true))
    }

    fn keep(&mut self, behind: u64, ahead: Ahead) {
        (self.behind, self.ahead) = (behind, ahead);
    }
}

impl OpenListing {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// Opens a directory for listing.
    ///
    /// # Errors
    /// [`Posix::NotDirectory`]; damage; the store's.
    pub fn opendir(&self, ino: Ino) -> Result<Handle> {
        self.check_open()?;
        if is_sealed(ino) {
            return self.open_sealed_dir(ino);
        }
        let dir = match ino {
            ROOT => self.check_store().map(|()| None)?,
            _ => Some(self.directory(ino)?),
        };
        self.nodes.pin(ino);
        Ok(self.handles.add_listing(OpenListing::new(ino, dir)))
    }

    /// Ends a listing.
    ///
    /// # Errors
    /// [`Posix::BadHandle`].
    pub fn releasedir(&self, handle: Handle) -> Result<()> {
        if let Some(listing) = self.handles.remove_listing(handle)? {
            self.nodes.unpin(listing.ino);
        }
        Ok(())
    }

    /// Entries after `cookie` (0: the start), `.` and `..` first, until `visit` gives false.
    /// `plus`: entries carry attributes, and each visited entry took a lookup reference (not `.` and
    /// `..`); when `visit` gives false the entry that it refused took none.
    ///
    /// # Errors
    /// The store's.
    pub fn readdir(
        &self,
        handle: Handle,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        self.check_open()?;
        if let Some(listing) = self.handles.sealed_listing(handle)? {
            return self.list_sealed(&listing, cookie, plus, visit);
        }
        let listing = self.handles.listing(handle)?;
        if self.show_dots(&listing, cookie, visit) == Flow::Stop {
            return Ok(());
        }
        let runs = match self.folder_path(listing.ino) {
            None => 0,
            Some(path) => {
                if self.show_runs(&listing, &path, cookie, plus, visit)? == Flow::Stop {
                    return Ok(());
                }
                RUNS
            }
        };
        let Some(dir) = self.stored_directory(&listing)? else { return Ok(()) };
        self.show_stored(&listing, &dir, DOTS + runs, cookie, plus, visit)
    }

    /// `None`: the mount's root before there is a loose run.
    fn stored_directory(&self, listing: &OpenListing) -> Result<Option<Arc<OpenDir>>> {
        if let Some(dir) = &listing.dir {
            return Ok(Some(dir.clone()));
        }
        match self.directory(listing.ino) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn show_dots(&self, listing: &OpenListing, cookie: u64, visit: Visit<'_>) -> Flow {
        let parent = self.nodes.known(listing.ino).and_then(|k| k.name).map_or(ROOT, |n| n.parent);
        for (at, name, ino) in [(0, b".".to_vec(), listing.ino), (1, b"..".to_vec(), parent)] {
            let entry = DirEntry { name, ino, kind: Kind::Dir, next: at + 1, attr: None };
            if cookie <= at && !visit(&entry) {
                return Flow::Stop;
            }
        }
        Flow::On
    }

    fn show_runs(
        &self,
        listing: &OpenListing,
        path: &[u8],
        cookie: u64,
        plus: bool,
        visit: Visit<'_>,
    ) -> Result<Flow> {
        self.all_runs()?;
        let table = self.table();
        let Some(folder) = table.folder(path) else { return Ok(Flow::On) };
        for (serial, (name, run)) in &folder.by_serial {
            let next = (DOTS + u64::from(*serial) + 1).min(DOTS + RUNS);
            if next <= cookie {
                continue;
            }
            let found = match self.lookup_run(listing.ino, name, run) {
                Err(error) if is_not_found(&error) => continue,
                // What is damaged is shown without attributes: who looks it up gets the error.
                found => found.ok(),
            };
            let entry = DirEntry {
                name: name.clone(),
                ino: found.map_or(NO_NODE, |attr| attr.ino),
                kind: Kind::Dir,
                next,
                attr: found.filter(|_| plus),
            };
            let more = visit(&entry);
            if found.is_some() && (!more || !plus) {
                self.nodes.forget(entry.ino, 1);
            }
            if !more {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::On)
    }

    fn show_stored(
        &self,
        listing: &OpenListing,
        dir: &Arc<OpenDir>,
        base: u64,
        cookie: u64,
        plus: bool,
        visit: Visit<'_>,
    ) -> Result<()> {
        let mut at = cookie.saturating_sub(base);
        if at == 0 {
            self.foreign_seen(dir.node, None);
            listing.unreadable.store(0, Ordering::Relaxed);
        }
        let mut shown = at;
        loop {
            let (mut ahead, new) = listing.way().entries(dir, at)?;
            if plus && new {
                self.bring_records(dir, &ahead);
            }
            while let Some(entry) = ahead.entries.pop_front() {
                let next = entry.next.saturating_add(base).min(END);
                match self.show_entry(listing, dir, &entry, next, plus, visit)? {
                    // As the kernel gives it back.
                    Flow::On => shown = next.saturating_sub(base),
                    Flow::Hidden => {}
                    Flow::Stop => {
                        ahead.entries.push_front(entry);
                        listing.way().keep(shown, ahead);
                        return Ok(());
                    }
                }
                at = entry.next;
            }
            if ahead.ended {
                listing.way().keep(shown, ahead);
                return Ok(());
            }
        }
    }

    /// Has the disk read at once what the subdirectories among the entries will be asked for.
    fn bring_records(&self, dir: &OpenDir, ahead: &Ahead) {
        let is_new = |ino| self.nodes.known(ino).is_none_or(|known| known.dir_id.is_none());
        let is_open = |ino| dir.body.is_ours() && self.kept_directory(ino).is_some();
        let is_wanted = |ino| is_new(ino) && !is_open(ino);
        let wanted = ahead.entries.iter().filter(|e| e.kind == Some(Kind::Dir) && is_wanted(number(e.ino)));
        let names: Vec<&[u8]> = wanted.map(|e| e.name.as_slice()).collect();
        read_ahead::bring_records(&*dir.dir, &names);
    }

    fn show_entry(
        &self,
        listing: &OpenListing,
        dir: &Arc<OpenDir>,
        entry: &Entry,
        next: u64,
        plus: bool,
        visit: Visit<'_>,
    ) -> Result<Flow> {
        let Some(name) = self.plain_name(dir, entry)? else {
            let ours = matches!(name::shape(&entry.name), Shape::Short | Shape::Long);
            // One that is removed meanwhile may have lost its side file first.
            if ours && dir.dir.stat(&entry.name).is_ok() {
                listing.unreadable.fetch_add(1, Ordering::Relaxed);
            }
            return Ok(Flow::Hidden);
        };
        if self.is_left_out(dir.node, &name)? {
            return Ok(Flow::Hidden);
        }
        if !plus {
            let kind = match entry.kind {
                Some(kind) => kind,
                None => match dir.dir.stat(&entry.name) {
                    Ok(stat) => stat.kind,
                    Err(_) => return Ok(Flow::Hidden),
                },
            };
            let shown = DirEntry { name, ino: number(entry.ino), kind, next, attr: None };
            return Ok(if visit(&shown) { Flow::On } else { Flow::Stop });
        }
        let found = {
            // The name is looked at again: meanwhile it may lead to another file.
            let _names = self.locks.shared(dir.node);
            self.files
                .look(|| dir.dir.stat(&entry.name))
                .map_err(|e| outcome("look up a name in", dir.object(), e))
                .map(|looked| (looked.stat, self.found(dir, &name, &entry.name, &looked)))
        };
        let (stat, attr) = match found {
            Ok(found) => found,
            Err(e) if is_not_found(&e) => return Ok(Flow::Hidden),
            Err(e) => return Err(e),
        };
        // What is damaged is shown without attributes: who looks it up gets the error.
        let attr = attr.ok();
        let shown = DirEntry { name, ino: number(stat.ino), kind: stat.kind, next, attr };
        if visit(&shown) {
            return Ok(Flow::On);
        }
        if shown.attr.is_some() {
            self.nodes.forget(shown.ino, 1);
        }
        Ok(Flow::Stop)
    }

    /// How many entries a listing that was read from start to end has left out, because their names do not
    /// authenticate there.
    ///
    /// # Errors
    /// [`Posix::BadHandle`].
    pub fn unreadable_names(&self, handle: Handle) -> Result<u64> {
        if let Some(listing) = self.handles.sealed_listing(handle)? {
            return Ok(listing.unreadable());
        }
        Ok(self.handles.listing(handle)?.unreadable.load(Ordering::Relaxed))
    }

    /// The name that a stored one stands for; `None` for records, side files and what is not ours.
    fn plain_name(&self, dir: &OpenDir, entry: &Entry) -> Result<Option<Vec<u8>>> {
        let stored = &entry.name;
        let side = match name::shape(stored) {
            Shape::Short => None,
            Shape::Long => match Self::read_side(&*dir.dir, &name::side_name_of(stored)) {
                Ok(side) => side,
                Err(e) => match outcome("read a side file in", dir.object(), e) {
                    // A listing that leaves out what is there would say that it is not.
                    error if error.is_of_this_machine() => return Err(error),
                    _ => None,
                },
            },
            Shape::SideName | Shape::SideLink | Shape::Record => return Ok(None),
            Shape::Foreign => {
                self.foreign_seen(dir.node, Some(entry.next));
                return Ok(None);
            }
        };
        let key = dir.body.context.keys.name_key();
        match name::decrypt_name(key, &dir.id, stored, side.as_deref()) {
            Ok(name) => Ok(Some(name)),
            Err(_) => {
                self.foreign_seen(dir.node, Some(entry.next));
                Ok(None)
            }
        }
    }

    /// The directory is durable, and the names that lead to it.
    ///
    /// # Errors
    /// The store's.
    pub fn fsyncdir(&self, handle: Handle) -> Result<()> {
        self.check_open()?;
        if let Some(listing) = self.handles.sealed_listing(handle)? {
            let Some(dir) = self.directory_to_sync(listing.ino())? else { return Ok(()) };
            let open = self.directory(*dir)?;
            open.dir.sync().map_err(|e| outcome("sync", open.object(), e))?;
            self.sync_dir_and_above(*dir)?;
            return self.check_store();
        }
        let listing = self.handles.listing(handle)?;
        // Runs are made durable one by one.
        let Some(dir) = self.stored_directory(&listing)? else { return Ok(()) };
        if dir.body.context.read_only() {
            return Ok(());
        }
        if self.nodes.known(listing.ino).is_some_and(|k| k.name.is_none()) {
            return Err(Posix::NotFound.into());
        }
        dir.dir.sync().map_err(|e| outcome("sync", dir.object(), e))?;
        self.sync_dir_and_above(listing.ino)?;
        self.check_store()
    }
}
