//! What this gateway wrote to a run that is open, noted in its state folder: the seal compares.
//!
//! A note binds: at the seal the store must hold what it says. So that no crash makes a note wrong, whoever is about to
//! change what was noted says so first ([`Ledger::changing`]), once for each directory or file until the next
//! [`Ledger::tick`] settles it. Only names that never were there before contradict no note. After an unclean end only
//! that counts which a sync of the store covered ([`Ledger::durable`]): where nothing of a file is covered yet that it
//! changes need not be durable before it does, since the note that covers it follows.

mod removed;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runvault_format::ids::{DirId, RunId};
use runvault_format::keys::LedgerKey;
use runvault_format::ledger::{self, ALL, Content, Group, MAGIC, Named, Note, Owner, Value};
use runvault_store::backend::{Access, Dir, File};

use self::removed::Removed;
pub(crate) use self::replay::{Expected, Known, Name, read};

/// Notes that wait in memory are written out above this.
const WAITING: usize = 64 << 10;
/// How long groups that have changed stay unsettled, by how long bytes may wait: so often, at most, one costs a sync of
/// the state folder.
const SETTLE: u32 = 5;
/// How long notes wait for a sync of the store to cover them, likewise.
const COVER: u32 = 60;
/// Groups are not told apart while they change, where telling has cost so many syncs,
const SYNCS: u32 = 1024;
/// or there are so many of them.
const GROUPS: usize = 65_536;
/// No secret is in it, but who reads it learns how many files there are.
const MODE: u32 = 0o600;

/// The ledger of one session.
pub(crate) struct Ledger {
    pub(crate) key: LedgerKey,
    dir: Arc<dyn Dir>,
    run: RunId,
    /// How long bytes may wait.
    delay: Duration,
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None`: it was given up.
    file: Option<Arc<dyn File>>,
    waiting: Vec<u8>,
    /// Where the next frame goes.
    end: u64,
    /// Groups that the file calls changing.
    changing: HashMap<Group, Change>,
    /// The file calls every group so, durably.
    all: bool,
    /// How often that was made durable since it was settled.
    syncs: u32,
    /// What stands before this is durable.
    synced_to: u64,
    /// A sync of the store has covered the notes before this.
    covered_to: u64,
    /// Names that were noted to be gone.
    removed: Removed,
    /// Something was noted since the store was synced.
    uncovered: bool,
    settled: Instant,
    covered: Instant,
}

/// A group that changes.
struct Change {
    /// Those who change it just now.
    by: u32,
    /// Where the note of it stands.
    at: u64,
}

/// The run itself. What is noted of its name is an attribute of it, of no name.
pub(crate) const RUN: Group = [0xfe; 16];
pub(crate) const RUN_NAME: &[u8] = b"";

/// Where a note stands of which it is not known: before everything that a sync has covered.
pub(crate) const LONG_AGO: u64 = 0;

/// While it lives, names of a directory change, or a file's content does.
pub(crate) struct Changing<'a> {
    ledger: Option<&'a Ledger>,
    dir: DirId,
}

impl Ledger {
    /// Opens the ledger of a run for a new session, or makes it.
    ///
    /// # Errors
    /// The state folder's.
    pub(crate) fn open(dir: &Arc<dyn Dir>, run: RunId, key: LedgerKey, delay: Duration) -> io::Result<Self> {
        let (file, end, removed) = match Self::find(&**dir, &run, &key) {
            // A power cut while it was made, or another's file: what follows is noted all the same.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                log::error!("run {run}: its ledger is begun anew, since it cannot be read: {e}");
                remove(&**dir, &run)?;
                Self::find(&**dir, &run, &key)?
            }
            found => found?,
        };
        let now = Instant::now();
        let mut inner = Inner {
            file: Some(file),
            waiting: Vec::new(),
            end,
            changing: HashMap::new(),
            all: false,
            syncs: 0,
            synced_to: end,
            // What earlier sessions noted counts already.
            covered_to: end,
            removed,
            uncovered: false,
            settled: now,
            covered: now,
        };
        Note::Begin.encode(&mut inner.waiting);
        let ledger = Self { key, dir: dir.clone(), run, delay, inner: Mutex::new(inner) };
        ledger.write_out(&mut ledger.lock(), true)?;
        Ok(ledger)
    }

    /// The file, where its last whole frame ends, and what it says is gone.
    fn find(dir: &dyn Dir, run: &RunId, key: &LedgerKey) -> io::Result<(Arc<dyn File>, u64, Removed)> {
        let name = run.to_string();
        match dir.open_file(name.as_bytes(), Access::ReadWrite) {
            Ok(file) => {
                let (end, removed) = replay::end_of(&*file, key)?;
                file.set_len(end)?;
                Ok((file, end, removed))
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                let file = dir.create_file(name.as_bytes(), MODE)?;
                file.write_at(MAGIC, 0)?;
                dir.sync()?;
                Ok((file, MAGIC.len() as u64, Removed::default()))
            }
            Err(e) => Err(e),
        }
    }

    /// What a name leads to now.
    pub(crate) fn name(&self, dir: &DirId, stored: &[u8], what: Named) {
        if what == Named::Nothing {
            self.lock().removed.add(dir, stored);
        }
        self.note(&Note::Name { dir: *dir, stored: stored.to_vec(), what });
    }

    /// Before a name comes: one that was noted to be gone stops being so.
    pub(crate) fn making_name(&self, dir: &DirId, stored: &[u8]) -> Changing<'_> {
        let was_there = self.lock().removed.has(dir, stored);
        if was_there { self.changing_names(dir) } else { Changing::unnoted() }
    }

    /// An empty file got an id when it was opened.
    pub(crate) fn reopened(&self, dir: &DirId, stored: &[u8], object: Group) {
        self.note(&Note::Reopened { dir: *dir, stored: stored.to_vec(), object });
    }

    /// What was written to a file; gives where that stands.
    pub(crate) fn content(&self, file: Group, content: Content) -> u64 {
        self.note(&Note::Content { file, content })
    }

    /// Mode and owner of a file or directory.
    pub(crate) fn owner(&self, of: Group, owner: Owner) {
        self.note(&Note::Owner { of, owner });
    }

    /// Lets `act` change mode or owner; `now` says what they are then.
    pub(crate) fn changing_owner<T, E>(
        &self,
        of: Group,
        act: impl FnOnce() -> Result<T, E>,
        now: impl FnOnce(&T) -> Owner,
    ) -> Result<T, E> {
        self.changing(of, LONG_AGO);
        let done = act();
        self.owner(of, done.as_ref().map_or(Owner::default(), now));
        self.changed(of);
        done
    }

    /// Lets `act` set or remove (`None`) an extended attribute.
    pub(crate) fn changing_attribute<T, E>(
        &self,
        of: Group,
        name: &[u8],
        value: Option<&[u8]>,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.changing(of, LONG_AGO);
        let done = act();
        let value = match (&done, value) {
            (Err(_), _) => Value::Unknown,
            (Ok(_), None) => Value::Nothing,
            (Ok(_), Some(value)) => Value::Is(ledger::attribute(&self.key, name, value)),
        };
        self.note(&Note::Attribute { of, name: ledger::attribute(&self.key, name, b""), value });
        self.changed(of);
        done
    }

    /// The name of a run that was just made.
    pub(crate) fn run_name(&self, run_name: &[u8]) {
        let value = Value::Is(ledger::attribute(&self.key, RUN_NAME, run_name));
        self.note(&Note::Attribute { of: RUN, name: ledger::attribute(&self.key, RUN_NAME, b""), value });
    }

    /// Before names of a directory change that may have been noted.
    pub(crate) fn changing_names(&self, dir: &DirId) -> Changing<'_> {
        self.changing(ledger::group(dir), LONG_AGO);
        Changing { ledger: Some(self), dir: *dir }
    }

    /// Before what was noted of a group, at `noted` or later, stops being true; [`Ledger::changed`] follows, after what is
    /// true then was noted.
    pub(crate) fn changing(&self, group: Group, noted: u64) {
        let inner = &mut *self.lock();
        let (must_last, at) = (noted < inner.covered_to, inner.end);
        let durable = |change: &Change| change.at < inner.synced_to;
        let told = inner.changing.get(&group).is_some_and(|change| !must_last || durable(change));
        let tells = !told && !inner.all;
        if tells {
            inner.all = inner.syncs >= SYNCS || inner.changing.len() >= GROUPS;
            Note::Changing(if inner.all { ALL } else { group }).encode(&mut inner.waiting);
        }
        inner.changing.entry(group).or_insert(Change { by: 0, at }).by += 1;
        if tells && (must_last || inner.all) {
            inner.syncs += 1;
            self.put(inner, true);
        }
    }

    /// See [`Ledger::changing`].
    pub(crate) fn changed(&self, group: Group) {
        if let Some(change) = self.lock().changing.get_mut(&group) {
            change.by = change.by.saturating_sub(1);
        }
    }

    /// To be called often. Whether the store should be synced, so that notes are covered.
    pub(crate) fn tick(&self) -> bool {
        let inner = &mut *self.lock();
        if inner.settled.elapsed() >= SETTLE * self.delay {
            self.settle(inner);
        }
        inner.uncovered && inner.covered.elapsed() >= COVER * self.delay
    }

    /// Before the store is synced: up to where the sync covers what was noted.
    pub(crate) fn position(&self) -> u64 {
        let inner = &mut *self.lock();
        self.put(inner, false);
        inner.uncovered = false;
        inner.end
    }

    /// The store was synced after [`Ledger::position`].
    pub(crate) fn durable(&self, position: u64) {
        let inner = &mut *self.lock();
        Note::Durable(position).encode(&mut inner.waiting);
        self.put(inner, false);
        inner.covered_to = inner.covered_to.max(position);
        inner.covered = Instant::now();
    }

    /// The session ends, and everything of it is durable in the store. Nothing if something was noted since
    /// [`Ledger::position`].
    pub(crate) fn end(&self) {
        let inner = &mut *self.lock();
        let uncovered = inner.uncovered;
        self.settle(inner);
        if uncovered {
            return;
        }
        Note::End.encode(&mut inner.waiting);
        // Who is still at work may be at it for longer.
        inner.changing.keys().for_each(|group| Note::Changing(*group).encode(&mut inner.waiting));
        self.put(inner, true);
        inner.covered_to = inner.end;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives where the frame stands that the note will be in.
    fn note(&self, note: &Note) -> u64 {
        let inner = &mut *self.lock();
        let at = inner.end;
        if inner.file.is_none() {
            return at;
        }
        note.encode(&mut inner.waiting);
        inner.uncovered = true;
        if inner.waiting.len() >= WAITING {
            self.put(inner, false);
        }
        at
    }

    /// What nobody changes any more counts again.
    fn settle(&self, inner: &mut Inner) {
        inner.settled = Instant::now();
        inner.syncs = 0;
        if inner.all {
            for (group, _) in inner.changing.iter().filter(|(_, change)| change.by > 0) {
                Note::Changing(*group).encode(&mut inner.waiting);
            }
            Note::Settled(ALL).encode(&mut inner.waiting);
            inner.all = false;
        }
        for (group, _) in inner.changing.iter().filter(|(_, change)| change.by == 0) {
            Note::Settled(*group).encode(&mut inner.waiting);
        }
        // Also what was about to change and did not: until this is covered it is not known.
        inner.uncovered |= !inner.waiting.is_empty();
        inner.changing.retain(|_, change| change.by > 0);
        self.put(inner, false);
    }

    /// What waits goes into the file. Where that fails there is no ledger any more: a wrong one would be worse.
    fn put(&self, inner: &mut Inner, sync: bool) {
        let Err(error) = self.write_out(inner, sync) else { return };
        log::error!("run {}: its ledger is given up, so that its seal compares nothing: {error}", self.run);
        inner.file = None;
        inner.waiting = Vec::new();
        if let Err(error) = remove(&*self.dir, &self.run) {
            log::error!("run {}: its ledger cannot be removed: {error}", self.run);
        }
    }

    fn write_out(&self, inner: &mut Inner, sync: bool) -> io::Result<()> {
        let Some(file) = &inner.file else {
            inner.waiting.clear();
            return Ok(());
        };
        if !inner.waiting.is_empty() {
            let frame = ledger::frame(&self.key, inner.end, &inner.waiting);
            file.write_at(&frame, inner.end)?;
            inner.end += frame.len() as u64;
            inner.waiting.clear();
        }
        if sync {
            file.sync_data()?;
            inner.synced_to = inner.end;
        }
        Ok(())
    }
}

impl Changing<'_> {
    /// Where no ledger is kept.
    pub(crate) fn unnoted() -> Self {
        Self { ledger: None, dir: DirId::ROOT }
    }

    /// What a name leads to now.
    pub(crate) fn name(&self, stored: &[u8], what: Named) {
        if let Some(ledger) = self.ledger {
            ledger.name(&self.dir, stored, what);
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger {
            ledger.changed(ledger::group(&self.dir));
        }
    }
}

/// The ledger of a run goes; nothing if there is none.
///
/// # Errors
/// The state folder's.
pub(crate) fn remove(dir: &dyn Dir, run: &RunId) -> io::Result<()> {
    match dir.unlink(run.to_string().as_bytes()) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.and_then(|()| dir.sync()),
    }
}
