//! Everything that the key opens is read and authenticated: what is damaged is named.

mod around;
mod unproven;
mod way;

use std::collections::HashSet;
use std::sync::Arc;

use runvault_crypto::aead::Engine;
use runvault_crypto::digest::ct_eq;
use runvault_format::header::Kind as Object;
use runvault_format::ids::{DirId, FileId, RunId, SessionId};
use runvault_format::keys::{RunKeys, place};
use runvault_format::name::{self, Shape};
use runvault_store::backend::{Access, Dir, Entry, Kind, Stat, Xattrs};

use crate::authority::Authority;
use crate::directory::holds_nothing;
use crate::file::{FileObject, RunContext};
use crate::outcome::part_opened;
use crate::{Damage, Error, Result, Vault, links, record, recovery, runs};

pub use unproven::Unproven;
use way::{Both, Way};

/// Plaintext bytes read at once.
const PIECE: usize = 1 << 20;

/// What a check has met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckEvent {
    /// A run begins.
    Run {
        /// Its id.
        run: RunId,
        /// Its plaintext name; `None` where no key that is held opens it: it is left out.
        name: Option<Vec<u8>>,
    },
    /// A file was read, good or bad.
    File {
        /// Plaintext path from the mount's root.
        path: Vec<u8>,
        /// Plaintext bytes that were read: short holes between them count, long ones do not; 0 where
        /// another of its names came first.
        bytes: u64,
    },
    /// Something is tampered with or damaged.
    Damage {
        /// Its place in the store.
        object: String,
        /// Its plaintext path, where that is known.
        path: Option<Vec<u8>>,
        /// What was found.
        what: String,
    },
    /// This user may not read it; nothing is known of it.
    Unread {
        /// Its place in the store.
        object: String,
        /// Its plaintext path, where that is known.
        path: Option<Vec<u8>>,
        /// What the store answered.
        what: String,
    },
    /// A newer program made this run: it is left out.
    Newer {
        /// Its place in the store.
        object: String,
        /// Which version or suite.
        what: String,
    },
    /// A name in the store that is not ours; mounts hide it or do not look at it.
    Foreign {
        /// Its place in the store.
        object: String,
    },
    /// The side file of a name that is gone, or a file that was not put in place: a crash may leave one.
    Leftover {
        /// Its place in the store.
        object: String,
    },
}

/// What a check has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CheckSummary {
    pub runs: u64,
    /// Runs that no key held here opens.
    pub closed_runs: u64,
    /// Runs in a version or suite that this program does not know.
    pub newer_runs: u64,
    pub directories: u64,
    pub files: u64,
    /// Plaintext bytes that were read; short holes between them count.
    pub bytes: u64,
    /// Records in journals that authenticate.
    pub journal_records: u64,
    /// Records behind one that does not authenticate: no mount replays them.
    pub journal_records_behind: u64,
    pub foreign_names: u64,
    /// Side files whose name is gone, and files that were not put in place.
    pub leftovers: u64,
    pub unproven: Unproven,
    pub damages: u64,
    /// Objects that this user may not read.
    pub unread: u64,
}

/// Checks everything that `authority` opens; writes nothing. `held` gives the session that this machine's
/// state folder names for a run that it holds.
///
/// # Errors
/// The store's, for `runs/` itself, and a shortage of this machine, which says nothing about the store.
/// Everything else is reported, and the rest goes on.
pub fn check(
    root: &Arc<dyn Dir>,
    authority: &Arc<dyn Authority>,
    held: &dyn Fn(&RunId) -> Option<SessionId>,
    report: &mut dyn FnMut(CheckEvent),
) -> Result<CheckSummary> {
    let listed = runs::list_all(root)?;
    let mut checker = Checker {
        root,
        authority: &**authority,
        held,
        report,
        summary: CheckSummary::default(),
        short: None,
    };
    for name in listed.foreign {
        checker.foreign(format!("runs/{}", String::from_utf8_lossy(&name)));
    }
    checker.retired();
    for run in listed.runs {
        if checker.short.is_some() {
            break;
        }
        if let Err(error) = checker.run(run)
            && !runs::is_gone(root, &run)
        {
            let object = error.object().map_or_else(|| format!("runs/{run}"), ToOwned::to_owned);
            checker.damage(object, None, error);
        }
    }
    checker.short.map_or(Ok(checker.summary), Err)
}

struct Checker<'a> {
    root: &'a Arc<dyn Dir>,
    authority: &'a dyn Authority,
    held: &'a dyn Fn(&RunId) -> Option<SessionId>,
    report: &'a mut dyn FnMut(CheckEvent),
    summary: CheckSummary,
    /// What this machine or user lacked: the check ends there.
    short: Option<Error>,
}

/// What the files of one run have in common.
struct Walk {
    context: Arc<RunContext>,
    /// Inodes with several names that were read already.
    read: HashSet<u64>,
    way: Way,
}

/// The directory in hand.
struct Level {
    dir: Arc<dyn Dir>,
    id: DirId,
    path: Vec<u8>,
    object: String,
}

impl Checker<'_> {
    fn damage(&mut self, object: String, path: Option<&[u8]>, error: Error) {
        let path = path.map(<[u8]>::to_vec);
        if error.is_forbidden() {
            self.summary.unread += 1;
            (self.report)(CheckEvent::Unread { object, path, what: error.to_string() });
            return;
        }
        if error.is_of_this_machine() {
            self.short.get_or_insert(error);
            return;
        }
        if let Error::Newer { object, source } = error {
            self.summary.newer_runs += 1;
            (self.report)(CheckEvent::Newer { object, what: source.to_string() });
            return;
        }
        self.summary.damages += 1;
        let (object, what) = match error {
            Error::Damaged { damage, .. } => (object, damage.to_string()),
            other => (object, other.to_string()),
        };
        (self.report)(CheckEvent::Damage { object, path, what });
    }

    fn foreign(&mut self, object: String) {
        self.summary.foreign_names += 1;
        (self.report)(CheckEvent::Foreign { object });
    }

    fn run(&mut self, run: RunId) -> Result<()> {
        let dir = runs::run_dir(self.root, &run)?;
        self.around_run(&run, &dir);
        let verified = runs::read_descriptor(self.root, &run, self.authority)?;
        let mut envelopes = runs::envelopes(self.root, &run, self.authority)?;
        let opened = envelopes.open(&run, self.authority);
        for error in envelopes.refused {
            let object = error.object().unwrap_or_default().to_owned();
            self.damage(object, None, error);
        }
        let Some(key) = opened? else {
            self.summary.closed_runs += 1;
            (self.report)(CheckEvent::Run { run, name: None });
            return Ok(());
        };
        let keys = RunKeys::derive(&key, &run, Engine::fastest());
        if !ct_eq(&keys.commitment(), &verified.descriptor.commitment.0) {
            let what = Damage::Run("the key is not the one run.json names".into());
            return Err(Error::damaged(format!("runs/{run}"), what));
        }
        let name = match crate::run::read_name(&*dir, &run, &keys) {
            Ok(name) => name,
            Err(error) => {
                self.damage(format!("runs/{run}/name"), None, error);
                run.to_string().into_bytes()
            }
        };
        self.summary.runs += 1;
        (self.report)(CheckEvent::Run { run, name: Some(name.clone()) });
        let tree = dir.open_dir(b"tree").map_err(|e| part_opened("open", format!("runs/{run}/tree"), e))?;
        let context = RunContext::reader(run, keys, verified.descriptor.geometry, tree.clone());
        match recovery::count(&context, &dir, (self.held)(&run)) {
            Ok(counted) => {
                self.summary.journal_records += counted.records;
                self.summary.journal_records_behind += counted.behind;
            }
            Err(error) => self.damage(format!("runs/{run}/journal"), None, error),
        }
        self.tree(context, tree, name);
        Ok(())
    }

    /// Depth first.
    fn tree(&mut self, context: Arc<RunContext>, tree: Arc<dyn Dir>, path: Vec<u8>) {
        let object = format!("runs/{}/tree", context.id);
        let top = Level { dir: tree, id: DirId::ROOT, path, object };
        let mut walk = Walk { context, read: HashSet::new(), way: Way::new(&top) };
        self.level(&mut walk, &top);
        while self.short.is_none()
            && let Some(name) = walk.way.next()
        {
            let (path, object) = (walk.way.path_of(&name), walk.way.object_of(&name));
            match enter(&walk.context, &mut walk.way, &name, &object) {
                Ok((dir, id, lost_copy)) => {
                    self.summary.unproven.empty_directories += u64::from(id == DirId::ROOT);
                    if lost_copy {
                        let error = Error::damaged(object.clone(), Damage::HeaderCopy);
                        self.damage(object.clone(), Some(&path), error);
                    }
                    let level = Level { dir, id, path, object };
                    walk.way.enter(name, &level);
                    self.level(&mut walk, &level);
                }
                Err(error) => self.damage(object, Some(&path), error),
            }
        }
    }

    /// Everything of one directory but what lies in its subdirectories.
    fn level(&mut self, walk: &mut Walk, level: &Level) {
        self.summary.directories += 1;
        let mut entries = Vec::new();
        let listed = level.dir.entries(0, &mut |entry| {
            entries.push(entry);
            true
        });
        if let Err(e) = listed {
            let error = Error::store("list", level.object.clone(), e);
            self.damage(level.object.clone(), Some(&level.path), error);
        }
        if let Err(error) = attributes(&walk.context, &*level.dir, &level.id, &level.object) {
            self.damage(level.object.clone(), Some(&level.path), error);
        }
        let needed = needed_sides(&*level.dir, &entries);
        for entry in entries {
            let object = format!("{}/{}", level.object, String::from_utf8_lossy(&entry.name));
            match name::shape(&entry.name) {
                Shape::Record => {}
                Shape::Foreign => self.foreign(object),
                Shape::SideName | Shape::SideLink => {
                    if !needed.contains(&entry.name) && level.dir.stat(&entry.name).is_ok() {
                        self.summary.leftovers += 1;
                        (self.report)(CheckEvent::Leftover { object });
                    }
                }
                Shape::Short | Shape::Long => self.entry(walk, level, &entry, object),
            }
        }
    }

    fn entry(&mut self, walk: &mut Walk, level: &Level, entry: &Entry, object: String) {
        let key = walk.context.keys.name_key();
        let side = match side(&*level.dir, &entry.name, &object) {
            Ok(side) => side,
            Err(error) => return self.damage(object, None, error),
        };
        let Ok(text) = name::decrypt_name(key, &level.id, &entry.name, side.as_deref()) else {
            self.damage(object.clone(), None, Error::damaged(object, Damage::Name));
            return;
        };
        let path = [&level.path, &b"/"[..], &text].concat();
        let checked = match level.dir.stat(&entry.name) {
            // Removed meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return,
            Err(e) => Err(Error::store("stat", object.clone(), e)),
            Ok(stat) => match stat.kind {
                Kind::Dir => return walk.way.note((entry.name.clone(), text)),
                Kind::File => self.file(walk, level, entry, &stat, &text, (&object, &path)),
                kind => {
                    self.summary.unproven.met(kind);
                    if kind == Kind::Symlink { link(walk, &*level.dir, &entry.name) } else { Ok(()) }
                }
            },
        };
        if let Err(error) = checked {
            self.damage(object, Some(&path), error);
        }
    }

    fn file(
        &mut self,
        walk: &mut Walk,
        level: &Level,
        entry: &Entry,
        stat: &Stat,
        text: &[u8],
        (object, path): (&str, &[u8]),
    ) -> Result<()> {
        let place = place(&level.id, Object::File, text);
        let stored = level
            .dir
            .open_file(&entry.name, Access::Read)
            .map_err(|e| part_opened("open", object.to_owned(), e))?;
        let now = stored.stat().map_err(|e| Error::store("stat", object.to_owned(), e))?;
        let file = FileObject::open(&walk.context, stat.ino, stored, &now, Some(place))?;
        let mut bytes = 0;
        self.summary.files += 1;
        self.summary.unproven.empty_files += u64::from(now.size == 0);
        if stat.nlink < 2 || walk.read.insert(stat.ino) {
            if file.has_lost_copy() {
                self.damage(object.to_owned(), Some(path), Error::damaged(object, Damage::HeaderCopy));
            }
            bytes = self.chunks(walk, &file, object, path)?;
            if let Some(id) = file.file_id() {
                attributes(&walk.context, &**file.stored(), &id, object)?;
            }
        }
        (self.report)(CheckEvent::File { path: path.to_vec(), bytes });
        Ok(())
    }

    /// Reads all of a file's data; gives the bytes that were read.
    fn chunks(&mut self, walk: &Walk, file: &FileObject, object: &str, path: &[u8]) -> Result<u64> {
        let size = file.size();
        let before = self.summary.bytes;
        let chunk = walk.context.geometry.chunk();
        let mut buf = vec![0u8; PIECE];
        let mut at = 0u64;
        while at < size {
            // What was never written needs no reading.
            match file.seek(at, true) {
                Ok(data) => at = data,
                Err(_) => break,
            }
            match file.read(at, &mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    self.summary.bytes += n as u64;
                    at += n as u64;
                }
                Err(error @ Error::Damaged { damage: Damage::Chunk(i), .. }) => {
                    self.damage(object.to_owned(), Some(path), error);
                    at = i.saturating_add(1).saturating_mul(chunk).max(at + 1);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(self.summary.bytes - before)
    }
}

/// Opens a subdirectory of the one in hand; its record must name its place. With its id, and whether one of the
/// record's two copies is damaged.
fn enter(
    context: &RunContext,
    way: &mut Way,
    (stored, text): &Both,
    object: &str,
) -> Result<(Arc<dyn Dir>, DirId, bool)> {
    let fail = |e| part_opened("open", object.to_owned(), e);
    let (parent, parent_id) = way.dir().map_err(fail)?;
    let dir = parent.open_dir(stored).map_err(fail)?;
    let place = place(&parent_id, Object::Directory, text);
    if let Some((id, lost_copy)) = record::look(context, &*dir, Some(place))? {
        return Ok((dir, id, lost_copy));
    }
    match holds_nothing(&*dir) {
        Ok(true) => Ok((dir, DirId::ROOT, false)),
        Ok(false) => Err(Error::damaged(object, Damage::DirectoryRecord)),
        Err(e) => Err(Error::store("list", object, e)),
    }
}

/// What the side file of a long name holds; `None` where there is none that can be read.
fn side(dir: &dyn Dir, stored: &[u8], object: &str) -> Result<Option<Vec<u8>>> {
    let read = Vault::read_side(dir, &name::side_name_of(stored));
    match read.map_err(|e| Error::store("read the side file of", object, e)) {
        Err(error) if error.is_of_this_machine() => Err(error),
        read => Ok(read.ok().flatten()),
    }
}

/// The side files that the names and links of a directory need.
fn needed_sides(dir: &dyn Dir, entries: &[Entry]) -> HashSet<Vec<u8>> {
    let of = |shape| entries.iter().filter(move |entry| name::shape(&entry.name) == shape);
    let mut needed: HashSet<_> = of(Shape::Long).map(|entry| name::side_name_of(&entry.name)).collect();
    if of(Shape::SideLink).next().is_some() {
        let links = of(Shape::Short).chain(of(Shape::Long));
        let links = links.filter(|entry| entry.kind.is_none_or(|kind| kind == Kind::Symlink));
        needed.extend(links.filter_map(|e| Some(name::side_link_of(&e.name, &dir.read_link(&e.name).ok()?))));
    }
    needed
}

fn link(walk: &Walk, dir: &dyn Dir, stored: &[u8]) -> Result<()> {
    let object = || format!("runs/{}/tree", walk.context.id);
    let (text, side) = links::read(dir, stored).map_err(|e| Error::store("read the link", object(), e))?;
    let key = walk.context.keys.name_key();
    let target = name::decrypt_link(key, &text, side.as_deref());
    target.map(drop).map_err(|_| Error::damaged(object(), Damage::Name))
}

/// Every attribute that claims to be ours opens.
fn attributes(context: &RunContext, subject: &dyn Xattrs, id: &FileId, object: &str) -> Result<()> {
    let key = context.keys.name_key();
    let names = match subject.xattrs() {
        Ok(names) => names,
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(e) => return Err(Error::store("list the attributes of", object.to_owned(), e)),
    };
    for stored in names.iter().filter(|n| n.starts_with(name::XATTR_PREFIX)) {
        let value =
            subject.xattr(stored).map_err(|e| Error::store("read an attribute of", object.to_owned(), e))?;
        name::decrypt_xattr_name(key, id, stored)
            .and_then(|name| name::decrypt_xattr_value(key, id, &name, &value))
            .map_err(|_| Error::damaged(object.to_owned(), Damage::Name))?;
    }
    Ok(())
}
