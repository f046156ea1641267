//! One file: which slot counts, its records in place again, a new slot, one sync.

use runvault_format::chunk::OVERHEAD;
use runvault_format::header::{Kind, seal_copy};
use runvault_format::ids::SessionId;
use runvault_format::redo_record::Record;
use runvault_format::size::COPY;
use runvault_format::state_slot::SlotState;
use runvault_store::backend::{File, SetTime};

use super::failed;
use crate::file::{Extents, Found, RunContext, Stored, UNRECORDED_LIMIT, Unreadable};
use crate::{Damage, Error, Result};

/// Chunks that were replayed; `None` for a file that is left as it is.
pub(super) fn file(
    run: &RunContext,
    file: &dyn File,
    session: &SessionId,
    records: &[&Record],
) -> Result<Option<u64>> {
    let stat = file.stat().map_err(|e| failed(run, "stat a file of", e))?;
    let Some(stored) = run.geometry.plain_len_floor(stat.size) else { return Ok(None) };
    let found = match Found::read(run, file, Kind::File) {
        Ok(found) => found,
        Err(Unreadable::Damage(_)) => return Ok(None),
        Err(Unreadable::Store(e)) => return Err(failed(run, "read a file of", e)),
    };
    let skip = found.skip(session.prefix());
    // It was looked up again: another file may have the name by now.
    let is_ours = |r: &&Record| r.file_id == found.clear.file_id && r.number > skip;
    let records: Vec<&Record> = records.iter().copied().filter(is_ours).collect();
    let Some(choice) = Choice::of(run, file, &found, stored, &records)? else { return Ok(None) };
    let due: Vec<&Record> = records.into_iter().filter(|r| r.epoch == choice.slot.epoch).collect();
    if due.is_empty() {
        return Ok(Some(0));
    }
    // Of a file with a damaged copy nothing is cut, and the damage stays to be seen.
    let claimed = if found.lost { choice.slot.size.max(stored) } else { choice.slot.size };
    let mut replayed = 0;
    for record in due {
        if put(run, file, claimed, record)? {
            replayed += 1;
        }
    }
    if found.lost {
        file.sync_data().map_err(|e| failed(run, "sync a file of", e))?;
    } else {
        settle(run, file, &found, &choice, session, replayed)?;
    }
    let kept = file.set_times(SetTime::Omit, SetTime::At(stat.mtime));
    kept.map_err(|e| failed(run, "set times of a file of", e))?;
    Ok(Some(replayed))
}

/// The header copy that counts.
struct Choice<'a> {
    copy: u8,
    slot: &'a SlotState,
    /// A newer one was not believed.
    older: bool,
}

impl<'a> Choice<'a> {
    fn of(
        run: &RunContext,
        file: &dyn File,
        found: &'a Found,
        stored: u64,
        records: &[&Record],
    ) -> Result<Option<Self>> {
        let Some(mut chosen) = found.newest_fitting(stored) else { return Ok(None) };
        let mut older = false;
        if chosen == 0
            && let Some((_, newest)) = found.copies.first()
        {
            let key = run.keys.file_key(&found.clear, newest.epoch);
            let mut recorded = Extents::default();
            for record in records.iter().filter(|r| r.epoch == newest.epoch) {
                recorded.insert(record.chunk..record.chunk.saturating_add(1));
            }
            let never = Stored { run, file, key: &key }.newer_never_completed(found, stored, &recorded);
            older = never.map_err(|e| failed(run, "read a file of", e))?;
            chosen = usize::from(older);
        }
        Ok(found.copies.get(chosen).map(|(copy, slot)| Self { copy: *copy, slot, older }))
    }
}

/// The record's chunk to its place; `false` where the slot knows better.
fn put(run: &RunContext, file: &dyn File, claimed: u64, record: &Record) -> Result<bool> {
    let geometry = &run.geometry;
    let wrong = || {
        Error::damaged(format!("runs/{}/journal", run.id), Damage::Run("a record is not one of ours".into()))
    };
    let start =
        record.chunk.checked_mul(geometry.chunk()).filter(|s| *s < geometry.max_size()).ok_or_else(wrong)?;
    let plain = match record.size_after {
        None => geometry.chunk(),
        Some(size) => {
            size.checked_sub(start).filter(|n| (1..geometry.chunk()).contains(n)).ok_or_else(wrong)?
        }
    };
    if record.blob.len() as u64 != plain + OVERHEAD as u64 {
        return Err(wrong());
    }
    if record.size_after.is_some_and(|size| size < claimed) {
        return Ok(false);
    }
    let written = file.write_at(&record.blob, geometry.chunk_offset(record.chunk));
    let cut = written.and_then(|()| match record.size_after {
        Some(size) => file.set_len(geometry.stored_len(size)),
        None => Ok(()),
    });
    cut.map_err(|e| failed(run, "write a file of", e))?;
    Ok(true)
}

/// No unreadable tail, a slot with what is there now, all of it durable. The slot keeps saying of
/// the old session what was said before: the log may have to be replayed once more.
fn settle(
    run: &RunContext,
    file: &dyn File,
    found: &Found,
    choice: &Choice<'_>,
    session: &SessionId,
    replayed: u64,
) -> Result<()> {
    let io = |e| failed(run, "restore a file of", e);
    let slot = choice.slot;
    let key = run.keys.file_key(&found.clear, slot.epoch);
    let there = Stored { run, file, key: &key };
    let stored = run.geometry.plain_len_floor(file.stat().map_err(io)?.size).unwrap_or(0);
    let holes = Extents::from_slot(&slot.holes);
    let size = if choice.older {
        there.readable_size(slot.size, stored, &holes)
    } else {
        there.authentic_size(slot.size, stored, &holes)
    };
    let size = size.map_err(io)?;
    file.set_len(run.geometry.stored_len_with_header(size)).map_err(io)?;
    let next = SlotState {
        seq: found.newest_seq().saturating_add(1),
        size,
        jskip: found.skip(session.prefix()),
        jsession: session.prefix(),
        writes: slot.writes.saturating_add(replayed).saturating_add(u64::from(UNRECORDED_LIMIT)),
        ..slot.clone()
    };
    let j = 1 - choice.copy;
    let sector = seal_copy(j, &found.clear, &found.slot_key, &next)?;
    file.write_at(&sector, u64::from(j) * COPY).and_then(|()| file.sync_data()).map_err(io)
}
