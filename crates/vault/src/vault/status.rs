//! What a live vault tells of itself and of its runs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use runvault_format::ids::RunId;

use crate::api::Ino;
use crate::run_table::{Entry, RunTable};
use crate::{Error, Vault, runs, seal};

/// Names that are not ours are counted up to here in each directory.
const FOREIGN_MAX: usize = 10_000;

/// One run, as `status` shows it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct RunStatus {
    pub run: RunId,
    /// Its plaintext name; `None` where it does not open for this identity.
    pub name: Option<Vec<u8>>,
    /// Written by this mount.
    pub writing: bool,
    /// Who writes it, where that is someone else.
    pub holder: Option<String>,
    /// Why it cannot be used, or only be read, where that is so.
    pub trouble: Option<String>,
    /// Genuine, but no key that is held here opens it: it is not shown.
    pub closed: bool,
    /// The sealed run that it adds to, and in whose tree it is shown.
    pub continues: Option<RunId>,
    /// It is being sealed: nothing of it opens until that is done.
    pub sealing: bool,
    /// It has a seal, and opens.
    pub sealed: bool,
    /// It opens, and is not shown, or of a loose run the files are not: no seal proves it ([`crate::Options::sealed_only`]).
    pub left_out: bool,
}

/// What a live vault tells of itself.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Status {
    pub runs: Vec<RunStatus>,
    pub files_written: u64,
    pub bytes_written: u64,
    pub bytes_read: u64,
    pub open_handles: u64,
    pub known_nodes: u64,
    /// Names in tree/ that are not ours, hidden.
    pub foreign_names: u64,
    /// Seconds since the last completed sync of the store, where there was one.
    pub last_sync_seconds: Option<u64>,
}

impl Vault {
    /// What `status` shows.
    pub fn status(&self) -> Status {
        let table = self.table();
        let shown = table.entries.iter().filter(|(id, _)| !table.is_replaced(id));
        let runs = shown.map(|(id, entry)| self.run_status(&table, *id, entry)).collect();
        let foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        let synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            runs,
            files_written: self.counters.files_written.load(Ordering::Relaxed),
            bytes_written: self.counters.bytes_written.load(Ordering::Relaxed),
            bytes_read: self.counters.bytes_read.load(Ordering::Relaxed),
            open_handles: self.handles.count(),
            known_nodes: self.nodes.count(),
            foreign_names: foreign.values().map(|seen| seen.len() as u64).sum::<u64>() + table.foreign,
            last_sync_seconds: synced.map(|at| at.elapsed().as_secs()),
        }
    }

    /// The runs that are not shown, each with the error that is why; by their ids.
    pub fn left_out(&self) -> Vec<(RunId, Arc<Error>)> {
        let trouble = |(id, entry): (&RunId, &Entry)| match entry {
            Entry::Trouble(error) => Some((*id, Arc::clone(error))),
            _ => None,
        };
        let table = self.table();
        table.entries.iter().filter(|(id, _)| !table.is_replaced(id)).filter_map(trouble).collect()
    }

    /// How many runs are genuine, but not opened by any key that is held here.
    pub fn closed_runs(&self) -> u64 {
        self.table().entries.values().filter(|entry| matches!(entry, Entry::Closed(_))).count() as u64
    }

    /// How many runs open, and are not shown because no seal proves them ([`crate::Options::sealed_only`]).
    pub fn open_runs_left_out(&self) -> u64 {
        let table = self.table();
        table.opened().filter(|run| table.is_left_out(run)).count() as u64
    }

    /// Whether a gateway's files outside runs are not shown, since no seal ever proves them
    /// ([`crate::Options::sealed_only`]).
    pub fn is_outside_left_out(&self) -> bool {
        self.options.sealed_only && self.table().opened().any(|run| run.is_loose())
    }

    /// The runs that this gateway made and nobody sealed, of which it has no key: it was not kept, or its entry is lost. Their
    /// owner reads them.
    pub fn lost_runs(&self) -> Vec<RunId> {
        let table = self.table();
        let closed = table.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Closed(None)));
        closed.map(|(id, _)| *id).filter(|id| self.is_lost_here(id)).collect()
    }

    /// Whether it is one of [`Vault::lost_runs`].
    pub fn is_lost_here(&self, run: &RunId) -> bool {
        let Some(gateway) = self.gateway.as_deref() else { return false };
        let closed = matches!(self.table().entries.get(run), Some(Entry::Closed(None)));
        let sealed = || seal::has_seal(&self.root, run).unwrap_or(true);
        let maker =
            || runs::read_descriptor(&self.root, run, &*self.authority).map(|run| run.descriptor.signer);
        closed && !sealed() && maker().is_ok_and(|maker| maker == gateway.id())
    }

    fn run_status(&self, table: &RunTable, run: RunId, entry: &Entry) -> RunStatus {
        let mut status = RunStatus {
            run,
            name: None,
            writing: false,
            holder: None,
            trouble: None,
            closed: false,
            sealing: false,
            continues: None,
            sealed: false,
            left_out: false,
        };
        match entry {
            Entry::Closed(_) => status.closed = true,
            Entry::Trouble(error) => status.trouble = Some(error.to_string()),
            Entry::Run(run) => {
                status.name = Some(run.name());
                status.continues = table.first_of(run);
                status.sealing = run.is_closed_for_good();
                status.sealed = run.is_sealed();
                status.left_out = self.options.sealed_only && !run.is_sealed();
                status.holder = if run.is_sealed() { None } else { self.holder_of(run) };
                let body = run.opened_body();
                let blocked = body.as_ref().and_then(|body| body.blocked());
                status.trouble = blocked.map(|why| format!("read-only: {why}"));
                if self.gateway.is_some() && !run.held && !run.is_sealed() && status.holder.is_none() {
                    let why = run.not_held();
                    status.trouble = Some(format!("{why}; runvault takeover STORE {} changes that", run.id));
                }
                status.writing = run.held && status.holder.is_none() && blocked.is_none();
            }
        }
        status
    }

    /// A listing of `dir` met a name that is not ours at that offset; `None`: it begins anew.
    pub(crate) fn foreign_seen(&self, dir: Ino, at: Option<u64>) {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        match at {
            Some(at) => {
                let seen = foreign.entry(dir).or_default();
                if seen.len() < FOREIGN_MAX {
                    seen.insert(at);
                }
            }
            None => drop(foreign.remove(&dir)),
        }
    }
}
