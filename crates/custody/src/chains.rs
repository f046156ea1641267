//! The gateways' chains of runs and of seals: what the store should have, and has not.
//!
//! Each run names the number and hash of its gateway's run before and of its newest seal, each seal those of the
//! seal before. So a run that was taken away leaves a gap, unless it is among the newest; and so does a seal.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use runvault_crypto::signature::VerifyingKey;
use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::retired;
use crate::{Result, settle};

/// Something that a gateway signed and that is not as its chain says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Label of the gateway.
    pub label: String,
    /// Its id.
    pub gateway: IdentityId,
    /// What, in words.
    pub what: String,
}

/// A link of a chain: its own hash, and that of the one before.
#[derive(Clone, Copy)]
struct Link {
    hash: Digest,
    prev: Option<Digest>,
}

#[derive(Default)]
struct Chains {
    runs: BTreeMap<u64, Vec<Link>>,
    seals: BTreeMap<u64, Vec<Link>>,
    /// The newest seal that a run names.
    named: Option<(u64, Digest)>,
}

/// Reads every run.json, seal and note on a removed run. What does not verify is somebody else's to name: it counts
/// as not there.
///
/// # Errors
/// The store's.
pub fn gaps(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Vec<Gap>> {
    let gateways = &chain.state().gateways;
    let keys: HashMap<IdentityId, VerifyingKey> = gateways.iter().map(|g| (g.id, g.sign)).collect();
    let mut chains: HashMap<IdentityId, Chains> = HashMap::new();
    settle::each_signed(root, &settle::runs(root)?, &mut |found| {
        // Anybody can put another run's notes there.
        if found.kept_by.is_some_and(|by| !chain.stands_for(&by, &found.run)) {
            return Ok(());
        }
        if let Some(note) = found.run_note {
            take_run(&mut chains, &keys, &found.run, &note);
        }
        if let Some(note) = found.seal_note {
            take_seal(&mut chains, &keys, &found.run, &note);
        }
        Ok(())
    })?;
    take_retired(root, chain, &mut chains)?;
    let mut found = Vec::new();
    for gateway in gateways {
        let Some(chains) = chains.get(&gateway.id) else { continue };
        let mut gap = |what| found.push(Gap { label: gateway.label.clone(), gateway: gateway.id, what });
        follow(&chains.runs, "run", &mut gap);
        follow(&chains.seals, "seal", &mut gap);
        if let Some((n, hash)) = chains.named {
            let there = chains.seals.get(&n).is_some_and(|links| links.iter().any(|link| link.hash == hash));
            // One that is numbered below another one was told as a gap.
            if !there && chains.seals.keys().next_back().is_none_or(|last| *last <= n) {
                gap(format!(
                    "seal number {n}, which a later run names, is missing: its run was un-sealed or removed"
                ));
            }
        }
    }
    Ok(found)
}

/// Numbers from 1, each followed by its successor.
fn follow(links: &BTreeMap<u64, Vec<Link>>, what: &str, gap: &mut dyn FnMut(String)) {
    let mut before: Option<(u64, Digest)> = None;
    for (n, of_number) in links {
        let expected = before.map_or(1, |(n, _)| n.saturating_add(1));
        match n.checked_sub(expected) {
            None | Some(0) => {}
            Some(1) => gap(format!("{what} number {expected} is missing")),
            Some(_) => gap(format!("{what}s number {expected} to {} are missing", n - 1)),
        }
        let [link, others @ ..] = of_number.as_slice() else { continue };
        if !others.is_empty() {
            gap(format!("{} {what}s bear the number {n}", of_number.len()));
        }
        let follows = before.filter(|(last, _)| *last + 1 == *n);
        if follows.is_some_and(|(_, hash)| !of_number.iter().any(|link| link.prev == Some(hash))) {
            gap(format!("{what} number {n} does not follow the one before it"));
        }
        before = Some((*n, link.hash));
    }
}

fn take_run(
    chains: &mut HashMap<IdentityId, Chains>,
    keys: &HashMap<IdentityId, VerifyingKey>,
    run: &RunId,
    note: &[u8],
) {
    let parsed = Note::parse(note).ok().and_then(|note| {
        let described = RunDescriptor::parse_text(note.text).ok().filter(|found| found.run == *run)?;
        let key = keys.get(&described.signer)?;
        let text = note.verify(&described.signer, key).ok()?;
        Some((described, text_hash(&text)))
    });
    let Some((described, hash)) = parsed else { return };
    let chains = chains.entry(described.signer).or_default();
    if let Some(seq) = described.seq {
        put(chains.runs.entry(seq).or_default(), hash, described.prev);
    }
    let named = described.seals.hash.map(|hash| (described.seals.n, hash));
    // Of two that bear one number, the one that was met first.
    chains.named = named.into_iter().chain(chains.named).max_by_key(|(n, _)| *n);
}

fn take_seal(
    chains: &mut HashMap<IdentityId, Chains>,
    keys: &HashMap<IdentityId, VerifyingKey>,
    run: &RunId,
    note: &[u8],
) {
    let parsed = Note::parse(note).ok().and_then(|note| {
        let seal = SealNote::parse_text(note.text).ok().filter(|found| found.run == *run)?;
        let text = note.verify(&seal.gateway, keys.get(&seal.gateway)?).ok()?;
        Some((seal, text_hash(&text)))
    });
    if let Some((seal, hash)) = parsed {
        let links = &mut chains.entry(seal.gateway).or_default().seals;
        put(links.entry(seal.n).or_default(), hash, seal.prev);
    }
}

/// A run on its way out has a note that it is gone too, and while it is re-keyed again two keep what it has replaced.
fn put(links: &mut Vec<Link>, hash: Digest, prev: Option<Digest>) {
    if !links.iter().any(|link| link.hash == hash) {
        links.push(Link { hash, prev });
    }
}

/// The word that a run is gone keeps its place in the chain; the owner's and the custodians' that of its seal too.
fn take_retired(root: &Arc<dyn Dir>, chain: &Chain, chains: &mut HashMap<IdentityId, Chains>) -> Result<()> {
    for gone in retired::all(root, chain)? {
        let (gateway, seq, prev) = gone.place();
        put(chains.entry(gateway).or_default().runs.entry(seq).or_default(), gone.run_note(), prev);
        if let Some(seal) = gone.seal() {
            put(
                chains.entry(seal.gateway).or_default().seals.entry(seal.n).or_default(),
                seal.hash,
                seal.prev,
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use runvault_vault::authority::Gateway;

    use super::*;
    use crate::testing::{copy, enrolled, make_run, put, run_dir, seal, take_away, vault};

    fn words(root: &Arc<dyn Dir>, chain: &Chain) -> Vec<String> {
        gaps(root, chain).unwrap().into_iter().map(|gap| gap.what).collect()
    }

    #[test]
    fn what_was_taken_away_leaves_a_gap() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let runs: Vec<RunId> = (0..4)
            .map(|n| {
                let (run, _) = make_run(&root, &chain, &gateway);
                if n < 3 {
                    seal(&root, &gateway, &run);
                }
                run
            })
            .collect();
        assert_eq!(words(&root, &chain), [""; 0]);
        for (n, says) in [
            (0, vec!["run number 1 is missing", "seal number 1 is missing"]),
            (1, vec!["run number 2 is missing", "seal number 2 is missing"]),
            (
                2,
                vec![
                    "run number 3 is missing",
                    "seal number 3, which a later run names, is missing: its run was un-sealed or removed",
                ],
            ),
            // The newest one nobody names: a pin of this machine must.
            (3, vec![]),
        ] {
            let root = copy(&root);
            take_away(&root, &runs[n]);
            assert_eq!(words(&root, &chain), says, "run {n}");
        }
        // A seal alone.
        let unsealed = copy(&root);
        run_dir(&unsealed, &runs[1]).open_dir(b"seal").unwrap().unlink(b"seal.note").unwrap();
        assert_eq!(words(&unsealed, &chain), ["seal number 2 is missing"]);
        // One that the gateway removed itself is none.
        let retired = copy(&root);
        let note = crate::testing::get(&run_dir(&retired, &runs[1]), "run.json");
        let said = gateway.retire_run(&runs[1], &note, "2026-11-24T06:00:00Z").unwrap();
        let _ = retired.create_dir(b"retired", 0o755);
        put(&retired.open_dir(b"retired").unwrap(), &runs[1].to_string(), &said);
        take_away(&retired, &runs[1]);
        assert_eq!(words(&retired, &chain), ["seal number 2 is missing"]);
    }
}
