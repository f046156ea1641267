//! Who says that a run is gone, so that nobody misses it. Its maker may, of a run that was not sealed, by a note in
//! `retired/`; of any other the vault's owner alone, by another note there, or as many custodians as the quorum, by a line
//! of the audit log, since whoever stole a gateway's key could say it too.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use runvault_format::custody_state::State;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::note::{Note, sign, text_hash};
use runvault_format::removed::{GoneRun, Removed, RemovedSeal};
use runvault_format::retired::Retired;
use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;
use runvault_vault::{runs, seal};

use crate::chain::Chain;
use crate::enroll::require_custodian;
use crate::epochs::require_quorum_of_one;
use crate::identity::Identity;
use crate::layout::{self, OBJECT_MAX, RETIRED};
use crate::{Error, Result, clock, settle};

/// The word that a run is gone, by whoever may say so.
#[derive(Debug)]
pub(crate) enum Gone {
    /// Its gateway removed it, up to where its chain counts.
    Maker(Retired),
    /// The owner does not expect it.
    Owner(Removed),
    /// Nor do the custodians.
    Quorum(GoneRun),
}

impl Gone {
    /// The run.
    pub(crate) fn run(&self) -> RunId {
        match self {
            Gone::Maker(said) => said.run,
            Gone::Owner(said) => said.run,
            Gone::Quorum(said) => said.run,
        }
    }

    /// Text hash of the run's run.json.
    pub(crate) fn run_note(&self) -> Digest {
        match self {
            Gone::Maker(said) => said.run_note,
            Gone::Owner(said) => said.run_note,
            Gone::Quorum(said) => said.run_note,
        }
    }

    /// Its gateway, its number there, and the run before.
    pub(crate) fn place(&self) -> (IdentityId, u64, Option<Digest>) {
        match self {
            Gone::Maker(said) => (said.gateway, said.seq, said.prev),
            Gone::Owner(said) => (said.gateway, said.seq, said.prev),
            Gone::Quorum(said) => (said.gateway, said.seq, said.prev),
        }
    }

    /// Its seal, which goes with it; the maker's word says nothing of one.
    pub(crate) fn seal(&self) -> Option<&RemovedSeal> {
        match self {
            Gone::Maker(_) => None,
            Gone::Owner(said) => said.seal.as_ref(),
            Gone::Quorum(said) => said.seal.as_ref(),
        }
    }
}

/// What is said of every run that is gone, or may go.
///
/// # Errors
/// The store's.
pub(crate) fn all(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Vec<Gone>> {
    let mut runs: BTreeSet<RunId> = chain.gone().keys().copied().collect();
    if let Some(retired) = folder(root)? {
        let parsed = |name: Vec<u8>| std::str::from_utf8(&name).ok()?.parse::<RunId>().ok();
        runs.extend(layout::names(&retired, RETIRED)?.into_iter().filter_map(parsed));
    }
    let said = runs.iter().map(|run| read(root, chain, run));
    said.filter_map(Result::transpose).collect()
}

/// What is said of a run: by a line of the log, else by a note; what is no note, or nobody's who may say so, says
/// nothing.
pub(crate) fn read(root: &Arc<dyn Dir>, chain: &Chain, run: &RunId) -> Result<Option<Gone>> {
    if let Some(gone) = chain.gone().get(run) {
        return Ok(Some(Gone::Quorum(gone.clone())));
    }
    let Some(retired) = folder(root)? else { return Ok(None) };
    Ok(bytes_of(&retired, run).and_then(|note| {
        let note = Note::parse(&note).ok()?;
        by_maker(chain, run, &note).or_else(|| by_owner(chain.state(), run, &note).map(Gone::Owner))
    }))
}

/// A run of which the owner's word that it is gone would count no more in `next`: its loss would be missed again.
pub(crate) fn void_in(root: &Arc<dyn Dir>, chain: &Chain, next: &State) -> Result<Option<RunId>> {
    let Some(retired) = folder(root)? else { return Ok(None) };
    for name in layout::names(&retired, RETIRED)? {
        let Some(run) = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<RunId>().ok()) else {
            continue;
        };
        // A line of the log says it as well, whatever the quorum is.
        if chain.gone().contains_key(&run) {
            continue;
        }
        let Some(note) = bytes_of(&retired, &run) else { continue };
        let Ok(note) = Note::parse(&note) else { continue };
        if by_owner(chain.state(), &run, &note).is_some() && by_owner(next, &run, &note).is_none() {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

fn folder(root: &Arc<dyn Dir>) -> Result<Option<Arc<dyn Dir>>> {
    layout::exists(root, RETIRED, RETIRED)?.then(|| layout::open_dir(root, RETIRED, RETIRED)).transpose()
}

/// One that cannot be read says nothing.
fn bytes_of(retired: &Arc<dyn Dir>, run: &RunId) -> Option<Vec<u8>> {
    let object = format!("{RETIRED}/{run}");
    layout::read_if_there(retired, &run.to_string(), &object, OBJECT_MAX).unwrap_or_default()
}

fn by_maker(chain: &Chain, run: &RunId, note: &Note<'_>) -> Option<Gone> {
    let said = Retired::parse_text(note.text).ok().filter(|said| said.run == *run)?;
    let maker = chain.gateway_key(&said.gateway)?;
    note.verify(&said.gateway, &maker.sign).ok()?;
    let last = maker.until.map(|until| until.run);
    let counts = |end: u64, hash| said.seq < end || (said.seq == end && hash == Some(said.run_note));
    last.is_none_or(|last| counts(last.n, last.hash)).then_some(Gone::Maker(said))
}

fn by_owner(state: &State, run: &RunId, note: &Note<'_>) -> Option<Removed> {
    let said = Removed::parse_text(note.text).ok().filter(|said| said.run == *run)?;
    let custodian = state.custodian(&said.custodian).filter(|_| state.quorum == 1)?;
    note.verify(&custodian.id, &custodian.sign).ok()?;
    (said.vault == state.vault).then_some(said)
}

/// The owner's word that a run is not missed when it is gone from this store; the run stays as it is. Durable.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::NeedsQuorum`]; damage of what is signed about the run; the store's.
pub fn retire(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    authority: &dyn Authority,
    run: &RunId,
    reason: &str,
) -> Result<Removed> {
    require_custodian(chain, owner)?;
    require_quorum_of_one(chain, "say that a run is gone")?;
    let gone = in_store(root, authority, run)?;
    let removed = Removed {
        vault: chain.vault_id(),
        run: *run,
        gateway: gone.gateway,
        seq: gone.seq,
        run_note: gone.run_note,
        prev: gone.prev,
        seal: gone.seal,
        custodian: owner.id(),
        reason: reason.to_owned(),
        time: clock::now(),
    };
    settle::put_retired(root, run, &sign(&removed.to_text()?, &owner.id(), &owner.keys.sign))?;
    Ok(removed)
}

/// What custodians say of a run when they retire it: as it is in the store, or as was said before it went. `None`: there
/// is no such run.
///
/// # Errors
/// Damage of what is signed about the run; the store's.
pub fn named(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    authority: &dyn Authority,
    run: &RunId,
) -> Result<Option<GoneRun>> {
    match read(root, chain, run)? {
        Some(Gone::Owner(said)) => Ok(Some(said.gone())),
        Some(Gone::Quorum(said)) => Ok(Some(said)),
        _ if !settle::has_run(root, run)? => Ok(None),
        _ => in_store(root, authority, run).map(Some),
    }
}

fn in_store(root: &Arc<dyn Dir>, authority: &dyn Authority, run: &RunId) -> Result<GoneRun> {
    let made = runs::read_descriptor(root, run, authority)?;
    let seal = seal::find(root, run, authority)?;
    let object = || format!("runs/{run}/run.json");
    // The place in its gateway's chains is that of the run that was sealed first.
    let origin = seal.as_ref().and_then(|seal| seal.origin.as_deref());
    let (said, run_note) = match origin {
        Some(origin) => (&origin.run, origin.run_note),
        None => {
            let note = Note::parse(&made.note).map_err(|e| Error::damaged(object(), e))?;
            (&*made.descriptor, text_hash(note.text))
        }
    };
    let sealed = origin.map(|origin| (&origin.note, origin.seal));
    let sealed = sealed.or(seal.as_ref().map(|seal| (&seal.note, seal.hash)));
    let seq =
        said.seq.ok_or_else(|| Error::Damaged { object: object(), why: "it has no number".to_owned() })?;
    Ok(GoneRun {
        run: said.run,
        gateway: said.signer,
        seq,
        run_note,
        prev: said.prev,
        seal: sealed.map(|(note, hash)| RemovedSeal {
            gateway: note.gateway,
            n: note.n,
            hash,
            prev: note.prev,
        }),
    })
}
