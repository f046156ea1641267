//! What a gateway's start looks up in the store: is the pending run there, are there newer ones.

use std::sync::Arc;

use runvault_format::ids::RunId;
use runvault_store::backend::Dir;
use runvault_store::replace::replace;

use crate::gateway::{Head, Pending, parse_signed};
use crate::identity::Identity;
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

/// Puts a signed note on a run that is gone, or never came to be, into `retired/`; durable.
pub(crate) fn put_retired(root: &Arc<dyn Dir>, run: &RunId, note: &[u8]) -> Result<()> {
    let object = format!("{RETIRED}/{run}");
    let retired = layout::open_dir(root, RETIRED, RETIRED)?;
    replace(&*retired, run.to_string().as_bytes(), note, PUBLIC_MODE)
        .map_err(|e| Error::io("write", object, e))
}

/// The newest run that this identity signed with a number above `seq`. Runs that do not parse or
/// do not verify are somebody else's to name: `check` does.
pub(crate) fn newest_run_above(root: &Arc<dyn Dir>, identity: &Identity, seq: u64) -> Result<Option<Head>> {
    let runs = layout::open_dir(root, RUNS, RUNS)?;
    let mut newest: Option<Head> = None;
    for name in layout::names(&runs, RUNS)? {
        let Some(run) = std::str::from_utf8(&name).ok().and_then(|n| n.parse::<RunId>().ok()) else {
            continue;
        };
        let Ok(Some(note)) = read_descriptor(&runs, &run) else { continue };
        let Ok(Pending { head, .. }) = parse_signed(note, identity) else { continue };
        if head.run == run && head.seq > newest.map_or(seq, |n| n.seq) {
            newest = Some(head);
        }
    }
    Ok(newest)
}

fn read_descriptor(runs: &Arc<dyn Dir>, run: &RunId) -> Result<Option<Vec<u8>>> {
    let dir = match runs.open_dir(run.to_string().as_bytes()) {
        Ok(dir) => dir,
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(e) => return Err(Error::io("open", format!("{RUNS}/{run}"), e)),
    };
    layout::read_if_there(&dir, RUN_JSON, &format!("{RUNS}/{run}/{RUN_JSON}"), RUN_JSON_MAX)
}
