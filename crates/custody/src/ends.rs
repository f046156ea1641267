//! Where the chains of a gateway end whose word no longer counts. Whoever has its key can give a run or a seal any
//! number: what is ambiguous a person decides.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use runvault_crypto::signature::VerifyingKey;
use runvault_format::custody_state::Until;
use runvault_format::descriptor::{RunDescriptor, Seals};
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::{Error, Result, settle};

/// A run or a seal, as a person names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its number in its chain.
    Number(u64),
    /// By the run, or the one that was sealed.
    Run(RunId),
}

impl std::str::FromStr for Which {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let run = || text.parse().map(Which::Run).map_err(|_| "neither a number nor the id of a run");
        text.parse().map(Which::Number).or_else(|_| run())
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Which::Number(n) => write!(f, "number {n}"),
            Which::Run(run) => write!(f, "of run {run}"),
        }
    }
}

/// The last ones that a person knows to be genuine; `None`: the newest that the store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastKnown {
    /// The run.
    pub run: Option<Which>,
    /// The seal; `None`: as far as seals follow each other by their hashes, from the one that the last run names.
    pub seal: Option<Which>,
}

/// Runs that the store has of a gateway, and that no longer count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOff {
    /// Runs that it made, by their numbers.
    pub runs: Vec<RunId>,
    /// Runs that it sealed, by the numbers of their seals.
    pub seals: Vec<RunId>,
}

/// The end of a gateway's chains.
pub(crate) struct End {
    pub(crate) until: Until,
    pub(crate) cut_off: CutOff,
}

struct MadeRun {
    seq: u64,
    hash: Digest,
    run: RunId,
    /// The newest seal when it was made.
    seals: Seals,
}

struct MadeSeal {
    n: u64,
    hash: Digest,
    prev: Option<Digest>,
    run: RunId,
    /// The number of the run, where this gateway made it too.
    of: Option<u64>,
}

/// What a gateway signed, by its numbers.
#[derive(Default)]
struct Signed {
    runs: Vec<MadeRun>,
    seals: Vec<MadeSeal>,
}

/// Looks at what the store has of a gateway.
///
/// # Errors
/// [`Error::OneNumber`], [`Error::LooseSeal`], [`Error::NotThere`]; the store's.
pub(crate) fn of(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    (gateway, key): (&IdentityId, &VerifyingKey),
    last: &LastKnown,
) -> Result<End> {
    let signed = Signed::read(root, chain, gateway, key)?;
    let run = signed.last_run(last.run)?;
    let counts = |seq: u64, id: &RunId| run.is_some_and(|last| seq < last.seq || last.run == *id);
    let sealed = signed.seals.iter().filter(|seal| seal.of.is_none_or(|seq| counts(seq, &seal.run)));
    let sealed: Vec<&MadeSeal> = sealed.collect();
    let named = run.map_or(Seals { n: 0, hash: None }, |run| run.seals);
    let seal = match last.seal {
        Some(which) => chosen_seal(&sealed, which, named)?,
        None => follow(&sealed, named)?,
    };
    let counts_seal = |one: &&MadeSeal| {
        sealed.iter().any(|known| known.run == one.run) && (one.n < seal.n || seal.hash == Some(one.hash))
    };
    let cut_off = CutOff {
        runs: signed.runs.iter().filter(|one| !counts(one.seq, &one.run)).map(|one| one.run).collect(),
        seals: signed.seals.iter().filter(|one| !counts_seal(one)).map(|one| one.run).collect(),
    };
    let until = Until {
        seq: run.map_or(0, |run| run.seq),
        hash: run.map(|run| run.hash),
        seals: seal.n,
        seals_hash: seal.hash,
    };
    Ok(End { until, cut_off })
}

impl Signed {
    fn read(root: &Arc<dyn Dir>, chain: &Chain, gateway: &IdentityId, key: &VerifyingKey) -> Result<Self> {
        let mut signed = Self::default();
        settle::each_signed(root, &settle::runs(root)?, &mut |found| {
            signed.take(chain, gateway, key, &found);
            Ok(())
        })?;
        signed.runs.sort_by_key(|run| (run.seq, run.run));
        signed.seals.sort_by_key(|seal| (seal.n, seal.run));
        // While a run is re-keyed again two keep what it has replaced.
        signed.runs.dedup_by_key(|run| run.hash);
        signed.seals.dedup_by_key(|seal| seal.hash);
        Ok(signed)
    }

    fn take(&mut self, chain: &Chain, gateway: &IdentityId, key: &VerifyingKey, found: &settle::OfRun) {
        let run = found.run;
        if found.kept_by.is_some_and(|by| !chain.stands_for(&by, &run)) {
            return;
        }
        let Some((said, run_note)) = found.run_note.as_ref().and_then(|note| genuine(chain, &run, note))
        else {
            return;
        };
        let own = said.signer == *gateway;
        if let Some(seq) = said.seq.filter(|_| own) {
            self.runs.push(MadeRun { seq, hash: run_note, run, seals: said.seals });
        }
        if !own && chain.admission(gateway, Some(&run)).is_none() {
            return;
        }
        let seal = found.seal_note.as_ref().and_then(|note| seal_of(note, gateway, key));
        if let Some((seal, hash)) = seal.filter(|(seal, _)| seal.run == run && seal.run_note == run_note) {
            let of = said.seq.filter(|_| own);
            self.seals.push(MadeSeal { n: seal.n, hash, prev: seal.prev, run, of });
        }
    }

    fn last_run(&self, which: Option<Which>) -> Result<Option<&MadeRun>> {
        let most = match which {
            None => u64::MAX,
            Some(Which::Number(most)) => most,
            Some(Which::Run(run)) => {
                let found = self.runs.iter().find(|one| one.run == run);
                return found.map(Some).ok_or(Error::NotThere { what: "run", which: Which::Run(run) });
            }
        };
        let Some(last) = self.runs.iter().rev().find(|run| run.seq <= most) else { return Ok(None) };
        let of_number: Vec<_> = self.runs.iter().filter(|run| run.seq == last.seq).collect();
        one("run", last.seq, of_number.iter().map(|run| run.run))?;
        Ok(Some(last))
    }
}

/// Whoever signed it was a gateway then.
fn genuine(chain: &Chain, run: &RunId, note: &[u8]) -> Option<(RunDescriptor, Digest)> {
    let note = Note::parse(note).ok()?;
    let said = RunDescriptor::parse_text(note.text).ok().filter(|said| said.run == *run)?;
    let text = note.verify(&said.signer, &chain.gateway_key(&said.signer)?.sign).ok()?;
    Some((said, text_hash(&text)))
}

fn seal_of(note: &[u8], gateway: &IdentityId, key: &VerifyingKey) -> Option<(SealNote, Digest)> {
    let note = Note::parse(note).ok()?;
    let said = SealNote::parse_text(note.text).ok().filter(|said| said.gateway == *gateway)?;
    let text = note.verify(gateway, key).ok()?;
    Some((said, text_hash(&text)))
}

fn one(what: &'static str, n: u64, mut runs: impl ExactSizeIterator<Item = RunId>) -> Result<()> {
    if runs.len() < 2 {
        return Ok(());
    }
    let runs = runs.by_ref().map(|run| run.to_string()).collect::<Vec<_>>().join(", ");
    Err(Error::OneNumber { what, n, runs })
}

fn place(seal: &MadeSeal) -> Seals {
    Seals { n: seal.n, hash: Some(seal.hash) }
}

fn chosen_seal(seals: &[&MadeSeal], which: Which, named: Seals) -> Result<Seals> {
    let is_meant = |seal: &&&MadeSeal| match which {
        Which::Number(n) => seal.n == n,
        Which::Run(run) => seal.run == run,
    };
    let found: Vec<_> = seals.iter().filter(is_meant).collect();
    match (which, found.as_slice()) {
        (Which::Number(0), []) => Ok(Seals { n: 0, hash: None }),
        // Its run is elsewhere.
        (Which::Number(n), []) if n == named.n => Ok(named),
        (_, []) => Err(Error::NotThere { what: "seal", which }),
        (_, [first, ..]) => {
            one("seal", first.n, found.iter().map(|seal| seal.run))?;
            Ok(place(first))
        }
    }
}

/// From the seal that a run names, which is as genuine as the run, as far as each names the hash of the one before. A
/// number alone says nothing: a stolen key can sign any, also on a run that is genuine and was not sealed.
fn follow(seals: &[&MadeSeal], named: Seals) -> Result<Seals> {
    let mut last = named;
    loop {
        let next =
            seals.iter().filter(|seal| Some(seal.n) == last.n.checked_add(1) && seal.prev == last.hash);
        let next: Vec<_> = next.collect();
        let Some(first) = next.first() else { break };
        one("seal", first.n, next.iter().map(|seal| seal.run))?;
        last = place(first);
    }
    match seals.iter().find(|seal| seal.n > last.n) {
        Some(loose) => Err(Error::LooseSeal { n: loose.n, run: loose.run, last: last.n }),
        None => Ok(last),
    }
}
