//! The log: what one session's journal files say together.

use runvault_format::Error as FormatError;
use runvault_format::ids::SessionId;
use runvault_format::keys::JournalKey;
use runvault_format::redo_record::{BLOB_MAX, PATH_MAX, Record, SECTOR, session_claimed};
use runvault_store::journal_files::JournalFiles;

use super::failed;
use crate::file::RunContext;
use crate::{Damage, Error, Result};

/// Bytes read at once: more than the longest record.
const WINDOW: usize = 4 << 20;
/// No journal file of ours is longer.
const LENGTH_MAX: u64 = 1 << 30;

/// So many records that do not authenticate are looked behind: each costs as much as a long one.
const REFUSED_MAX: u32 = 64;

/// The records of `session` in order. The file with the smaller first number comes first, each
/// from its start to the first record that is not valid or not the successor. Also tells which file
/// came first, for the reset.
pub(super) fn read(
    run: &RunContext,
    files: &JournalFiles,
    session: &SessionId,
) -> Result<(usize, Vec<Record>)> {
    for i in 0..2 {
        refuse_foreign(run, files, i, session)?;
    }
    let key = run.keys.journal_key(session);
    let (mut older, mut newer) = (read_file(run, files, 0, &key)?, read_file(run, files, 1, &key)?);
    let mut first_file = 0;
    let first = |records: &[Record]| records.first().map(|r| r.number);
    if first(&newer).is_some_and(|n| first(&older).is_none_or(|o| n < o)) {
        std::mem::swap(&mut older, &mut newer);
        first_file = 1;
    }
    let goes_on = match (older.last(), newer.first()) {
        (Some(last), Some(next)) => last.number.checked_add(1) == Some(next.number),
        _ => true,
    };
    if !goes_on {
        // The newer file was begun when the older one was complete: what is left of that is of a
        // lap that a checkpoint has covered.
        older.clear();
    }
    older.append(&mut newer);
    Ok((first_file, older))
}

fn refuse_foreign(run: &RunContext, files: &JournalFiles, i: usize, session: &SessionId) -> Result<()> {
    let mut sector = [0u8; SECTOR];
    files.read_at(i, &mut sector, 0).map_err(|e| failed(run, "read the journal of", e))?;
    match session_claimed(&sector) {
        Some(other) if other != *session => {
            let what = Damage::Run("its journal is of another session; it is not replayed".into());
            Err(Error::damaged(format!("runs/{}/journal", run.id), what))
        }
        _ => Ok(()),
    }
}

fn read_file(run: &RunContext, files: &JournalFiles, i: usize, key: &JournalKey) -> Result<Vec<Record>> {
    const { assert!(WINDOW > 2 * (BLOB_MAX + PATH_MAX + SECTOR)) };
    let length = files.len(i).min(LENGTH_MAX);
    let mut window = vec![0u8; WINDOW.min(length as usize)];
    let mut records: Vec<Record> = Vec::new();
    let (mut at, mut from, mut filled) = (0u64, 0usize, 0usize);
    loop {
        let decoded = Record::decode(window.get(from..filled).unwrap_or_default(), key);
        match decoded {
            Ok((record, len)) => {
                let follows =
                    records.last().is_none_or(|last| last.number.checked_add(1) == Some(record.number));
                if !follows {
                    return Ok(records);
                }
                records.push(record);
                from += len;
            }
            // The record goes on beyond the window, or it is none.
            Err(FormatError::Truncated) if from > 0 || filled == 0 => {
                at += from as u64;
                if at >= length {
                    return Ok(records);
                }
                filled =
                    files.read_at(i, &mut window, at).map_err(|e| failed(run, "read the journal of", e))?;
                if filled == 0 {
                    return Ok(records);
                }
                from = 0;
            }
            Err(_) => return Ok(records),
        }
    }
}

/// How many records of `session` lie behind the last one that [`read`] gave: authentic, and not replayed, since one
/// before them is not. Those of a covered lap have lower numbers.
pub(super) fn behind(
    run: &RunContext,
    files: &JournalFiles,
    session: &SessionId,
    last: Option<u64>,
) -> Result<u64> {
    let key = run.keys.journal_key(session);
    let (mut found, mut refused) = (0, 0);
    for i in 0..2 {
        let length = files.len(i).min(LENGTH_MAX);
        let mut window = vec![0u8; WINDOW.min(length as usize)];
        let mut at = 0u64;
        while at < length {
            let filled =
                files.read_at(i, &mut window, at).map_err(|e| failed(run, "read the journal of", e))?;
            let mut from = 0;
            while let Some(rest) = window.get(from..filled).filter(|rest| !rest.is_empty()) {
                from += match Record::decode(rest, &key) {
                    Ok((record, len)) => {
                        found += u64::from(last.is_none_or(|last| record.number > last));
                        len
                    }
                    // It goes on beyond the window, which is more than twice as long.
                    Err(FormatError::Truncated) if from > 0 && at + (filled as u64) < length => break,
                    Err(FormatError::NotAuthentic) if refused == REFUSED_MAX => return Ok(found),
                    Err(FormatError::NotAuthentic) => {
                        refused += 1;
                        SECTOR
                    }
                    Err(_) => SECTOR,
                };
            }
            if from == 0 {
                break;
            }
            at += from as u64;
        }
    }
    Ok(found)
}
