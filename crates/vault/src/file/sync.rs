//! Slots, syncs, and the journal's way into place. J and F are those of docs/format.md.

use std::sync::{Arc, RwLockWriteGuard};
use std::time::Duration;

use runvault_format::chunk;
use runvault_format::header;
use runvault_format::keys::Place;
use runvault_format::size::COPY;
use runvault_format::state_slot::{HOLES_MAX, SEVERAL_LINKS, SlotState};

use super::state::State;
use super::FileObject;
use crate::journal::Redo;
use crate::{Damage, Error, Result};

/// Why a settling stopped half-way: nothing is lost, a checkpoint makes room.
pub(super) enum Stop {
    JournalFull,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

impl FileObject {
    /// The sector of the next slot, for copy `j`, claiming `size`.
    pub(super) fn next_slot(&self, state: &mut State, j: u8, size: u64) -> Result<[u8; COPY as usize]> {
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
            holes: state.listed_holes().to_slot(HOLES_MAX),
        };
        let header = self.ensure_header(state)?;
        Ok(header::seal_copy(j, &header.clear, &header.slot_key, &slot)?)
    }

    pub(super) fn slot_was_written(&self, state: &mut State, j: u8, size: u64) {
        if let Some(header) = &mut state.header {
            header.written = true;
        }
        state.unsynced_slot = Some(j);
        state.slot_size = size;
        state.unsynced = true;
        state.direct = true;
        state.unrecorded = 0;
    }

    /// Writes the copy that is not known durable.
    pub(super) fn write_slot(&self, state: &mut State) -> Result<()> {
        let j = state.safe.map_or(0, |safe| 1 - safe);
        let size = state.size;
        let fresh = !state.header.as_ref().is_some_and(|h| h.written);
        let sector = self.next_slot(state, j, size)?;
        if fresh && j == 0 {
            // Both copies' room from the start, so that the stored length is a legal one.
            let mut both = [0u8; 2 * COPY as usize];
            both[..COPY as usize].copy_from_slice(&sector);
            self.file.write_at(&both, 0).map_err(self.io("write"))?;
        } else {
            self.file.write_at(&sector, u64::from(j) * COPY).map_err(self.io("write"))?;
        }
        self.slot_was_written(state, j, size);
        Ok(())
    }

    /// F: everything written so far is durable when it returns.
    pub(super) fn sync_file(&self, state: &mut State) -> Result<()> {
        if let Err(error) = self.file.sync_data() {
            self.poison(state);
            return Err(self.io("sync")(error));
        }
        state.unsynced = false;
        state.direct = false;
        if let Some(copy) = state.unsynced_slot.take() {
            state.safe = Some(copy);
            state.durable = state.durable.max(state.slot_size);
        }
        let filled = std::mem::take(&mut state.filled);
        state.holes.subtract(&filled);
        state.acknowledged = state.holes.clone();
        if state.live {
            state.jskip = state.last_record;
            state.live = false;
        }
        Ok(())
    }

    /// J, then in place: the overlay is empty afterwards.
    pub(super) fn settle(&self, state: &mut State) -> std::result::Result<(), Stop> {
        if state.overlay.is_empty() {
            return Ok(());
        }
        let writer = self.run.require_writer()?;
        let path = if state.detached { None } else { (writer.locate)(self.ino) };
        let keep = self.mtime_to_keep(state)?;
        while let Some((&first, _)) = state.overlay.first_key_value() {
            let mut redos = Vec::new();
            let mut bytes = 0;
            for (&i, plain) in state.overlay.range(first..) {
                redos.push(self.seal_redo(state, i, plain)?);
                bytes += plain.len() as u64 + 512;
                if bytes >= writer.journal.batch_limit() {
                    break;
                }
            }
            let result = match &path {
                Some(path) => self.redo_in_place(state, path, &redos),
                None => self.in_place(state, &redos).map_err(Stop::Failed),
            };
            if let Err(stop) = result {
                if matches!(stop, Stop::Failed(_)) {
                    self.poison(state);
                }
                return Err(stop);
            }
            for redo in &redos {
                if let Some(plain) = state.overlay.remove(&redo.chunk) {
                    self.count_overlay(-(plain.len() as i64));
                }
            }
        }
        if state.tail.is_none() {
            state.waiting_since = None;
        }
        self.restore_mtime(state, keep)?;
        Ok(())
    }

    fn seal_redo(&self, state: &State, i: u64, plain: &[u8]) -> Result<Redo> {
        let header = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?;
        let mut stored = vec![0u8; plain.len() + chunk::OVERHEAD];
        chunk::seal(&header.file_key, i, plain, &mut stored)?;
        let partial = (plain.len() as u64) < self.run.geometry.chunk();
        Ok(Redo { chunk: i, size_after: partial.then_some(state.size), stored })
    }

    /// Records, J, and the chunks to their places, as one act before the eyes of a checkpoint.
    fn redo_in_place(&self, state: &mut State, path: &[u8], redos: &[Redo]) -> std::result::Result<(), Stop> {
        let writer = self.run.require_writer()?;
        let file_id = state.header.as_ref().ok_or_else(|| self.damaged(Damage::Header))?.clear.file_id;
        let _settling = writer.journal.enter();
        let number = match writer.journal.append(file_id, state.epoch, path, redos)? {
            Ok(number) => number,
            Err(_full) => return Err(Stop::JournalFull),
        };
        writer.journal.sync(number)?;
        state.live = true;
        state.last_record = number;
        self.in_place(state, redos)?;
        Ok(())
    }

    fn in_place(&self, state: &mut State, redos: &[Redo]) -> Result<()> {
        let geometry = &self.run.geometry;
        state.unsynced = true;
        let mut rest = redos;
        while let Some(first) = rest.first() {
            let run = rest.iter().enumerate().take_while(|(n, r)| r.chunk == first.chunk + *n as u64).count();
            let (together, others) = rest.split_at(run);
            let stored = together.iter().map(|r| r.stored.as_slice()).collect::<Vec<_>>().concat();
            self.file.write_at(&stored, geometry.chunk_offset(first.chunk)).map_err(self.io("write"))?;
            rest = others;
        }
        self.count_writes(state, redos.len() as u64);
        Ok(())
    }

    /// Locks with an empty overlay, making room in the journal where needed.
    pub(super) fn settled(self: &Arc<Self>) -> Result<RwLockWriteGuard<'_, State>> {
        loop {
            let mut state = self.writable()?;
            match self.settle(&mut state) {
                Ok(()) => {
                    if state.live {
                        self.run.require_writer()?.retain(self);
                    }
                    return Ok(state);
                }
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::JournalFull) => {
                    drop(state);
                    self.run.checkpoint()?;
                }
            }
        }
    }

    /// What fsync(2) promises for the file itself; its names are the namespace's.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's.
    pub fn fsync(self: &Arc<Self>) -> Result<()> {
        if self.run.read_only() {
            return Ok(());
        }
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        if state.direct {
            let keep = self.mtime_to_keep(&state)?;
            self.write_slot(&mut state)?;
            self.restore_mtime(&mut state, keep)?;
            self.sync_file(&mut state)?;
        }
        state.durable = state.size;
        Ok(())
    }

    /// What close(2) does: waiting bytes go out, the slot tells the size. No sync.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's.
    pub fn flush(self: &Arc<Self>) -> Result<()> {
        if self.run.read_only() {
            return Ok(());
        }
        {
            let state = self.shared();
            let clean = state.tail.is_none() && (state.size == state.slot_size || !state.overlay.is_empty());
            if clean && !state.poisoned {
                return Ok(());
            }
        }
        let mut state = self.writable()?;
        self.write_tail(&mut state)?;
        if state.size != state.slot_size && state.overlay.is_empty() && !state.detached {
            let keep = self.mtime_to_keep(&state)?;
            self.write_slot(&mut state)?;
            self.restore_mtime(&mut state, keep)?;
        }
        Ok(())
    }

    /// The timer: what has waited long enough goes out.
    pub(super) fn tick(self: &Arc<Self>, delay: Duration) -> Result<()> {
        let due = {
            let state = self.shared();
            if state.poisoned || (!state.is_waiting() && !state.live) {
                None
            } else {
                Some(state.waiting_since.is_some_and(|since| since.elapsed() >= delay))
            }
        };
        let writer = self.run.require_writer()?;
        match due {
            None => {
                writer.let_go(self);
                Ok(())
            }
            Some(false) => Ok(()),
            Some(true) => {
                let mut state = self.settled()?;
                self.write_tail(&mut state)
            }
        }
    }

    /// A checkpoint made every record up to `number` durable in place.
    pub(super) fn checkpointed(&self, number: u64) {
        let mut state = self.exclusive();
        if state.live && state.last_record <= number {
            state.live = false;
            state.jskip = state.jskip.max(number);
        }
    }

    /// Before a rename: no record names the old path any more, and the header bears both places.
    /// `new` is `None` for a file that keeps several links.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's; the rename must not happen then.
    pub fn prepare_rename(self: &Arc<Self>, new: Option<Place>, force_sync: bool) -> Result<()> {
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        if state.header.is_none() {
            state.place = new.unwrap_or_default();
            return Ok(());
        }
        let Some(new) = new.filter(|_| !state.several_links) else { return Ok(()) };
        let old = (state.place, state.previous);
        state.previous = state.place;
        state.place = new;
        let keep = self.mtime_to_keep(&state)?;
        let must_sync = force_sync || state.durable > 0 || state.safe.is_some();
        let done = self
            .write_slot(&mut state)
            .and_then(|()| if must_sync { self.sync_file(&mut state) } else { Ok(()) })
            .and_then(|()| self.restore_mtime(&mut state, keep));
        if done.is_err() {
            (state.place, state.previous) = old;
        } else if must_sync {
            state.durable = state.durable.max(state.size);
        }
        done
    }

    /// Before a second name: the header no longer binds the file to one.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's; the link must not be made then.
    pub fn prepare_link(self: &Arc<Self>) -> Result<()> {
        let mut state = self.settled()?;
        self.write_tail(&mut state)?;
        if state.several_links {
            return Ok(());
        }
        state.several_links = true;
        (state.place, state.previous) = (Place::default(), Place::default());
        let keep = self.mtime_to_keep(&state)?;
        self.write_slot(&mut state)?;
        self.sync_file(&mut state)?;
        self.restore_mtime(&mut state, keep)
    }

    /// Before a name goes. `last`: the file lives on only for those who have it open.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's.
    pub fn prepare_unlink(self: &Arc<Self>, last: bool) -> Result<()> {
        if last {
            let mut state = self.exclusive();
            state.detached = true;
            state.durable = 0;
            state.safe = None;
            return Ok(());
        }
        let mut state = self.settled()?;
        if state.live {
            self.sync_file(&mut state)?;
        }
        Ok(())
    }
}
