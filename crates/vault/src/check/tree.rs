//! The way through a run's tree: directories, names, links, attributes.

use std::collections::HashSet;
use std::sync::Arc;

use runvault_format::header::Kind as Object;
use runvault_format::ids::{DirId, FileId};
use runvault_format::keys::place;
use runvault_format::name::{self, Shape};
use runvault_store::backend::{Dir, Entry, Kind, Xattrs};

use super::way::{Both, Way};
use super::{CheckEvent, Checker};
use crate::directory::holds_nothing;
use crate::file::RunContext;
use crate::outcome::{exists, part_opened};
use crate::{Damage, Error, Result, Vault, links, record};

/// What the files of one run have in common.
pub(super) struct Walk {
    pub(super) context: Arc<RunContext>,
    /// Inodes with several names that were read already.
    pub(super) read: HashSet<u64>,
    way: Way,
}

/// The directory in hand.
pub(super) struct Level {
    pub(super) dir: Arc<dyn Dir>,
    pub(super) id: DirId,
    pub(super) path: Vec<u8>,
    pub(super) object: String,
}

impl Checker<'_> {
    /// Depth first.
    pub(super) fn tree(&mut self, context: Arc<RunContext>, tree: Arc<dyn Dir>, path: Vec<u8>) {
        let object = format!("runs/{}/tree", context.id);
        let top = Level { dir: tree, id: DirId::ROOT, path, object };
        let mut walk = Walk { context, read: HashSet::new(), way: Way::new(&top) };
        self.level(&mut walk, &top);
        while self.short.is_none()
            && let Some(name) = walk.way.next()
        {
            let (path, object) = (walk.way.path_of(&name), walk.way.object_of(&name));
            let mut entered = enter(&walk.context, &mut walk.way, &name, &object);
            while entered.is_err() && !walk.way.has_lost(&name) && self.looks_again() {
                entered = enter(&walk.context, &mut walk.way, &name, &object);
            }
            match entered {
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
                Err(_) if walk.way.has_lost(&name) => {}
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
        let listed = listed.map_err(|e| Error::store("list", level.object.clone(), e));
        let attributes = attributes(&walk.context, &*level.dir, &level.id, &level.object);
        for error in [listed.err(), attributes.err()].into_iter().flatten() {
            if !is_removed(&*level.dir) {
                self.damage(level.object.clone(), Some(&level.path), error);
            }
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
                Shape::Short | Shape::Long => {
                    let mut wrong = self.entry(walk, level, &entry, &object);
                    while wrong.is_some() && !is_gone(&*level.dir, &entry.name) && self.looks_again() {
                        wrong = self.entry(walk, level, &entry, &object);
                    }
                    if let Some((path, error)) = wrong.filter(|_| !is_gone(&*level.dir, &entry.name)) {
                        self.damage(object, path.as_deref(), error);
                    }
                }
            }
        }
    }

    /// What is wrong with it, and its path where that is known.
    fn entry(
        &mut self,
        walk: &mut Walk,
        level: &Level,
        entry: &Entry,
        object: &str,
    ) -> Option<(Option<Vec<u8>>, Error)> {
        let key = walk.context.keys.name_key();
        let side = match side(&*level.dir, &entry.name, object) {
            Ok(side) => side,
            Err(error) => return Some((None, error)),
        };
        let Ok(text) = name::decrypt_name(key, &level.id, &entry.name, side.as_deref()) else {
            return Some((None, Error::damaged(object, Damage::Name)));
        };
        let path = [&level.path, &b"/"[..], &text].concat();
        let checked = match level.dir.stat(&entry.name) {
            Err(e) => Err(Error::store("stat", object, e)),
            Ok(stat) => match stat.kind {
                Kind::Dir => {
                    walk.way.note((entry.name.clone(), text));
                    return None;
                }
                Kind::File => self.file(walk, level, entry, &stat, &text, (object, &path)),
                Kind::Symlink => link(walk, &*level.dir, &entry.name),
                _ => Ok(()),
            }
            .inspect(|()| self.summary.unproven.met(stat.kind)),
        };
        checked.err().map(|error| (Some(path), error))
    }
}

/// It was removed, or renamed, since it was listed.
pub(super) fn is_gone(dir: &dyn Dir, name: &[u8]) -> bool {
    matches!(exists(dir, name), Ok(false))
}

/// It was removed since it was opened.
fn is_removed(dir: &dyn Dir) -> bool {
    match dir.stat_self() {
        Ok(stat) => stat.nlink == 0,
        Err(e) => matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)),
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
pub(super) fn attributes(
    context: &RunContext,
    subject: &dyn Xattrs,
    id: &FileId,
    object: &str,
) -> Result<()> {
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
