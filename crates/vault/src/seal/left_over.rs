//! What lies in a sealed run, was not sealed, and is known by its form: what a writer that was killed had begun, and what a
//! network's file system keeps of files that were deleted while they were open. Nothing refers to either, and nobody who
//! reads the run is shown them.

use std::sync::Arc;

use runvault_store::backend::{Dir, Kind, Stat};
use runvault_store::replace::TEMPORARY;

use super::beside::is_envelope;
use super::finding::{Change, Finding};
use crate::lease::NAME as LEASE;

/// How NFS and FUSE call a file that is deleted while it is open; hex digits follow.
const DELETED: [&[u8]; 2] = [b".nfs", b".fuse_hidden"];

/// Tells such apart from what somebody may have added, if a run is as it was sealed but for them: where something is
/// missing, what was deleted while it was open may be that. `run`: the run's directory.
pub(super) fn tell_apart(run: &Arc<dyn Dir>, findings: &mut [Finding]) {
    let left_over = |one: &Finding| one.change == Change::Added && is_left_over(run, &one.object);
    if findings.iter().all(left_over) {
        findings.iter_mut().for_each(|one| one.change = Change::LeftOver);
    }
}

/// What cannot be looked at is not.
fn is_left_over(run: &Arc<dyn Dir>, object: &str) -> bool {
    let (folder, name) = object.rsplit_once('/').unwrap_or(("", object));
    let name = name.as_bytes();
    let deleted = DELETED.iter().any(|begins| name.strip_prefix(*begins).is_some_and(is_hex));
    // Envelopes, and the names of runs, alone are written under another name first.
    let begun = ["", "keys"].contains(&folder)
        && name.strip_prefix(TEMPORARY).is_some_and(|rest| rest == LEASE || is_hex(rest));
    if !deleted && !begun {
        return false;
    }
    let mut dir = run.clone();
    for folder in folder.split('/').filter(|folder| !folder.is_empty()) {
        let Ok(below) = dir.open_dir(folder.as_bytes()) else { return false };
        dir = below;
    }
    let is = |stat: Stat| if deleted { stat.kind == Kind::File } else { is_envelope(name, TEMPORARY, &stat) };
    dir.stat(name).is_ok_and(is)
}

fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit)
}
