//! The runs of a vault by name, and the loose run whose files the mount's root shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use runvault_format::header::Kind as Object;
use runvault_format::ids::{DirId, RunId};
use runvault_format::keys::place;
use runvault_format::name;
use runvault_format::run_index::Row;

use crate::authority::Authority;
use crate::run::Run;
use crate::scans::Scans;
use crate::union::{self, Union};
use crate::{Error, Posix, Result, Vault, record};

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
    pub(crate) fn stays_closed(&self, run: &RunId, authority: &dyn Authority) -> bool {
        match self {
            Self::Closed(Some(_)) => true,
            Self::Closed(None) => !authority.may_be_given(run),
            _ => false,
        }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        match self {
            Self::Run(run) => run.is_sealed(),
            Self::Closed(row) => row.is_some(),
            Self::Trouble(_) => false,
        }
    }

    pub(crate) fn run(&self) -> Option<&Arc<Run>> {
        if let Self::Run(run) = self { Some(run) } else { None }
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
}

/// The loose run that was made first; of the gateway's `own`, or of all. A writer's top is its own from the
/// beginning: what is shown there must not move when it makes something there.
fn first_loose(runs: &[Arc<Run>], own: bool) -> Option<Arc<Run>> {
    let loose = runs.iter().filter(|run| run.is_loose() && (run.held || !own));
    loose.min_by_key(|run| (run.opened.clone(), run.id)).cloned()
}
