//! The vault's calls on nodes of sealed runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runvault_format::manifest::{self, Kind};

use super::{SealedTree, attr_of, kind_of, tell};
use crate::api::{Attr, DirEntry, Handle, Ino, Opened, ROOT};
use crate::outcome::is_not_found;
use crate::run::{Loaded, Run};
use crate::seal::Seal;
use crate::{Damage, Error, Posix, Result, Vault, runs};

/// Cookies from here on are those of what continues the run: above any number of children.
const LATER: u64 = 1 << 40;

/// A directory of a sealed run that is listed.
pub(crate) struct SealedListing {
    ino: Ino,
    /// What continues the run, as it was when the listing came to it.
    later: Mutex<Later>,
}

#[derive(Clone, Default)]
struct Later {
    entries: Arc<Vec<DirEntry>>,
    /// Names, or runs, that could not be read.
    unreadable: u64,
}

impl SealedListing {
    pub(crate) fn new(ino: Ino) -> Self {
        Self { ino, later: Mutex::default() }
    }

    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    pub(crate) fn unreadable(&self) -> u64 {
        self.later().unreadable
    }

    fn look(&self, (entries, unreadable): (Vec<DirEntry>, u64)) -> Arc<Vec<DirEntry>> {
        let entries = Arc::new(entries);
        *self.later() = Later { entries: entries.clone(), unreadable };
        entries
    }

    fn seen(&self) -> Arc<Vec<DirEntry>> {
        self.later().entries.clone()
    }

    fn later(&self) -> MutexGuard<'_, Later> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// The run of a node.
    pub(crate) fn run_of_sealed(&self, ino: Ino) -> Result<Arc<Run>> {
        Ok(self.sealed.of(ino)?.0)
    }

    /// Names from its run's top to a node.
    pub(crate) fn sealed_path(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.of_sealed(ino, |tree, entry| tree.path(entry))
    }

    pub(super) fn sealed_tree(&self, run: &Arc<Run>) -> Result<Arc<SealedTree>> {
        let seal = run.seal().ok_or(Posix::Stale)?;
        let verify = || self.verify_known(run);
        let context = || {
            let dir = runs::run_dir(&self.root, &run.id)?;
            let tree = dir.open_dir(b"tree");
            let object = || format!("runs/{}/tree", run.id);
            run.reader(&tree.map_err(|e| crate::outcome::part_opened("open", object(), e))?)
        };
        seal.tree(verify, context, self.sealed.top_of(run))
    }

    /// What an earlier mount has noted of a run is believed until something in it is asked for.
    fn verify_known(&self, run: &Run) -> Result<Seal> {
        let refuse = |what: &str| Error::damaged(format!("runs/{}", run.id), Damage::Run(what.to_owned()));
        match Run::load(&self.root, run.id, &*self.authority, self.gateway.as_deref(), run.serial()) {
            Ok(Loaded::Opens(found)) => run.verified_as(&found),
            // A grant that was revoked, or a reader whose time is over: nothing was tampered with.
            Ok(Loaded::Closed(_)) => {
                Err(Error::WrongKey(format!("no key that is held here opens run {} any more", run.id)))
            }
            Err(error) if is_not_found(&error) || runs::is_missing(&error) => {
                self.check_store()?;
                Err(refuse("it was sealed, and it or a part of it is missing"))
            }
            Err(error) => Err(error),
        }
    }

    /// Has the run's key, of one that an earlier mount knew.
    pub(crate) fn open_sealed_run(&self, run: &Arc<Run>) -> Result<()> {
        self.sealed_tree(run).map(drop).inspect_err(tell)
    }

    /// Why nothing of a sealed run is changed.
    pub(crate) fn sealed_refusal(&self, ino: Ino) -> Error {
        match self.sealed.of(ino) {
            Ok((run, _)) => Error::Sealed { run: run.id.to_string() },
            Err(error) => error,
        }
    }

    /// How messages name a node.
    pub(crate) fn sealed_object(&self, ino: Ino) -> Option<String> {
        self.of_sealed(ino, |tree, entry| Ok(tree.object(entry))).ok()
    }

    /// The top of a sealed run.
    pub(crate) fn sealed_top(&self, run: &Arc<Run>) -> Result<Attr> {
        let shown = run.seal().ok_or(Posix::Stale)?.shown();
        Ok(attr_of(self, &shown.top, self.sealed.top_of(run), shown.geometry))
    }

    /// The manifest's text on the run.
    pub(crate) fn sealed_about(&self, run: &Arc<Run>) -> Result<String> {
        self.sealed_tree(run).and_then(|tree| tree.about()).inspect_err(tell)
    }

    pub(crate) fn sealed_lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.of_sealed(parent, |tree, entry| tree.attr(self, tree.child(entry, name)?))
    }

    pub(crate) fn sealed_attr(&self, ino: Ino) -> Result<Attr> {
        if let (run, 0) = self.sealed.of(ino)? {
            return self.sealed_top(&run);
        }
        self.of_sealed(ino, |tree, entry| tree.attr(self, entry))
    }

    pub(crate) fn sealed_link(&self, ino: Ino) -> Result<Vec<u8>> {
        self.of_sealed(ino, |tree, entry| {
            let record = tree.record(entry)?;
            if record.kind == Kind::Symlink { tree.target(&record) } else { Err(Posix::Invalid.into()) }
        })
    }

    pub(crate) fn open_sealed(&self, ino: Ino) -> Result<Opened> {
        let file = self.of_sealed(ino, SealedTree::open_file)?;
        Ok(Opened { handle: self.handles.add_sealed(file), keep_cache: true, shared: false })
    }

    pub(crate) fn sealed_xattrs(&self, ino: Ino) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut xattrs = match self.sealed.of(ino)? {
            (run, 0) => {
                let bytes = &run.seal().ok_or(Posix::Stale)?.shown().xattrs;
                let object = || format!("runs/{}/seal", run.id);
                manifest::decode_xattrs(bytes)
                    .map_err(|e| Error::damaged(object(), Damage::Run(e.to_string())))?
            }
            _ => self.of_sealed(ino, |tree, entry| tree.xattrs(&tree.record(entry)?))?,
        };
        xattrs.retain(|(name, _)| !name.starts_with(b"trusted.") || crate::sys::is_root());
        Ok(xattrs)
    }

    pub(crate) fn open_sealed_dir(&self, ino: Ino) -> Result<Handle> {
        match self.of_sealed(ino, |tree, entry| tree.record(entry))?.kind {
            Kind::Dir => Ok(self.handles.add_sealed_listing(ino)),
            _ => Err(Posix::NotDirectory.into()),
        }
    }

    /// Cookies: 1 after `.`, 2 after `..`, then one for each child; above all of them those of what continues the run.
    pub(crate) fn list_sealed(
        &self,
        listing: &SealedListing,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        if cookie < LATER && !self.list_own(listing.ino, cookie, plus, visit)? {
            return Ok(());
        }
        let later = match cookie.checked_sub(LATER) {
            None => listing.look(self.list_later(listing.ino)?),
            Some(_) => listing.seen(),
        };
        let first = usize::try_from(cookie.saturating_sub(LATER)).unwrap_or(usize::MAX);
        for (n, entry) in (LATER + 1..).zip(later.iter()).skip(first) {
            let attr = if plus {
                match self.lookup(listing.ino, &entry.name) {
                    Err(error) if is_not_found(&error) => continue,
                    // What is damaged is shown without attributes: who looks it up gets the error.
                    found => found.ok(),
                }
            } else {
                None
            };
            let shown = DirEntry { next: n, attr, ..entry.clone() };
            if !visit(&shown) {
                if let Some(attr) = attr {
                    self.forget(attr.ino, 1);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// What the run itself has; whether all of it was shown.
    pub(crate) fn list_own(
        &self,
        ino: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry) -> bool,
    ) -> Result<bool> {
        const DOTS: u64 = 2;
        let (tree, entry, record) =
            self.of_sealed(ino, |tree, entry| Ok((tree.clone(), entry, tree.record(entry)?)))?;
        let above = if entry == 0 { ROOT } else { tree.ino(record.parent) };
        for (at, name, ino) in [(0, b".".to_vec(), ino), (1, b"..".to_vec(), above)] {
            let kind = runvault_store::backend::Kind::Dir;
            if cookie <= at && !visit(&DirEntry { name, ino, kind, next: at + 1, attr: None }) {
                return Ok(false);
            }
        }
        let first = cookie.saturating_sub(DOTS);
        for n in first..u64::from(record.children) {
            let child = u32::try_from(u64::from(record.first) + n).map_err(|_| Posix::Stale)?;
            let shown = |tree: &Arc<SealedTree>| {
                let of_child = tree.record(child)?;
                Ok(DirEntry {
                    name: tree.name(&of_child)?,
                    ino: tree.ino(of_child.object),
                    kind: kind_of(of_child.kind),
                    next: DOTS + n + 1,
                    attr: if plus { Some(tree.attr(self, child)?) } else { None },
                })
            };
            // The run may be replaced, and go, while it is listed.
            let shown = shown(&tree).or_else(|_: Error| self.of_sealed(ino, |tree, _| shown(tree)))?;
            if !visit(&shown) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
