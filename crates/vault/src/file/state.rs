//! What the engine knows of one file in memory; the names are those of docs/architecture.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use runvault_crypto::aead::AeadKey;
use runvault_format::header::Clear;
use runvault_format::keys::Place;
use runvault_store::backend::Time;

use super::extents::Extents;
use super::noting::Noted;

/// Header identity and the keys that follow from it.
pub(crate) struct Header {
    pub(crate) clear: Clear,
    pub(crate) slot_key: AeadKey,
    pub(crate) file_key: AeadKey,
    /// Some copy of it has been written (or was found).
    pub(crate) written: bool,
}

/// The partial last chunk while it waits to be written.
pub(crate) struct Tail {
    pub(crate) chunk: u64,
    pub(crate) plain: Vec<u8>,
}

/// State of one regular file; see the module docs for the invariants.
#[derive(Default)]
pub(crate) struct State {
    /// `None`: nothing was ever written, the stored file is empty.
    pub(crate) header: Option<Header>,
    /// S: the size that the application sees.
    pub(crate) size: u64,
    /// D: bytes below it, outside holes, are durable and are never overwritten in place unjournaled.
    pub(crate) durable: u64,
    pub(crate) epoch: u32,
    pub(crate) seq: u64,
    /// The header copy that is known durable: never written over.
    pub(crate) safe: Option<u8>,
    /// The other copy is damaged.
    pub(crate) lost_copy: bool,
    /// A copy written since the last sync.
    pub(crate) unsynced_slot: Option<u8>,
    /// Checkpoints that had begun when it was written.
    pub(crate) slot_round: u64,
    /// Size in the newest slot written.
    pub(crate) slot_size: u64,
    /// The newest slot written does not tell what is now: size by direct writes, holes, place.
    pub(crate) stale: bool,
    /// Chunks that read as zeros and have no stored bytes.
    pub(crate) holes: Extents,
    /// Holes that got data since the last sync; still listed if a sync acknowledged the hole.
    pub(crate) filled: Extents,
    /// Holes that a completed sync has acknowledged.
    pub(crate) acknowledged: Extents,
    /// Holes that the newest slot written lists. Damage to data there would read as zeros.
    pub(crate) listed: Extents,
    /// An acknowledged hole got data: a slot may leave it out after the next sync, and must then.
    pub(crate) fills_acknowledged: bool,
    /// Listed holes of a file found on disk that nobody has looked into: what authenticates is data.
    pub(crate) unexamined: Extents,
    /// Something was written that only a sync of the file makes durable: no record has it.
    pub(crate) direct: bool,
    /// Written to since the last fdatasync.
    pub(crate) unsynced: bool,
    /// Written to since the store's last word that it has arrived, where that comes late.
    pub(crate) undelivered: bool,
    /// A record is in place, but not known durable there.
    pub(crate) live: bool,
    /// Number of the file's last journal record in this session.
    pub(crate) last_record: u64,
    /// All its records up to this number are in place and durable.
    pub(crate) jskip: u64,
    /// Chunk writes under this epoch.
    pub(crate) writes: u64,
    /// Chunk writes since the last slot.
    pub(crate) unrecorded: u32,
    pub(crate) place: Place,
    pub(crate) previous: Place,
    pub(crate) several_links: bool,
    /// Durable chunks changed in memory (plaintext): neither in the journal nor in place.
    pub(crate) overlay: BTreeMap<u64, Vec<u8>>,
    /// Chunks of the overlay whose record is durable while they may be torn in place.
    pub(crate) unplaced: BTreeSet<u64>,
    pub(crate) tail: Option<Tail>,
    /// Since when overlay or tail hold something.
    pub(crate) waiting_since: Option<Instant>,
    /// A close came while records were unsynced: the timer writes the slot that it owes.
    pub(crate) slot_due: bool,
    /// The application's mtime, while the stored one may differ.
    pub(crate) mtime: Option<Time>,
    /// A write or sync failed; refused until the last close.
    pub(crate) poisoned: bool,
    /// The last name is gone: nothing that comes now needs to survive a crash. What a sync acknowledged does, as
    /// long as the name may come back with one.
    pub(crate) detached: bool,
    /// What the ledger was not told.
    pub(crate) noted: Noted,
    /// The run holds a reference, so that nothing is forgotten.
    pub(crate) kept_alive: bool,
}

impl State {
    /// A hole that still is one: no data was written into it.
    pub(crate) fn is_bare_hole(&self, chunk: u64) -> bool {
        self.holes.contains(chunk) && !self.filled.contains(chunk)
    }

    /// Holes that still are.
    pub(crate) fn bare_holes(&self) -> Extents {
        let mut bare = self.holes.clone();
        bare.subtract(&self.filled);
        bare
    }

    /// What a slot must list: an acknowledged hole leaves one sync after its data.
    pub(crate) fn listed_holes(&self) -> Extents {
        let mut early = self.filled.clone();
        early.subtract(&self.acknowledged);
        let mut listed = self.holes.clone();
        listed.subtract(&early);
        listed
    }

    /// Whether the stored file begins with a header.
    pub(crate) fn has_written_header(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.written)
    }

    /// These two names are the only ones that it may be reached by.
    pub(crate) fn bind(&mut self, place: Place, previous: Place) {
        self.several_links = false;
        (self.place, self.previous) = (place, previous);
    }

    /// Data went out into chunk `i`.
    pub(crate) fn fill_hole(&mut self, i: u64) {
        if !self.holes.contains(i) {
            return;
        }
        self.filled.insert(i..i + 1);
        if self.acknowledged.contains(i) {
            self.fills_acknowledged = true;
        } else {
            self.stale |= self.listed.contains(i);
        }
    }

    pub(crate) fn forget_holes_from(&mut self, chunk: u64) {
        for set in [&mut self.holes, &mut self.filled, &mut self.acknowledged, &mut self.unexamined] {
            set.truncate(chunk);
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.tail.is_some() || !self.overlay.is_empty()
    }

    /// A slot would say something new now.
    pub(crate) fn wants_slot(&self) -> bool {
        self.stale || self.size != self.slot_size
    }

    /// It must not be forgotten while no handle is open.
    pub(crate) fn must_stay(&self) -> bool {
        if self.poisoned || self.detached {
            return !self.unplaced.is_empty();
        }
        let owes_slot = (self.stale || self.fills_acknowledged) && !self.detached;
        self.is_waiting() || self.live || self.slot_due || owes_slot
    }
}
