//! What a gateway's start looks up in the store: is the pending run there, are there newer ones.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_crypto::signature::VerifyingKey;
use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::note::Note;
use runvault_store::backend::Dir;
use runvault_store::replace::replace;

use crate::gateway::{Head, Pending, parse_signed};
use crate::layout::{self, PUBLIC_MODE, RETIRED, RUNS};
use crate::{Error, Result};

const RUN_JSON: &str = "run.json";
/// A signed descriptor of a few hundred bytes; signature lines may come to it.
const RUN_JSON_MAX: usize = 64 << 10;

/// Whether the run that was being made is in the store with the very descriptor that was signed.
pub(crate) fn is_in_store(root: &Arc<dyn Dir>, pending: &Pending) -> Result<bool> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    Ok(read_descriptor(&runs, &pending.head.run)?.is_some_and(|found| found == pending.note))
}

/// The runs of the store, by their names.
pub(crate) fn runs(root: &Arc<dyn Dir>) -> Result<Vec<RunId>> {
    let names = layout::names(&layout::open_dir(root, RUNS, RUNS)?, RUNS)?;
    Ok(names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect())
}

/// A run's run.json, whatever it is; `None`: it has none.
pub(crate) fn run_note(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let dir = layout::open_dir(root, RUNS, RUNS)?;
    // What is no file is `check`'s to name.
    Ok(read_descriptor(&dir, run).unwrap_or_default())
}

/// The note of a run's seal, whatever it is; `None`: it has none.
pub(crate) fn seal_note(root: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    let object = format!("{RUNS}/{run}/seal/seal.note");
    let open = |dir: &Arc<dyn Dir>, name: &str| match dir.open_dir(name.as_bytes()) {
        Ok(dir) => Ok(Some(dir)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(Error::io("open", object.clone(), e)),
    };
    let Some(dir) = open(&runs, &run.to_string())? else { return Ok(None) };
    let Some(seal) = open(&dir, "seal")? else { return Ok(None) };
    layout::read_if_there(&seal, "seal.note", &object, RUN_JSON_MAX)
}

/// Puts a signed note on a run that is gone, or never came to be, into `retired/`; durable.
pub(crate) fn put_retired(root: &Arc<dyn Dir>, run: &RunId, note: &[u8]) -> Result<()> {
    let object = format!("{RETIRED}/{run}");
    let retired = layout::open_dir(root, RETIRED, RETIRED)?;
    replace(&*retired, run.to_string().as_bytes(), note, PUBLIC_MODE)
        .map_err(|e| Error::io("write", object, e))
}

/// The newest run of each of these gateways that bears its signature. Runs that do not parse or do not verify
/// are somebody else's to name: `check` does.
pub(crate) fn newest_runs(
    root: &Arc<dyn Dir>,
    gateways: &HashMap<IdentityId, VerifyingKey>,
) -> Result<HashMap<IdentityId, Head>> {
    let dir = layout::open_dir(root, RUNS, RUNS)?;
    let mut newest: HashMap<IdentityId, Head> = HashMap::new();
    for run in runs(root)? {
        let Ok(Some(note)) = read_descriptor(&dir, &run) else { continue };
        let Some(signer) = signer_of(&note) else { continue };
        let Some(key) = gateways.get(&signer) else { continue };
        let Ok(Pending { head, .. }) = parse_signed(note, &signer, key) else { continue };
        if head.run == run && newest.get(&signer).is_none_or(|known| head.seq > known.seq) {
            newest.insert(signer, head);
        }
    }
    Ok(newest)
}

/// [`newest_runs`] of one.
pub(crate) fn newest_run(
    root: &Arc<dyn Dir>,
    gateway: IdentityId,
    key: VerifyingKey,
) -> Result<Option<Head>> {
    Ok(newest_runs(root, &HashMap::from([(gateway, key)]))?.remove(&gateway))
}

/// Who says that he signed it.
fn signer_of(note: &[u8]) -> Option<IdentityId> {
    let note = Note::parse(note).ok()?;
    RunDescriptor::parse_text(note.text).ok().map(|run| run.signer)
}

fn read_descriptor(runs: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let dir = match runs.open_dir(run.to_string().as_bytes()) {
        Ok(dir) => dir,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open", format!("{RUNS}/{run}"), e)),
    };
    layout::read_if_there(&dir, RUN_JSON, &format!("{RUNS}/{run}/{RUN_JSON}"), RUN_JSON_MAX)
}
