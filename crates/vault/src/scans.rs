//! Looking at `runs/` again and again: what came, what went, what other machines renamed or sealed, whether seals are still
//! there.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use runvault_format::ids::RunId;

use crate::follow::Followed;
use crate::run::{Loaded, Run};
use crate::run_table::{Entry, RunTable};
use crate::sealed::RunSeal;
use crate::stamp::Stamp;
use crate::{Result, Vault, runs, seal};

/// Other machines' runs that are looked at in one scan; the rest have their turn in the next ones.
const AT_ONCE: usize = 64;

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
    /// Others' runs that were sealed since they were opened; they stay what they are until they are found as that.
    sealed: BTreeMap<RunId, Arc<Run>>,
}

impl Scans {
    /// Before the first.
    pub(crate) fn new(followed: Followed) -> Self {
        let sealed = BTreeMap::new();
        Self { followed, looked: None, renamed: false, seals: None, seals_once: false, sealed }
    }

    /// Whether the table has a name that is another one now.
    pub(crate) fn is_renamed(&self) -> bool {
        self.renamed
    }
}

impl Vault {
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
                Some(Entry::Run(run))
                    if !run.is_erased() && !run.is_refused() && !scans.sealed.contains_key(id) =>
                {
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
            self.close_sealed(&before);
        }
        // Now that another is found by its name.
        std::mem::take(&mut scans.sealed).values().for_each(|run| self.give_up(run));
        Ok(())
    }

    /// Closes the sealed runs that went, or are refused by now, and that no other has replaced: the kernel would go on
    /// reading them. Of those that went their owner may have retired some.
    fn close_sealed(&self, before: &RunTable) {
        let table = self.table();
        for (id, entry) in before.entries.iter().filter(|(_, entry)| entry.is_sealed()) {
            let (run, now) = (entry.run(), table.entries.get(id));
            let is_as_before = now.is_some_and(|now| now.run().is_some() || run.is_none());
            if is_as_before || !self.authority.replaced_by(id).is_empty() {
                continue;
            }
            if now.is_none() {
                log::warn!(
                    "run {id} is gone from the store, and it was sealed: scrub names it unless it was retired"
                );
            }
            run.filter(|run| !run.is_erased()).into_iter().for_each(|run| self.close_run(run));
        }
    }

    /// Looks whether other machines have renamed or sealed some of their runs; whether any is to be found as sealed.
    /// `anyway`: also into those whose directories have the times that they had.
    pub(crate) fn look_at_others(&self, scans: &mut Scans, anyway: bool) -> bool {
        let table = self.table();
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
                scans.sealed.insert(run.id, run.clone());
            } else {
                match run.look_at_name(&self.root) {
                    Ok(renamed) => scans.renamed |= renamed,
                    // It keeps the one that it had.
                    Err(_) => run.look_again(),
                }
            }
        }
        !scans.sealed.is_empty()
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
}

/// Tells of runs that came and are left out.
fn tell_left_out(table: &RunTable, found: &[(RunId, Entry)]) {
    for run in found.iter().filter_map(|(_, entry)| entry.run()).filter(|run| table.is_left_out(run)) {
        log::info!("run {} is open: it is left out until it is sealed (--open shows it)", run.id);
    }
}
