//! What the store gives back, beside what the ledger says was written: an earlier state of an object authenticates too.

use std::collections::{HashMap, HashSet};

use runvault_format::ids::{DirId, FileId};
use runvault_format::keys::LedgerKey;
use runvault_format::ledger::{self, Group, Named};
use runvault_format::manifest::{Entry, Kind, Record};
use runvault_format::name;
use runvault_format::pins::{HOLE, NONCE, Pinned};

use super::survey::{Fault, Item, Survey};
use crate::Damage;
use crate::file::RunContext;
use crate::ledger::{Expected, Known, Name};
use crate::xattr::ACLS;

/// A run's tree and its ledger.
pub(super) struct Comparison {
    key: LedgerKey,
    chunk: u64,
    expected: Expected,
    /// Names that the ledger has.
    pub(super) noted: u64,
    /// By their entries, in order.
    names: Vec<(usize, FileName)>,
    /// By the first entry of each file.
    reads: HashMap<usize, Read>,
    /// First entries of files, and directories, with their ids.
    objects: Vec<(usize, Group)>,
}

/// A name of a file that the ledger has.
struct FileName {
    /// Of the file that it leads to; zeros: any.
    object: Group,
    /// See [`Name::loose`].
    loose: Option<u32>,
}

/// A file that the ledger knows, or may know, and what was read of it.
struct Read {
    /// `None`: the ledger has no name of it, and its id is known once it was read.
    object: Option<Group>,
    size: u64,
    chunks: u64,
    sum: u128,
    last: [u8; NONCE],
}

impl Read {
    fn of(object: Option<Group>, record: &Record) -> Self {
        Self { object, size: record.size, chunks: 0, sum: 0, last: HOLE }
    }
}

impl Comparison {
    /// Compares names, kinds, links, and which directory stands where; notes what differs.
    pub(super) fn of(expected: Expected, context: &RunContext, survey: &mut Survey) -> Self {
        let chunk = context.geometry.chunk();
        let (key, objects) = (context.keys.ledger_key(), vec![(0, ledger::group(&DirId::ROOT))]);
        let (names, reads) = (Vec::new(), HashMap::new());
        let mut made = Self { key, chunk, expected, noted: 0, names, reads, objects };
        let parents = made.parents();
        for i in 1..survey.items.len() {
            let Some((item, parent)) = survey.with_parent(i) else { continue };
            let Some(name) = made.expected.names.get_mut(&parent.id).and_then(|n| n.remove(&item.stored))
            else {
                if item.is_file() && !made.expected.contents.is_empty() {
                    let record = &item.entry.record;
                    made.reads.entry(record.object as usize).or_insert(Read::of(None, record));
                }
                continue;
            };
            made.noted += 1;
            if let Named::Object(_, object) = name.what
                && object != Group::default()
                && matches!(item.entry.record.kind, Kind::File | Kind::Dir)
                && item.entry.record.object as usize == i
            {
                made.objects.push((i, object));
            }
            if let Some(what) = differs(context, item, name) {
                survey.note_difference(i, what);
            } else if let Named::Object(_, object) = name.what
                && item.is_file()
            {
                made.names.push((i, FileName { object, loose: name.loose }));
                made.expect(object, &item.entry.record);
            }
        }
        let faults = made.missing(context, survey, &parents);
        survey.faults.extend(faults);
        made
    }

    /// The next nonce of an entry's chunks.
    pub(super) fn nonce(&mut self, entry: usize, nonce: &[u8; NONCE]) {
        let Some(read) = self.reads.get_mut(&entry) else { return };
        let i = read.chunks;
        (read.chunks, read.last) = (i + 1, *nonce);
        if *nonce != HOLE && (i + 1) * self.chunk <= read.size {
            read.sum = read.sum.wrapping_add(ledger::term(&self.key, i, nonce));
        }
    }

    /// Compares what was read of the files; notes what differs.
    pub(super) fn contents(&self, survey: &mut Survey, pins: &[Pinned]) {
        let damaged: HashSet<String> = survey.faults.iter().map(|fault| fault.object.clone()).collect();
        let pinned_of =
            |survey: &Survey, first| pins.get(first).filter(|_| !damaged.contains(&survey.object(first)));
        for (i, name) in &self.names {
            let Some(first) = survey.items.get(*i).map(|item| item.entry.record.object as usize) else {
                continue;
            };
            let Some(pinned) = pinned_of(survey, first) else { continue };
            let read = self.reads.get(&first).filter(|read| read.object == Some(name.object));
            if let Some(what) = self.content_differs(name, read, &pinned.id) {
                survey.note_difference(*i, what);
            }
        }
        let mut unnamed: Vec<_> = self.reads.iter().filter(|(_, read)| read.object.is_none()).collect();
        unnamed.sort_by_key(|(first, _)| **first);
        for (first, read) in unnamed {
            let Some(pinned) = pinned_of(survey, *first) else { continue };
            let known = self.expected.contents.get(&ledger::group(&pinned.id));
            if let Some(what) = known.and_then(|known| self.state_differs(read, known)) {
                survey.note_difference(*first, what);
            }
        }
        for (i, of) in &self.objects {
            let entry = survey.items.get(*i).map(|item| &item.entry);
            let Some(what) = entry.and_then(|entry| self.attributes_differ(of, entry)) else { continue };
            if !damaged.contains(&survey.object(*i)) {
                survey.note_difference(*i, what);
            }
        }
    }

    /// Mode, owner and extended attributes of a file or directory.
    fn attributes_differ(&self, of: &Group, entry: &Entry) -> Option<&'static str> {
        let (record, owner) = (&entry.record, self.expected.owners.get(of).copied().unwrap_or_default());
        // A store may take set-id bits away at a write.
        let same = |mode: u16| mode & 0o1777 == record.mode & 0o1777 && record.mode & !mode == 0;
        if owner.mode.is_some_and(|mode| !same(mode)) {
            return Some("another mode");
        }
        if owner.uid.is_some_and(|uid| uid != record.uid) || owner.gid.is_some_and(|gid| gid != record.gid) {
            return Some("another owner");
        }
        let ours = entry.xattrs.iter().filter(|(name, _)| !ACLS.contains(&name.as_slice()));
        let there: HashMap<Group, Group> = ours
            .map(|(name, value)| {
                (ledger::attribute(&self.key, name, b""), ledger::attribute(&self.key, name, value))
            })
            .collect();
        let mut known = self.expected.attributes.get(of).into_iter().flatten();
        known.any(|(name, value)| there.get(name) != value.as_ref()).then_some("another extended attribute")
    }

    /// `id`: of the file that is there, zeros where nothing of it is stored.
    fn content_differs(&self, name: &FileName, read: Option<&Read>, id: &FileId) -> Option<&'static str> {
        let known = read.and_then(|_| self.expected.contents.get(&name.object));
        if *id == FileId::ROOT {
            return known.is_some_and(|known| known.size > 0).then_some("an empty file in its place");
        }
        let there = ledger::group(id);
        if name.object != Group::default() && name.object != there {
            // An empty file gets its id with its first byte, and nobody may have had the time to note it.
            let is_right = read.is_none() && self.expected.may_be_new(name.loose, &there);
            return (!is_right).then_some("another file in its place");
        }
        self.state_differs(read?, known?)
    }

    fn state_differs(&self, read: &Read, known: &Known) -> Option<&'static str> {
        if read.size != known.size {
            return Some(if read.size < known.size { "cut short" } else { "longer than it was left" });
        }
        let last = known.last.filter(|_| !known.size.is_multiple_of(self.chunk));
        let same = read.sum == known.sum && last.is_none_or(|last| last == read.last);
        (!same).then_some("an earlier state of it, or of a part of it")
    }

    /// The content of this file will be compared, if it is known.
    fn expect(&mut self, object: Group, record: &Record) {
        if !self.expected.contents.contains_key(&object) {
            return;
        }
        let read = self.reads.entry(record.object as usize).or_insert(Read::of(None, record));
        // Another name of it may be none of the ledger's.
        read.object.get_or_insert(object);
    }

    /// Where each directory stands that the ledger knows.
    fn parents(&self) -> HashMap<Group, (DirId, Vec<u8>)> {
        let names = self.expected.names.iter().flat_map(|(dir, names)| names.iter().map(move |n| (dir, n)));
        let dirs = names.filter_map(|(dir, (stored, name))| match name.what {
            Named::Object(kind, object) if kind == Kind::Dir as u8 => Some((object, (*dir, stored.clone()))),
            _ => None,
        });
        dirs.collect()
    }

    /// What no entry of the tree answers to. Of a directory that is missing, not what was in it.
    fn missing(
        &self,
        context: &RunContext,
        survey: &Survey,
        parents: &HashMap<Group, (DirId, Vec<u8>)>,
    ) -> Vec<Fault> {
        let listed: HashSet<DirId> =
            survey.items.iter().filter(|item| item.is_listed).map(|d| d.id).collect();
        let mut faults = Vec::new();
        for (dir, names) in &self.expected.names {
            let there = names.iter().filter(|(_, name)| matches!(name.what, Named::Object(..)));
            for (stored, _) in there {
                // What was in a directory that is gone is named by that one's own name, in one that is there.
                if listed.contains(dir) {
                    faults.push(missing(context, &way(dir, parents), dir, stored));
                }
            }
        }
        faults.sort_by(|a, b| a.object.cmp(&b.object));
        faults
    }
}

/// From the top down to a directory: in which directory, under which stored name. Bounded: a ledger has no circles.
fn way(dir: &DirId, parents: &HashMap<Group, (DirId, Vec<u8>)>) -> Vec<(DirId, Vec<u8>)> {
    const DEEPEST: usize = 4096;
    let up = |dir: &DirId| parents.get(&ledger::group(dir)).cloned();
    let mut way: Vec<_> = std::iter::successors(up(dir), |(dir, _)| up(dir)).take(DEEPEST).collect();
    way.reverse();
    way
}

fn missing(context: &RunContext, way: &[(DirId, Vec<u8>)], dir: &DirId, stored: &[u8]) -> Fault {
    let all = || way.iter().map(|(dir, stored)| (dir, stored.as_slice())).chain([(dir, stored)]);
    let object = all()
        .fold("tree".to_owned(), |path, (_, stored)| format!("{path}/{}", String::from_utf8_lossy(stored)));
    // The side files of long names may have gone as well.
    let open = |(dir, stored)| name::decrypt_name(context.keys.name_key(), dir, stored, None).ok();
    let path: Option<Vec<_>> = all().map(open).collect();
    Fault { object, path: path.map(|names| names.join(&b'/')), damage: None }
}

/// Whether something else stands there than the ledger says; of files all but their content.
fn differs(context: &RunContext, item: &Item, name: Name) -> Option<&'static str> {
    let Named::Object(kind, object) = name.what else { return Some("it was removed, and is there again") };
    let found = item.entry.record.kind;
    if kind != found as u8 {
        return Some("something of another kind in its place");
    }
    let there = match found {
        Kind::Dir if !item.is_listed => return None,
        Kind::Dir => ledger::group(&item.id),
        Kind::Symlink => {
            let link = name::encrypt_link(context.keys.name_key(), &item.entry.target).ok()?;
            ledger::link_object(&link.text)
        }
        Kind::File => return None,
        _ => u128::from(item.entry.record.rdev).to_le_bytes(),
    };
    (object != Group::default() && there != object).then_some(match found {
        Kind::Dir => "another directory in its place",
        Kind::Symlink => "another link in its place",
        _ => "another device in its place",
    })
}

impl Survey {
    fn with_parent(&self, i: usize) -> Option<(&Item, &Item)> {
        let item = self.items.get(i)?;
        Some((item, self.items.get(item.entry.record.parent as usize)?))
    }

    fn note_difference(&mut self, i: usize, what: &'static str) {
        let (object, path) = (self.object(i), Some(self.path(i)));
        self.faults.push(Fault { object, path, damage: Some(Damage::NotAsWritten(what)) });
    }
}
