//! The runs of a vault by name, and the loose run whose files the mount's root shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use runvault_format::header::Kind as Object;
use runvault_format::ids::{DirId, RunId};
use runvault_format::keys::place;
use runvault_format::name;
use runvault_format::run_index::Row;
use runvault_store::backend::Kind;

use crate::api::{Ino, ROOT};
use crate::authority::Authority;
use crate::follow::Followed;
use crate::run::{Loaded, Run};
use crate::sealed::RunSeal;
use crate::stamp::Stamp;
use crate::union::{self, Union};
use crate::{Error, Posix, Result, Vault, record, runs, seal};

/// Components of a folder's path above which no run is looked for.
const DEPTH_MAX: usize = 8;
/// Other machines' runs that are looked at in one scan; the rest have their turn in the next ones.
const AT_ONCE: usize = 64;

/// A directory of `runs/`, as it was found.
#[derive(Clone)]
pub(crate) enum Entry {
    Run(Arc<Run>),
    /// No key of ours opens it; with what is signed of it where it is sealed.
    Closed(Option<Arc<Row>>),
    /// Why it cannot be used.
    Trouble(Arc<Error>),
}

impl Entry {
    /// Whether no key to it will be there that was not when it was looked at.
    fn stays_closed(&self, run: &RunId, authority: &dyn Authority) -> bool {
        match self {
            Self::Closed(Some(_)) => true,
            Self::Closed(None) => !authority.may_be_given(run),
            _ => false,
        }
    }

    fn run(&self) -> Option<&Arc<Run>> {
        if let Self::Run(run) = self { Some(run) } else { None }
    }
}

/// What one look at `runs/` leaves to the next.
pub(crate) struct Scans {
    pub(crate) followed: Followed,
    /// The run up to which other machines' runs were looked at; `None`: all.
    looked: Option<RunId>,
    /// One of them has another name.
    renamed: bool,
    /// The sealed run up to which seals were looked for; `None`: all.
    seals: Option<RunId>,
    /// Every seal was looked for once.
    seals_once: bool,
}

impl Scans {
    /// Before the first.
    pub(crate) fn new(followed: Followed) -> Self {
        Self { followed, looked: None, renamed: false, seals: None, seals_once: false }
    }

    /// Whether the table has a name that is another one now.
    pub(crate) fn is_renamed(&self) -> bool {
        self.renamed
    }
}

/// The runs in one folder.
#[derive(Default)]
pub(crate) struct Folder {
    pub(crate) by_name: HashMap<Vec<u8>, Arc<Run>>,
    /// Those that listings have, in their order.
    pub(crate) by_serial: BTreeMap<u32, (Vec<u8>, Arc<Run>)>,
}

/// All runs; replaced as a whole.
#[derive(Default)]
pub(crate) struct RunTable {
    pub(crate) entries: BTreeMap<RunId, Entry>,
    folders: HashMap<Vec<u8>, Folder>,
    pub(crate) loose: Option<Arc<Run>>,
    /// Where each run is found, by itself.
    paths: HashMap<RunId, Vec<u8>>,
    /// Runs that are shown as one, by the id of each.
    pub(crate) unions: HashMap<RunId, Arc<Union>>,
    /// Names in `runs/` that are not ours.
    pub(crate) foreign: u64,
    /// Runs whose place another one has taken.
    replaced: HashSet<RunId>,
    /// See [`crate::Options::sealed_only`].
    sealed_only: bool,
}

impl RunTable {
    /// The runs in the folder of that plaintext path.
    pub(crate) fn folder(&self, path: &[u8]) -> Option<&Folder> {
        self.folders.get(path)
    }

    /// Those that open and are shown: no other run has taken their place, and they are not left out.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.opened().filter(|run| !self.is_replaced(&run.id) && !self.is_left_out(run))
    }

    /// Whether it is not shown because no seal proves it.
    pub(crate) fn is_left_out(&self, run: &Run) -> bool {
        // Folders of a loose run lead to sealed ones.
        self.sealed_only && !run.is_sealed() && !run.is_loose()
    }

    /// All that open.
    pub(crate) fn opened(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.entries.values().filter_map(Entry::run)
    }

    /// Whether another run has taken its place.
    pub(crate) fn is_replaced(&self, run: &RunId) -> bool {
        self.replaced.contains(run)
    }

    /// Whether a run lies in the folder or below it.
    pub(crate) fn has_runs_below(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        self.folders.keys().any(|folder| folder == path || folder.starts_with(&below))
    }

    /// The run in whose tree it is shown, where that is another one.
    pub(crate) fn first_of(&self, run: &Run) -> Option<RunId> {
        let first = self.unions.get(&run.id)?.first()?.id;
        (first != run.id).then_some(first)
    }

    fn show(&mut self, folder: &[u8], name: Vec<u8>, run: &Arc<Run>) {
        let shown = self.folders.entry(folder.to_vec()).or_default();
        shown.by_serial.insert(run.serial(), (name.clone(), run.clone()));
        self.find_as(folder, name, run);
    }

    /// Found under a name that no listing has.
    fn find_as(&mut self, folder: &[u8], name: Vec<u8>, run: &Arc<Run>) {
        self.paths.insert(run.id, joined(folder, &name));
        self.folders.entry(folder.to_vec()).or_default().by_name.entry(name).or_insert_with(|| run.clone());
    }

    /// A part is in the tree of the first one, where names of earlier parts hide its own: it is found by itself too,
    /// beside that one.
    fn find_parts(&mut self, runs: &[Arc<Run>]) {
        for run in runs {
            let path = self.first_of(run).and_then(|first| self.path_of(&first).map(<[u8]>::to_vec));
            if let Some((folder, last)) = path.as_deref().map(split) {
                self.find_as(folder, with_id(last, run), run);
            }
        }
    }

    /// The path of a run by itself, of its own files alone where it adds to another one.
    pub(crate) fn path_of(&self, run: &RunId) -> Option<&[u8]> {
        self.paths.get(run).map(Vec::as_slice)
    }
}

/// Folder and last component of a run's name.
pub(crate) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|c| *c == b'/') {
        Some(at) => (name.get(..at).unwrap_or_default(), name.get(at + 1..).unwrap_or_default()),
        None => (b"", name),
    }
}

/// The path of a name in a folder.
pub(crate) fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn with_id(name: &[u8], run: &Run) -> Vec<u8> {
    let id = run.id.to_string();
    [name, b"~", id.get(..8).unwrap_or(&id).as_bytes()].concat()
}

impl Vault {
    pub(crate) fn table(&self) -> Arc<RunTable> {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The loose run that the mount's root shows.
    pub(crate) fn loose_run(&self) -> Option<Arc<Run>> {
        self.table().loose.clone()
    }

    /// Looks at `runs/` again. `all`: also at what could not be opened before.
    ///
    /// # Errors
    /// The store's, for `runs/` itself; a single run's trouble is noted with it.
    pub(crate) fn scan(&self, scans: &mut Scans, all: bool) -> Result<()> {
        if !self.opening.is_whole() {
            self.opening.look_again();
            return Ok(());
        }
        self.look_at_others(scans, true);
        self.list_runs(scans, all)
    }

    /// [`Vault::scan`] without a look at what other machines' runs have become.
    ///
    /// # Errors
    /// As of [`Vault::scan`].
    pub(crate) fn list_runs(&self, scans: &mut Scans, all: bool) -> Result<()> {
        let before = self.table();
        let listed = runs::list_all(&self.root)?;
        let (mut entries, mut new) = (BTreeMap::new(), Vec::new());
        let foreign = listed.foreign.len() as u64;
        for id in &listed.runs {
            match before.entries.get(id) {
                Some(Entry::Run(run)) if !run.is_erased() && !run.is_refused() => {
                    _ = entries.insert(*id, Entry::Run(run.clone()))
                }
                Some(known @ (Entry::Closed(_) | Entry::Trouble(_)))
                    if !all || known.stays_closed(id, &*self.authority) =>
                {
                    _ = entries.insert(*id, known.clone())
                }
                _ => new.push(*id),
            }
        }
        let mut changed =
            listed.runs.len() != before.entries.len() || before.foreign != foreign || !new.is_empty();
        if !new.is_empty() {
            // Whoever made it may have been ended since the chain was read.
            self.authority.refresh();
        }
        let found: Vec<_> = self.on_all_cores(&new, |id| self.load(id)).into_iter().flatten().collect();
        tell_left_out(&before, &found);
        entries.extend(found);
        changed |= std::mem::take(&mut scans.renamed);
        if changed {
            self.set_table(scans, entries, foreign);
        }
        Ok(())
    }

    /// Looks whether other machines have renamed or sealed some of their runs. What was sealed is given up here, to be
    /// found as that; whether any was. `anyway`: also into those whose directories have the times that they had.
    pub(crate) fn look_at_others(&self, scans: &mut Scans, anyway: bool) -> bool {
        let (mut given_up, table) = (false, self.table());
        let from = scans.looked.map_or(Bound::Unbounded, Bound::Excluded);
        let runs = table.entries.range((from, Bound::Unbounded)).filter_map(|(_, entry)| entry.run());
        let turn: Vec<_> = runs.filter(|run| run.is_elsewhere()).take(AT_ONCE).collect();
        scans.looked = turn.get(AT_ONCE - 1).map(|run| run.id);
        for run in turn {
            let stat = self.runs_dir.stat(run.id.to_string().as_bytes()).ok();
            if !run.differs(Stamp::of(&stat)) && !anyway {
                continue;
            }
            if !run.held && seal::has_seal(&self.root, &run.id).unwrap_or(false) {
                self.give_up(run);
                given_up = true;
            } else {
                match run.look_at_name(&self.root) {
                    Ok(renamed) => scans.renamed |= renamed,
                    // It keeps the one that it had.
                    Err(_) => run.look_again(),
                }
            }
        }
        given_up
    }

    /// Looks whether sealed runs still have their seals, some at a time: soon once, and then `again` and again. One
    /// that has none is refused, as one is that did not hold when it was opened, to be found as that; whether any is.
    pub(crate) fn look_at_seals(&self, scans: &mut Scans, again: bool) -> bool {
        let table = self.table();
        if !scans.seals_once || again {
            let from = scans.seals.map_or(Bound::Unbounded, Bound::Excluded);
            let runs = table.entries.range((from, Bound::Unbounded)).filter_map(|(_, entry)| entry.run());
            let turn: Vec<RunId> =
                runs.filter(|run| run.is_sealed()).map(|run| run.id).take(AT_ONCE).collect();
            self.on_all_cores(&turn, |id| self.look_at_seal(&table, &id));
            scans.seals = turn.get(AT_ONCE - 1).copied();
            scans.seals_once |= scans.seals.is_none();
        }
        table.runs().any(|run| run.is_refused())
    }

    fn look_at_seal(&self, table: &RunTable, id: &RunId) {
        let Some(run) = table.entries.get(id).and_then(Entry::run) else { return };
        let stat = self.runs_dir.stat(id.to_string().as_bytes()).ok();
        if run.differs(Stamp::of(&stat)) && matches!(seal::has_seal(&self.root, id), Ok(false)) {
            run.seal().into_iter().for_each(RunSeal::refuse);
        }
    }

    /// `None`: it was removed meanwhile.
    pub(crate) fn load(&self, id: RunId) -> Option<(RunId, Entry)> {
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        match Run::load(&self.root, id, &*self.authority, self.gateway.as_deref(), serial) {
            Ok(Loaded::Opens(run)) => Some((id, Entry::Run(run))),
            Ok(Loaded::Closed(row)) => Some((id, Entry::Closed(row))),
            Err(_) if runs::is_gone(&self.root, &id) => None,
            Err(error) => {
                log::warn!("run {id} is left out: {error}");
                Some((id, Entry::Trouble(Arc::new(error))))
            }
        }
    }

    /// While the guard lives nobody looks at `runs/`: a run that is being made must not be found there as another.
    pub(crate) fn hold_scans(&self) -> MutexGuard<'_, Scans> {
        self.scanning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Vault::hold_scans`] where nobody else holds them.
    pub(crate) fn try_hold_scans(&self) -> Option<MutexGuard<'_, Scans>> {
        match self.scanning.try_lock() {
            Ok(scans) => Some(scans),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Removes or renames one run; the caller holds nothing of the table.
    pub(crate) fn change_table(&self, change: impl FnOnce(&mut BTreeMap<RunId, Entry>)) {
        self.change_table_held(&mut self.hold_scans(), change);
    }

    /// Adds a run that was made under the guard.
    pub(crate) fn add_run(&self, scans: &mut Scans, run: &Arc<Run>) {
        self.change_table_held(scans, |entries| _ = entries.insert(run.id, Entry::Run(run.clone())));
    }

    pub(crate) fn change_table_held(
        &self,
        scans: &mut Scans,
        change: impl FnOnce(&mut BTreeMap<RunId, Entry>),
    ) {
        let before = self.table();
        let mut entries = before.entries.clone();
        change(&mut entries);
        self.set_table(scans, entries, before.foreign);
    }

    /// Replaces the table: nobody else does meanwhile.
    pub(crate) fn set_table(&self, _scans: &mut Scans, entries: BTreeMap<RunId, Entry>, foreign: u64) {
        let sealed_only = self.options.sealed_only;
        let mut table = RunTable { entries, foreign, sealed_only, ..RunTable::default() };
        table.replaced = table.opened().flat_map(|run| run.replaced()).copied().collect();
        let runs: Vec<Arc<Run>> = table.runs().cloned().collect();
        self.stand_in(&table);
        let shown = self.loose_run().filter(|shown| runs.iter().any(|run| Arc::ptr_eq(run, shown)));
        // Which of all is the first is known when all are.
        let first = || first_loose(&runs, !self.read_only());
        table.loose = shown.or_else(|| (!self.read_only() || self.opening.is_whole()).then(first).flatten());
        table.unions = union::unions(&runs, &*self.authority, self.gateway.is_some());
        self.name_runs(&mut table, &runs);
        *self.runs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// A run that replaces others stands where they stood in listings, and their nodes lead to it.
    fn stand_in(&self, table: &RunTable) {
        let before = self.table();
        for run in table.runs().filter(|run| !run.replaced().is_empty()) {
            let of = |id: &RunId| [&table.entries, &before.entries].iter().find_map(|all| all.get(id)?.run());
            if let Some(old) = run.replaced().iter().find_map(of) {
                run.take_place_of(old);
            }
            self.sealed.top_of(run);
        }
    }

    /// Every run gets one name that no other has.
    fn name_runs(&self, table: &mut RunTable, runs: &[Arc<Run>]) {
        let (loose, named): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.is_loose());
        // The one at the top first.
        let mut tops: Vec<(Vec<u8>, &Arc<Run>)> = Vec::new();
        for run in loose {
            if table.loose.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, run)) {
                tops.insert(0, (Vec::new(), run));
            } else {
                // Another gateway's: its files stay reachable.
                tops.push((with_id(b"loose", run), run));
            }
        }
        let mut folders: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
        let mut wanted: BTreeMap<Vec<u8>, Vec<Arc<Run>>> = BTreeMap::new();
        for run in named.into_iter().filter(|run| table.first_of(run).is_none()) {
            let mut name = run.name();
            // What only says that it adds to a run must not pass for that one.
            if run.part().after.is_some() && !run.held {
                name = with_id(&name, run);
            }
            let (folder, last) = split(&name);
            let shown = folders.entry(folder.to_vec()).or_insert_with(|| self.shown_folder(&tops, folder));
            let shown = if let Some(shown) = shown {
                joined(shown, last)
            } else if self.opening.is_whole() {
                log::warn!("run {}: the folder it lies in is missing; it is shown in the root", run.id);
                name.iter().map(|c| if *c == b'/' { b'~' } else { *c }).collect()
            } else {
                continue;
            };
            wanted.entry(shown).or_default().push(run.clone());
        }
        for (name, runs) in wanted {
            let (folder, last) = split(&name);
            let ours = runs.iter().filter(|run| run.held).count();
            for run in &runs {
                let alone = runs.len() == 1 || (run.held && ours == 1);
                if !alone && self.opening.is_whole() {
                    log::warn!(
                        "run {}: another run has the same name; both are shown with their ids",
                        run.id
                    );
                }
                table.show(folder, if alone { last.to_vec() } else { with_id(last, run) }, run);
            }
        }
        for (name, run) in tops {
            if !name.is_empty() && (!table.sealed_only || table.has_runs_below(&name)) {
                table.show(b"", name, run);
            }
        }
        table.find_parts(runs);
    }

    /// Where the folder of that name is shown: in the first of `tops`, by the paths that they are shown at, that
    /// has it.
    fn shown_folder(&self, tops: &[(Vec<u8>, &Arc<Run>)], folder: &[u8]) -> Option<Vec<u8>> {
        if folder.is_empty() {
            return Some(Vec::new());
        }
        let (top, _) = tops.iter().find(|(_, loose)| self.has_folder(loose, folder))?;
        Some(joined(top, folder))
    }

    fn has_folder(&self, loose: &Arc<Run>, path: &[u8]) -> bool {
        let walk = || -> Result<()> {
            let body = self.body(loose)?;
            let key = body.context.keys.name_key();
            let (mut dir, mut id) = (body.tree.clone(), DirId::ROOT);
            for text in path.split(|c| *c == b'/') {
                let stored = name::encrypt_name(key, &id, text)?.text;
                dir = dir.open_dir(&stored).map_err(|_| Error::Posix(Posix::NotFound))?;
                let place = place(&id, Object::Directory, text);
                id = record::read(&body.context, &*dir, Some(place))?.ok_or(Posix::NotFound)?;
            }
            Ok(())
        };
        walk().is_ok()
    }

    /// The plaintext path of a directory in which runs may lie: the root, and folders of loose runs.
    pub(crate) fn folder_path(&self, dir: Ino) -> Option<Vec<u8>> {
        if dir == ROOT {
            return Some(Vec::new());
        }
        let known = self.nodes.known(dir)?;
        if !known.run.is_loose() || known.top || known.kind != Kind::Dir {
            return None;
        }
        Some(self.nodes.plain_path(dir, DEPTH_MAX)?.join(&b'/'))
    }

    /// Whether runs may lie in a directory: in the root, and in folders of loose runs.
    pub fn may_hold_runs(&self, dir: Ino) -> bool {
        self.folder_path(dir).is_some()
    }

    /// The run that stands under a name.
    ///
    /// # Errors
    /// [`Error::Closed`], where it was to be opened before that can be told.
    pub(crate) fn run_named(&self, parent: Ino, name: &[u8]) -> Result<Option<Arc<Run>>> {
        let Some(path) = self.folder_path(parent) else { return Ok(None) };
        self.among_runs(|| self.table().folder(&path)?.by_name.get(name).cloned())
    }

    /// Whether the run that stands under a name is sealed; `None`: no run does.
    ///
    /// # Errors
    /// As of [`Vault::run_named`].
    pub fn is_sealed_run(&self, parent: Ino, name: &[u8]) -> Result<Option<bool>> {
        let run = self.run_named(parent, name)?.filter(|run| !run.is_loose());
        Ok(run.map(|run| run.is_sealed()))
    }

    /// Whether a run lies in a folder or below it.
    ///
    /// # Errors
    /// As of [`Vault::run_named`].
    pub(crate) fn has_runs_below(&self, folder: Ino) -> Result<bool> {
        let Some(path) = self.folder_path(folder) else { return Ok(false) };
        Ok(self.among_runs(|| self.table().has_runs_below(&path).then_some(()))?.is_some())
    }

    /// Whether a name of a loose run is left out: what lies outside runs is under no seal, but its folders lead to some
    /// that are.
    ///
    /// # Errors
    /// As of [`Vault::run_named`].
    pub(crate) fn is_left_out(&self, dir: Ino, name: &[u8]) -> Result<bool> {
        if !self.options.sealed_only {
            return Ok(false);
        }
        let Some(folder) = self.nodes.plain_path(dir, DEPTH_MAX) else { return Ok(true) };
        let path = joined(&folder.join(&b'/'), name);
        Ok(self.among_runs(|| self.table().has_runs_below(&path).then_some(()))?.is_none())
    }

    /// Whether a directory made in `parent` is a run; another gateway's folders get none of ours.
    pub(crate) fn is_run_depth(&self, parent: Ino) -> bool {
        let ours = |loose: Arc<Run>| self.nodes.known(parent).is_some_and(|k| Arc::ptr_eq(&k.run, &loose));
        if parent != ROOT && !self.loose_run().is_some_and(ours) {
            return false;
        }
        let depth = |path: Vec<u8>| if path.is_empty() { 0 } else { path.split(|c| *c == b'/').count() };
        self.folder_path(parent).map(depth) == usize::try_from(self.options.run_depth.saturating_sub(1)).ok()
    }
}

/// Tells of runs that came and are left out.
fn tell_left_out(table: &RunTable, found: &[(RunId, Entry)]) {
    for run in found.iter().filter_map(|(_, entry)| entry.run()).filter(|run| table.is_left_out(run)) {
        log::info!("run {} is open: it is left out until it is sealed (--open shows it)", run.id);
    }
}

/// The loose run that was made first; of the gateway's `own`, or of all. A writer's top is its own from the
/// beginning: what is shown there must not move when it makes something there.
fn first_loose(runs: &[Arc<Run>], own: bool) -> Option<Arc<Run>> {
    let loose = runs.iter().filter(|run| run.is_loose() && (run.held || !own));
    loose.min_by_key(|run| (run.opened.clone(), run.id)).cloned()
}
