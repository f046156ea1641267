//! Opening: which header copy counts, how long the file is, whether it stands where it belongs.

use std::sync::Arc;

use runvault_crypto::random;
use runvault_format::chunk;
use runvault_format::header::{self, Clear, CopyOutcome, Kind};
use runvault_format::ids::FileId;
use runvault_format::keys::Place;
use runvault_format::size::{COPY, HEADER};
use runvault_format::state_slot::{SEVERAL_LINKS, SlotState};
use runvault_store::backend::File;

use super::extents::Extents;
use super::state::{Header, State};
use super::{FileObject, RunContext};
use crate::{Damage, Error, Result};

/// Chunk writes that may have happened since the slot that was found; see docs/decisions.md.
pub(super) const UNRECORDED_LIMIT: u32 = 1024;

/// A header as found: the copies that authenticate, newest first.
pub(crate) struct Found {
    pub(crate) clear: Clear,
    /// (copy, state)
    pub(crate) copies: Vec<(u8, SlotState)>,
}

/// Reads both header copies of a file whose stored length is at least a header's.
pub(crate) fn read_header(run: &RunContext, file: &dyn File, kind: Kind) -> std::result::Result<Found, ReadHeader> {
    let mut bytes = [0u8; HEADER as usize];
    let got = file.read_at(&mut bytes, 0).map_err(ReadHeader::Store)?;
    if got < bytes.len() {
        return Err(ReadHeader::Damage(Damage::Header));
    }
    let mut clear: Option<Clear> = None;
    let mut copies = Vec::with_capacity(2);
    let mut foreign = false;
    for (j, sector) in bytes.chunks_exact(COPY as usize).enumerate() {
        let j = j as u8;
        let Ok(sector) = <&[u8; COPY as usize]>::try_from(sector) else { continue };
        let Ok(found) = header::clear_of(sector) else { continue };
        if found.run_id != run.id || found.log2 != run.geometry.log2() || found.kind != kind {
            foreign = true;
            continue;
        }
        let key = run.keys.slot_key(&found);
        let Ok(CopyOutcome::Authentic(state)) = header::open_copy(j, sector, &key) else { continue };
        match &clear {
            None => clear = Some(found),
            // Two authentic copies of two files in one header: nobody with the key wrote this.
            Some(first) if *first != found => return Err(ReadHeader::Damage(Damage::Foreign)),
            Some(_) => {}
        }
        copies.push((j, state));
    }
    let Some(clear) = clear else {
        return Err(ReadHeader::Damage(if foreign { Damage::Foreign } else { Damage::Header }));
    };
    copies.sort_by_key(|(_, state)| std::cmp::Reverse(state.seq));
    Ok(Found { clear, copies })
}

pub(crate) enum ReadHeader {
    Store(std::io::Error),
    Damage(Damage),
}

impl FileObject {
    /// A file that was just made with O_EXCL: nothing is stored yet, not even a header.
    pub fn create(run: &Arc<RunContext>, ino: u64, file: Arc<dyn File>, place: Option<Place>) -> Arc<Self> {
        Self::new(run, ino, file, State { place: place.unwrap_or_default(), several_links: place.is_none(), ..State::default() })
    }

    /// O_TRUNC over a file whose header cannot be read: it starts anew, under a new file id.
    ///
    /// # Errors
    /// The store's.
    pub fn open_for_replacement(
        run: &Arc<RunContext>,
        ino: u64,
        file: Arc<dyn File>,
        place: Option<Place>,
    ) -> Result<Arc<Self>> {
        file.set_len(0).map_err(|e| Error::store("truncate", run.object(ino), e))?;
        let made = Self::create(run, ino, file, place);
        made.exclusive().direct = true;
        Ok(made)
    }

    /// Opens a file of the store. `expected` is the place that its name gives, `None` where the
    /// name is not known or several lead to it.
    ///
    /// # Errors
    /// [`Damage::Header`], [`Damage::Short`], [`Damage::Foreign`], [`Damage::Place`]; the store's.
    pub fn open(
        run: &Arc<RunContext>,
        ino: u64,
        file: Arc<dyn File>,
        expected: Option<Place>,
    ) -> Result<Arc<Self>> {
        let object = || run.object(ino);
        let stat = file.stat().map_err(|e| Error::store("stat", object(), e))?;
        if stat.size == 0 {
            let place = expected.unwrap_or_default();
            let state = State { place, several_links: expected.is_none(), ..State::default() };
            return Ok(Self::new(run, ino, file, state));
        }
        let found = read_header(run, &*file, Kind::File).map_err(|e| match e {
            ReadHeader::Store(e) => Error::store("read", object(), e),
            ReadHeader::Damage(d) => Error::damaged(object(), d),
        })?;
        let stored = run
            .geometry
            .plain_len_floor(stat.size)
            .ok_or_else(|| Error::damaged(object(), Damage::Header))?;
        let fitting = found.copies.iter().position(|(_, s)| s.size <= stored);
        let Some(mut chosen) = fitting else {
            return Err(Error::damaged(object(), Damage::Short));
        };
        if chosen == 0 && run.writer.as_ref().is_some_and(|w| w.after_crash()) {
            chosen = older_if_never_completed(run, &*file, &found, stored);
        }
        let (copy, slot) = &found.copies[chosen];
        let newest_seq = found.copies[0].1.seq;
        if slot.flags & SEVERAL_LINKS == 0
            && let Some(place) = expected
            && slot.place != place
            && slot.previous != place
        {
            return Err(Error::damaged(object(), Damage::Place));
        }
        let file_key = run.keys.file_key(&found.clear, slot.epoch);
        let mut state = State {
            size: slot.size,
            epoch: slot.epoch,
            seq: newest_seq,
            safe: Some(*copy),
            slot_size: slot.size,
            holes: Extents::from_slot(&slot.holes),
            writes: slot.writes.saturating_add(u64::from(UNRECORDED_LIMIT)),
            place: slot.place,
            previous: slot.previous,
            several_links: slot.flags & SEVERAL_LINKS != 0,
            header: Some(Header {
                slot_key: run.keys.slot_key(&found.clear),
                clear: found.clear.clone(),
                file_key,
                written: true,
            }),
            ..State::default()
        };
        state.unexamined = state.holes.clone();
        let exact = run.geometry.stored_len(stored) == stat.size;
        let size = authentic_size(run, &*file, &state, stored);
        state.size = size;
        state.durable = size;
        state.acknowledged = state.holes.clone();
        if let Some(writer) = &run.writer {
            let session = writer.session.prefix();
            let same_session = found.copies.iter().filter(|(_, s)| s.jsession == session);
            state.jskip = same_session.map(|(_, s)| s.jskip).max().unwrap_or(0);
            if let Some(residue) = writer.take_residue(ino, &found.clear.file_id) {
                // Written in this session and not synced since.
                if state.holes.is_empty() {
                    state.safe = residue.safe;
                    state.unsynced_slot = (residue.safe != Some(*copy)).then_some(*copy);
                    state.durable = residue.durable.min(size);
                    state.unsynced = true;
                    state.direct = true;
                } else {
                    // Which holes got data since is not remembered, and an acknowledged hole must
                    // stay listed until its data is durable: make all of it durable now.
                    file.sync_data().map_err(|e| Error::store("sync", object(), e))?;
                }
            }
            if size < stored || !exact {
                file.set_len(run.geometry.stored_len(size))
                    .map_err(|e| Error::store("cut", object(), e))?;
                state.unsynced = true;
                state.direct = true;
            }
        }
        Ok(Self::new(run, ino, file, state))
    }

    /// Gives the file its identity and keys; nothing is written yet.
    pub(super) fn ensure_header<'a>(&self, state: &'a mut State) -> Result<&'a mut Header> {
        if state.header.is_none() {
            let mut id = [0u8; 32];
            random::fill(&mut id)?;
            let clear = Clear::new(Kind::File, self.run.geometry, FileId(id), self.run.id);
            let slot_key = self.run.keys.slot_key(&clear);
            let file_key = self.run.keys.file_key(&clear, state.epoch);
            state.header = Some(Header { clear, slot_key, file_key, written: false });
        }
        state.header.as_mut().ok_or_else(|| self.damaged(Damage::Header))
    }
}

/// Whether stored chunk `i` of a file of `size` bytes authenticates.
fn authenticates(run: &RunContext, file: &dyn File, state: &State, i: u64, size: u64) -> bool {
    let Some(header) = &state.header else { return false };
    let plain_len = run.geometry.chunk_len(i, size);
    let mut stored = vec![0u8; plain_len + chunk::OVERHEAD];
    let mut plain = vec![0u8; plain_len];
    match file.read_at(&mut stored, run.geometry.chunk_offset(i)) {
        Ok(got) if got == stored.len() => chunk::open(&header.file_key, i, &stored, &mut plain).is_ok(),
        _ => false,
    }
}

/// A file may be longer than its slot says; what lies beyond counts only if it authenticates.
fn authentic_size(run: &RunContext, file: &dyn File, state: &State, stored: u64) -> u64 {
    let (claimed, chunk) = (state.slot_size, run.geometry.chunk());
    if stored <= claimed {
        return claimed;
    }
    let border = claimed / chunk;
    let border_is_fine =
        authenticates(run, file, state, border, stored) || (state.holes.contains(border) && claimed % chunk != 0);
    if !border_is_fine {
        return claimed;
    }
    let mut size = stored;
    while size > claimed {
        let last = (size - 1) / chunk;
        if state.holes.contains(last) || authenticates(run, file, state, last, size) {
            break;
        }
        size = claimed.max(last * chunk);
    }
    size
}

/// After an unclean end: when the newer copy claims chunks that never arrived, its sync never
/// completed and the older copy tells what was durable.
fn older_if_never_completed(run: &RunContext, file: &dyn File, found: &Found, stored: u64) -> usize {
    let [(_, newer), (_, older)] = &found.copies[..] else { return 0 };
    if newer.epoch != older.epoch || older.size >= newer.size || older.size > stored {
        return 0;
    }
    let state = State {
        header: Some(Header {
            slot_key: run.keys.slot_key(&found.clear),
            clear: found.clear.clone(),
            file_key: run.keys.file_key(&found.clear, newer.epoch),
            written: true,
        }),
        ..State::default()
    };
    let holes = Extents::from_slot(&newer.holes);
    let chunk = run.geometry.chunk();
    let arrived = (older.size / chunk..newer.size.div_ceil(chunk))
        .all(|i| holes.contains(i) || authenticates(run, file, &state, i, stored));
    usize::from(!arrived)
}
