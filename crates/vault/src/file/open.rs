//! Opening: which header copy counts, how long the file is, whether it stands where it belongs.

use std::sync::Arc;

use runvault_crypto::random;
use runvault_format::header::{Clear, Kind};
use runvault_format::ids::FileId;
use runvault_format::keys::Place;
use runvault_format::state_slot::SEVERAL_LINKS;
use runvault_store::backend::{File, Stat};

use super::beyond::Stored;
use super::extents::Extents;
use super::header::{Found, UNRECORDED_LIMIT};
use super::state::{Header, State};
use super::{FileObject, RunContext};
use crate::{Damage, Error, Result};

/// Stored bytes up to which a file comes from the disk at once, when its header is read: who opens
/// such a file reads it, and would wait for the disk a second time.
const SMALL: u64 = 256 << 10;

impl FileObject {
    /// A file that was just made with O_EXCL: nothing is stored yet, not even a header. `place`
    /// is `None` for one that several names lead to.
    pub fn create(run: &Arc<RunContext>, ino: u64, file: Arc<dyn File>, place: Option<Place>) -> Arc<Self> {
        let made = Self::new(run, ino, file, State::empty(place));
        // Without randomness there is no id yet, and will be none.
        let _ = made.begin_noting(&mut made.exclusive());
        run.files.enter(&made);
        made
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
        run.require_writer()?;
        let _turn = run.files.opening(ino);
        if let Some(live) = run.files.find(ino) {
            live.truncate(0)?;
            return Ok(live);
        }
        file.set_len(0).map_err(|e| Error::store("truncate", run.object(ino), e))?;
        let made = Self::create(run, ino, file, place);
        made.exclusive().direct = true;
        Ok(made)
    }

    /// Opens a file of the store, or finds the object that its inode has already; `file` is open
    /// for writing too where the run is written here, and `stat` is what it was when it was opened.
    /// `expected` is the place of the name it was reached by, `None` where no name is known.
    ///
    /// # Errors
    /// [`Damage::Header`], [`Damage::HeaderCopy`], [`Damage::Short`], [`Damage::Foreign`], [`Damage::Place`]; the store's.
    pub fn open(
        run: &Arc<RunContext>,
        ino: u64,
        file: Arc<dyn File>,
        stat: &Stat,
        expected: Option<Place>,
    ) -> Result<Arc<Self>> {
        let _turn = run.files.opening(ino);
        if let Some(live) = run.files.find(ino) {
            live.stands_at(&live.shared(), expected)?;
            return Ok(live);
        }
        if stat.size <= SMALL {
            file.will_read(stat.size);
        }
        let opened = Self::new(run, ino, file, State::default());
        let state = opened.load_settled(stat, expected)?;
        *opened.exclusive() = state;
        if !run.read_only() {
            let mut state = opened.exclusive();
            opened.take_over(&mut state, stat.size)?;
            opened.begin_noting(&mut state)?;
        }
        run.files.enter(&opened);
        Ok(opened)
    }

    /// What `stat` shows of a file of a run that is only read, and that nobody has open; `stat` is what the store says.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn glance(run: &Arc<RunContext>, ino: u64, file: Arc<dyn File>, stat: Stat) -> Result<Stat> {
        Self::new(run, ino, file, State::default()).attr_of(Some(stat))
    }

    /// A name is right if it matches place or previous place.
    fn stands_at(&self, state: &State, expected: Option<Place>) -> Result<()> {
        let Some(place) = expected.filter(|_| !state.several_links && state.header.is_some()) else {
            return Ok(());
        };
        if state.place == place || state.previous == place {
            return Ok(());
        }
        Err(self.damaged(if state.lost_copy { Damage::HeaderCopy } else { Damage::Place }))
    }

    /// [`FileObject::load`] beside a writer, who may be at work on header and length.
    fn load_settled(&self, stat: &Stat, expected: Option<Place>) -> Result<State> {
        let mut loaded = self.load(stat, expected);
        let mut turns = self.run.patience.turns();
        while self.run.read_only() && may_settle(&loaded) && turns.another() {
            let stat = self.file.stat().map_err(self.io("stat"))?;
            loaded = self.load(&stat, expected);
        }
        loaded
    }

    /// What the store says of the file, whose attributes are `stat`.
    pub(super) fn load(&self, stat: &Stat, expected: Option<Place>) -> Result<State> {
        let (run, file) = (&*self.run, &*self.file);
        if stat.size == 0 {
            return Ok(State::empty(expected.filter(|_| stat.nlink < 2)));
        }
        let unnamed = |e: super::Unreadable| e.named(run.object(self.ino));
        let found = Found::read(run, file, Kind::File).map_err(unnamed)?;
        let stored = run.geometry.plain_len_floor(stat.size);
        let stored = stored.ok_or_else(|| self.damaged(Damage::Header))?;
        let (chosen, after_crash) = self.choose(&found, stored)?;
        let (copy, slot) = found.copies.get(chosen).ok_or_else(|| self.damaged(Damage::Header))?;
        let file_key = run.keys.file_key(&found.clear, slot.epoch);
        let holes = Extents::from_slot(&slot.holes);
        let there = Stored { run, file, key: &file_key };
        let size = if found.lost {
            // Which holes there are is lost with the copy: whatever is stored must authenticate when it is read.
            if !slot.holes.is_empty() {
                return Err(self.damaged(Damage::HeaderCopy));
            }
            Ok(stored)
        } else if after_crash {
            there.readable_size(slot.size, stored, &holes)
        } else {
            there.authentic_size(slot.size, stored, &holes)
        };
        let size = size.map_err(self.io("read"))?;
        let written_at_least = slot.writes.max(size / run.geometry.chunk());
        let mut state = State {
            size,
            durable: size,
            epoch: slot.epoch,
            seq: found.newest_seq(),
            safe: Some(*copy),
            lost_copy: found.lost,
            slot_size: slot.size,
            acknowledged: holes.clone(),
            listed: holes.clone(),
            unexamined: holes.clone(),
            holes,
            // No object of it is alive: whatever this session recorded of it is durable in place.
            jskip: run.writer.as_ref().map_or(0, |w| w.journal.last_number()),
            writes: written_at_least.saturating_add(u64::from(UNRECORDED_LIMIT)),
            place: slot.place,
            previous: slot.previous,
            several_links: slot.flags & SEVERAL_LINKS != 0,
            // Found beyond the slot: only a slot keeps it when the file grows further.
            stale: chosen > 0 || size != slot.size,
            header: Some(Header { slot_key: found.slot_key, clear: found.clear, file_key, written: true }),
            ..State::default()
        };
        self.stands_at(&state, expected)?;
        if expected.is_some_and(|here| here != state.place && !state.several_links) {
            // A rename was prepared and never happened: the next one must not forget this name.
            std::mem::swap(&mut state.place, &mut state.previous);
        }
        Ok(state)
    }

    /// Which copy counts, and whether this is the writer's first look after an unclean end, when what lies behind
    /// its size may have come in any order.
    fn choose(&self, found: &Found, stored: u64) -> Result<(usize, bool)> {
        let chosen = found.newest_fitting(stored).ok_or_else(|| self.damaged(Damage::Short))?;
        let longer = found.copies.first().is_none_or(|(_, slot)| slot.size != stored);
        let Some(writer) = self.run.writer.as_ref().filter(|_| longer || found.copies.len() > 1) else {
            return Ok((chosen, false));
        };
        if !writer.compare_once(self.ino) {
            return Ok((chosen, false));
        }
        if chosen > 0 {
            return Ok((chosen, true));
        }
        let epoch = found.copies.first().map_or(0, |(_, slot)| slot.epoch);
        let key = self.run.keys.file_key(&found.clear, epoch);
        let there = Stored { run: &self.run, file: &*self.file, key: &key };
        let missing =
            there.newer_never_completed(found, stored, &Extents::default()).map_err(self.io("read"))?;
        Ok((usize::from(missing), true))
    }

    /// The writer's part of opening: what this session knows of the file, and a legal length.
    fn take_over(&self, state: &mut State, stored: u64) -> Result<()> {
        let (Some(writer), Some(header)) = (&self.run.writer, &state.header) else { return Ok(()) };
        let copy = state.safe;
        if let Some(residue) = writer.residues.adopt(self.ino, &header.clear.file_id, self.serial) {
            state.unsynced = true;
            if state.holes.is_empty() {
                // Written in this session and not synced since.
                state.unsynced_slot = copy.filter(|_| residue.safe != copy);
                state.slot_round = writer.round();
                // A damaged copy is no safe one.
                state.safe = if state.lost_copy { copy } else { residue.safe };
                state.durable = residue.durable.min(state.size);
                state.direct = true;
            } else {
                // Which holes got data since is not remembered, and an acknowledged hole must stay
                // listed until its data is durable: all of it becomes durable now.
                self.sync_file(state)?;
            }
        }
        let legal = self.run.geometry.stored_len_with_header(state.size);
        if stored != legal {
            self.file.set_len(legal).map_err(self.io("cut"))?;
            state.direct = true;
            state.stale = true;
            self.mark_unsynced(state);
        }
        Ok(())
    }

    /// Whether one of its two header copies was found damaged, and not written anew since.
    pub fn has_lost_copy(&self) -> bool {
        self.shared().lost_copy
    }

    /// Gives the file its identity and keys; nothing is written yet.
    pub(super) fn ensure_header<'a>(&self, state: &'a mut State) -> Result<&'a mut Header> {
        if state.header.is_none() {
            let mut id = [0u8; 32];
            random::fill(&mut id)?;
            let (geometry, run_id) = (self.run.geometry, self.run.id);
            let clear = Clear { geometry, kind: Kind::File, file_id: FileId(id), run_id };
            let slot_key = self.run.keys.slot_key(&clear);
            let file_key = self.run.keys.file_key(&clear, state.epoch);
            state.header = Some(Header { clear, slot_key, file_key, written: false });
        }
        state.header.as_mut().ok_or_else(|| self.damaged(Damage::Header))
    }

    /// Gives an empty file its header, so that something can be bound to its id.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and the store's.
    pub fn ensure_written_header(self: &Arc<Self>) -> Result<FileId> {
        if let Some(id) = self.file_id() {
            return Ok(id);
        }
        let mut state = self.writable()?;
        self.write_tail(&mut state)?;
        if !state.has_written_header() {
            let keep = self.what_to_keep(&state)?;
            self.write_slot(&mut state)?;
            self.restore(&mut state, keep)?;
            // Nothing, and no more than that: what comes later is noted as further than this.
            state.noted.owes = true;
        }
        self.deliver(&mut state)?;
        self.note_content(&mut state);
        self.keep_while_needed(&mut state);
        Ok(self.ensure_header(&mut state)?.clear.file_id)
    }
}

/// Whether it may be a header that is being written, or a length that is behind or ahead of it.
pub(super) fn may_settle(loaded: &Result<State>) -> bool {
    match loaded {
        Ok(state) => state.lost_copy,
        Err(Error::Damaged { damage, .. }) => {
            matches!(damage, Damage::Header | Damage::HeaderCopy | Damage::Short)
        }
        Err(_) => false,
    }
}

impl State {
    /// Of a file that stores nothing.
    fn empty(place: Option<Place>) -> Self {
        Self { place: place.unwrap_or_default(), several_links: place.is_none(), ..Self::default() }
    }
}
