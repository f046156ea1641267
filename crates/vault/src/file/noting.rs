//! What a file tells the ledger: which chunks the store got, by their nonces.
//!
//! The sum of what is known of each whole chunk ([`ledger::term`]) goes on from chunk to chunk; one that is written over
//! leaves it by the nonce that it was read with, where a part of it stays, so that what the store showed then must be what was
//! written; else by the one that stands in the store. A partial last chunk is not in it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use runvault_format::ledger::{self, Content, Group, How};
use runvault_format::pins::{HOLE, NONCE};
use runvault_format::size::OVERHEAD;

use super::state::State;
use super::{FileObject, RunContext};
use crate::Result;
use crate::ledger::LONG_AGO;

/// More whole chunks than this are not read one by one when they go: the file's content is not compared then.
const READ: u64 = 4096;

/// What the store got of a file since the ledger was told.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    sum: u128,
    /// The sum is of all there is.
    whole: bool,
    /// Plaintext bytes that the stored length stands for.
    end: u64,
    /// Chunks that are stored in part: the last one, and one that was the last while its further bytes wait.
    partial: Vec<u64>,
    /// Nonces of chunks that were read to be written in part.
    loaded: BTreeMap<u64, [u8; NONCE]>,
    /// Nonce of the partial last chunk, where it changed.
    last: Option<[u8; NONCE]>,
    /// Nobody can say any more.
    lost: bool,
    /// Where the ledger has its first note of it; `None`: it has none.
    known: Option<u64>,
    /// The ledger was told that it changes.
    changing: bool,
    /// There is something to tell.
    pub(super) owes: bool,
}

impl Noted {
    /// Of a file that stores nothing.
    pub(super) fn nothing() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// Of a file that was found.
    fn found(size: u64, chunk: u64) -> Self {
        let partial = if size.is_multiple_of(chunk) { Vec::new() } else { vec![size / chunk] };
        Self { end: size, partial, known: Some(LONG_AGO), ..Self::default() }
    }
}

impl FileObject {
    /// What names of the file lead to, in the ledger; zeros where it has no id.
    pub(crate) fn ledger_group(&self) -> Group {
        group(&self.shared())
    }

    /// A file that was found begins to be noted; one that stores nothing gets its id now, for its name's note.
    pub(super) fn begin_noting(&self, state: &mut State) -> Result<()> {
        if self.run.ledger().is_none() {
            return Ok(());
        }
        state.noted = match state.header {
            None => Noted::nothing(),
            Some(_) => Noted::found(state.size, self.run.geometry.chunk()),
        };
        self.ensure_header(state).map(drop)
    }

    /// A chunk was read, of which a part will be written over.
    pub(super) fn chunk_loaded(&self, state: &mut State, i: u64, nonce: Option<[u8; NONCE]>) {
        let room = (state.noted.loaded.len() as u64) < READ;
        if let Some(nonce) = nonce.filter(|_| room && self.run.ledger().is_some()) {
            state.noted.loaded.insert(i, nonce);
        }
    }

    /// Before chunks are written in place, or become holes.
    pub(super) fn before_chunks(&self, state: &mut State, chunks: Range<u64>) {
        self.is_changing(state);
        let whole = chunks.start..chunks.end.min(state.noted.end / self.run.geometry.chunk());
        if !whole.is_empty() && self.run.ledger().is_some() {
            self.forget_chunks(state, whole);
        }
    }

    /// Chunks, one behind the other, are in place as these bytes.
    pub(super) fn chunks_written(&self, state: &mut State, first: u64, stored: &[u8]) {
        let Some(ledger) = self.run.ledger() else { return };
        let geometry = &self.run.geometry;
        for (i, bytes) in (first..).zip(stored.chunks(geometry.stored_chunk() as usize)) {
            let Some(nonce) = bytes.first_chunk::<NONCE>() else { return };
            let whole = bytes.len() as u64 == geometry.stored_chunk();
            let noted = &mut state.noted;
            noted.loaded.remove(&i);
            if whole {
                noted.sum = noted.sum.wrapping_add(ledger::term(&ledger.key, i, nonce));
                noted.partial.retain(|partial| *partial != i);
            } else {
                noted.last = Some(*nonce);
                if !noted.partial.contains(&i) {
                    noted.partial.push(i);
                }
            }
            noted.end = noted.end.max(i * geometry.chunk() + (bytes.len() as u64).saturating_sub(OVERHEAD));
            noted.owes = true;
        }
    }

    /// What was written last may be there or not.
    pub(super) fn chunks_failed(state: &mut State) {
        (state.noted.lost, state.noted.owes) = (true, true);
    }

    /// The stored length has grown with holes to `size` plaintext bytes.
    pub(super) fn holes_added(&self, state: &mut State, size: u64, holes: &Range<u64>) {
        let noted = &mut state.noted;
        noted.end = size;
        noted.owes = true;
        if !holes.is_empty() {
            noted.last = Some(HOLE);
        }
    }

    /// Before the stored length is cut to `size` plaintext bytes, and holes beyond are forgotten. What is left of the
    /// last chunk is written afterwards.
    pub(super) fn before_cut(&self, state: &mut State, size: u64) {
        let chunk = self.run.geometry.chunk();
        if self.run.ledger().is_none() || size >= state.noted.end {
            return;
        }
        self.before_chunks(state, size / chunk..u64::MAX);
        let noted = &mut state.noted;
        noted.end = size;
        noted.partial.retain(|partial| *partial < size / chunk);
        noted.last = Some(HOLE);
        noted.owes = true;
    }

    /// Before it is cut to nothing: nothing of what was counts any more.
    pub(super) fn before_nothing(&self, state: &mut State) {
        self.is_changing(state);
        let Noted { known, changing, .. } = state.noted;
        state.noted = Noted { known, changing, owes: true, ..Noted::nothing() };
    }

    /// Before what the store has of the file changes, its length included.
    pub(super) fn is_changing(&self, state: &mut State) {
        let Some(ledger) = self.run.ledger() else { return };
        if let Some(noted) = state.noted.known.filter(|_| !state.noted.changing) {
            ledger.changing(group(state), noted);
            state.noted.changing = true;
        }
    }

    /// Whole chunks leave the sum, where they are in it.
    fn forget_chunks(&self, state: &mut State, chunks: Range<u64>) {
        let Some(ledger) = self.run.ledger() else { return };
        state.noted.owes = true;
        if chunks.end - chunks.start > READ || state.noted.lost {
            state.noted.lost = true;
            return;
        }
        for i in chunks {
            let examined = self.examine(state, i);
            if examined.is_ok() && (state.is_bare_hole(i) || state.noted.partial.contains(&i)) {
                continue;
            }
            let loaded = state.noted.loaded.remove(&i);
            let nonce = examined.ok().and_then(|()| loaded.or_else(|| self.stored_nonce(i)));
            let Some(nonce) = nonce else {
                log::warn!(
                    "{}: what chunk {i} was is not known to the ledger: its seal will not compare this file's content",
                    self.run.object(self.ino)
                );
                state.noted.lost = true;
                return;
            };
            state.noted.sum = state.noted.sum.wrapping_sub(ledger::term(&ledger.key, i, &nonce));
        }
    }

    fn stored_nonce(&self, i: u64) -> Option<[u8; NONCE]> {
        let mut nonce = [0; NONCE];
        let got = self.file.read_at(&mut nonce, self.run.geometry.chunk_offset(i));
        got.is_ok_and(|got| got == nonce.len()).then_some(nonce)
    }

    /// Tells the ledger what the store has, where nothing waits in memory.
    pub(super) fn note_content(&self, state: &mut State) {
        note_content(&self.run, state);
    }

    /// Whether [`FileObject::note_content`] would say something.
    pub(super) fn owes_note(&self) -> bool {
        self.shared().noted.owes && self.run.ledger().is_some()
    }

    /// [`FileObject::note_content`] of a file that is not locked.
    pub(super) fn tell_ledger(self: &Arc<Self>) {
        if self.owes_note() {
            self.note_content(&mut self.exclusive());
        }
    }

    /// The session ends with bytes that wait for good: what the store has of such a file is not known.
    pub(super) fn tell_ledger_at_last(self: &Arc<Self>) {
        if self.owes_note() {
            let mut state = self.exclusive();
            state.noted.lost |= state.is_waiting();
            self.note_content(&mut state);
        }
    }
}

/// The object of a file goes: what it could not tell before is not known.
pub(super) fn end_noting(run: &RunContext, state: &mut State) {
    // A rename brings in place what waited, and then lets go of the file.
    note_content(run, state);
    let Some(ledger) = run.ledger() else { return };
    if state.noted.owes || state.noted.changing {
        let content = Content { how: How::Unknown, sum: 0, size: 0, last: None };
        ledger.content(group(state), content);
    }
    if state.noted.changing {
        ledger.changed(group(state));
    }
}

fn note_content(run: &RunContext, state: &mut State) {
    let Some(ledger) = run.ledger() else { return };
    if !state.noted.owes || state.detached || (state.is_waiting() && !state.poisoned && !state.noted.lost) {
        return;
    }
    let noted = &mut state.noted;
    noted.lost |= state.poisoned || noted.end != state.size;
    let how = match noted.lost {
        true => How::Unknown,
        false if noted.whole => How::Whole,
        false => How::Further,
    };
    let (sum, size, last) = (noted.sum, noted.end, noted.last);
    let changing = std::mem::take(&mut noted.changing);
    (noted.sum, noted.whole, noted.last, noted.owes) = (0, false, None, false);
    let group = group(state);
    let at = ledger.content(group, Content { how, sum, size, last });
    state.noted.known.get_or_insert(at);
    if changing {
        ledger.changed(group);
    }
}

fn group(state: &State) -> Group {
    state.header.as_ref().map_or([0; 16], |header| ledger::group(&header.clear.file_id))
}
