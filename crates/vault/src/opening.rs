//! Runs are opened on all cores while the vault answers already, and what was found out about sealed ones is kept for
//! the next mount.
//!
//! First come the runs that this machine writes, and the sealed ones that an earlier mount knew, without a call to the
//! store. Whoever asks for a name that is not there yet waits until it is, or until all are; a listing waits for all. What
//! an earlier mount knew is verified, as if it had not, as soon as something in the run is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runvault_format::ids::{Digest, RunId};
use runvault_format::run_index::{Row, Rows};

use crate::authority::{Authority, Last};
use crate::run::Run;
use crate::run_table::Entry;
use crate::scans::Scans;
use crate::{Error, Result, Vault, cores, runs};

/// How often at most what was opened so far is shown to those who wait.
const SHOW: Duration = Duration::from_millis(50);
/// How often at most it is kept, and shown although nobody waits.
const KEEP: Duration = Duration::from_secs(60);
/// A store behind a network answers many calls at once; each thread's next one waits for its last.
const THREADS: usize = 8;

/// How far the opening of runs is.
pub(crate) struct Opening {
    state: Mutex<State>,
    changed: Condvar,
    /// Opened, and not in the table yet.
    found: Mutex<Vec<(RunId, Entry)>>,
    /// All were looked at: the table that is made next is the first whole one.
    looked: AtomicBool,
    /// Others came meanwhile.
    again: AtomicBool,
    /// Of those to be opened, how many are not.
    left: AtomicU64,
}

struct State {
    over: bool,
    /// Counts the tables that were shown meanwhile.
    shown: u64,
    at: Instant,
}

impl Default for Opening {
    fn default() -> Self {
        let state = State { over: false, shown: 0, at: Instant::now() };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            found: Mutex::default(),
            looked: AtomicBool::new(false),
            again: AtomicBool::new(false),
            left: AtomicU64::new(0),
        }
    }
}

impl Opening {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the table has, or is about to have, all runs.
    pub(crate) fn is_whole(&self) -> bool {
        self.looked.load(Ordering::SeqCst)
    }

    /// What is there now is not found by what is under way.
    pub(crate) fn look_again(&self) {
        self.again.store(true, Ordering::SeqCst);
    }

    fn found(&self) -> MutexGuard<'_, Vec<(RunId, Entry)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_older_than(&self, age: Duration) -> bool {
        self.state().at.elapsed() >= age
    }

    /// Wakes those who wait.
    pub(crate) fn wake(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        drop(self.state());
        self.changed.notify_all();
    }

    fn show(&self, over: bool) {
        let mut state = self.state();
        state.shown += 1;
        state.over |= over;
        state.at = Instant::now();
        drop(state);
        self.changed.notify_all();
    }
}

/// What was kept last, as far as it tells whether there is more.
pub(crate) struct Kept {
    at: Instant,
    rows: Vec<(RunId, Digest, bool)>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { at: Instant::now(), rows: Vec::new() }
    }
}

impl Vault {
    /// The runs that this machine writes, and those that an earlier mount knew; gives the others, to be opened.
    pub(crate) fn begin_opening(&self) -> Result<Vec<RunId>> {
        let listed = runs::list_all(&self.root)?;
        let held = self.held_of(&listed.runs);
        let mut entries = self.known_entries(&listed.runs, &held);
        let held: Vec<RunId> = held.into_iter().collect();
        entries.extend(self.on_all_cores(&held, |id| self.load(id)).into_iter().flatten());
        self.set_table(&mut self.hold_scans(), entries, listed.foreign.len() as u64);
        if self.gateway.is_some() {
            self.clear_passing(&listed.passing);
            if let Err(error) = self.finish_seals() {
                log::error!("{error}");
            }
            self.recover_held();
        }
        let table = self.table();
        let rest: Vec<RunId> = listed.runs.into_iter().filter(|id| !table.entries.contains_key(id)).collect();
        self.opening.left.store(rest.len() as u64, Ordering::Relaxed);
        Ok(rest)
    }

    /// Those that this machine writes; all, where it cannot tell.
    fn held_of(&self, listed: &[RunId]) -> BTreeSet<RunId> {
        let Some(gateway) = self.gateway.as_deref() else { return BTreeSet::new() };
        match gateway.held() {
            Ok(held) => held.into_iter().filter(|id| listed.binary_search(id).is_ok()).collect(),
            Err(error) => {
                log::warn!("every run is looked at before any is served: {error}");
                listed.iter().copied().collect()
            }
        }
    }

    /// What an earlier mount knew, where it still counts.
    fn known_entries(&self, listed: &[RunId], held: &BTreeSet<RunId>) -> BTreeMap<RunId, Entry> {
        if !self.options.in_background {
            return BTreeMap::new();
        }
        let rows = self.authority.known_runs();
        let opens = self.opens_others();
        let counts = |id: &RunId, row: &Row| {
            let ours = listed.binary_search(id).is_ok()
                && !held.contains(id)
                && (!opens || self.authority.may_open(id));
            ours && row.shown.is_some() == opens && still_counts(id, row, &*self.authority)
        };
        let entries: BTreeMap<RunId, Entry> = rows
            .iter()
            .filter(|(id, row)| counts(id, row))
            .map(|(id, row)| (*id, self.known_entry(id, row)))
            .collect();
        self.kept().rows = marks(&rows);
        entries
    }

    fn known_entry(&self, id: &RunId, row: &Row) -> Entry {
        let Some(shown) = &row.shown else { return Entry::Closed(Some(Arc::new(row.clone()))) };
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        Entry::Run(Run::known(*id, row, shown, serial))
    }

    /// Opens the others, until the vault is closed.
    pub(crate) fn open_rest(&self, rest: &[RunId]) {
        self.on_all_cores(rest, |id| {
            let entry = self.load(id);
            self.opening.left.fetch_sub(1, Ordering::Relaxed);
            self.opening.found().extend(entry);
            if self.opening.is_older_than(KEEP) {
                self.show_found(&mut self.hold_scans());
            }
        });
        self.show_found(&mut self.hold_scans());
        self.end_opening();
    }

    fn show_found(&self, scans: &mut Scans) {
        let found = std::mem::take(&mut *self.opening.found());
        if found.is_empty() {
            return;
        }
        self.change_table_held(scans, |entries| {
            for (id, entry) in found {
                entries.entry(id).or_insert(entry);
            }
        });
        self.opening.show(false);
    }

    fn end_opening(&self) {
        if self.is_closed() {
            return self.opening.wake();
        }
        let mut scans = self.hold_scans();
        self.opening.looked.store(true, Ordering::SeqCst);
        // Now that all are there it can be told which is the first of each name.
        self.change_table_held(&mut scans, |_| {});
        // Some may have been opened before they were revoked.
        self.close_revoked(&mut scans);
        if self.opening.again.load(Ordering::SeqCst)
            && let Err(error) = self.scan(&mut scans, false)
        {
            log::warn!("{error}");
        }
        drop(scans);
        self.opening.show(true);
        self.keep_runs(true);
    }

    /// Calls `work` with each of them, on several threads, until the vault is closed; gives what came of it.
    pub(crate) fn on_all_cores<T: Send>(&self, ids: &[RunId], work: impl Fn(RunId) -> T + Sync) -> Vec<T> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !self.is_closed()) {
                let made = work(*id);
                done.lock().unwrap_or_else(PoisonError::into_inner).push(made);
            }
        };
        cores::on(cores::count().max(THREADS).min(ids.len()), &work);
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all runs are shown; waits for that so long.
    pub fn await_runs(&self, patience: Duration) -> bool {
        let state = self.opening.state();
        let wait = |state: &mut State| !state.over && !self.is_closed();
        let state = self.opening.changed.wait_timeout_while(state, patience, wait);
        state.unwrap_or_else(PoisonError::into_inner).0.over
    }

    /// How many runs are still to be opened.
    pub fn runs_to_open(&self) -> u64 {
        self.opening.left.load(Ordering::Relaxed)
    }

    /// Whether the names that are there are all that there will be: who opens only what it writes knows them from the
    /// beginning.
    fn names_are_known(&self, state: &State) -> bool {
        state.over || (self.gateway.is_some() && !self.opens_others())
    }

    /// Whether this identity opens more than what it writes.
    fn opens_others(&self) -> bool {
        !self.authority.envelope_names().is_empty()
    }

    /// Waits until all runs that are shown are there.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn all_runs(&self) -> Result<()> {
        self.wait_for_runs(|| false)
    }

    /// What `look` finds, as soon as it does; `None` once all runs that are shown are there.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn among_runs<T>(&self, look: impl Fn() -> Option<T>) -> Result<Option<T>> {
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let mut found = None;
        self.wait_for_runs(|| {
            found = look();
            found.is_some()
        })?;
        Ok(found.or_else(look))
    }

    /// Until all are there, or `enough` is true of what was shown since.
    fn wait_for_runs(&self, mut enough: impl FnMut() -> bool) -> Result<()> {
        let mut state = self.opening.state();
        if self.names_are_known(&state) {
            return Ok(());
        }
        while !state.over && !self.is_closed() {
            let shown = state.shown;
            drop(state);
            if enough() {
                return Ok(());
            }
            // A table is made for those who wait, and not for each run.
            if self.opening.is_older_than(SHOW)
                && let Some(mut scans) = self.try_hold_scans()
            {
                self.show_found(&mut scans);
            }
            let same = |state: &mut State| state.shown == shown && !state.over && !self.is_closed();
            let waited = self.opening.changed.wait_timeout_while(self.opening.state(), SHOW, same);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of sealed runs is kept, where that is more or less than was kept, once a minute or `now`.
    pub(crate) fn keep_runs(&self, now: bool) {
        let mut kept = self.kept();
        if !self.options.in_background || (!now && kept.at.elapsed() < KEEP) {
            return;
        }
        kept.at = Instant::now();
        let rows = self.rows();
        let marks = marks(&rows);
        if marks != kept.rows {
            kept.rows = marks;
            self.authority.keep_runs(&rows);
        }
    }

    fn rows(&self) -> Rows {
        let row = |entry: &Entry| match entry {
            Entry::Run(run) if !run.is_loose() => run.seal()?.row(),
            Entry::Closed(row) => row.as_deref().cloned(),
            _ => None,
        };
        self.table().entries.iter().filter_map(|(id, entry)| Some((*id, row(entry)?))).collect()
    }
}

fn marks(rows: &Rows) -> Vec<(RunId, Digest, bool)> {
    rows.iter().map(|(id, row)| (*id, row.seal, row.shown.is_some())).collect()
}

/// Whether all that can be told of a row without the store still holds: both signers are gateways of the vault whose
/// chains reach so far, and this machine has seen that very seal.
fn still_counts(run: &RunId, row: &Row, authority: &dyn Authority) -> bool {
    let (Some(maker), Some(sealer)) = (authority.gateway_key(&row.maker), authority.gateway_key(&row.sealer))
    else {
        return false;
    };
    let reaches = |last: Option<Last>, what: &str, n: Option<u64>, hash: Digest| {
        last.is_none_or(|last| last.refuses(what, n, || hash).is_none())
    };
    let seq = Some(row.seq).filter(|seq| *seq != 0);
    reaches(maker.until.map(|until| until.run), "run", seq, row.run_note)
        && reaches(sealer.until.map(|until| until.seal), "seal", Some(row.n), row.seal)
        && (row.sealer == row.maker || authority.is_admitted(&row.sealer, Some(run)))
        && authority.seal_seen(run) == Some(row.seal)
}
