//! A new epoch: a new vault key, every run sealed to it, the old envelopes removed.
//!
//! Order, so that a kill at any point leaves every run readable: new state, audit line (the commit: keys
//! of both epochs open from then on, the older through the keyring), then per run the new envelope,
//! durable, and only then the old one's removal. What is left of an interrupted rotation is "runs without
//! a `keys/vault-<e>` that opens": one that does not is damaged, or to a key of the same number that was lost when
//! an older custody/ was put back. Nothing in the store says that one is under way: who could forge that would keep
//! a person who asks for a new key from getting it. So [`rotate`] always makes one, and [`resume`] is
//! asked for by name.

pub(crate) mod run;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use runvault_format::ids::RunId;
use runvault_format::operation::Operation;
use runvault_store::backend::Dir;

use self::run::Outcome;
use crate::authority::{Acting, check_bound};
use crate::chain::Chain;
use crate::epochs::EpochKeys;
use crate::execute::{Act, execute};
use crate::identity::Identity;
use crate::{Error, Result};

/// Runs that came while the pass went on are looked for this often at most.
pub(crate) const PASSES: usize = 3;

/// What a rotation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotateSummary {
    /// The epoch that runs are sealed to now.
    pub epoch: u32,
    /// Runs that got an envelope to it.
    pub rotated: u64,
    /// Runs that had one already, which opens.
    pub already: u64,
    /// Runs left as they were, and why: damaged, or no envelope opens.
    pub failed: Vec<(RunId, String)>,
    /// Runs left as they were until they are sealed: a standing reader's seal would give the key again.
    pub open: Vec<RunId>,
}

/// Makes a new epoch and seals every run to it, or to a newer one that is made meanwhile, also those that
/// an interrupted rotation left. `progress` gets runs done and runs in all. A kill at any point leaves
/// every run readable.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::NeedsQuorum`]; [`Error::ChangedMeanwhile`] where another rotation came
/// first; the store's.
pub fn rotate(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RotateSummary> {
    check_bound(chain, owner)?;
    resume(root, &new_epoch(root, chain, owner)?, owner, progress)
}

/// Seals the runs that an interrupted rotation left to the newest epoch; makes none.
///
/// # Errors
/// As [`rotate`].
pub fn resume(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RotateSummary> {
    let mut chain = chain.clone();
    loop {
        let mut summary = RotateSummary { epoch: chain.epoch(), ..RotateSummary::default() };
        // Opens the newest key out of the store's own state, before any older envelope goes.
        let acting = Acting::opened(chain.clone(), owner)?;
        seal_runs(root, &acting, &mut summary, progress)?;
        // A rotation that came meanwhile may have passed runs before they were sealed to this key.
        chain = chain.continued(root)?.unwrap_or(chain);
        if chain.epoch() == summary.epoch {
            return Ok(summary);
        }
    }
}

/// The state and the line; from then on new runs are sealed to the new epoch.
fn new_epoch(root: &Arc<dyn Dir>, chain: &Chain, owner: &Identity) -> Result<Chain> {
    let keys = EpochKeys::open(chain, owner)?;
    let before = chain.epoch();
    execute(root, chain, owner, |chain| {
        // Another rotation came first: whether one more is wanted is for a person to say.
        if chain.epoch() != before {
            return Err(Error::ChangedMeanwhile);
        }
        let op = Operation::Rotate { epoch: before.saturating_add(1) };
        let (key, reason) = (Some(keys.newest_seed()), "a new vault key");
        Ok(Some(Act { op, reason, share: key }))
    })
}

/// Every run gets its envelope, also those that a live mount adds meanwhile.
pub(crate) fn seal_runs(
    root: &Arc<dyn Dir>,
    acting: &Acting,
    summary: &mut RotateSummary,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut seen: Vec<RunId> = Vec::new();
    for _ in 0..PASSES {
        let mut runs = runvault_vault::runs::list(root)?;
        runs.retain(|run| seen.binary_search(run).is_err());
        if runs.is_empty() {
            break;
        }
        pass(root, acting, &runs, seen.len(), summary, progress)?;
        seen.extend(runs);
        seen.sort_unstable();
    }
    summary.failed.sort();
    Ok(())
}

/// One pass on every core. The first error of the store's ends it: a full or vanished store would
/// give the same one for each run.
fn pass(
    root: &Arc<dyn Dir>,
    acting: &Acting,
    runs: &[RunId],
    before: usize,
    summary: &mut RotateSummary,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(runs.len().max(1));
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (results, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let results = results.clone();
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed)
                        || results.send((*run, run::seal(root, acting, run))).is_err()
                    {
                        break;
                    }
                }
            });
        }
        drop(results);
        let total = (before + runs.len()) as u64;
        let mut outcome = Ok(());
        for (i, (run, result)) in finished.iter().enumerate() {
            match result {
                Ok(result) => count(summary, run, result),
                Err(e) => {
                    stop.store(true, Ordering::Relaxed);
                    outcome = outcome.and(Err(e));
                }
            }
            progress((before + i + 1) as u64, total);
        }
        outcome
    })
}

pub(crate) fn count(summary: &mut RotateSummary, run: RunId, outcome: Outcome) {
    match outcome {
        Outcome::Rotated => summary.rotated += 1,
        Outcome::Already => summary.already += 1,
        Outcome::Gone => {}
        Outcome::Failed(why) => summary.failed.push((run, why)),
        Outcome::Open => summary.open.push(run),
    }
}
