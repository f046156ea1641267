//! Everything that the key opens is read and authenticated: what is damaged is named.

mod around;
mod contents;
mod report;
mod tree;
mod way;

use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_format::ids::{RunId, SessionId};
use runvault_format::keys::RunKeys;
use runvault_store::backend::Dir;

use crate::authority::Authority;
use crate::file::RunContext;
use crate::outcome::part_opened;
use crate::{Damage, Error, Result, lease, recovery, runs, seal};

pub use report::{CheckEvent, CheckSummary, Unproven};

/// What is wrong in a run that is being written is looked at again, so often at most,
const LOOKS: u32 = 10;
/// after so long: readers' own patience is for a machine that is not busy.
const A_WRITE: Duration = Duration::from_secs(1);

/// Checks everything that `authority` opens; writes nothing. `held` gives the session that this machine's
/// state folder names for a run that it holds.
///
/// # Errors
/// The store's, for `runs/` itself, and a shortage of this machine, which says nothing about the store.
/// Everything else is reported, and the rest goes on.
pub fn check(
    root: &Arc<dyn Dir>,
    authority: &Arc<dyn Authority>,
    held: &dyn Fn(&RunId) -> Option<SessionId>,
    report: &mut dyn FnMut(CheckEvent),
) -> Result<CheckSummary> {
    let listed = runs::list_all(root)?;
    let mut checker = Checker {
        root,
        authority: &**authority,
        held,
        report,
        summary: CheckSummary::default(),
        looks: 0,
        short: None,
    };
    for name in listed.foreign {
        checker.foreign(format!("runs/{}", String::from_utf8_lossy(&name)));
    }
    checker.retired();
    for run in listed.runs {
        if checker.short.is_some() {
            break;
        }
        if let Err(error) = checker.run(run)
            && !runs::is_gone(root, &run)
        {
            let object = error.object().map_or_else(|| format!("runs/{run}"), ToOwned::to_owned);
            checker.damage(object, None, error);
        }
    }
    checker.short.map_or(Ok(checker.summary), Err)
}

struct Checker<'a> {
    root: &'a Arc<dyn Dir>,
    authority: &'a dyn Authority,
    held: &'a dyn Fn(&RunId) -> Option<SessionId>,
    report: &'a mut dyn FnMut(CheckEvent),
    summary: CheckSummary,
    /// How often what is wrong in the run in hand may be looked at once more, since somebody may be writing it.
    looks: u32,
    /// What this machine or user lacked: the check ends there.
    short: Option<Error>,
}

impl Checker<'_> {
    fn damage(&mut self, object: String, path: Option<&[u8]>, error: Error) {
        let path = path.map(<[u8]>::to_vec);
        if error.is_forbidden() {
            self.summary.unread += 1;
            (self.report)(CheckEvent::Unread { object, path, what: error.to_string() });
            return;
        }
        if error.is_of_this_machine() {
            self.short.get_or_insert(error);
            return;
        }
        if let Error::Newer { object, source } = error {
            self.summary.newer_runs += 1;
            (self.report)(CheckEvent::Newer { object, what: source.to_string() });
            return;
        }
        self.summary.damages += 1;
        let (object, what) = match error {
            Error::Damaged { damage, .. } => (object, damage.to_string()),
            other => (object, other.to_string()),
        };
        (self.report)(CheckEvent::Damage { object, path, what });
    }

    /// Waits until a writer has ended what it was about to do, and tells whether to look again.
    fn looks_again(&mut self) -> bool {
        let Some(left) = self.looks.checked_sub(1) else { return false };
        self.looks = left;
        std::thread::sleep(A_WRITE);
        true
    }

    fn foreign(&mut self, object: String) {
        self.summary.foreign_names += 1;
        (self.report)(CheckEvent::Foreign { object });
    }

    /// The seal's own files; `verify` compares the run with them.
    fn seal(&self, run: &RunId, context: &Arc<RunContext>) -> Result<()> {
        let Some(seal) = seal::find(self.root, run, self.authority)? else { return Ok(()) };
        seal.digests()?;
        seal.manifest(context).map(drop)
    }

    fn run(&mut self, run: RunId) -> Result<()> {
        let dir = runs::run_dir(self.root, &run)?;
        self.around_run(&run, &dir);
        let verified = runs::read_descriptor(self.root, &run, self.authority)?;
        let mut envelopes = runs::envelopes(self.root, &run, self.authority)?;
        let opened = envelopes.open(&run, self.authority);
        for error in envelopes.refused {
            let object = error.object().unwrap_or_default().to_owned();
            self.damage(object, None, error);
        }
        let Some(key) = opened? else {
            self.summary.closed_runs += 1;
            (self.report)(CheckEvent::Run { run, name: None });
            return Ok(());
        };
        let keys = RunKeys::derive(&key, &run, Engine::fastest());
        if !ct_eq(&keys.commitment(), &verified.descriptor.commitment.0) {
            let what = Damage::Run("the key is not the one run.json names".into());
            return Err(Error::damaged(format!("runs/{run}"), what));
        }
        let name = match crate::run::read_name(&*dir, &run, &keys) {
            Ok(name) => name,
            Err(error) => {
                self.damage(format!("runs/{run}/name"), None, error);
                run.to_string().into_bytes()
            }
        };
        self.summary.runs += 1;
        (self.report)(CheckEvent::Run { run, name: Some(name.clone()) });
        self.looks = if lease::may_be_written(&*dir) { LOOKS } else { 0 };
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", format!("runs/{run}/tree"), e))?;
        let context = RunContext::reader(run, keys, verified.descriptor.geometry, tree.clone());
        if let Err(error) = self.seal(&run, &context) {
            let object = error.object().map_or_else(|| format!("runs/{run}/seal"), ToOwned::to_owned);
            self.damage(object, None, error);
        }
        match recovery::count(&context, &dir, (self.held)(&run)) {
            Ok(counted) => {
                self.summary.journal_records += counted.records;
                self.summary.journal_records_behind += counted.behind;
            }
            Err(error) => self.damage(format!("runs/{run}/journal"), None, error),
        }
        self.tree(context, tree, name);
        Ok(())
    }
}
