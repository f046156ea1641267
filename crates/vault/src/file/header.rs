//! The two header copies as they are found and as they are written.

use std::ops::Range;

use runvault_crypto::aead::AeadKey;
use runvault_format::header::{self, Clear, Kind};
use runvault_format::size::{COPY, HEADER};
use runvault_format::state_slot::{HOLES_MAX, SEVERAL_LINKS, SlotState};
use runvault_store::backend::File;

use super::extents::Extents;
use super::state::State;
use super::{FileObject, RunContext};
use crate::{Damage, Error, Result};

/// Bytes of one header copy.
type Sector = [u8; COPY as usize];

/// Chunk writes that are on no record before a slot notes them; what each open adds to the count.
/// The draft's 2^20 would wear a file out after 2,048 opens.
pub(crate) const UNRECORDED_LIMIT: u32 = 4096;

/// A header as found: the copies that authenticate, newest first.
pub(crate) struct Found {
    pub(crate) clear: Clear,
    /// Of both copies.
    pub(crate) slot_key: AeadKey,
    /// (copy, state), one or two.
    pub(crate) copies: Vec<(u8, SlotState)>,
    /// The other copy was written and does not count. No crash leaves that behind, since a sector is old or new:
    /// what it said, which may have been the newest word, is lost.
    pub(crate) lost: bool,
}

/// Why a header could not be read.
pub(crate) enum Unreadable {
    Store(std::io::Error),
    Damage(Damage),
}

impl Unreadable {
    pub(crate) fn named(self, object: String) -> Error {
        match self {
            Unreadable::Store(source) => Error::store("read", object, source),
            Unreadable::Damage(damage) => Error::damaged(object, damage),
        }
    }
}

impl Found {
    /// Reads both copies; only what is of this run and of `kind` counts.
    pub(crate) fn read(
        run: &RunContext,
        file: &dyn File,
        kind: Kind,
    ) -> std::result::Result<Self, Unreadable> {
        let mut bytes = [0u8; HEADER as usize];
        let got = file.read_at(&mut bytes, 0).map_err(Unreadable::Store)?;
        if got < bytes.len() {
            return Err(Unreadable::Damage(Damage::Header));
        }
        let mut file: Option<(Clear, AeadKey)> = None;
        let mut copies = Vec::with_capacity(2);
        let (mut foreign, mut lost) = (false, false);
        for (j, sector) in (0u8..).zip(bytes.chunks_exact(COPY as usize)) {
            let Ok(sector) = <&Sector>::try_from(sector) else { continue };
            let found = match header::clear_of(sector) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    // Copy 0 is written first.
                    lost |= j == 0;
                    continue;
                }
                Err(refused) => {
                    foreign |= names_another_format(&refused);
                    lost = true;
                    continue;
                }
            };
            if found.run_id != run.id || found.geometry != run.geometry || found.kind != kind {
                (foreign, lost) = (true, true);
                continue;
            }
            let first = file.as_ref().filter(|(clear, _)| *clear == found);
            let made = first.is_none().then(|| run.keys.slot_key(&found));
            let Some(key) = made.as_ref().or(first.map(|(_, key)| key)) else { continue };
            let Ok(state) = header::open_copy(j, sector, key) else {
                lost = true;
                continue;
            };
            match (made, &file) {
                (None, _) => {}
                (Some(key), None) => file = Some((found, key)),
                // Two authentic copies of two files in one header: nobody with the key wrote this.
                (Some(_), Some(_)) => return Err(Unreadable::Damage(Damage::Foreign)),
            }
            copies.push((j, state));
        }
        let Some((clear, slot_key)) = file else {
            return Err(Unreadable::Damage(if foreign { Damage::Foreign } else { Damage::Header }));
        };
        copies.sort_by_key(|(_, state)| std::cmp::Reverse(state.seq));
        Ok(Self { clear, slot_key, copies, lost })
    }

    /// [`Found::read`] beside a live writer, whose header may be seen half written.
    pub(crate) fn read_settled(
        run: &RunContext,
        file: &dyn File,
        kind: Kind,
    ) -> std::result::Result<Self, Unreadable> {
        let mut found = Self::read(run, file, kind)?;
        let mut turns = run.patience.turns();
        while found.lost && run.read_only() && turns.another() {
            found = Self::read(run, file, kind)?;
        }
        Ok(found)
    }

    /// The newest copy that a file of `stored` plaintext bytes can have.
    pub(crate) fn newest_fitting(&self, stored: u64) -> Option<usize> {
        self.copies.iter().position(|(_, slot)| slot.size <= stored)
    }

    /// The greatest sequence number, from which the next slot counts on.
    pub(crate) fn newest_seq(&self) -> u64 {
        self.copies.iter().map(|(_, slot)| slot.seq).max().unwrap_or(0)
    }

    /// What the copies say of `session`'s records: all up to this number are durable in place.
    pub(crate) fn skip(&self, session: [u8; 8]) -> u64 {
        let of_session = self.copies.iter().filter(|(_, slot)| slot.jsession == session);
        of_session.map(|(_, slot)| slot.jskip).max().unwrap_or(0)
    }
}

fn names_another_format(refused: &runvault_format::Error) -> bool {
    use runvault_format::Error::{ChunkSize, Kind, Suite, Version};
    matches!(refused, Version(_) | Suite(_) | ChunkSize(_) | Kind(_))
}

impl FileObject {
    /// The sector of the next slot, for copy `j`, claiming `size` and listing `holes`.
    pub(super) fn next_slot(&self, state: &mut State, j: u8, size: u64, holes: &Extents) -> Result<Sector> {
        let writer = self.run.require_writer()?;
        state.seq += 1;
        state.jskip = state.jskip.max(writer.journal.floor());
        let slot = SlotState {
            seq: state.seq,
            size,
            jskip: state.jskip,
            jsession: writer.session.prefix(),
            writes: state.writes,
            epoch: state.epoch,
            flags: if state.several_links { SEVERAL_LINKS } else { 0 },
            place: state.place,
            previous: state.previous,
            holes: holes.to_slot(HOLES_MAX),
        };
        let header = self.ensure_header(state)?;
        Ok(header::seal_copy(j, &header.clear, &header.slot_key, &slot)?)
    }

    pub(super) fn slot_was_written(&self, state: &mut State, j: u8, size: u64, holes: &Extents) {
        if let Some(header) = &mut state.header {
            header.written = true;
        }
        state.lost_copy = false;
        state.unsynced_slot = Some(j);
        // Read after the write: a checkpoint that begins later covers it.
        state.slot_round = self.run.writer.as_ref().map_or(0, |w| w.round());
        state.slot_size = size;
        state.listed = Extents::from_slot(&holes.to_slot(HOLES_MAX));
        state.direct = true;
        state.unrecorded = 0;
        state.stale = false;
        state.slot_due = false;
    }

    /// Writes the copy that is not known durable. Nothing may wait in the tail, and nothing in the
    /// overlay beyond what the slot before it claimed.
    pub(super) fn write_slot(&self, state: &mut State) -> Result<()> {
        self.bound_holes(state)?;
        let j = state.safe.map_or(0, |safe| 1 - safe);
        let (size, holes) = (state.size, state.listed_holes());
        let fresh = !state.has_written_header();
        let sector = self.next_slot(state, j, size, &holes)?;
        self.mark_unsynced(state);
        if fresh && j == 0 {
            // Both copies' room from the start, so that the stored length is a legal one.
            let mut both = [0u8; HEADER as usize];
            both[..COPY as usize].copy_from_slice(&sector);
            self.file.write_at(&both, 0).map_err(self.io("write"))?;
        } else {
            self.file.write_at(&sector, u64::from(j) * COPY).map_err(self.io("write"))?;
        }
        self.slot_was_written(state, j, size, &holes);
        Ok(())
    }

    /// A slot that claims what the one before it did, and lists one hole more: before data lies behind them, or readers,
    /// and the next session after a kill, take them for damage.
    pub(super) fn list_hole(&self, state: &mut State, hole: Range<u64>) -> Result<()> {
        let j = state.safe.map_or(0, |safe| 1 - safe);
        let (size, due, unrecorded) = (state.slot_size, state.slot_due, state.unrecorded);
        let mut holes = state.listed.clone();
        holes.insert(hole);
        let sector = self.next_slot(state, j, size, &holes)?;
        self.mark_unsynced(state);
        self.file.write_at(&sector, u64::from(j) * COPY).map_err(self.io("write"))?;
        self.slot_was_written(state, j, size, &holes);
        (state.stale, state.slot_due, state.unrecorded) = (true, due, unrecorded);
        Ok(())
    }

    /// [`FileObject::write_slot`] that leaves the application's mtime.
    pub(super) fn write_slot_quietly(&self, state: &mut State) -> Result<()> {
        let keep = self.what_to_keep(state)?;
        self.write_slot(state)?;
        self.restore(state, keep)
    }
}
