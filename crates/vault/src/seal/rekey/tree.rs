//! The tree of the run that is to be: directories, links, attributes, and where each file comes to lie.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use runvault_crypto::random;
use runvault_format::header::Kind as Object;
use runvault_format::ids::{DirId, FileId};
use runvault_format::keys::{Place, place};
use runvault_format::manifest::{Entry, Kind, Manifest, Record};
use runvault_format::name::{self, RECORD};
use runvault_format::state_slot::SEVERAL_LINKS;
use runvault_store::backend::{self, Access, Dir, File, Rename, SetTime, Stat, Time, Xattrs};

use super::super::sealed_file::Stands;
use crate::file::RunContext;
use crate::lease::{self, Holding};
use crate::outcome::{exists, part_opened};
use crate::removal::remove_all;
use crate::xattr::ACLS;
use crate::{Error, Result, record, runs};

/// Until it has all that it is to have.
const MODE: u32 = 0o600;
/// A directory that others need not look into yet.
const DIR_MODE: u32 = 0o700;

/// A directory that was opened last.
pub(super) type OpenDir = Option<(u32, Arc<dyn Dir>)>;

pub(super) struct Tree {
    context: Arc<RunContext>,
    pub(super) manifest: Manifest,
    partial: Arc<dyn Dir>,
    /// Names of objects that have several.
    links: HashMap<u32, Vec<u32>>,
}

impl Tree {
    pub(super) fn new(context: Arc<RunContext>, manifest: Manifest, partial: Arc<dyn Dir>) -> Self {
        let mut links: HashMap<u32, Vec<u32>> = HashMap::new();
        for (i, entry) in (0..).zip(&manifest.entries) {
            if entry.record.kind != Kind::Dir && entry.record.nlink > 1 {
                links.entry(entry.record.object).or_default().push(i);
            }
        }
        Self { context, manifest, partial, links }
    }

    /// Files, each once.
    pub(super) fn files(&self) -> impl Iterator<Item = u32> + '_ {
        let numbered = (0..).zip(&self.manifest.entries);
        numbered.filter(|(i, e)| e.record.kind == Kind::File && e.record.object == *i).map(|(i, _)| i)
    }

    pub(super) fn entry(&self, i: u32) -> Result<&Entry> {
        let none = runvault_format::Error::Manifest("number");
        self.manifest.entries.get(i as usize).ok_or(Error::Format(none))
    }

    pub(super) fn record(&self, i: u32) -> Result<&Record> {
        self.entry(i).map(|entry| &entry.record)
    }

    fn id(&self, i: u32) -> DirId {
        if i == 0 { DirId::ROOT } else { self.context.keys.directory_id(i) }
    }

    fn stored(&self, i: u32) -> Result<name::Stored> {
        let entry = self.entry(i)?;
        Ok(name::encrypt_name(self.context.keys.name_key(), &self.id(entry.record.parent), &entry.name)?)
    }

    /// How messages name an entry.
    pub(super) fn object(&self, i: u32) -> String {
        let shown = self.stored(i).map_or_else(|_| String::new(), |stored| super::text(&stored.text));
        format!("runs/{}/tree/.../{shown}", runs::coming_place(&self.context.id))
    }

    pub(super) fn failed(&self, operation: &'static str, i: u32, source: std::io::Error) -> Error {
        Error::store(operation, self.object(i), source)
    }

    /// The directory of an entry; the one that was asked for last is kept.
    pub(super) fn dir(&self, open: &mut OpenDir, i: u32) -> Result<Arc<dyn Dir>> {
        if let Some((_, dir)) = open.as_ref().filter(|(known, _)| *known == i) {
            return Ok(dir.clone());
        }
        let (mut way, mut at) = (Vec::new(), i);
        while at != 0 {
            way.push(at);
            at = self.record(at)?.parent;
        }
        let mut dir = self.context.tree.clone();
        for at in way.iter().rev() {
            dir = dir
                .open_dir(&self.stored(*at)?.text)
                .map_err(|e| part_opened("open", self.object(*at), e))?;
        }
        *open = Some((i, dir.clone()));
        Ok(dir)
    }

    /// Every directory with its record, and what is neither a file nor a further name of anything. Parents come before
    /// their children.
    pub(super) fn make_directories(&self) -> Result<()> {
        let mut open = None;
        for (i, entry) in (0..).zip(&self.manifest.entries).skip(1) {
            match entry.record.kind {
                Kind::Dir => self.make_directory(&mut open, i)?,
                Kind::File => {}
                _ if entry.record.object != i => {}
                kind => self.make_node(&mut open, i, kind)?,
            }
        }
        Ok(())
    }

    fn make_directory(&self, open: &mut OpenDir, i: u32) -> Result<()> {
        let (entry, stored) = (self.entry(i)?, self.stored(i)?);
        let parent = self.dir(open, entry.record.parent)?;
        self.put_side(&*parent, &stored, i)?;
        match parent.create_dir(&stored.text, DIR_MODE) {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => return Err(self.failed("make", i, e)),
            _ => {}
        }
        let dir = parent.open_dir(&stored.text).map_err(|e| part_opened("open", self.object(i), e))?;
        let here = place(&self.id(entry.record.parent), Object::Directory, &entry.name);
        match record::look(&self.context, &*dir, Some(here)) {
            Ok(Some((id, false))) if id == self.id(i) => Ok(()),
            Ok(_) | Err(Error::Damaged { .. }) => {
                let bytes = record::bytes(&self.context, self.id(i), here)?;
                self.put(&*dir, RECORD, &bytes, record::MODE).map_err(|e| self.failed("make", i, e))
            }
            Err(error) => Err(error),
        }
    }

    fn make_node(&self, open: &mut OpenDir, i: u32, kind: Kind) -> Result<()> {
        let (entry, stored) = (self.entry(i)?, self.stored(i)?);
        let parent = self.dir(open, entry.record.parent)?;
        self.put_side(&*parent, &stored, i)?;
        let made = match kind {
            Kind::Symlink => {
                let text = name::encrypt_link(self.context.keys.name_key(), &entry.target)?;
                if let Some(side) = &text.side {
                    let side_name = name::side_link_of(&stored.text, &text.text);
                    self.put(&*parent, &side_name, side, record::MODE)
                        .map_err(|e| self.failed("make", i, e))?;
                }
                parent.create_symlink(&stored.text, &text.text)
            }
            Kind::Fifo => parent.create_node(&stored.text, backend::Kind::Fifo, MODE, 0),
            Kind::Socket => parent.create_node(&stored.text, backend::Kind::Socket, MODE, 0),
            Kind::CharDevice => {
                parent.create_node(&stored.text, backend::Kind::CharDevice, MODE, entry.record.rdev)
            }
            Kind::BlockDevice => {
                parent.create_node(&stored.text, backend::Kind::BlockDevice, MODE, entry.record.rdev)
            }
            Kind::File | Kind::Dir => Ok(()),
        };
        match made {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => Err(self.failed("make", i, e)),
            _ => Ok(()),
        }
    }

    fn put_side(&self, dir: &dyn Dir, stored: &name::Stored, i: u32) -> Result<()> {
        let Some(side) = &stored.side else { return Ok(()) };
        let name = name::side_name_of(&stored.text);
        self.put(dir, &name, side, record::MODE).map_err(|e| self.failed("write a side file of", i, e))
    }

    /// A small file, whole, unless one is there: what is there and is another is seen when it is read back.
    fn put(&self, dir: &dyn Dir, name: &[u8], bytes: &[u8], mode: u32) -> std::io::Result<()> {
        let (temporary, file) = self.temporary(mode)?;
        file.write_at(bytes, 0)?;
        self.partial.rename(&temporary, dir, name, Rename::Over)
    }

    /// A file on its way, which no other process has.
    fn temporary(&self, mode: u32) -> std::io::Result<(Vec<u8>, Arc<dyn File>)> {
        let name = random_name().map_err(std::io::Error::other)?;
        let file = self.partial.create_file(&name, mode)?;
        Ok((name, file))
    }

    /// How old the lease in `dir` is, by the store's clock.
    pub(super) fn age_of_lease(&self, dir: &dyn Dir) -> std::io::Result<Duration> {
        let written = lease::stamp(dir)?;
        let (name, file) = self.temporary(MODE)?;
        let now = file.stat()?.mtime;
        self.partial.unlink(&name)?;
        Ok(Duration::from_secs(u64::try_from(now.sec.saturating_sub(written.sec)).unwrap_or_default()))
    }

    /// A file that no name leads to: it goes with whoever has it open.
    pub(super) fn nameless(&self) -> Result<Arc<dyn File>> {
        let (name, file) = self.temporary(MODE).map_err(|e| self.failed("create", 0, e))?;
        match self.partial.unlink(&name) {
            // Who seals has cleared it away.
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(self.failed("create", 0, e)),
            _ => Ok(file),
        }
    }

    /// A file that has its name, and where its header must say that it stands.
    pub(super) fn named(&self, open: &mut OpenDir, i: u32) -> Result<(Arc<dyn File>, Place)> {
        let (entry, stored) = (self.entry(i)?, self.stored(i)?);
        let file = self.dir(open, entry.record.parent)?.open_file(&stored.text, Access::Read);
        let file = file.map_err(|e| part_opened("open", self.object(i), e))?;
        Ok((file, place(&self.id(entry.record.parent), Object::File, &entry.name)))
    }

    /// A file that is to be written.
    pub(super) fn begin(&self, i: u32) -> Result<(Vec<u8>, Arc<dyn File>)> {
        self.temporary(MODE).map_err(|e| self.failed("create", i, e))
    }

    /// Gives a file that was written its attributes and its name, unless another process did first.
    pub(super) fn finish(
        &self,
        open: &mut OpenDir,
        i: u32,
        (temporary, file): (Vec<u8>, Arc<dyn File>),
        id: Option<&FileId>,
    ) -> Result<()> {
        let (entry, stored) = (self.entry(i)?, self.stored(i)?);
        let record = &entry.record;
        let stat = file.stat().map_err(|e| self.failed("stat", i, e))?;
        if let Some((uid, gid)) = other_owner(&stat, record) {
            file.set_owner(uid, gid).map_err(|e| self.failed("set the owner of", i, e))?;
        }
        file.set_mode(record.mode.into()).map_err(|e| self.failed("set the mode of", i, e))?;
        self.set_attributes(i, &*file, id)?;
        file.set_times(SetTime::Omit, mtime(record)).map_err(|e| self.failed("set the time of", i, e))?;
        if !self.partial.is_local() {
            // Who seals may sit at another machine, and syncs his own.
            file.sync_all().map_err(|e| self.failed("sync", i, e))?;
        }
        let parent = self.dir(open, record.parent)?;
        self.put_side(&*parent, &stored, i)?;
        self.name(&temporary, &*parent, &stored.text).map_err(|e| self.failed("put in place", i, e))
    }

    /// Never in the place of what is there: it may be sealed already.
    fn name(&self, temporary: &[u8], dir: &dyn Dir, name: &[u8]) -> std::io::Result<()> {
        const NO_FLAG: [i32; 2] = [libc::EINVAL, libc::EOPNOTSUPP];
        const NO_LINKS: [i32; 4] = [libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];
        let is = |e: &std::io::Error, errnos: &[i32]| e.raw_os_error().is_some_and(|e| errnos.contains(&e));
        // A store on a network that lacks the flag looks first, and renames then: others may come between.
        let renamed = match dir.is_local() {
            true => self.partial.rename(temporary, dir, name, Rename::NoReplace),
            false => Err(std::io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let renamed = match renamed {
            Err(e) if is(&e, &NO_FLAG) => match self.partial.link(temporary, dir, name) {
                Err(e) if is(&e, &NO_LINKS) => self.partial.rename(temporary, dir, name, Rename::NoReplace),
                linked => linked.and_then(|()| self.partial.unlink(temporary)),
            },
            renamed => renamed,
        };
        match renamed {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => self.partial.unlink(temporary),
            renamed => renamed,
        }
    }

    /// Whether a file has its name.
    pub(super) fn has(&self, open: &mut OpenDir, i: u32) -> Result<bool> {
        let dir = self.dir(open, self.record(i)?.parent)?;
        exists(&*dir, &self.stored(i)?.text).map_err(|e| self.failed("stat", i, e))
    }

    /// Whoever is still at a file finds his copy gone, and what has its name from now on keeps it.
    pub(super) fn shut_out(&self) -> Result<()> {
        remove_all(&self.partial).map_err(|e| self.failed("clear what is half copied of", 0, e))
    }

    /// Whether every file is there in all of its length.
    pub(super) fn is_whole(&self) -> Result<()> {
        let mut open = None;
        for i in self.files() {
            let (dir, size) = (self.dir(&mut open, self.record(i)?.parent)?, self.record(i)?.size);
            let stat = dir.stat(&self.stored(i)?.text).map_err(|e| part_opened("open", self.object(i), e))?;
            if !self.context.geometry.plain_len(stat.size).is_ok_and(|found| found == size) {
                let what = "shorter or longer than it was sealed: the run that it replaces stays".to_owned();
                return Err(Error::damaged(self.object(i), crate::Damage::Run(what)));
            }
        }
        Ok(())
    }

    /// A file is copied again. Once the run is sealed nobody's `partial/` is there to take it.
    pub(super) fn remove(&self, i: u32, holding: &Holding) -> Result<()> {
        let alone = [i];
        for name in self.links.get(&i).map_or(&alone[..], Vec::as_slice) {
            let dir = self.dir(&mut None, self.record(*name)?.parent)?;
            holding.check()?;
            match dir.rename(&self.stored(*name)?.text, &*self.partial, &random_name()?, Rename::Over) {
                Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(self.failed("remove", i, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What the header of a file says of its names.
    pub(super) fn stands(&self, i: u32) -> Result<Stands> {
        let place_of = |i: u32| {
            let entry = self.entry(i)?;
            Ok::<_, Error>(place(&self.id(entry.record.parent), Object::File, &entry.name))
        };
        let alone = [i];
        let names = self.links.get(&i).map_or(&alone[..], Vec::as_slice);
        Ok(match names {
            [one] => Stands { flags: 0, place: place_of(*one)?, ..Stands::ANYWHERE },
            [one, two] => Stands { flags: 0, place: place_of(*one)?, previous: place_of(*two)? },
            _ => Stands { flags: SEVERAL_LINKS, ..Stands::ANYWHERE },
        })
    }

    /// Further names, and what directories and nodes have beside them, once all files are there.
    pub(super) fn complete(&self) -> Result<()> {
        let mut open = None;
        for names in self.links.values() {
            let [first, others @ ..] = names.as_slice() else { continue };
            let from = self.dir(&mut None, self.record(*first)?.parent)?;
            let stored = self.stored(*first)?;
            for name in others {
                let dir = self.dir(&mut open, self.record(*name)?.parent)?;
                let new = self.stored(*name)?;
                self.put_side(&*dir, &new, *name)?;
                match from.link(&stored.text, &*dir, &new.text) {
                    Err(e) if e.raw_os_error() != Some(libc::EEXIST) => {
                        return Err(self.failed("link", *name, e));
                    }
                    _ => {}
                }
            }
        }
        // From below: what a directory's mode forbids is done by then.
        let numbered: Vec<_> = (0..).zip(&self.manifest.entries).collect();
        let others =
            numbered.iter().rev().filter(|(i, e)| e.record.kind != Kind::File && e.record.object == *i);
        others.into_iter().try_for_each(|(i, entry)| self.dress(*i, entry))
    }

    /// Owner, mode, attributes and time of what is no file.
    fn dress(&self, i: u32, entry: &Entry) -> Result<()> {
        let record = &entry.record;
        if i == 0 {
            let tree = &self.context.tree;
            // Its mode and owner are set by its own name, which its parent has.
            return self.set_attributes(i, &**tree, Some(&FileId::ROOT));
        }
        let parent = self.dir(&mut None, record.parent)?;
        let stored = self.stored(i)?.text;
        self.dress_named(i, &*parent, &stored, record)?;
        if record.kind == Kind::Dir {
            let dir = parent.open_dir(&stored).map_err(|e| part_opened("open", self.object(i), e))?;
            self.set_attributes(i, &*dir, Some(&self.id(i)))?;
        }
        parent
            .set_times(&stored, SetTime::Omit, mtime(record))
            .map_err(|e| self.failed("set the time of", i, e))
    }

    /// Owner and mode of an entry, under its stored name.
    pub(super) fn dress_named(&self, i: u32, parent: &dyn Dir, stored: &[u8], record: &Record) -> Result<()> {
        let stat = parent.stat(stored).map_err(|e| self.failed("stat", i, e))?;
        if let Some((uid, gid)) = other_owner(&stat, record) {
            parent.set_owner(stored, uid, gid).map_err(|e| self.failed("set the owner of", i, e))?;
        }
        if record.kind != Kind::Symlink && stat.mode != u32::from(record.mode) {
            parent.set_mode(stored, record.mode.into()).map_err(|e| self.failed("set the mode of", i, e))?;
        }
        Ok(())
    }

    /// Attributes under the key of the new run, and ACLs, which are the store's.
    fn set_attributes(&self, i: u32, subject: &dyn Xattrs, id: Option<&FileId>) -> Result<()> {
        let key = self.context.keys.name_key();
        for (name, value) in &self.entry(i)?.xattrs {
            let set = if ACLS.contains(&name.as_slice()) {
                subject.set_xattr(name, value, 0)
            } else {
                let id = id.ok_or(runvault_format::Error::Manifest("attributes"))?;
                let stored = name::encrypt_xattr_name(key, id, name)?;
                subject.set_xattr(&stored, &name::encrypt_xattr_value(key, id, name, value)?, 0)
            };
            set.map_err(|e| self.failed("set an attribute of", i, e))?;
        }
        Ok(())
    }

    /// Whether a file has a header although nothing is in it.
    pub(super) fn has_attributes(&self, i: u32) -> Result<bool> {
        Ok(self.entry(i)?.xattrs.iter().any(|(name, _)| !ACLS.contains(&name.as_slice())))
    }
}

/// Of something on its way, which no other process has.
pub(super) fn random_name() -> runvault_crypto::Result<Vec<u8>> {
    let mut random = [0; 8];
    random::fill(&mut random)?;
    Ok(format!("{:016x}", u64::from_le_bytes(random)).into_bytes())
}

fn mtime(record: &Record) -> SetTime {
    SetTime::At(Time { sec: record.mtime, nsec: record.mtime_ns })
}

/// What of an object's owner is to be another one.
fn other_owner(stat: &Stat, record: &Record) -> Option<(Option<u32>, Option<u32>)> {
    let (uid, gid) = (stat.uid != record.uid, stat.gid != record.gid);
    (uid || gid).then(|| (uid.then_some(record.uid), gid.then_some(record.gid)))
}
