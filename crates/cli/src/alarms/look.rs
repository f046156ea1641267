//! Gathering facts. Waits for the store as long as that takes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use runvault_format::ids::RunId;
use runvault_sequencer::completion::{Patience, State};
use runvault_vault::held::HeldRun;
use runvault_vault::{Error, Result, RunStatus, Status, Vault};

use super::Alarms;
use super::facts::{Missing, Run, Store};
use crate::exit::Exit;
use crate::left_out;
use crate::run_report;
use crate::sealing::{NAMED, progress_of_held};

/// Over how long the rate is taken, and how much of that must have been seen.
const RATE: Duration = Duration::from_secs(3600);
const RATE_LEAST: Duration = Duration::from_secs(600);
/// How long a run is quiet before it is compared with its RunInfo.xml: its last files are in flight before.
const SETTLED: Duration = Duration::from_secs(60);

/// Runs that are sealed, and so closed to this machine, whose seals are looked at in one look: 10,000 take two hours.
const TURN: usize = 16;

/// What was found at one moment.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    pub store: Store,
    pub store_ahead: Option<i64>,
    pub revoked: bool,
    pub runs: Vec<Run>,
}

/// What looking remembers from one time to the next.
pub struct Look {
    vault: Arc<Vault>,
    store: PathBuf,
    patience: Patience,
    alarms: Arc<Alarms>,
    written: VecDeque<(Instant, u64)>,
    /// Since when others hold runs of this machine.
    foreign: HashMap<RunId, Instant>,
    compared: HashMap<RunId, (Instant, Option<Missing>)>,
    /// The closed run that was looked at last, and what was found wrong with those before.
    turned: Option<RunId>,
    broken: BTreeMap<RunId, String>,
    /// As it was, for those that do not open at the moment: they are being sealed.
    last: HashMap<RunId, Run>,
}

impl Look {
    pub fn new(vault: &Arc<Vault>, store: PathBuf, patience: Patience, alarms: &Arc<Alarms>) -> Look {
        Look {
            vault: Arc::clone(vault),
            store,
            patience,
            alarms: Arc::clone(alarms),
            written: VecDeque::new(),
            foreign: HashMap::new(),
            compared: HashMap::new(),
            turned: None,
            broken: BTreeMap::new(),
            last: HashMap::new(),
        }
    }

    pub fn look(&mut self) -> Looked {
        let held = self.vault.held_runs();
        self.forget_all_but(&held);
        // Before the status: who else holds a run is known for a moment after it was asked for.
        let tops: Vec<_> = held.iter().map(|held| self.vault.top_files(&held.run)).collect();
        let status = self.vault.status();
        let store = self.of_store(&status);
        let mut runs: Vec<Run> = Vec::with_capacity(held.len());
        for (held, top) in held.iter().zip(tops) {
            runs.push(self.of_held(held, top, &status));
        }
        self.last = runs.iter().map(|run| (run.run, run.clone())).collect();
        runs.extend(self.in_trouble());
        runs.extend(self.with_broken_seals(&status));
        runs.extend(self.sealed_as_incomplete());
        let (store_ahead, revoked) = (self.vault.store_clock_ahead(), self.vault.is_revoked());
        Looked { store, store_ahead, revoked, runs }
    }

    fn of_store(&mut self, status: &Status) -> Store {
        let mut store = Store {
            files_free: 100,
            written: status.bytes_written,
            read: status.bytes_read,
            files_written: status.files_written,
            open_files: status.open_handles,
            rate: self.rate(status.bytes_written),
            ..Store::default()
        };
        // One that says nothing is slow, or gone: other alarms than room.
        if let Ok(space) = self.vault.statfs() {
            store.size = space.blocks.saturating_mul(space.block);
            store.available = space.available.saturating_mul(space.block);
            let free = (u128::from(space.files_free) * 100).checked_div(u128::from(space.files));
            store.files_free = free.and_then(|free| u32::try_from(free).ok()).unwrap_or(100);
        }
        store
    }

    fn rate(&mut self, written: u64) -> Option<u64> {
        let now = Instant::now();
        self.written.push_back((now, written));
        while self.written.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE) {
            self.written.pop_front();
        }
        let (since, before) = self.written.front()?;
        let seen = now.duration_since(*since);
        (seen >= RATE_LEAST).then(|| written.saturating_sub(*before) / seen.as_secs().max(1))
    }

    fn forget_all_but(&mut self, held: &[HeldRun]) {
        let is_held = |run: &RunId| held.iter().any(|held| held.run == *run);
        self.foreign.retain(|run, _| is_held(run));
        self.compared.retain(|run, _| is_held(run));
        self.alarms.notes.lock().refused.retain(|run, _| is_held(run));
    }

    fn of_held(&mut self, held: &HeldRun, top: Result<Vec<Vec<u8>>>, status: &Status) -> Run {
        let status = status.runs.iter().find(|status| status.run == held.run);
        let begun = humantime::parse_rfc3339(&held.opened).unwrap_or_else(|_| SystemTime::now());
        let mut run = Run {
            run: held.run,
            addition: held.continues,
            state: None,
            age: begun.elapsed().unwrap_or_default(),
            quiet: held.quiet,
            lease_age: held.lease_age,
            holder: self.holder(held, status),
            trouble: status.and_then(|status| status.trouble.clone()),
            missing: None,
            refused: self.alarms.notes.lock().refused.get(&held.run).copied(),
        };
        match top {
            Ok(files) => {
                let state = progress_of_held(&self.vault, held, &files, &self.patience);
                run.state = Some(state);
                run.missing = self.missing(held, &state);
            }
            Err(_) => {
                let last = self.last.get(&held.run);
                run.state = last.and_then(|last| last.state);
                run.missing = last.and_then(|last| last.missing.clone());
            }
        }
        run
    }

    fn holder(&mut self, held: &HeldRun, status: Option<&RunStatus>) -> Option<(String, Duration)> {
        let Some(holder) = status.and_then(|status| status.holder.clone()) else {
            self.foreign.remove(&held.run);
            return None;
        };
        let since = self.foreign.entry(held.run).or_insert_with(Instant::now);
        Some((holder, since.elapsed()))
    }

    /// Of a run that is over: once after each change, since the whole of it is walked.
    fn missing(&mut self, held: &HeldRun, state: &State) -> Option<Missing> {
        if held.continues || !matches!(state, State::Complete { .. }) {
            self.compared.remove(&held.run);
            return None;
        }
        let settled = held.quiet >= SETTLED.min(self.patience.quiet / 4);
        let known = self.compared.get(&held.run);
        if !settled || known.is_some_and(|(at, _)| at.elapsed() < held.quiet) {
            return known.and_then(|(_, missing)| missing.clone());
        }
        // Not its end: what is written while it is walked counts as later.
        let begun = Instant::now();
        let compared = run_report::completeness_of(&self.vault, &self.store, &held.run);
        let missing = compared.map(|compared| Missing {
            count: compared.missing.len(),
            named: compared.missing.into_iter().take(NAMED).collect(),
        });
        self.compared.insert(held.run, (begun, missing.clone()));
        missing
    }

    /// Runs that are left out because what is signed about them does not hold.
    fn in_trouble(&self) -> Vec<Run> {
        let damaged = left_out::of(&self.vault).into_iter().filter(|run| run.exit() == Exit::Damaged);
        damaged
            .map(|left_out| Run { trouble: Some(left_out.why()), ..nothing_known(left_out.run()) })
            .collect()
    }

    /// A few at a time, and those again that were found before.
    fn with_broken_seals(&mut self, status: &Status) -> Vec<Run> {
        let closed: BTreeSet<RunId> =
            status.runs.iter().filter(|run| run.closed).map(|run| run.run).collect();
        let after = self.turned.map_or(Bound::Unbounded, Bound::Excluded);
        let turn: Vec<RunId> = closed.range((after, Bound::Unbounded)).take(TURN).copied().collect();
        self.turned = turn.last().copied().filter(|_| turn.len() == TURN);
        self.broken.retain(|run, _| closed.contains(run));
        let again: Vec<RunId> = self.broken.keys().copied().collect();
        for run in turn.into_iter().chain(again) {
            match self.vault.run_facts(&run) {
                Err(damaged @ Error::Damaged { .. }) => {
                    self.broken.insert(run, damaged.to_string());
                }
                Ok(_) => drop(self.broken.remove(&run)),
                // Nothing about the run.
                Err(_) => {}
            }
        }
        let broken = self.broken.iter();
        broken.map(|(run, why)| Run { trouble: Some(why.clone()), ..nothing_known(*run) }).collect()
    }

    fn sealed_as_incomplete(&self) -> Vec<Run> {
        let mut noted = self.alarms.notes.lock();
        let told = noted.incomplete.told();
        told.map(|(run, missing)| Run { missing: Some(missing.clone()), ..nothing_known(*run) }).collect()
    }
}

fn nothing_known(run: RunId) -> Run {
    Run {
        run,
        addition: false,
        state: None,
        age: Duration::ZERO,
        quiet: Duration::ZERO,
        lease_age: None,
        holder: None,
        trouble: None,
        missing: None,
        refused: None,
    }
}
