//! A re-keying as its line leaves it: for each run the one that is to take its place, without data, and what the worker
//! needs to make it. Nothing here depends on how large a run is.

#[cfg(test)]
mod tests;
mod undone;

use std::collections::BTreeMap;
use std::sync::Arc;

use runvault_crypto::aead::Engine;
use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::descriptor::{After, How, RunDescriptor, RunKind, Seals};
use runvault_format::envelope_file::{self, EnvelopeName};
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::note;
use runvault_format::replacement::Replacement;
use runvault_store::backend::Dir;
use runvault_store::read_whole::read_whole;
use runvault_store::replace;
use runvault_vault::authority::{Authority, Worker};
use runvault_vault::seal::rekey::{Replaced, WORKER_SEED, remove_gone};
use runvault_vault::seal::{Anew, Seal, has_seal, scrub};
use runvault_vault::{remove, runs};

pub use self::undone::{Undone, undone};
use crate::authority::{Acting, seal_one};
use crate::chain::Chain;
use crate::epochs::EpochKeys;
use crate::identity::Identity;
use crate::layout::{self, DIR_MODE, PUBLIC_MODE, RUNS};
use crate::rotate::run::{Outcome, of_this_run, open};
use crate::settle::{Signed, note_at};
use crate::{Error, Result};

/// An envelope has some 1,200 bytes.
const SEED_MAX: usize = 16 << 10;

impl Worker for Identity {
    fn id(&self) -> IdentityId {
        Identity::id(self)
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        note::sign(text, &Identity::id(self), &self.keys.sign)
    }
}

/// What a line is to say of these runs, each of which is sealed.
///
/// # Errors
/// [`Error::NotSealed`], [`Error::UnderWay`]; damage of what is signed about a run; the store's.
pub(crate) fn replacements(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    runs: &[RunId],
    worker: &Identity,
) -> Result<Vec<Replacement>> {
    let authority = Acting::gateway_only(chain.clone());
    let runs_dir = layout::open_dir(root, RUNS, RUNS)?;
    let there = |id: &RunId| -> Result<bool> {
        let at = |name: String| layout::exists(&runs_dir, &name, &format!("{RUNS}/{name}"));
        Ok(chain.replacement(id).is_some() || at(id.to_string())? || at(runs::coming_place(id))?)
    };
    let one = |run: &RunId| {
        check(root, chain, run)?;
        let seal = Seal::load(root, run, &*authority)?.hash;
        let new = fresh(&mut draw_id, &there)?;
        Ok(Replacement { run: *run, seal, new, worker: worker.id(), sign: worker.public().sign })
    };
    runs.iter().map(one).collect()
}

fn draw_id() -> Result<RunId> {
    let mut id = RunId([0; 16]);
    random::fill(&mut id.0)?;
    Ok(id)
}

/// An id that nothing in the store has: whatever lies there would be taken for the run that was made.
fn fresh(draw: &mut dyn FnMut() -> Result<RunId>, there: &dyn Fn(&RunId) -> Result<bool>) -> Result<RunId> {
    loop {
        let id = draw()?;
        if !there(&id)? {
            return Ok(id);
        }
    }
}

/// That a run can be re-keyed: it is sealed, and nobody is at it.
///
/// # Errors
/// As of the line that would say it.
pub fn check(root: &Arc<dyn Dir>, chain: &Chain, run: &RunId) -> Result<()> {
    if !has_seal(root, run)? {
        return Err(Error::NotSealed { run: *run });
    }
    match under_way(root, chain, run)? {
        Some(of) => Err(Error::UnderWay { run: *run, new: of.new }),
        None => Ok(()),
    }
}

/// The run that is being made in the place of one.
///
/// # Errors
/// The store's.
pub fn under_way(root: &Arc<dyn Dir>, chain: &Chain, run: &RunId) -> Result<Option<Replacement>> {
    for one in chain.replaced_by(run) {
        if is_coming(root, one)? {
            return Ok(Some(one.clone()));
        }
    }
    Ok(None)
}

/// Whether a run is on its way into the place of another: that its worker signed so, since anybody can make a directory of
/// that name.
///
/// # Errors
/// The store's.
pub fn is_coming(root: &Arc<dyn Dir>, of: &Replacement) -> Result<bool> {
    let note = note_at(root, &runs::coming_place(&of.new))?;
    let signed = Signed::parse(&note, RunDescriptor::parse_text).filter(|signed| signed.said.run == of.new);
    Ok(signed.is_some_and(|signed| signed.note.verify(&of.worker, &of.sign).is_ok()))
}

/// Makes what the worker needs of one run: what is there is left as it is. A second call changes nothing.
pub(crate) fn prepare(
    root: &Arc<dyn Dir>,
    acting: &Acting,
    worker: &Identity,
    of: &Replacement,
) -> Result<Outcome> {
    try_prepare(root, acting, worker, of).or_else(of_this_run)
}

fn try_prepare(
    root: &Arc<dyn Dir>,
    acting: &Acting,
    worker: &Identity,
    of: &Replacement,
) -> runvault_vault::Result<Outcome> {
    let runs_dir = layout::open_dir(root, RUNS, RUNS)?;
    let name = runs::coming_place(&of.new);
    let object = format!("{RUNS}/{name}");
    if layout::exists(&runs_dir, &of.new.to_string(), &object)? {
        return Ok(Outcome::Already);
    }
    let dir = layout::ensure_dir(&runs_dir, &name, DIR_MODE, &object)?;
    if layout::exists(&dir, "run.json", &object)? {
        return Ok(Outcome::Already);
    }
    let old = runs::read_descriptor(root, &of.run, acting)?;
    let envelopes = runs::envelopes(root, &of.run, acting)?;
    let Some((_, key)) = open(acting, &of.run, &envelopes.files, &old.descriptor.commitment) else {
        return Ok(Outcome::Failed("none of its envelopes opens to its key".to_owned()));
    };
    let (vault, to) = (acting.vault_id(), EnvelopeName::Worker(worker.id()));
    let kem = worker.public().kem;
    runs::put_envelope(root, &of.run, &seal_one(&vault, &of.run, &to, &kem, &key)?)?;
    let fail = |e| runvault_vault::Error::store("make", object.clone(), e);
    let keys = layout::ensure_dir(&dir, "keys", DIR_MODE, &object)?;
    let new_key = RunKey(Secret::random()?);
    let envelope = seal_one(&vault, &of.new, &to, &kem, &new_key)?;
    replace::replace(&*keys, envelope.name.as_bytes(), &envelope.bytes, PUBLIC_MODE).map_err(fail)?;
    let (epoch, epoch_kem) = acting.sealed_to();
    // Whoever has the vault's key is the worker too: where one owner acts alone nothing else keeps it.
    let seed = seed_info(&vault, &of.new, epoch);
    let seed = envelope_file::seal(&epoch_kem, &seed, worker.seed().expose())?;
    replace::replace(&*dir, seed_name(epoch).as_bytes(), &seed, PUBLIC_MODE).map_err(fail)?;
    let state = acting.state();
    let text = RunDescriptor {
        vault,
        run: of.new,
        geometry: old.descriptor.geometry,
        kind: RunKind::Run,
        commitment: Digest(RunKeys::derive(&new_key, &of.new, Engine::Portable).commitment()),
        epoch,
        state,
        signer: worker.id(),
        seq: None,
        prev: None,
        seals: Seals { n: 0, hash: None },
        after: Some(After { run: of.run, how: How::Replaces, seal: of.seal }),
        opened: old.descriptor.opened.clone(),
    }
    .to_text()?;
    // Last: with it all is there.
    replace::replace(&*dir, b"run.json", &Worker::sign(worker, &text), PUBLIC_MODE).map_err(fail)?;
    runs_dir.sync().map_err(fail)?;
    Ok(Outcome::Rotated)
}

fn seed_name(epoch: u32) -> String {
    format!("{}{epoch}", String::from_utf8_lossy(WORKER_SEED))
}

fn seed_info(vault: &runvault_format::ids::VaultId, new: &RunId, epoch: u32) -> Vec<u8> {
    info(Purpose::Worker, vault, &Scope::Run(*new), &Recipient::Epoch(epoch))
}

/// The worker of a run, for whoever can open the vault's key; `None` where nothing is left for it to do.
///
/// # Errors
/// [`Error::NeedsQuorum`]; a seed that does not open, or is another's; the store's.
pub fn worker_of(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    of: &Replacement,
) -> Result<Option<Identity>> {
    let keys = EpochKeys::open(chain, owner)?;
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    for name in [runs::coming_place(&of.new), of.new.to_string()] {
        let object = format!("{RUNS}/{name}");
        if !layout::exists(&runs, &name, &object)? {
            continue;
        }
        let dir = layout::open_dir(&runs, &name, &object)?;
        for epoch in keys.newest_first() {
            let name = seed_name(epoch);
            let Ok(sealed) = read_whole(&*dir, name.as_bytes(), SEED_MAX) else { continue };
            let Some(key) = keys.get(epoch) else { continue };
            let vault = chain.vault_id();
            let seed = envelope_file::open(key, &seed_info(&vault, &of.new, epoch), &sealed)
                .and_then(|seed| envelope_file::secret_of(&seed))
                .map_err(|e| Error::damaged(format!("{object}/{name}"), e))?;
            let worker = Identity::from_seed("worker", Some(vault), seed)?;
            if worker.id() == of.worker {
                return Ok(Some(worker));
            }
            let why = "it is another worker's".to_owned();
            return Err(Error::Damaged { object: format!("{object}/{name}"), why });
        }
    }
    Ok(None)
}

/// How far a re-keying of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The new run stands alone.
    Nothing,
    /// It does, or the one that took its own place, and something lies there that nobody needs any more: of the worker's, or
    /// what is left of the old run.
    Rest,
    /// It is there, and so is the old one, or what is left of that, and the worker has not come to its end.
    OldRun,
    /// The worker has come to its end, and something has the old one's name again: it is for a person to say what.
    PutBack,
    /// It is not there yet, and on its way.
    All,
    /// Nothing of it is there, and the old one is.
    NotBegun,
}

/// What is left to do.
///
/// # Errors
/// The store's.
pub fn left(root: &Arc<dyn Dir>, of: &Replacement) -> Result<Left> {
    let runs_dir = layout::open_dir(root, RUNS, RUNS)?;
    let there = |name: String| layout::exists(&runs_dir, &name, &format!("{RUNS}/{name}"));
    if !there(of.new.to_string())? {
        return Ok(if is_coming(root, of)? {
            Left::All
        } else if there(of.run.to_string())? {
            Left::NotBegun
        // It was replaced again, or removed: nobody waits for it any more.
        } else if there(runs::gone_place(&of.run))? {
            Left::Rest
        } else {
            Left::Nothing
        });
    }
    // Before the old run is looked for: a worker that comes to its end meanwhile has put nothing back.
    let of_worker = worker_files(&runs_dir, of)?;
    let (old, gone) = (there(of.run.to_string())?, there(runs::gone_place(&of.run))?);
    // Its seeds go last of all.
    let has_not_ended = of_worker.iter().any(|(_, name)| name.starts_with(WORKER_SEED));
    Ok(if has_not_ended && (old || gone) {
        Left::OldRun
    } else if old {
        // Or somebody put something into the place of the new one, which is on its way.
        if is_coming(root, of)? { Left::OldRun } else { Left::PutBack }
    } else if gone || !of_worker.is_empty() {
        Left::Rest
    } else {
        Left::Nothing
    })
}

/// Those of which something is left to do, and what. Of several for one run those that came to nothing are left out: all
/// where one is there or on its way, else all but one.
///
/// # Errors
/// The store's.
pub fn waiting<'a>(
    root: &Arc<dyn Dir>,
    all: impl IntoIterator<Item = &'a Replacement>,
) -> Result<Vec<(Replacement, Left)>> {
    let (mut waiting, mut idle) = (Vec::new(), BTreeMap::new());
    for one in all {
        match left(root, one)? {
            Left::Nothing => {}
            Left::NotBegun => drop(idle.insert(one.run, (one.clone(), Left::NotBegun))),
            left => waiting.push((one.clone(), left)),
        }
    }
    idle.retain(|run, _| waiting.iter().all(|(one, _)| one.run != *run));
    waiting.extend(idle.into_values());
    Ok(waiting)
}

/// What [`clear`] did.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Re-keyings of which something was taken away.
    pub runs: usize,
    /// Those of which something stays, and why.
    pub stay: Vec<(Replacement, Error)>,
}

/// Takes away what is the worker's in new runs, and what is left of old ones, where nothing else is left to do, whoever put
/// it there. No key is needed for it. What cannot be cleared of one run keeps no other from it. `progress` is told files
/// that are looked at before an old run goes, done and in all.
///
/// # Errors
/// The store's, but for what concerns a run alone.
pub fn clear(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Cleared> {
    let runs_dir = layout::open_dir(root, RUNS, RUNS)?;
    let mut cleared = Cleared::default();
    for of in chain.replacements() {
        match clear_one(root, &runs_dir, chain, of, progress) {
            Ok(something) => cleared.runs += usize::from(something),
            Err(error) => cleared.stay.push((of.clone(), error)),
        }
    }
    Ok(cleared)
}

fn clear_one(
    root: &Arc<dyn Dir>,
    runs_dir: &Arc<dyn Dir>,
    chain: &Chain,
    of: &Replacement,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<bool> {
    if left(root, of)? != Left::Rest {
        return Ok(false);
    }
    let gone = runs::gone_place(&of.run);
    // With an empty directory nothing goes.
    if layout::exists(runs_dir, &gone, RUNS)? && runs_dir.remove_dir(gone.as_bytes()).is_err() {
        // Where no run stands for it, it may be all that there is.
        if stands(root, chain, &of.run, progress)?.is_none() {
            let why = "it stays: no run that took its place is there as it was sealed".to_owned();
            return Err(Error::Damaged { object: format!("{RUNS}/{gone}"), why });
        }
        remove_gone(&**runs_dir, &of.run)?;
    }
    for (dir, name) in worker_files(runs_dir, of)? {
        remove(&*dir, &name).and_then(|()| dir.sync()).map_err(|e| {
            Error::io("remove", format!("{RUNS}/{}: {}", of.new, String::from_utf8_lossy(&name)), e)
        })?;
    }
    Ok(true)
}

/// The run that took the place of one, where it is there as it was sealed. No key is needed for it, but all of its bytes are
/// read.
///
/// # Errors
/// The store's.
pub fn stands(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    run: &RunId,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Option<RunId>> {
    for new in chain.standing_for(run) {
        if is_whole(root, chain, new, progress)? {
            return Ok(Some(*new));
        }
    }
    Ok(None)
}

fn is_whole(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    run: &RunId,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<bool> {
    let authority = Acting::gateway_only(chain.clone());
    let Ok(seal) = Seal::load(root, run, &*authority) else { return Ok(false) };
    let scrubbed = scrub(root, &seal, &*authority, &Anew, progress)?;
    Ok(scrubbed.findings.iter().all(|finding| !finding.change.counts()))
}

/// A directory, and a name in it.
type Place = (Arc<dyn Dir>, Vec<u8>);

/// What in the new run is the worker's.
fn worker_files(runs: &Arc<dyn Dir>, of: &Replacement) -> Result<Vec<Place>> {
    let object = format!("{RUNS}/{}", of.new);
    // What is no directory is damaged, and whoever opens the run says so.
    let open = |parent, name: &str, object: &str| match layout::open_dir(parent, name, object) {
        Err(Error::Damaged { .. }) => Ok(None),
        opened => opened.map(Some),
    };
    let Some(dir) = open(runs, &of.new.to_string(), &object)? else { return Ok(Vec::new()) };
    let names = layout::names(&dir, &object)?;
    let mut found = Vec::new();
    let in_keys = format!("{object}/keys");
    if let Some(keys) = open(&dir, "keys", &in_keys)? {
        let own = EnvelopeName::Worker(of.worker).to_string();
        if layout::exists(&keys, &own, &in_keys)? {
            found.push((keys, own.into_bytes()));
        }
    }
    let seeds = names.into_iter().filter(|name| name.starts_with(WORKER_SEED));
    found.extend(seeds.map(|name| (dir.clone(), name)));
    Ok(found)
}

/// A run that stands in the place of another.
///
/// # Errors
/// Damage of its seal; the store's.
pub fn replaced(root: &Arc<dyn Dir>, chain: &Chain, of: &Replacement) -> Result<Replaced> {
    let seal = Seal::load(root, &of.new, &*Acting::gateway_only(chain.clone()))?;
    Ok(Replaced { files: seal.note.files, bytes: seal.note.bytes, copied: 0 })
}
