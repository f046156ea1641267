//! What is left to do once the line stands, run by run. A kill at any point leaves every run readable, and a second
//! call goes on.

use std::collections::BTreeSet;
use std::sync::Arc;

use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::operation::{KeyChange, Operation};
use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;
use runvault_vault::{Posix, runs, seal};

use super::execute::Done;
use crate::Result;
use crate::authority::Acting;
use crate::chain::Chain;
use crate::rekey;
use crate::rotate::run::Outcome;
use crate::rotate::{self, RotateSummary};

/// Does it. `progress` gets runs done and runs in all.
///
/// # Errors
/// The store's.
pub fn carry_out(
    root: &Arc<dyn Dir>,
    done: Done,
    op: &Operation,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RotateSummary> {
    let epoch = done.chain.epoch();
    let mut summary = RotateSummary { epoch, ..RotateSummary::default() };
    match op {
        Operation::Grant { reader, runs } => {
            let acting = acting(done)?.following(root);
            each(runs, &mut summary, progress, |run| {
                if acting.granted_by_now(reader, run) == Some(false) {
                    return Ok(Outcome::Failed("a later line takes it from that reader again".to_owned()));
                }
                // One that was re-keyed meanwhile is the run that has taken its place.
                let later = acting.replaced_by(run);
                all_of([run].into_iter().chain(&later), |one| rotate::run::grant(root, &acting, one, reader))
            })?;
        }
        Operation::Revoke { reader, runs } => {
            let standing = done.chain.state().reader(reader).is_some_and(|known| known.standing);
            let by_now = Acting::keyless(done.chain.clone()).following(root);
            each(runs, &mut summary, progress, |run| {
                if by_now.granted_by_now(reader, run) == Some(true) {
                    return Ok(Outcome::Failed("a later line gives it to that reader again".to_owned()));
                }
                match standing && is_open(root, run)? {
                    true => Ok(Outcome::Open),
                    false => forget_all(root, &done.chain, run, reader),
                }
            })?;
        }
        Operation::RemoveReader { reader } => {
            let mut seen = Vec::new();
            for _ in 0..rotate::PASSES {
                // A gateway that has not heard of it yet may make runs meanwhile.
                let mut new = all_runs(root)?;
                new.retain(|run| !seen.contains(run));
                let new = Vec::from_iter(new);
                each(&new, &mut summary, progress, |run| forget(root, run, reader))?;
                seen.extend(new);
            }
        }
        Operation::Rekey { runs } => {
            let mut done = done;
            let worker = done.worker.take().ok_or(runvault_format::Error::Share)?;
            let work: Vec<_> = done.chain.work_of(&worker.id()).cloned().collect();
            let acting = acting(done)?;
            each(runs, &mut summary, progress, |run| match work.iter().find(|one| one.run == *run) {
                Some(one) => rekey::prepare(root, &acting, &worker, one),
                None => Ok(Outcome::Failed("the audit log names no run in its place".to_owned())),
            })?;
        }
        op if op.key_change() == KeyChange::New || matches!(op, Operation::Recover { .. }) => {
            rotate::seal_runs(root, &acting(done)?, &mut summary, progress)?;
        }
        _ => {}
    }
    Ok(summary)
}

fn acting(done: Done) -> Result<Acting> {
    let keys = done.keys.ok_or(runvault_format::Error::Share)?;
    Ok(Acting::with_keys(done.chain, keys))
}

/// One run after the other. What concerns a run alone is counted, and the next one's turn comes.
fn each(
    runs: &[RunId],
    summary: &mut RotateSummary,
    progress: &mut dyn FnMut(u64, u64),
    mut act: impl FnMut(&RunId) -> Result<Outcome>,
) -> Result<()> {
    let total = runs.len() as u64;
    for (run, done) in runs.iter().zip(1..) {
        rotate::count(summary, *run, act(run)?);
        progress(done, total);
    }
    Ok(())
}

/// Whether a gateway is to seal it; one that is not there any more is not.
fn is_open(root: &Arc<dyn Dir>, run: &RunId) -> Result<bool> {
    match seal::has_seal(root, run) {
        Err(runvault_vault::Error::Posix(Posix::NotFound)) => Ok(false),
        sealed => Ok(!sealed?),
    }
}

/// A reader's envelopes go: of a run, and of those under other keys that are there still, or on their way.
fn forget_all(root: &Arc<dyn Dir>, chain: &Chain, run: &RunId, reader: &IdentityId) -> Result<Outcome> {
    all_of(chain.family(run), |one| forget(root, one, reader))
}

/// Of several runs that stand for one.
fn all_of<'a>(
    mut runs: impl Iterator<Item = &'a RunId>,
    act: impl Fn(&RunId) -> Result<Outcome>,
) -> Result<Outcome> {
    runs.try_fold(Outcome::Gone, |done, run| Ok(and(done, act(run)?)))
}

/// A reader's envelope of a run goes, also where the run has not got its name yet, or has lost it to the run that replaces
/// it.
fn forget(root: &Arc<dyn Dir>, run: &RunId, reader: &IdentityId) -> Result<Outcome> {
    let name = EnvelopeName::Reader(*reader).to_string();
    let remove = |place: &str| match runs::remove_envelope_at(root, place, &name) {
        Ok(true) => Ok(Outcome::Rotated),
        Ok(false) => Ok(Outcome::Gone),
        Err(error) => rotate::run::of_this_run(error),
    };
    let passing = |place: String| {
        Ok::<_, crate::Error>(match remove(&place)? {
            // Half made, or half removed.
            Outcome::Failed(_) => Outcome::Gone,
            done => done,
        })
    };
    let passing = and(passing(runs::coming_place(run))?, passing(runs::gone_place(run))?);
    Ok(and(passing, remove(&run.to_string())?))
}

/// What failed counts, and then what was there.
fn and(before: Outcome, now: Outcome) -> Outcome {
    match (&before, &now) {
        (Outcome::Failed(_), _) | (_, Outcome::Gone) => before,
        _ => now,
    }
}

/// The runs of the store, with those that have not got their names yet, or lost them.
fn all_runs(root: &Arc<dyn Dir>) -> Result<BTreeSet<RunId>> {
    let listed = runs::list_all(root)?;
    Ok(listed.runs.iter().copied().chain(listed.coming()).chain(listed.going()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::quorum::alone;
    use crate::testing::{enrolled, envelopes, make_run, reader_entry, vault};

    /// Two machines at once: the one that stood still after its line does not undo the other's later one.
    #[test]
    fn what_a_later_line_says_is_done() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let (run, _) = make_run(&root, &chain, &gateway);
        let reader = Identity::generate("reader").unwrap();
        let act = |chain: &Chain, op| alone::act(&root, chain, &owner, op, "", &mut |_, _| {}).unwrap().0;
        let chain = act(&chain, Operation::AddReader { reader: reader_entry(&reader, false, None) });
        let (reader, runs) = (reader.id(), vec![run]);
        let grant = Operation::Grant { reader, runs: runs.clone() };
        let revoke = Operation::Revoke { reader, runs };
        let has = || envelopes(&root, &run).iter().any(|file| file.name == format!("reader-{reader}"));
        let mut at = chain;
        for (first, second) in [(&grant, &revoke), (&revoke, &grant)] {
            let (done, _) = alone::decide(&root, &at, &owner, first.clone(), "").unwrap();
            at = act(&done.chain, second.clone());
            let late = carry_out(&root, done, first, &mut |_, _| {}).unwrap();
            assert!(late.failed[0].1.contains("a later line"), "{late:?}");
            assert_eq!(has(), matches!(second, Operation::Grant { .. }));
        }
    }
}
