//! A sealed run and its continuations, shown as one tree.
//!
//! The sealed run is the first layer, and every later one adds to it: a name is that of the earliest layer that has
//! it. A directory that several have is shown by the node of the earliest, and lists what is in all of them. Only
//! directories of sealed runs are looked at so, since what is not sealed is the last layer.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};

use runvault_format::continuations::{self, Part};
use runvault_format::ids::{IdentityId, RunId};
use runvault_store::backend::{Kind, Rename};

use crate::api::{Attr, Caller, DirEntry, Ino, ROOT, SetAttr};
use crate::authority::Authority;
use crate::outcome::is_not_found;
use crate::run::Run;
use crate::sealed::is_sealed;
use crate::xattr::ACLS;
use crate::{Error, Posix, Result, Vault, sys};

/// Places that a line of the log names.
const HIDDEN_NAMED: usize = 20;

/// The layers of one run, the earliest first; the last may be open, all others are sealed.
pub(crate) struct Union {
    layers: Vec<Arc<Run>>,
}

impl Union {
    /// The run that the others continue.
    pub(crate) fn first(&self) -> Option<&Arc<Run>> {
        self.layers.first()
    }

    fn later_than(&self, run: &RunId) -> &[Arc<Run>] {
        let at = self.layers.iter().position(|layer| layer.id == *run);
        at.and_then(|at| self.layers.get(at + 1..)).unwrap_or_default()
    }
}

/// Which runs are shown as one, by the id of each of them. Of parts that are open one alone is shown so: who writes
/// (`writing`) sees its own, else two of them could hide each other's files.
pub(crate) fn unions(
    runs: &[Arc<Run>],
    authority: &dyn Authority,
    writing: bool,
) -> HashMap<RunId, Arc<Union>> {
    let runs: Vec<&Arc<Run>> = runs.iter().filter(|run| !run.is_loose()).collect();
    let parts: Vec<Part<'_>> = runs.iter().map(|run| run.part()).collect();
    let mut unions = HashMap::new();
    let admitted = |part: &Part<'_>, run: Option<&RunId>| {
        let admission = authority.admission(&part.signer, run);
        admission.is_some_and(|admission| admission.counts_run(part.seq, part.note))
    };
    for group in continuations::groups(&parts, admitted) {
        let all = group.into_iter().filter_map(|at| runs.get(at).copied().cloned());
        let (mut layers, open): (Vec<_>, Vec<_>) = all.partition(|run| run.is_sealed());
        layers.extend(open.into_iter().find(|run| run.held || !writing));
        let union = Arc::new(Union { layers });
        if union.layers.len() > 1 {
            unions.extend(union.layers.iter().map(|layer| (layer.id, union.clone())));
        }
    }
    unions
}

/// The part that this machine writes.
fn ours(layers: &[Arc<Run>]) -> Option<&Arc<Run>> {
    layers.iter().find(|layer| layer.held && !layer.is_sealed())
}

/// A directory's node, known until this is dropped.
pub(crate) struct Known<'a> {
    vault: &'a Vault,
    ino: Ino,
    counted: bool,
}

impl Deref for Known<'_> {
    type Target = Ino;
    fn deref(&self) -> &Ino {
        &self.ino
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.vault.forget(self.ino, 1);
        }
    }
}

/// A directory of a sealed run that is not the last layer.
struct Place {
    union: Arc<Union>,
    run: Arc<Run>,
    /// Names from the run's top to it.
    path: Vec<Vec<u8>>,
}

impl Place {
    fn later(&self) -> &[Arc<Run>] {
        self.union.later_than(&self.run.id)
    }
}

impl Vault {
    /// The runs that are shown as one with this one, the first of them first: it alone, where nothing continues it.
    pub fn parts_of(&self, run: &RunId) -> Vec<RunId> {
        let table = self.table();
        let parts = table.unions.get(run).map(|union| union.layers.iter().map(|layer| layer.id).collect());
        parts.unwrap_or_else(|| vec![*run])
    }

    /// Where a run is found by itself: of one that adds to another, its own files alone, under a name that no listing
    /// has.
    pub fn path_of(&self, run: &RunId) -> Option<Vec<u8>> {
        self.table().path_of(run).map(<[u8]>::to_vec)
    }

    /// `None`: nothing continues the run of this directory.
    fn place_in_union(&self, dir: Ino) -> Result<Option<Place>> {
        let run = self.run_of_sealed(dir)?;
        self.all_runs()?;
        let Some(union) = self.table().unions.get(&run.id).cloned() else { return Ok(None) };
        let path = self.sealed_path(dir)?;
        Ok(Some(Place { union, run, path }))
    }

    /// A name that a directory of a sealed run does not have, in the runs that continue it. One of those that is in
    /// trouble, or is being sealed, is passed over: what it adds must not cost what it is added to.
    pub(crate) fn lookup_later(&self, dir: Ino, name: &[u8]) -> Result<Attr> {
        if let Some(place) = self.place_in_union(dir)? {
            for layer in place.later().iter().filter(|layer| !layer.is_closed_for_good()) {
                let found = self.dir_in(layer, &place.path).and_then(|dir| match dir {
                    Some(dir) => self.lookup_in_layer(*dir, name),
                    None => Err(Posix::NotFound.into()),
                });
                match found {
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => tell_trouble(layer, &error),
                    found => return found,
                }
            }
        }
        Err(Posix::NotFound.into())
    }

    fn lookup_in_layer(&self, dir: Ino, name: &[u8]) -> Result<Attr> {
        if is_sealed(dir) { self.sealed_lookup(dir, name) } else { self.lookup(dir, name) }
    }

    /// The directory of that path in one layer; `None` where it has none.
    fn dir_in(&self, layer: &Arc<Run>, path: &[Vec<u8>]) -> Result<Option<Known<'_>>> {
        let known = |attr: Attr| Known { vault: self, ino: attr.ino, counted: !is_sealed(attr.ino) };
        let missing = |error: Error| if is_not_found(&error) { Ok(None) } else { Err(error) };
        let name = layer.name();
        let mut at = match self.lookup_run(ROOT, &name, layer) {
            Ok(attr) => known(attr),
            Err(error) => return missing(error),
        };
        for name in path {
            match self.lookup_in_layer(*at, name) {
                Ok(attr) if attr.kind == Kind::Dir => at = known(attr),
                Ok(attr) => {
                    drop(known(attr));
                    return Ok(None);
                }
                Err(error) => return missing(error),
            }
        }
        Ok(Some(at))
    }

    /// What the later layers add to a listing of a directory of a sealed run: names that no earlier one has; and how
    /// many names, or layers, could not be read.
    pub(crate) fn list_later(&self, dir: Ino) -> Result<(Vec<DirEntry>, u64)> {
        let (mut found, mut unreadable) = (Vec::new(), 0);
        let Some(place) = self.place_in_union(dir)? else { return Ok((found, unreadable)) };
        let mut kinds: HashMap<Vec<u8>, Kind> = HashMap::new();
        for layer in place.later().iter().filter(|layer| !layer.is_closed_for_good()) {
            let listed = self.dir_in(layer, &place.path).and_then(|dir| match dir {
                Some(dir) => self.list_layer(*dir),
                None => Ok((Vec::new(), 0)),
            });
            let (here, left_out) = listed.unwrap_or_else(|error| {
                tell_trouble(layer, &error);
                (Vec::new(), 1)
            });
            unreadable += left_out;
            let mut hidden = Vec::new();
            for entry in here.into_iter().filter(|entry| !matches!(entry.name.as_slice(), b"." | b"..")) {
                let earlier = match self.sealed_lookup(dir, &entry.name) {
                    Err(error) if is_not_found(&error) => kinds.get(&entry.name).copied(),
                    Err(error) => return Err(error),
                    Ok(attr) => Some(attr.kind),
                };
                match earlier {
                    None => {
                        kinds.insert(entry.name.clone(), entry.kind);
                        found.push(entry);
                    }
                    Some(Kind::Dir) if entry.kind == Kind::Dir => {}
                    Some(_) => hidden.push(entry.ino),
                }
            }
            self.tell_hidden(&place, layer, (dir, &hidden));
        }
        Ok((found, unreadable))
    }

    /// Two layers have names that are not directories in both. The log goes to who must not read names, so it has the
    /// places in the store; once for each directory.
    fn tell_hidden(&self, place: &Place, layer: &Arc<Run>, (dir, hidden): (Ino, &[Ino])) {
        let Some(first) = place.union.first().filter(|_| !hidden.is_empty() && layer.first_clash(dir)) else {
            return;
        };
        let named: Vec<String> =
            hidden.iter().take(HIDDEN_NAMED).map(|ino| self.stored_place(layer, *ino)).collect();
        let more = hidden.len() - named.len();
        log::warn!(
            "run {}, which adds to run {}, has names that are there already, and the earlier ones are shown: {}{}; \
             runvault verify names them",
            layer.id,
            first.id,
            named.join(", "),
            if more > 0 { format!(" and {more} more") } else { String::new() }
        );
    }

    /// How messages name a node of a layer.
    fn stored_place(&self, layer: &Arc<Run>, ino: Ino) -> String {
        let sealed = || self.sealed_object(ino);
        let open = || layer.opened_body().map(|body| body.context.object(ino));
        let place = if is_sealed(ino) { sealed() } else { open() };
        place.unwrap_or_else(|| format!("runs/{}/tree", layer.id))
    }

    /// All entries of a directory of one layer, and how many of its names could not be read.
    fn list_layer(&self, dir: Ino) -> Result<(Vec<DirEntry>, u64)> {
        let mut found = Vec::new();
        let mut take = |entry: &DirEntry| {
            found.push(entry.clone());
            true
        };
        if is_sealed(dir) {
            self.list_own(dir, 0, false, &mut take)?;
            return Ok((found, 0));
        }
        let handle = self.opendir(dir)?;
        let listed = self.readdir(handle, 0, false, &mut take).and_then(|()| self.unreadable_names(handle));
        self.releasedir(handle)?;
        Ok((found, listed?))
    }

    /// The directory that a name is to be made in: of a sealed run, that of the same path in the run that continues
    /// it here, which is made if there is none.
    ///
    /// # Errors
    /// [`Posix::Exists`] where a sealed layer has the name; [`Error::Sealed`] where this machine may not continue it.
    pub(crate) fn parent_to_change(&self, dir: Ino, name: &[u8]) -> Result<Known<'_>> {
        self.check_open()?;
        if !is_sealed(dir) {
            return Ok(Known { vault: self, ino: dir, counted: false });
        }
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        if self.sealed_layers_have(dir, name)? {
            return Err(Posix::Exists.into());
        }
        let run = self.run_of_sealed(dir)?;
        let path = self.sealed_path(dir)?;
        let continuation = self.continuation_of(dir, &run)?;
        let mut at = self.dir_in(&continuation, &[])?.ok_or(Posix::Stale)?;
        let mut sealed = self.sealed_top(&run)?;
        for name in &path {
            // As it was sealed, so that a copy of the continuation alone looks like the run.
            sealed = self.sealed_lookup(sealed.ino, name)?;
            let found = match self.lookup(*at, name) {
                Err(error) if is_not_found(&error) => self.make_like(*at, name, &sealed)?,
                found => found?,
            };
            at = Known { vault: self, ino: found.ino, counted: true };
        }
        Ok(at)
    }

    fn make_like(&self, parent: Ino, name: &[u8], sealed: &Attr) -> Result<Attr> {
        let caller = Caller { uid: sealed.uid, gid: sealed.gid, pid: 0, umask: 0 };
        match self.make_dir_in(&caller, parent, name, sealed.mode) {
            Err(Error::Posix(Posix::Exists)) => self.lookup(parent, name),
            made => made.inspect(|made| self.take_after(made.ino, sealed)),
        }
    }

    /// Group, mode with its setgid bit, and ACLs of a directory that was sealed, for one that was just made after it:
    /// what is put into it gets the same from it. It is there without them too.
    fn take_after(&self, made: Ino, sealed: &Attr) {
        let caller = Caller { uid: sealed.uid, gid: sealed.gid, pid: 0, umask: 0 };
        let gid = sys::is_root().then_some(sealed.gid);
        let change = SetAttr { mode: Some(sealed.mode & 0o3777), gid, ..SetAttr::NOTHING };
        let acls = || -> Result<()> {
            let known = self.sealed_xattrs(sealed.ino)?;
            for acl in ACLS {
                let set = match known.iter().find(|(name, _)| name == acl) {
                    Some((_, value)) => self.setxattr(made, acl, value, 0),
                    None => self.removexattr(made, acl),
                };
                match set {
                    Err(Error::Posix(Posix::NoAttribute | Posix::Unsupported)) => {}
                    set => set?,
                }
            }
            Ok(())
        };
        if let Err(error) = self.setattr(&caller, made, None, &change).and_then(|_| acls()) {
            log::warn!("a directory that was made after a sealed one has not all of its attributes: {error}");
        }
    }

    /// [`Vault::parent_to_change`] for a rename: what was sealed is not replaced.
    pub(crate) fn parent_to_replace(&self, dir: Ino, name: &[u8], how: Rename) -> Result<Known<'_>> {
        match self.parent_to_change(dir, name) {
            Err(Error::Posix(Posix::Exists)) if how != Rename::NoReplace => Err(self.sealed_refusal(dir)),
            found => found,
        }
    }

    /// The directory that a name is to be taken out of, or put over one.
    ///
    /// # Errors
    /// [`Error::Sealed`] where a sealed layer has the name; [`Posix::NotFound`] where none has.
    pub(crate) fn parent_of_present(&self, dir: Ino, name: &[u8]) -> Result<Known<'_>> {
        self.check_open()?;
        if !is_sealed(dir) {
            return Ok(Known { vault: self, ino: dir, counted: false });
        }
        if self.read_only() || self.sealed_layers_have(dir, name)? {
            return Err(self.sealed_refusal(dir));
        }
        let place = self.place_in_union(dir)?.ok_or(Posix::NotFound)?;
        let open = ours(place.later()).ok_or(Posix::NotFound)?;
        self.dir_in(open, &place.path)?.ok_or(Error::Posix(Posix::NotFound))
    }

    /// The directory that is made durable for one of a sealed run: that of the run that continues it here, if that has
    /// one.
    pub(crate) fn directory_to_sync(&self, dir: Ino) -> Result<Option<Known<'_>>> {
        let Some(place) = self.place_in_union(dir)? else { return Ok(None) };
        match ours(place.later()) {
            Some(open) => self.dir_in(open, &place.path),
            None => Ok(None),
        }
    }

    /// [`Posix::CrossRun`] where nothing that is in this run can come into that directory.
    pub(crate) fn check_same_run(&self, run: &Run, dir: Ino) -> Result<()> {
        if !is_sealed(dir) {
            return Ok(());
        }
        let parts = self.parts_of(&self.run_of_sealed(dir)?.id);
        if parts.contains(&run.id) { Ok(()) } else { Err(Posix::CrossRun.into()) }
    }

    fn sealed_layers_have(&self, dir: Ino, name: &[u8]) -> Result<bool> {
        let has = |dir| match self.sealed_lookup(dir, name) {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        };
        if has(dir)? {
            return Ok(true);
        }
        let Some(place) = self.place_in_union(dir)? else { return Ok(false) };
        for layer in place.later().iter().filter(|layer| layer.is_sealed()) {
            if let Some(dir) = self.dir_in(layer, &place.path)?
                && has(*dir)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether what this machine adds to a sealed run is believed.
    fn may_add_to(&self, first: &Run) -> bool {
        let admitted = |gateway: &IdentityId| {
            let known = first.part().run;
            [None, Some(&known)].into_iter().any(|run| self.authority.is_admitted(gateway, run))
        };
        let ours = self.gateway.as_ref().map(|gateway| gateway.id());
        ours.is_some_and(|ours| ours == first.maker() || admitted(&ours))
    }

    /// Why what was sealed gets no further name: it would be in the run that adds to it, where this machine may make
    /// one, and a copy can be.
    pub(crate) fn refusal_of_a_link(&self, ino: Ino) -> Error {
        let may_add = self.run_of_sealed(ino).is_ok_and(|run| {
            let union = self.table().unions.get(&run.id).cloned();
            let first = union.as_ref().and_then(|union| union.first());
            self.may_add_to(first.unwrap_or(&run))
        });
        if may_add { Posix::CrossRun.into() } else { self.sealed_refusal(ino) }
    }

    /// The open run of this gateway that continues a sealed one.
    fn continuation_of(&self, dir: Ino, run: &Arc<Run>) -> Result<Arc<Run>> {
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        self.all_runs()?;
        let union = self.table().unions.get(&run.id).cloned();
        let layers = union.as_ref().map_or_else(|| vec![run.clone()], |union| union.layers.clone());
        if let Some(open) = ours(&layers) {
            // Until its seal is made.
            return if open.is_closed_for_good() { Err(Posix::Busy.into()) } else { Ok(open.clone()) };
        }
        let newest = layers.iter().rev().find(|layer| layer.is_sealed()).ok_or(Posix::Stale)?;
        let first = layers.first().unwrap_or(run);
        // What was admitted may have been dismissed since.
        self.authority.refresh();
        if !self.may_add_to(first) {
            return Err(self.sealed_refusal(dir));
        }
        let top = self.sealed_top(first)?;
        let made = self.make_continuation(newest, &first.name(), &top)?;
        if let Some(dir) = self.dir_in(&made, &[])? {
            self.take_after(*dir, &top);
        }
        Ok(made)
    }
}

fn tell_trouble(layer: &Run, error: &Error) {
    log::error!("run {}, which adds to another one, is passed over: {error}", layer.id);
}
