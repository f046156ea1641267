//! A ledger that is read: what the store must hold.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use runvault_format::ids::{DirId, RunId};
use runvault_format::keys::LedgerKey;
use runvault_format::ledger::{self, ALL, Content, FRAME, Group, How, MAGIC, Named, Note, Owner, Value};
use runvault_format::manifest;
use runvault_format::pins::NONCE;
use runvault_store::backend::{Access, Dir, File};

use super::removed::Removed;

/// What a ledger says, all of it.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// By directory and stored name.
    pub(crate) names: HashMap<DirId, HashMap<Vec<u8>, Name>>,
    /// By file id.
    pub(crate) contents: HashMap<Group, Known>,
    /// Of files and directories.
    pub(crate) owners: HashMap<Group, Owner>,
    /// By their keyed names; `None`: it was removed.
    pub(crate) attributes: HashMap<Group, HashMap<Group, Option<Group>>>,
    /// How many sessions had ended uncleanly when an object was noted first.
    objects: HashMap<Group, u32>,
    /// How many have.
    ends: u32,
}

/// What a name must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Never unknown.
    pub(crate) what: Named,
    /// A session that ended uncleanly noted it, the how manieth of those.
    pub(crate) loose: Option<u32>,
}

/// What a file must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) sum: u128,
    pub(crate) size: u64,
    /// Nonce of the partial last chunk, where it is known.
    pub(crate) last: Option<[u8; NONCE]>,
}

/// Reads the ledger of a run whose last session has ended; `None` where there is none that is whole.
///
/// # Errors
/// The state folder's.
pub(crate) fn read(dir: &dyn Dir, run: &RunId, key: &LedgerKey) -> io::Result<Option<Expected>> {
    let file = match dir.open_file(run.to_string().as_bytes(), Access::Read) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        other => other?,
    };
    let (mut replay, mut frames) = (Replay::default(), Frames::of(&*file, key)?);
    while let Some((offset, notes)) = frames.next()? {
        notes.into_iter().for_each(|note| replay.take(offset, note));
    }
    let expected = replay.finish();
    if expected.is_none() {
        log::warn!("run {run}: the end of its ledger is missing, so that its seal compares nothing");
    }
    Ok(expected)
}

/// Where the whole frames of a ledger end, and what they say is gone.
pub(super) fn end_of(file: &dyn File, key: &LedgerKey) -> io::Result<(u64, Removed)> {
    let (mut frames, mut removed) = (Frames::of(file, key)?, Removed::default());
    while let Some((_, notes)) = frames.next()? {
        for note in notes {
            if let Note::Name { dir, stored, what: Named::Nothing } = note {
                removed.add(&dir, &stored);
            }
        }
    }
    Ok((frames.at, removed))
}

struct Frames<'a> {
    file: &'a dyn File,
    key: &'a LedgerKey,
    at: u64,
}

impl<'a> Frames<'a> {
    fn of(file: &'a dyn File, key: &'a LedgerKey) -> io::Result<Self> {
        let mut magic = *MAGIC;
        let got = file.read_at(&mut magic, 0)?;
        if got < magic.len() || magic != *MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a ledger"));
        }
        Ok(Self { file, key, at: magic.len() as u64 })
    }

    /// The next frame, with where it lies; `None` where no whole one follows.
    fn next(&mut self) -> io::Result<Option<(u64, Vec<Note>)>> {
        let (at, mut head) = (self.at, [0; FRAME]);
        if self.file.read_at(&mut head, at)? < FRAME {
            return Ok(None);
        }
        let Ok(n) = ledger::notes_len(&head) else { return Ok(None) };
        let mut notes = vec![0; n];
        if self.file.read_at(&mut notes, at + FRAME as u64)? < n {
            return Ok(None);
        }
        let Ok(notes) = ledger::open(self.key, at, &head, &notes) else { return Ok(None) };
        self.at = at + (FRAME + n) as u64;
        Ok(Some((at, notes)))
    }
}

/// Notes in their order. What no sync is known to cover waits until it is known how its session ended.
#[derive(Default)]
struct Replay {
    expected: Expected,
    changing: HashSet<Group>,
    waiting: VecDeque<(u64, Note)>,
    begun: bool,
    ended: bool,
}

impl Replay {
    fn take(&mut self, offset: u64, note: Note) {
        match note {
            Note::Begin if self.begun && !self.ended => self.end_uncleanly(),
            Note::Begin => self.forget_changing(),
            Note::End => {
                self.apply_before(u64::MAX);
                self.forget_changing();
            }
            Note::Durable(position) => self.apply_before(position),
            _ => self.waiting.push_back((offset, note.clone())),
        }
        self.begun = true;
        // What changes behind the end began before it.
        self.ended = note == Note::End || (self.ended && matches!(note, Note::Changing(_)));
    }

    fn apply_before(&mut self, position: u64) {
        while let Some((_, note)) = self.waiting.pop_front_if(|(offset, _)| *offset < position) {
            self.expected.apply(note, &mut self.changing);
        }
    }

    fn end_uncleanly(&mut self) {
        self.forget_changing();
        self.expected.loosen();
    }

    /// What waits says no more than what may have been changed.
    fn forget_changing(&mut self) {
        // What is noted of an empty file that was opened lies under the id of before.
        let mut before: HashMap<Group, Group> = HashMap::new();
        for (_, note) in self.waiting.drain(..) {
            match note {
                Note::Changing(group) => {
                    self.changing.extend(before.get(&group));
                    self.changing.insert(group);
                }
                Note::Reopened { dir, stored, object } => {
                    let name = self.expected.names.get(&dir).and_then(|names| names.get(&stored));
                    if let Some(Named::Object(_, id)) = name.map(|name| name.what) {
                        before.insert(object, id);
                    }
                }
                _ => {}
            }
        }
        self.expected.forget(&std::mem::take(&mut self.changing));
    }

    /// `None` where the last session has not ended: something is missing.
    fn finish(mut self) -> Option<Expected> {
        self.forget_changing();
        self.ended.then_some(self.expected)
    }
}

impl Expected {
    fn apply(&mut self, note: Note, changing: &mut HashSet<Group>) {
        match note {
            Note::Name { dir, stored, what: Named::Unknown } => {
                self.names.get_mut(&dir).and_then(|names| names.remove(&stored));
            }
            Note::Name { dir, stored, what } => {
                if let Named::Object(_, object) = what {
                    self.objects.entry(object).or_insert(self.ends);
                }
                self.names.entry(dir).or_default().insert(stored, Name { what, loose: None });
            }
            Note::Reopened { dir, stored, object } => self.reopened(dir, stored, object),
            Note::Content { file, content } => match after(self.contents.get(&file), &content) {
                Some(known) => _ = self.contents.insert(file, known),
                None => _ = self.contents.remove(&file),
            },
            Note::Owner { of, owner } if owner == Owner::default() => _ = self.owners.remove(&of),
            Note::Owner { of, owner } => {
                let known = self.owners.entry(of).or_default();
                known.mode = owner.mode.or(known.mode);
                known.uid = owner.uid.or(known.uid);
                known.gid = owner.gid.or(known.gid);
            }
            Note::Attribute { of, name, value } => {
                let known = self.attributes.entry(of).or_default();
                match value {
                    Value::Unknown => _ = known.remove(&name),
                    Value::Nothing => _ = known.insert(name, None),
                    Value::Is(value) => _ = known.insert(name, Some(value)),
                }
            }
            Note::Changing(group) => _ = changing.insert(group),
            Note::Settled(group) => _ = changing.remove(&group),
            Note::Begin | Note::End | Note::Durable(_) => {}
        }
    }

    /// A file that has content keeps its header when it is cut: one that is found empty was emptied by someone else. Of
    /// one that never had any, all that was noted under the id before goes on.
    fn reopened(&mut self, dir: DirId, stored: Vec<u8>, object: Group) {
        let names = self.names.entry(dir).or_default();
        if let Some(Named::Object(_, old)) = names.get(&stored).map(|name| name.what) {
            if self.contents.get(&old).is_some_and(|content| content.size > 0) {
                return;
            }
            let (owner, attributes) = (self.owners.get(&old).copied(), self.attributes.get(&old).cloned());
            owner.map(|owner| self.owners.insert(object, owner));
            attributes.map(|attributes| self.attributes.insert(object, attributes));
        }
        names.insert(stored, Name { what: Named::Object(manifest::Kind::File as u8, object), loose: None });
        self.objects.entry(object).or_insert(self.ends);
    }

    fn forget(&mut self, groups: &HashSet<Group>) {
        if groups.contains(&ALL) {
            // When an object was noted first stays true, whatever became of it.
            let objects = std::mem::take(&mut self.objects);
            *self = Self { objects, ends: self.ends, ..Self::default() };
        } else if !groups.is_empty() {
            self.names.retain(|dir, _| !groups.contains(&ledger::group(dir)));
            self.contents.retain(|file, _| !groups.contains(file));
            self.owners.retain(|of, _| !groups.contains(of));
            self.attributes.retain(|of, _| !groups.contains(of));
        }
    }

    fn loosen(&mut self) {
        self.ends += 1;
        let names = self.names.values_mut().flat_map(HashMap::values_mut);
        names.for_each(|name| _ = name.loose.get_or_insert(self.ends));
    }

    /// Whether an empty file may have got this id after its name was noted, with nobody left to note it.
    pub(crate) fn may_be_new(&self, name: Option<u32>, object: &Group) -> bool {
        name.is_some_and(|end| self.objects.get(object).is_none_or(|noted| *noted >= end))
    }
}

/// What is known of a file after a note.
fn after(before: Option<&Known>, content: &Content) -> Option<Known> {
    let Content { how, sum, size, last } = *content;
    match (how, before) {
        (How::Unknown, _) | (How::Further, None) => None,
        (How::Whole, _) => Some(Known { sum, size, last }),
        (How::Further, Some(before)) => {
            let last = last.or(before.last.filter(|_| before.size == size));
            Some(Known { sum: before.sum.wrapping_add(sum), size, last })
        }
    }
}
