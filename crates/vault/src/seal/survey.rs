//! Everything that a run holds, as the store gives it back: what a seal says, and what `verify` compares with it.
//!
//! First the tree: names, kinds, attributes, link targets. Then the content of each file. What does not
//! authenticate is noted, and the rest goes on.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_format::digests::{Kind as Digested, Line};
use runvault_format::header::Kind as Object;
use runvault_format::ids::{Digest, DirId, FileId};
use runvault_format::keys::place;
use runvault_format::manifest::{Entry, Kind, Record};
use runvault_format::name::{self, Shape};
use runvault_format::pins::{NONCE, Pinned};
use runvault_store::backend::{self, Access, Dir, File, Stat, Xattrs};
use runvault_store::names::names;

use super::read::hash;
use super::reading::{Nonces, in_order};
use crate::directory::holds_nothing;
use crate::file::{Content, FileObject, RunContext};
use crate::outcome::part_opened;
use crate::xattr::ACLS;
use crate::{Damage, Error, Result, Vault, links, record};

/// Something that does not authenticate, or that no seal can say anything of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its place in the run's directory.
    pub object: String,
    /// Its plaintext path below the run; `None` where its name does not open.
    pub path: Option<Vec<u8>>,
    /// What was found; `None`: it is missing.
    pub damage: Option<Damage>,
}

/// An entry of the manifest, and where it lies.
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// Its name as stored; empty for the top.
    pub(super) stored: Vec<u8>,
    /// A directory's id.
    pub(super) id: DirId,
    /// A directory whose names are known.
    pub(super) is_listed: bool,
    ino: u64,
}

/// A run's tree.
pub(crate) struct Survey {
    context: Arc<RunContext>,
    pub(crate) items: Vec<Item>,
    pub(crate) lines: Vec<Line>,
    pub(crate) faults: Vec<Fault>,
    /// Stored names that are not ours: no seal covers them.
    pub(crate) foreign: Vec<String>,
    /// The directory that was opened last.
    open: OpenDir,
}

type OpenDir = Option<(usize, Arc<dyn Dir>)>;

/// What is known of an entry's content, and of the nonces of its chunks, without reading it.
pub(super) type Known<'a> = &'a (dyn Fn(usize, &Stat, Nonces<'_>) -> Result<Option<Content>> + Sync);

/// What was read of a file.
struct FileContent {
    content: Content,
    /// Before it was read.
    stat: Stat,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Item {
    /// Whether it is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        self.entry.record.kind == Kind::File
    }
}

impl Survey {
    /// Walks the tree, breadth first.
    ///
    /// # Errors
    /// The store's, and what this machine lacks; damage is noted.
    pub(crate) fn walk(context: &Arc<RunContext>) -> Result<Self> {
        let mut survey = Self {
            context: context.clone(),
            items: Vec::new(),
            lines: Vec::new(),
            faults: Vec::new(),
            foreign: Vec::new(),
            open: None,
        };
        let top = context.tree.stat_self().map_err(|e| survey.failed("stat", 0, e))?;
        survey.items.push(item(Kind::Dir, &top, 0, Vec::new(), Vec::new()));
        let mut i = 0;
        while i < survey.items.len() {
            if survey.kind(i) == Some(Kind::Dir) {
                let listed = survey.list(i);
                survey.note(i, listed)?;
            }
            i += 1;
        }
        survey.link();
        Ok(survey)
    }

    /// Reads the content of every file, on all cores, but for what is `known` of it. `nonce` gets, in order, the number
    /// of the entry, and the nonce of each of its chunks in turn. Gives what is pinned of each entry; `read` is told each
    /// file.
    ///
    /// # Errors
    /// As [`Survey::walk`]; those of `known` and `nonce`.
    pub(crate) fn read(
        &mut self,
        known: Known<'_>,
        nonce: &mut dyn FnMut(usize, &[u8; NONCE]) -> Result<()>,
        read: &mut dyn FnMut(usize, &Content, &Stat),
    ) -> Result<Vec<Pinned>> {
        let files: Vec<usize> = (0..self.items.len()).filter(|i| self.is_content(*i)).collect();
        let mut found = Vec::with_capacity(files.len());
        let survey = &*self;
        in_order(&files, &|open, i, nonce| survey.content(open, i, known, nonce), nonce, &mut |i, file| {
            // What is no damage ends it at once.
            found.push(match file {
                Ok(file) => {
                    read(i, &file.content, &file.stat);
                    Ok(file)
                }
                Err(error) => Err(damage_of(error)?),
            });
            Ok(())
        })?;
        let (mut pins, mut first, mut found) =
            (Vec::with_capacity(self.items.len()), 0u64, found.into_iter());
        for i in 0..self.items.len() {
            let pinned = match self.items.get(i) {
                Some(item) if item.entry.record.object as usize != i => Pinned::NOTHING,
                Some(item) if item.entry.record.kind == Kind::Dir => {
                    Pinned { id: item.id, ..Pinned::NOTHING }
                }
                Some(item) if item.is_file() => {
                    let chunks = item.entry.record.size.div_ceil(self.context.geometry.chunk());
                    let pinned = match found.next() {
                        Some(Ok(file)) => {
                            let (id, epoch) = (file.content.id, file.content.epoch);
                            self.take(i, file);
                            Pinned { id, epoch, first, chunks }
                        }
                        Some(Err(damage)) => {
                            let (object, path) = (self.object(i), Some(self.path(i)));
                            self.faults.push(Fault { object, path, damage });
                            Pinned { first, chunks, ..Pinned::NOTHING }
                        }
                        None => Pinned::NOTHING,
                    };
                    first = first.saturating_add(chunks);
                    pinned
                }
                _ => Pinned::NOTHING,
            };
            pins.push(pinned);
        }
        self.further_names()?;
        self.repeat();
        Ok(pins)
    }

    /// A file that is read by its first name must open by the others as well.
    fn further_names(&mut self) -> Result<()> {
        let mut open = OpenDir::default();
        for i in 0..self.items.len() {
            if self.items.get(i).is_some_and(Item::is_file) && !self.is_content(i) {
                let opened = self.open_file(&mut open, i).map(drop);
                self.note(i, opened)?;
            }
        }
        Ok(())
    }

    /// The content of a file of at most `max` bytes.
    pub(crate) fn plain(&mut self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>> {
        let mut at = 0;
        for name in path.split(|c| *c == b'/') {
            let Some(record) = self.items.get(at).map(|item| &item.entry.record) else { return Ok(None) };
            let (from, n) = (record.first as usize, record.children as usize);
            let children = self.items.get(from..from.saturating_add(n)).unwrap_or_default();
            let Ok(found) = children.binary_search_by(|child| child.entry.name.as_slice().cmp(name)) else {
                return Ok(None);
            };
            at = from + found;
        }
        let Some(item) = self.items.get(at).filter(|item| item.is_file()) else { return Ok(None) };
        let (parent, stored, size) =
            (item.entry.record.parent as usize, item.stored.clone(), item.entry.record.size);
        if size > max {
            return Ok(None);
        }
        let dir = self.dir(parent)?;
        let object = self.object(at);
        let file = dir.open_file(&stored, Access::Read).map_err(|e| part_opened("open", object, e))?;
        let stat = file.stat().map_err(|e| self.failed("stat", at, e))?;
        let opened = FileObject::open(&self.context, stat.ino, file, &stat, None)?;
        let mut bytes = vec![0; size as usize];
        let n = opened.read(0, &mut bytes)?;
        bytes.truncate(n);
        Ok(Some(bytes))
    }

    /// Chunks of all files together, by their sizes.
    pub(crate) fn chunks(&self) -> u64 {
        let chunk = self.context.geometry.chunk();
        self.files().map(|record| record.size.div_ceil(chunk)).fold(0, u64::saturating_add)
    }

    /// Whether an entry is a file of so many bytes.
    pub(crate) fn is_of_size(&self, i: usize, bytes: u64) -> bool {
        self.items.get(i).is_some_and(|item| item.is_file() && item.entry.record.size == bytes)
    }

    /// Every file, once.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Record> {
        let numbered = (0u32..).zip(&self.items).map(|(i, item)| (i, &item.entry.record));
        numbered.filter(|(i, record)| record.kind == Kind::File && record.object == *i).map(|(_, r)| r)
    }

    /// The plaintext path of an entry below the run.
    pub(crate) fn path(&self, i: usize) -> Vec<u8> {
        self.way(i).iter().map(|item| item.entry.name.as_slice()).collect::<Vec<_>>().join(&b'/')
    }

    /// Its place in the run's directory.
    pub(crate) fn object(&self, i: usize) -> String {
        let way = self.way(i);
        let stored = way.iter().map(|item| String::from_utf8_lossy(&item.stored));
        std::iter::once("tree".into()).chain(stored).collect::<Vec<_>>().join("/")
    }

    /// From below the top down to an entry.
    fn way(&self, i: usize) -> Vec<&Item> {
        let (mut way, mut at) = (Vec::new(), i);
        while at != 0
            && let Some(item) = self.items.get(at)
        {
            way.push(item);
            at = item.entry.record.parent as usize;
        }
        way.reverse();
        way
    }

    fn kind(&self, i: usize) -> Option<Kind> {
        self.items.get(i).map(|item| item.entry.record.kind)
    }

    fn failed(&self, operation: &'static str, i: usize, source: std::io::Error) -> Error {
        Error::store(operation, format!("runs/{}/{}", self.context.id, self.object(i)), source)
    }

    /// Damage of an entry is noted; anything else ends the survey.
    fn note(&mut self, i: usize, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        let (object, path) = (self.object(i), Some(self.path(i)));
        self.note_at(object, path, error)
    }

    fn note_at(&mut self, object: String, path: Option<Vec<u8>>, error: Error) -> Result<()> {
        let damage = damage_of(error)?;
        self.faults.push(Fault { object, path, damage });
        Ok(())
    }

    /// The directory of an entry.
    fn dir(&mut self, i: usize) -> Result<Arc<dyn Dir>> {
        let mut open = self.open.take();
        let dir = self.dir_by(&mut open, i);
        self.open = open;
        dir
    }

    /// The directory of an entry; the one that was asked for last is kept open.
    fn dir_by(&self, open: &mut OpenDir, i: usize) -> Result<Arc<dyn Dir>> {
        if let Some((_, dir)) = open.as_ref().filter(|(open, _)| *open == i) {
            return Ok(dir.clone());
        }
        let mut dir = self.context.tree.clone();
        for item in self.way(i) {
            dir = dir.open_dir(&item.stored).map_err(|e| {
                let object = format!("runs/{}/{}", self.context.id, self.object(i));
                part_opened("open", object, e)
            })?;
        }
        *open = Some((i, dir.clone()));
        Ok(dir)
    }

    /// What one directory holds.
    fn list(&mut self, i: usize) -> Result<()> {
        let dir = self.dir(i)?;
        let id = self.id(i, &*dir)?;
        let xattrs = self.attributes(i, &*dir, Some(&id))?;
        let listed = names(&*dir).map_err(|e| self.failed("list", i, e))?;
        let object = self.object(i);
        if i > 0 {
            self.lines.push(Line { path: object.clone(), kind: Digested::Dir });
        }
        let mut children = Vec::new();
        for stored in listed {
            let child = format!("{object}/{}", String::from_utf8_lossy(&stored));
            let found = match name::shape(&stored) {
                Shape::Foreign => {
                    self.foreign.push(child);
                    continue;
                }
                Shape::Record | Shape::SideName | Shape::SideLink => {
                    Self::digest(&*dir, &stored, &child).map(|line| self.lines.extend([line]))
                }
                Shape::Short | Shape::Long => {
                    self.child(i, &*dir, &id, stored, &child).map(|found| children.extend(found))
                }
            };
            if let Err(error) = found {
                self.note_at(child, None, error)?;
            }
        }
        children.sort_by(|a: &Item, b: &Item| a.entry.name.cmp(&b.entry.name));
        let (first, n) = (self.items.len() as u32, children.len() as u32);
        if let Some(item) = self.items.get_mut(i) {
            let record = &mut item.entry.record;
            (item.id, item.is_listed, item.entry.xattrs) = (id, true, xattrs);
            (record.first, record.children) = (if n > 0 { first } else { 0 }, n);
        }
        self.items.extend(children);
        Ok(())
    }

    /// The id of a directory, whose record must name its place.
    fn id(&mut self, i: usize, dir: &dyn Dir) -> Result<DirId> {
        let Some(item) = self.items.get(i).filter(|_| i > 0) else { return Ok(DirId::ROOT) };
        let parent = self.items.get(item.entry.record.parent as usize).map_or(DirId::ROOT, |p| p.id);
        let here = place(&parent, Object::Directory, &item.entry.name);
        match record::look(&self.context, dir, Some(here))? {
            Some((_, true)) => Err(Error::damaged("", Damage::HeaderCopy)),
            Some((id, false)) => Ok(id),
            None if holds_nothing(dir).map_err(|e| self.failed("list", i, e))? => Ok(DirId::ROOT),
            None => Err(Error::damaged("", Damage::DirectoryRecord)),
        }
    }

    /// An entry of a directory; `None` where it has gone meanwhile.
    fn child(
        &mut self,
        parent: usize,
        dir: &dyn Dir,
        id: &DirId,
        stored: Vec<u8>,
        object: &str,
    ) -> Result<Option<Item>> {
        let fail = |what| move |e| Error::store(what, object.to_owned(), e);
        let key = self.context.keys.name_key();
        let side = match name::shape(&stored) {
            Shape::Long => {
                Vault::read_side(dir, &name::side_name_of(&stored)).map_err(fail("read the side file of"))?
            }
            _ => None,
        };
        let text = name::decrypt_name(key, id, &stored, side.as_deref())
            .map_err(|_| Error::damaged(object, Damage::Name))?;
        let stat = match dir.stat(&stored) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            stat => stat.map_err(fail("stat"))?,
        };
        let kind = kind_of(stat.kind);
        let mut made = item(kind, &stat, parent, text, stored);
        let digested = match kind {
            Kind::File => {
                let size = self.context.geometry.plain_len(stat.size);
                made.entry.record.size = size.map_err(|_| Error::damaged(object, Damage::Short))?;
                None
            }
            Kind::Dir => None,
            Kind::Symlink => {
                let (text, side) = links::read(dir, &made.stored).map_err(fail("read the link"))?;
                let target = name::decrypt_link(key, &text, side.as_deref())
                    .map_err(|_| Error::damaged(object, Damage::Name))?;
                made.entry.record.size = target.len() as u64;
                made.entry.target = target;
                Some(Digested::Link(Digest(runvault_crypto::digest::sha256(&[&text]))))
            }
            Kind::Fifo => Some(Digested::Fifo),
            Kind::Socket => Some(Digested::Socket),
            Kind::CharDevice => Some(Digested::Char),
            Kind::BlockDevice => Some(Digested::Block),
        };
        self.lines.extend(digested.map(|kind| Line { path: object.to_owned(), kind }));
        Ok(Some(made))
    }

    /// The line of a stored file that holds no content of the run: records, side files.
    fn digest(dir: &dyn Dir, stored: &[u8], object: &str) -> Result<Line> {
        let hash = hash(dir, stored).map_err(|e| part_opened("read", object.to_owned(), e))?;
        Ok(Line { path: object.to_owned(), kind: Digested::File(hash) })
    }

    /// Attributes that are ours, and ACLs, which are the store's.
    fn attributes(
        &self,
        i: usize,
        subject: &dyn Xattrs,
        id: Option<&FileId>,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let names = match subject.xattrs() {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            names => names.map_err(|e| self.failed("list the attributes of", i, e))?,
        };
        let key = self.context.keys.name_key();
        let mut found = Vec::new();
        for stored in names {
            let acl = ACLS.contains(&stored.as_slice());
            if !acl && !stored.starts_with(name::XATTR_PREFIX) {
                continue;
            }
            let value = subject.xattr(&stored).map_err(|e| self.failed("read an attribute of", i, e))?;
            let opened = match id {
                _ if acl => Ok((stored, value)),
                None => continue,
                Some(id) => name::decrypt_xattr_name(key, id, &stored)
                    .and_then(|name| Ok((name.clone(), name::decrypt_xattr_value(key, id, &name, &value)?))),
            };
            found.push(opened.map_err(|_| Error::damaged("", Damage::Name))?);
        }
        found.sort();
        Ok(found)
    }

    /// Whether an entry is a file, under the first of its names.
    fn is_content(&self, i: usize) -> bool {
        self.items.get(i).is_some_and(|item| item.is_file() && item.entry.record.object as usize == i)
    }

    /// Reads one file.
    fn content(
        &self,
        open: &mut OpenDir,
        i: usize,
        known: Known<'_>,
        nonce: Nonces<'_>,
    ) -> Result<FileContent> {
        let (file, stat, opened) = self.open_file(open, i)?;
        if opened.has_lost_copy() {
            return Err(Error::damaged(self.object(i), Damage::HeaderCopy));
        }
        let content = match known(i, &stat, nonce)? {
            Some(content) => content,
            None => opened.read_back(nonce)?,
        };
        let item = self.item(i)?;
        if content.size != item.entry.record.size || stat.ino != item.ino {
            return Err(self.changed(i));
        }
        let xattrs = self.attributes(i, &*file, (content.id != FileId::ROOT).then_some(&content.id))?;
        Ok(FileContent { content, stat, xattrs })
    }

    fn item(&self, i: usize) -> Result<&Item> {
        self.items.get(i).ok_or_else(|| self.changed(i))
    }

    fn changed(&self, i: usize) -> Error {
        Error::damaged(self.object(i), Damage::Run("changed while it was read".to_owned()))
    }

    /// Opens a file by one of its names, which its header must know.
    fn open_file(&self, open: &mut OpenDir, i: usize) -> Result<(Arc<dyn File>, Stat, Arc<FileObject>)> {
        let item = self.item(i)?;
        let parent = item.entry.record.parent as usize;
        let parent_id = self.items.get(parent).map_or(DirId::ROOT, |p| p.id);
        let here = place(&parent_id, Object::File, &item.entry.name);
        let dir = self.dir_by(open, parent)?;
        let file = dir.open_file(&item.stored, Access::Read);
        let file = file.map_err(|e| part_opened("open", self.object(i), e))?;
        let stat = file.stat().map_err(|e| self.failed("stat", i, e))?;
        let opened = FileObject::open(&self.context, item.ino, file.clone(), &stat, Some(here))?;
        Ok((file, stat, opened))
    }

    /// What was read goes into the entry, and among the lines.
    fn take(&mut self, i: usize, FileContent { content, xattrs, .. }: FileContent) {
        self.lines.push(Line { path: self.object(i), kind: Digested::File(content.stored) });
        if let Some(item) = self.items.get_mut(i) {
            item.entry.record.sha256 = content.sha256.0;
            item.entry.xattrs = xattrs;
        }
    }

    /// Names of one object are told by its number, and counted.
    fn link(&mut self) {
        let mut first: HashMap<u64, (u32, u32)> = HashMap::new();
        for (i, item) in (0u32..).zip(&self.items).filter(|(_, item)| item.entry.record.kind != Kind::Dir) {
            first.entry(item.ino).or_insert((i, 0)).1 += 1;
        }
        let below: Vec<u32> = self
            .items
            .iter()
            .map(|item| {
                let (from, n) = (item.entry.record.first as usize, item.entry.record.children as usize);
                let children = self.items.get(from..from.saturating_add(n)).unwrap_or_default();
                children.iter().filter(|child| child.entry.record.kind == Kind::Dir).count() as u32
            })
            .collect();
        for ((i, item), dirs) in (0u32..).zip(&mut self.items).zip(below) {
            let record = &mut item.entry.record;
            (record.object, record.nlink) = match first.get(&item.ino) {
                Some((object, names)) if record.kind != Kind::Dir => (*object, *names),
                _ => (i, 2 + dirs),
            };
        }
    }

    /// Further names say of the object what the first says, and have a line of their own.
    fn repeat(&mut self) {
        let hashes: HashMap<String, Digested> =
            self.lines.iter().map(|line| (line.path.clone(), line.kind.clone())).collect();
        for i in 0..self.items.len() {
            let Some(object) = self.items.get(i).map(|item| item.entry.record.object as usize) else {
                continue;
            };
            if object == i {
                continue;
            }
            let Some(first) = self.items.get(object).map(|item| item.entry.record.clone()) else { continue };
            if let Some(item) = self.items.get_mut(i) {
                let parent = item.entry.record.parent;
                item.entry.record = Record { parent, ..first.clone() };
            }
            if first.kind == Kind::File
                && let Some(kind) = hashes.get(&self.object(object)).cloned()
            {
                self.lines.push(Line { path: self.object(i), kind });
            }
        }
    }
}

/// Damage is noted; `None`: gone since it was listed, whoever took it. Anything else is an error.
pub(super) fn damage_of(error: Error) -> Result<Option<Damage>> {
    match error {
        Error::Damaged { damage, .. } => Ok(Some(damage)),
        Error::Store { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        other => Err(other),
    }
}

fn item(kind: Kind, stat: &Stat, parent: usize, name: Vec<u8>, stored: Vec<u8>) -> Item {
    let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let record = Record {
        kind,
        mode: (stat.mode & 0o7777) as u16,
        uid: stat.uid,
        gid: stat.gid,
        nlink: stat.nlink,
        object: 0,
        parent: parent as u32,
        first: 0,
        children: 0,
        rdev: if device { stat.rdev } else { 0 },
        size: 0,
        mtime: stat.mtime.sec,
        mtime_ns: stat.mtime.nsec,
        name: 0,
        target: 0,
        xattrs: 0,
        heap: 0,
        sha256: [0; 32],
    };
    let entry = Entry { record, name, target: Vec::new(), xattrs: Vec::new() };
    Item { entry, stored, id: DirId::ROOT, is_listed: false, ino: stat.ino }
}

pub(crate) fn kind_of(kind: backend::Kind) -> Kind {
    match kind {
        backend::Kind::File => Kind::File,
        backend::Kind::Dir => Kind::Dir,
        backend::Kind::Symlink => Kind::Symlink,
        backend::Kind::Fifo => Kind::Fifo,
        backend::Kind::Socket => Kind::Socket,
        backend::Kind::CharDevice => Kind::CharDevice,
        backend::Kind::BlockDevice => Kind::BlockDevice,
    }
}
