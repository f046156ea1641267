//! `verify` and `scrub` go on where they were cut short: what they keep, and what they say of it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use runvault_crypto::digest::sha256;
use runvault_custody::checked::{Record, Resumed};
use runvault_format::ids::{Digest, RunId, VaultId};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use serde_json::{Value, json};

use crate::args::Resuming;
use crate::output::{self, count, size, utc, warn};
use crate::store::state_folder;

/// The record of a command that checks `what`, the whole store or one run of it. What it goes on from is said.
///
/// # Errors
/// Exit 2: no place to keep it in.
pub fn open(
    store: &Path,
    state: Option<&Path>,
    vault: VaultId,
    what: &[u8],
    args: &Resuming,
) -> Result<Record> {
    let here = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    let name = Digest(sha256(&[here.as_os_str().as_bytes(), b"\0", what])).to_string();
    let place = |run: &RunId| place(store, run);
    let record = Record::open(&state_folder(state)?, vault, &name, args.fresh, &place);
    if let Some(trouble) = record.trouble() {
        warn(&trouble);
    }
    if let Some(resumed) = record.resumed() {
        let said = format!(
            "resumed: {} of {} ({}), found as sealed from {} to {}, are not read again; --fresh reads them",
            resumed.objects,
            count(resumed.of as u64, "object"),
            size(resumed.bytes),
            time(resumed.since),
            time(resumed.until),
        );
        // Nobody listens on a closed standard error.
        let _ = output::error_line(&said);
    }
    Ok(record)
}

/// Which copy of a run it is: a record of one says nothing of another, that came in its place or lies elsewhere. By its
/// path, and by the file system, number and time of birth of its folder, as far as they are known.
pub fn place(store: &Path, run: &RunId) -> Digest {
    let path = store.join("runs").join(run.to_string());
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let system = rustix::fs::statvfs(&path).map_or(0, |found| found.f_fsid);
    let born = rustix::fs::statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO | StatxFlags::BTIME);
    let (number, second, part) = born.map_or((0, 0, 0), |found| {
        let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = if known { (found.stx_btime.tv_sec, found.stx_btime.tv_nsec) } else { (0, 0) };
        (found.stx_ino, born.0, born.1)
    });
    let numbers = format!("{system} {number} {second} {part} ");
    Digest(sha256(&[numbers.as_bytes(), real.as_os_str().as_bytes()]))
}

/// For summaries: `null` where all was read now.
pub fn to_json(resumed: Option<&Resumed>) -> Value {
    resumed.map_or(Value::Null, |resumed| {
        json!({
            "objects": resumed.objects, "of": resumed.of, "bytes": resumed.bytes,
            "since": time(resumed.since), "until": time(resumed.until),
        })
    })
}

/// At the end of what was found to be right; empty where all was read now.
pub fn as_of(resumed: Option<&Resumed>) -> String {
    resumed.map_or_else(String::new, |resumed| {
        format!(
            "; {} of it as read from {} to {}",
            count(resumed.objects as u64, "object"),
            time(resumed.since),
            time(resumed.until)
        )
    })
}

fn time(seconds: u64) -> String {
    utc(i64::try_from(seconds).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_another_place_and_the_same_folder_by_another_way_is_not() {
        let run = RunId([7; 16]);
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (folder.path().join("store"), folder.path().join("other"));
        let make = |store: &Path| std::fs::create_dir_all(store.join("runs").join(run.to_string())).unwrap();
        make(&store);
        let first = place(&store, &run);
        std::os::unix::fs::symlink(&store, &other).unwrap();
        assert_eq!(place(&other, &run), first);
        std::fs::remove_file(&other).unwrap();
        make(&other);
        assert_ne!(place(&other, &run), first);
        // Restored, or another disk in its place.
        std::fs::rename(&store, folder.path().join("old")).unwrap();
        make(&store);
        assert_ne!(place(&store, &run), first);
    }
}
