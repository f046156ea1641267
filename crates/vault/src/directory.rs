//! Open directories of the store: every path is walked through them, component by component.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use runvault_format::header::Kind as Object;
use runvault_format::ids::{DirId, FileId};
use runvault_format::keys::{Place, place};
use runvault_format::name::{self, Stored};
use runvault_store::backend::{Access, Dir, File, Kind, Stat};

use crate::api::{Ino, ROOT};
use crate::file::RunContext;
use crate::nodes::Name;
use crate::outcome::outcome;
use crate::run::{Body, Run};
use crate::sealed::is_sealed;
use crate::view::{not_opened, still_leads_to};
use crate::{Damage, Error, Posix, Result, Vault, record, sys};

/// Open directories that are kept, so that file descriptors stay bounded.
fn kept_at_most() -> usize {
    sys::kept_open(384, 4)
}

/// A directory whose record was read.
pub(crate) struct OpenDir {
    /// Its node; [`ROOT`] for the top of the loose run that the mount's root shows.
    pub(crate) node: Ino,
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) id: DirId,
    pub(crate) run: Arc<Run>,
    pub(crate) body: Arc<Body>,
    /// Its id is that of a record, not one made up for an empty directory without any.
    pub(crate) lasts: bool,
    removed: bool,
    /// The place that its record was compared with.
    seen_as: Option<Place>,
    /// The group that new objects inherit, where the directory has its setgid bit.
    group: OnceLock<Option<u32>>,
    default_acl: OnceLock<bool>,
}

impl OpenDir {
    fn new(node: Ino, dir: Arc<dyn Dir>, id: DirId, lasts: bool, run: Arc<Run>, body: Arc<Body>) -> Self {
        let (group, default_acl) = (OnceLock::new(), OnceLock::new());
        Self { node, dir, id, run, body, lasts, removed: false, seen_as: None, group, default_acl }
    }

    /// The group that new objects inherit; `None` where they get their maker's.
    pub(crate) fn inherited_group(&self) -> Option<u32> {
        *self.group.get_or_init(|| {
            self.dir.stat_self().ok().filter(|stat| stat.mode & 0o2000 != 0).map(|stat| stat.gid)
        })
    }

    /// The stored form of a name in it.
    pub(crate) fn stored(&self, text: &[u8]) -> Result<Stored> {
        let key = self.body.context.keys.name_key();
        name::encrypt_name(key, &self.id, text).map_err(|e| match e {
            runvault_format::Error::TooLong => Posix::NameTooLong.into(),
            runvault_format::Error::Name => Posix::Invalid.into(),
            other => other.into(),
        })
    }

    /// A name is about to come into it; its names are locked.
    pub(crate) fn will_have(&self, new: &Stored) {
        self.body.own_names().add(&self.id, &new.text);
    }

    /// Whether it cannot have the name, by what this process knows. Its names are locked.
    pub(crate) fn lacks(&self, stored: &Stored) -> bool {
        self.body.is_ours() && self.body.own_names().lack(&self.id, &stored.text)
    }

    /// Where a file or directory of that name stands.
    pub(crate) fn place(&self, kind: Kind, text: &[u8]) -> Place {
        let object = if kind == Kind::Dir { Object::Directory } else { Object::File };
        place(&self.id, object, text)
    }

    /// A default ACL governs the modes of what is made in it.
    pub(crate) fn has_default_acl(&self) -> bool {
        *self.default_acl.get_or_init(|| self.dir.xattr(b"system.posix_acl_default").is_ok())
    }

    /// Its name in messages.
    pub(crate) fn object(&self) -> String {
        self.body.context.object(self.node)
    }
}

/// The directories opened last.
#[derive(Default)]
pub(crate) struct OpenDirs {
    kept: RwLock<HashMap<Ino, (Arc<OpenDir>, AtomicU64)>>,
    clock: AtomicU64,
}

impl OpenDirs {
    fn get(&self, ino: Ino) -> Option<Arc<OpenDir>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let (dir, used) = kept.get(&ino)?;
        used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(dir.clone())
    }

    fn keep(&self, dir: &Arc<OpenDir>) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.insert(dir.node, (dir.clone(), AtomicU64::new(now)));
        let most = kept_at_most();
        if kept.len() > most {
            let mut used: Vec<u64> = kept.values().map(|(_, used)| used.load(Ordering::Relaxed)).collect();
            used.sort_unstable();
            let oldest = used.get(most / 4).copied().unwrap_or(0);
            kept.retain(|_, (_, used)| used.load(Ordering::Relaxed) > oldest);
        }
    }

    /// It was removed, or something about it changed.
    pub(crate) fn drop_one(&self, ino: Ino) {
        self.kept.write().unwrap_or_else(PoisonError::into_inner).remove(&ino);
    }

    /// Those of a run that goes.
    pub(crate) fn drop_run(&self, run: &Arc<Run>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (dir, _)| !Arc::ptr_eq(&dir.run, run));
    }
}

impl Vault {
    /// The open directory of a node.
    ///
    /// # Errors
    /// [`Posix::NotFound`] for the mount's root while there is no loose run, [`Posix::NotDirectory`],
    /// [`Posix::Stale`]; damage; the store's.
    pub(crate) fn directory(&self, ino: Ino) -> Result<Arc<OpenDir>> {
        if is_sealed(ino) {
            return Err(self.sealed_refusal(ino));
        }
        if let Some(dir) = self.kept_directory(ino) {
            return Ok(dir);
        }
        if ino == ROOT {
            let run = self.loose_run().ok_or(Posix::NotFound)?;
            return self.top_of(ROOT, &run);
        }
        let mut below: Vec<(Ino, Name, Option<DirId>)> = Vec::new();
        let mut at = ino;
        let mut open = loop {
            let known = self.nodes.known(at).ok_or(Posix::Stale)?;
            known.run.check_there()?;
            if known.kind != Kind::Dir {
                return Err(Posix::NotDirectory.into());
            }
            if known.top {
                break self.top_of(at, &known.run)?;
            }
            let name = known.name.ok_or(Posix::NotFound)?;
            let parent = name.parent;
            below.push((at, name, known.dir_id));
            at = parent;
            if at == ROOT {
                break self.directory(ROOT)?;
            }
            if let Some(dir) = self.kept_directory(at) {
                break dir;
            }
        };
        for (ino, name, id) in below.iter().rev() {
            open = self.open_child(&open, *ino, &name.text, *id)?;
        }
        Ok(open)
    }

    /// The top directory of a run, which has no record: its id is zero.
    fn top_of(&self, node: Ino, run: &Arc<Run>) -> Result<Arc<OpenDir>> {
        let body = self.body(run)?;
        let open = Arc::new(OpenDir::new(node, body.tree.clone(), DirId::ROOT, true, run.clone(), body));
        self.dirs.keep(&open);
        Ok(open)
    }

    /// Opens the directory `text` of `parent`, which must be the inode `ino`. `id` where its record
    /// was read before: a number stays one directory's while it is open or known.
    pub(crate) fn open_child(
        &self,
        parent: &Arc<OpenDir>,
        ino: Ino,
        text: &[u8],
        id: Option<DirId>,
    ) -> Result<Arc<OpenDir>> {
        let stored = parent.stored(text)?.text;
        let object = || parent.body.context.object(ino);
        let dir =
            parent.dir.open_dir(&stored).map_err(|e| not_opened(parent, &stored, (ino, Kind::Dir), e))?;
        still_leads_to(ino, &dir.stat_self().map_err(|e| outcome("stat", object(), e))?)?;
        let seen_as = id.is_none().then(|| parent.place(Kind::Dir, text));
        let (id, lasts) = match id {
            Some(id) => (id, true),
            None => self.dir_id(parent, &*dir, text, &object)?,
        };
        let open = OpenDir::new(ino, dir, id, lasts, parent.run.clone(), parent.body.clone());
        let open = Arc::new(OpenDir { seen_as, ..open });
        if lasts {
            self.nodes.set_dir_id(ino, id);
            self.dirs.keep(&open);
        }
        Ok(open)
    }

    /// The id of a subdirectory, from its record, which must stand where it is; and whether it lasts.
    fn dir_id(
        &self,
        parent: &OpenDir,
        dir: &dyn Dir,
        text: &[u8],
        object: &dyn Fn() -> String,
    ) -> Result<(DirId, bool)> {
        let context = &parent.body.context;
        let place = parent.place(Kind::Dir, text);
        let damage = match record::read(context, dir, Some(place)) {
            Ok(Some(id)) => return Ok((id, true)),
            Ok(None) => Error::damaged(object(), Damage::DirectoryRecord),
            Err(Error::Damaged { damage, .. }) => Error::damaged(object(), damage),
            Err(other) => return Err(other),
        };
        let torn = matches!(&damage, Error::Damaged { damage: Damage::DirectoryRecord | Damage::Header, .. });
        if !torn || !holds_nothing(dir).map_err(|e| outcome("list", object(), e))? {
            return Err(damage);
        }
        // A mkdir that a power cut ended, or one under way elsewhere.
        if context.read_only() || parent.body.check_lease().is_err() {
            let mut id = [0u8; 32];
            runvault_crypto::random::fill(&mut id)?;
            return Ok((FileId(id), false));
        }
        new_record(context, dir, place, object).map(|id| (id, true))
    }

    /// Who stands in a directory that is removed sees it empty from now on.
    pub(crate) fn keep_removed(&self, parent: &OpenDir, ino: Ino, dir: Arc<dyn Dir>, id: DirId) {
        let open = OpenDir::new(ino, dir, id, true, parent.run.clone(), parent.body.clone());
        self.dirs.keep(&Arc::new(OpenDir { removed: true, ..open }));
    }

    /// [`Vault::keep_removed`] for the top of a run.
    pub(crate) fn keep_removed_run(&self, run: &Arc<Run>, body: Arc<Body>) {
        let open = OpenDir::new(body.top, body.tree.clone(), DirId::ROOT, true, run.clone(), body);
        self.dirs.keep(&Arc::new(OpenDir { removed: true, ..open }));
    }

    /// The directory of a node, if it is open; also one that the kernel keeps open after its removal, unless
    /// its number is another one's by now: not every store keeps the numbers of what is open.
    pub(crate) fn kept_directory(&self, ino: Ino) -> Option<Arc<OpenDir>> {
        let is_removed = || self.nodes.known(ino).is_none_or(|known| known.name.is_none());
        self.dirs.get(ino).filter(|dir| !dir.removed || is_removed())
    }

    /// The directory of a node that is still open from when it was found under this name, where nobody else changes
    /// the run: the kernel has forgotten it, we have not.
    pub(crate) fn still_open(&self, ino: Ino, text: &[u8], parent: &OpenDir) -> Option<Arc<OpenDir>> {
        let place = parent.place(Kind::Dir, text);
        let same = |dir: &OpenDir| !dir.removed && dir.lasts && dir.seen_as == Some(place);
        self.dirs
            .get(ino)
            .filter(|dir| same(dir) && parent.body.is_ours() && Arc::ptr_eq(&dir.run, &parent.run))
    }

    /// What a side file holds; `None` where there is none, or something that can be no side file.
    pub(crate) fn read_side(dir: &dyn Dir, side: &[u8]) -> io::Result<Option<Vec<u8>>> {
        use libc::{EFBIG, EINVAL, EISDIR, ELOOP, ENOENT, ENXIO};
        match runvault_store::read_whole::read_whole(dir, side, name::PATH_MAX + 64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if matches!(e.raw_os_error(), Some(ENOENT | EFBIG | EINVAL | EISDIR | ELOOP | ENXIO)) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Makes a side file, durable before the name that needs it. Its name says what it holds: what is
    /// there and differs is damaged.
    pub(crate) fn put_side(dir: &dyn Dir, side: &[u8], bytes: &[u8]) -> io::Result<()> {
        if Self::read_side(dir, side)?.is_some_and(|found| found == bytes) {
            return Ok(());
        }
        match dir.unlink(side) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
            _ => {}
        }
        runvault_store::replace::create(dir, side, bytes, 0o644)
    }

    /// Opens a stored file of a directory, for writing too where its run is written here and the store takes
    /// writes now. With its attributes.
    pub(crate) fn open_stored(parent: &OpenDir, stored: &[u8]) -> io::Result<(Arc<dyn File>, Access, Stat)> {
        let open =
            |access| parent.dir.open_file_and_stat(stored, access).map(|(file, stat)| (file, access, stat));
        if parent.body.context.read_only() {
            return open(Access::Read);
        }
        match open(Access::ReadWrite) {
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
                parent.body.tell_read_only(true);
                open(Access::Read)
            }
            opened => {
                parent.body.tell_read_only(false);
                opened
            }
        }
    }
}

/// Whether there is nothing in a directory but a record.
pub(crate) fn holds_nothing(dir: &dyn Dir) -> io::Result<bool> {
    let mut nothing = true;
    dir.entries(0, &mut |entry| {
        nothing = entry.name == name::RECORD;
        nothing
    })?;
    Ok(nothing)
}

/// An empty directory's record, over one that does not count.
pub(crate) fn new_record(
    context: &RunContext,
    dir: &dyn Dir,
    place: Place,
    object: &dyn Fn() -> String,
) -> Result<DirId> {
    match dir.unlink(name::RECORD) {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(outcome("remove the record of", object(), e)),
        _ => record::create(context, dir, place),
    }
}
