//! One run of a rotation: its key out of an old envelope, into one of the current epoch.

use std::sync::Arc;

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_store::backend::Dir;
use runvault_vault::authority::{Authority, EnvelopeFile};
use runvault_vault::runs::{self, Envelopes};
use runvault_vault::{Error as VaultError, Posix};

use crate::Result;
use crate::authority::{Acting, newest_first, seal_one};

pub(crate) enum Outcome {
    Rotated,
    /// It has one that opens.
    Already,
    /// Removed by its gateway meanwhile.
    Gone,
    Failed(String),
    /// It is open, and its seal would give the key again.
    Open,
}

/// Seals the run to the current epoch and removes older envelopes. A second call changes nothing.
///
/// # Errors
/// The store's, but for what concerns this run alone.
pub(crate) fn seal(root: &Arc<dyn Dir>, acting: &Acting, run: &RunId) -> Result<Outcome> {
    try_seal(root, acting, run).or_else(of_this_run)
}

/// Seals the run to a reader. A second call changes nothing.
///
/// # Errors
/// The store's, but for what concerns this run alone.
pub(crate) fn grant(
    root: &Arc<dyn Dir>,
    acting: &Acting,
    run: &RunId,
    reader: &IdentityId,
) -> Result<Outcome> {
    try_grant(root, acting, run, reader).or_else(of_this_run)
}

/// What an error means: one that only this run has is counted, the store's ends the work.
pub(crate) fn of_this_run(error: VaultError) -> Result<Outcome> {
    match error {
        VaultError::Posix(Posix::NotFound) => Ok(Outcome::Gone),
        VaultError::Store { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => Ok(Outcome::Gone),
        e @ VaultError::Store { .. } => Err(e.into()),
        e => Ok(Outcome::Failed(e.to_string())),
    }
}

fn try_grant(
    root: &Arc<dyn Dir>,
    acting: &Acting,
    run: &RunId,
    reader: &IdentityId,
) -> runvault_vault::Result<Outcome> {
    let Some(kem) = acting.reader_kem(reader) else {
        return Ok(Outcome::Failed("the reader is none any more, or its time is over".to_owned()));
    };
    let commitment = runs::read_descriptor(root, run, acting)?.descriptor.commitment;
    let envelopes = runs::envelopes(root, run, acting)?;
    let Some((_, key)) = open(acting, run, &envelopes.files, &commitment) else {
        return Ok(Outcome::Failed(why_closed(&envelopes)));
    };
    let new = seal_one(&acting.vault_id(), run, &EnvelopeName::Reader(*reader), &kem, &key)?;
    runs::put_envelope(root, run, &new)?;
    Ok(Outcome::Rotated)
}

fn try_seal(root: &Arc<dyn Dir>, acting: &Acting, run: &RunId) -> runvault_vault::Result<Outcome> {
    let (e, kem) = acting.sealed_to();
    let current = EnvelopeName::Vault(e);
    let commitment = runs::read_descriptor(root, run, acting)?.descriptor.commitment;
    let envelopes = runs::envelopes(root, run, acting)?;
    let Some((name, key)) = open(acting, run, &envelopes.files, &commitment) else {
        // Sealed before an interruption, or by a gateway since: to a key that is not in this machine's memory.
        let sealed = !acting.opens_epoch(e) && runs::has_envelope(root, run, &current.to_string())?;
        return Ok(if sealed { Outcome::Already } else { Outcome::Failed(why_closed(&envelopes)) });
    };
    // By its name alone it may be to a key of the same number, made by a rotation that was rolled back.
    let fine = name.parse() == Ok(current);
    if !fine {
        let new = seal_one(&acting.vault_id(), run, &current, &kem, &key)?;
        // The old envelope goes only after this one was seen to open, by whoever can.
        if acting.opens_epoch(e) && open(acting, run, std::slice::from_ref(&new), &commitment).is_none() {
            return Ok(Outcome::Failed("the new envelope does not open".to_owned()));
        }
        let there = |found: &Envelopes| {
            found.files.iter().find(|file| file.name == new.name).map(|file| file.bytes.clone())
        };
        // What a gateway has put there meanwhile stays: the run's seal has the same.
        if !runs::put_new_envelope(root, run, &new)?
            && there(&runs::envelopes(root, run, acting)?) == there(&envelopes)
        {
            runs::put_envelope(root, run, &new)?;
        }
    }
    for file in envelopes.files.iter().filter(|file| is_older(file, e)) {
        runs::remove_envelope(root, run, &file.name)?;
    }
    Ok(if fine { Outcome::Already } else { Outcome::Rotated })
}

fn why_closed(envelopes: &Envelopes) -> String {
    match (envelopes.files.as_slice(), envelopes.refused.as_slice()) {
        ([], [refused, ..]) => refused.to_string(),
        _ => "none of its envelopes opens to its key".to_owned(),
    }
}

/// The first envelope that opens to the key that run.json commits to, the current epoch's first.
pub(crate) fn open(
    acting: &Acting,
    run: &RunId,
    envelopes: &[EnvelopeFile],
    commitment: &Digest,
) -> Option<(String, RunKey)> {
    newest_first(envelopes).into_iter().find_map(|file| {
        let key = acting.open_one(run, file)?.ok()?;
        let found = RunKeys::derive(&key, run, Engine::Portable).commitment();
        ct_eq(&found, &commitment.0).then(|| (file.name.clone(), key))
    })
}

fn is_older(file: &EnvelopeFile, current: u32) -> bool {
    matches!(file.name.parse(), Ok(EnvelopeName::Vault(e)) if e < current)
}
