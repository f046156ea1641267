//! Runs come, are renamed, and go: each whole or not at all.

use std::sync::{Arc, PoisonError};

use runvault_crypto::random;
use runvault_crypto::secrets::Secret;
use runvault_format::descriptor::{After, How, RunDescriptor, RunKind};
use runvault_format::ids::{RunId, SessionId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_format::name;
use runvault_format::note::Note;
use runvault_format::retired::Retired;
use runvault_store::backend::{Dir, Rename};
use runvault_store::read_whole::read_whole;
use runvault_store::replace;

use crate::api::{Attr, Caller, Ino};
use crate::authority::{ChainPlace, EnvelopeFile, Gateway, Resume};
use crate::lease;
use crate::nodes::Name;
use crate::outcome::{holds_something, outcome};
use crate::removal::remove_dir;
use crate::run::{Body, Run, RunName};
use crate::run_table::joined;
use crate::{Error, Posix, Result, Vault, runs, sys};

/// Directories of a run's own files.
pub(crate) const DIR_MODE: u32 = 0o755;
pub(crate) const FILE_MODE: u32 = 0o644;
pub(crate) const RETIRED: &str = "retired";
const RETIRED_MAX: usize = 1 << 20;

/// What is drawn and sealed for a run that is to be.
struct Draft {
    id: RunId,
    key: RunKey,
    session: SessionId,
    descriptor: RunDescriptor,
    note: Vec<u8>,
    envelopes: Vec<EnvelopeFile>,
}

impl Vault {
    /// mkdir at run depth.
    pub(crate) fn make_named_run(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
    ) -> Result<Attr> {
        self.check_open()?;
        if self.gateway.is_none() {
            return Err(Posix::ReadOnly.into());
        }
        if name.len() > name::NAME_MAX {
            return Err(Posix::NameTooLong.into());
        }
        let folder = self.folder_path(parent).ok_or(Posix::Invalid)?;
        let path = joined(&folder, name);
        let _names = self.locks.alone(&[parent]);
        if self.run_named(parent, name)?.is_some() {
            return Err(Posix::Exists.into());
        }
        if self.outside_any_run(parent, name)?.is_some() {
            return Err(Posix::Exists.into());
        }
        let mut scans = self.hold_scans();
        let run = self.make_run(RunKind::Run, &path, self.sealed_before(&path)?)?;
        let body = self.body(&run)?;
        let owned = self.own_tree(&body.dir, caller, mode);
        self.add_run(&mut scans, &run);
        drop(scans);
        owned?;
        self.lookup_run(parent, name, &run)
    }

    /// The run of that name that was sealed here, and of which this machine may know nothing else: a run that is made
    /// under its name adds to it.
    fn sealed_before(&self, path: &[u8]) -> Result<Option<After>> {
        let Some(gateway) = self.gateway.as_deref() else { return Ok(None) };
        Ok(gateway.sealed_as(path)?.map(|(run, seal)| After { run, how: How::Continues, seal }))
    }

    /// A run that adds to a sealed one, of the name and with the top that are shown; the caller makes no other.
    pub(crate) fn make_continuation(&self, sealed: &Run, name: &[u8], top: &Attr) -> Result<Arc<Run>> {
        let part = sealed.part();
        let after = After { run: part.run, how: How::Continues, seal: part.seal.ok_or(Posix::Stale)? };
        let mut scans = self.hold_scans();
        let run = self.make_run(RunKind::Run, name, Some(after))?;
        let body = self.body(&run)?;
        let owned =
            self.own_tree(&body.dir, &Caller { uid: top.uid, gid: top.gid, pid: 0, umask: 0 }, top.mode);
        self.add_run(&mut scans, &run);
        drop(scans);
        owned?;
        Ok(run)
    }

    /// The top directory belongs to who asked for the run.
    fn own_tree(&self, run_dir: &Arc<dyn Dir>, caller: &Caller, mode: u32) -> Result<()> {
        let fail = |e| outcome("set the owner of", "tree", e);
        if sys::is_root() {
            run_dir.set_owner(b"tree", Some(caller.uid), Some(caller.gid)).map_err(fail)?;
        }
        run_dir.set_mode(b"tree", mode & !caller.umask & 0o1777).map_err(fail)
    }

    /// The gateway's run for what lies outside any run.
    pub(crate) fn make_loose_run(&self) -> Result<()> {
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.loose_run().is_some() {
            return Ok(());
        }
        let mut scans = self.hold_scans();
        let run = self.make_run(RunKind::Loose, b"loose", None)?;
        self.add_run(&mut scans, &run);
        Ok(())
    }

    /// Nothing that a revoked gateway makes counts: better that it makes nothing.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub(crate) fn require_unrevoked(&self, gateway: &dyn Gateway) -> Result<()> {
        self.authority.refresh();
        let known = self.authority.gateway_key(&gateway.id());
        match known.and_then(|known| known.until) {
            Some(_) => Err(Error::Revoked { gateway: gateway.id().to_string() }),
            None => Ok(()),
        }
    }

    /// A run, durable in the state folder before the store sees it, whole in the store before it
    /// has its name there.
    fn make_run(&self, kind: RunKind, name: &[u8], after: Option<After>) -> Result<Arc<Run>> {
        let gateway = self.gateway.as_deref().ok_or(Posix::ReadOnly)?;
        self.require_unrevoked(gateway)?;
        let draft = self.draft(gateway, kind, after)?;
        let place = runs::coming_place(&draft.id);
        let temporary = place.as_bytes();
        let object = || format!("runs/{place}");
        if let Err(error) = self.write_run(gateway, &draft, temporary, name) {
            // The state folder's pending entry is settled at its next start.
            let _ = remove_dir(&*self.runs_dir, temporary);
            return Err(error);
        }
        rename_dir(&*self.runs_dir, temporary, draft.id.to_string().as_bytes())
            .map_err(|e| outcome("put in place", object(), e))?;
        self.runs_dir.sync().map_err(|e| outcome("sync", "runs", e))?;
        gateway.commit_run(&draft.id)?;
        // Read as others will, and remembered as there.
        let made = runs::read_descriptor(&self.root, &draft.id, &*self.authority)?;
        let serial = self.serials.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = runs::run_dir(&self.root, &draft.id)?;
        let note = made.text_hash()?;
        let run =
            Run::new((draft.id, &draft.descriptor, note), serial, true, None, draft.key, RunName::new(name));
        self.give_body(&run, dir, draft.session)?;
        Ok(run)
    }

    fn draft(&self, gateway: &dyn Gateway, kind: RunKind, after: Option<After>) -> Result<Draft> {
        let (mut id, mut session) = ([0u8; 16], [0u8; 16]);
        random::fill(&mut id)?;
        random::fill(&mut session)?;
        let (id, session) = (RunId(id), SessionId(session));
        let key = RunKey(Secret::random()?);
        let keys = RunKeys::derive(&key, &id, runvault_crypto::aead::Engine::fastest());
        let sealed = self.authority.seal_run(&id, &key)?;
        let mut made = None;
        let resume = Resume { key: key.clone(), session };
        let note = gateway.begin_run(&id, &resume, &mut |place: ChainPlace| {
            let descriptor = runs::new_descriptor(
                self.authority.vault_id(),
                &sealed,
                gateway.id(),
                place,
                id,
                kind,
                &keys,
            );
            let descriptor = RunDescriptor { after: after.clone(), ..descriptor };
            let text = descriptor.to_text()?;
            made = Some(descriptor);
            Ok(text)
        })?;
        let descriptor = made.ok_or(Posix::Invalid)?;
        Ok(Draft { id, key, session, descriptor, note, envelopes: sealed.envelopes })
    }

    /// Everything of a run, under its temporary name, synced.
    fn write_run(&self, gateway: &dyn Gateway, draft: &Draft, temporary: &[u8], name: &[u8]) -> Result<()> {
        let fail = |e| outcome("write", format!("runs/.new-{}", draft.id), e);
        let keys = RunKeys::derive(&draft.key, &draft.id, runvault_crypto::aead::Engine::fastest());
        let name = name::encrypt_run_name(keys.name_key(), &draft.id, name).map_err(|e| match e {
            runvault_format::Error::TooLong => Error::Posix(Posix::NameTooLong),
            runvault_format::Error::Name => Error::Posix(Posix::Invalid),
            other => other.into(),
        })?;
        self.runs_dir.create_dir(temporary, DIR_MODE).map_err(fail)?;
        let dir = self.runs_dir.open_dir(temporary).map_err(fail)?;
        let put = |dir: &Arc<dyn Dir>, name: &[u8], bytes: &[u8]| {
            let file = dir.create_file(name, FILE_MODE)?;
            file.write_at(bytes, 0)?;
            file.sync_all()
        };
        put(&dir, b"run.json", &draft.note).map_err(fail)?;
        put(&dir, b"name", &name).map_err(fail)?;
        dir.create_dir(b"keys", DIR_MODE).map_err(fail)?;
        let keys_dir = dir.open_dir(b"keys").map_err(fail)?;
        for envelope in &draft.envelopes {
            put(&keys_dir, envelope.name.as_bytes(), &envelope.bytes).map_err(fail)?;
        }
        keys_dir.sync().map_err(fail)?;
        self.make_apart(&*dir, b"tree", true, || dir.create_dir(b"tree", DIR_MODE)).map_err(fail)?;
        lease::write(&*dir, &lease::of_this_process(&gateway.id())).map_err(fail)?;
        dir.sync().map_err(fail)
    }

    /// rmdir of an empty open run: signed for, then gone.
    pub(crate) fn remove_run(&self, parent: Ino, name: &[u8], run: &Arc<Run>) -> Result<()> {
        let gateway = self.gateway.as_deref().ok_or(Posix::ReadOnly)?;
        let body = self.body(run)?;
        body.check_writer()?;
        // Its place in a chain is accounted for by whoever signs that chain.
        if run.maker() != gateway.id() {
            return Err(run.not_maker());
        }
        let _names = self.locks.alone(&[parent, body.top]);
        if body.tree_holds_something()? {
            return Err(Posix::NotEmpty.into());
        }
        let verified = runs::read_descriptor(&self.root, &run.id, &*self.authority)?;
        let note = gateway.retire_run(&run.id, &verified.note, &sys::utc_now())?;
        let gone = runs::gone_place(&run.id);
        // Where it stays nobody is to take it for gone.
        self.put_retired(&run.id, &note)
            .and_then(|()| self.move_away(run, &body, &gone))
            .inspect_err(|_| self.take_back_retired(&run.id))?;
        body.end_lease();
        self.runs_dir.sync().map_err(|e| outcome("sync", "runs", e))?;
        self.change_table(|entries| {
            entries.remove(&run.id);
        });
        self.dirs.drop_run(run);
        self.nodes.remove_name(body.top, self.nodes.generation(body.top), &Name::new(parent, name), true);
        run.mark_gone();
        self.remove_gone(gone.as_bytes())?;
        self.keep_removed_run(run, body.clone());
        self.remove_ledger(gateway, &run.id);
        gateway.release(&run.id)
    }

    fn move_away(&self, run: &Run, body: &Body, gone: &str) -> Result<()> {
        body.context.close()?;
        // That may have taken as long as a takeover.
        body.check_lease()?;
        if body.tree_holds_something()? {
            return Err(Posix::NotEmpty.into());
        }
        let id = run.id.to_string();
        let fail = |e| outcome("remove", format!("runs/{id}"), e);
        let runs_dir = body.behind_lease(&self.runs_dir);
        runs_dir.rename(id.as_bytes(), &*runs_dir, gone.as_bytes(), Rename::Over).map_err(fail)?;
        // And so may that call: another's run goes back to its place.
        let lost = match body.check_still_ours() {
            Ok(()) if body.tree_holds_something()? => Posix::NotEmpty.into(),
            Ok(()) => return Ok(()),
            Err(lost) => lost,
        };
        rename_dir(&*self.runs_dir, gone.as_bytes(), id.as_bytes())
            .and_then(|()| self.runs_dir.sync())
            .map_err(fail)?;
        Err(lost)
    }

    /// Takes a gateway's word back that it removed the run, which is there: its process was killed before it did.
    pub(crate) fn take_back_retired(&self, run: &RunId) {
        let Ok(dir) = self.root.open_dir(RETIRED.as_bytes()) else { return };
        let name = run.to_string();
        // An owner's says something else, of a run that may well be there.
        let is_of_a_gateway = |bytes: Vec<u8>| {
            let text = Note::parse(&bytes).and_then(|note| Retired::parse_text(note.text));
            text.is_ok_and(|said| said.run == *run)
        };
        // A call that failed may have been made all the same.
        let is_there = runs::run_dir(&self.root, run).is_ok();
        if is_there && read_whole(&*dir, name.as_bytes(), RETIRED_MAX).is_ok_and(is_of_a_gateway) {
            match dir.unlink(name.as_bytes()).and_then(|()| dir.sync()) {
                Ok(()) => log::info!("run {run}: it was not removed after all"),
                Err(error) => {
                    log::warn!("{RETIRED}/{run} says that the run is gone, and it is there: {error}")
                }
            }
        }
    }

    fn put_retired(&self, run: &RunId, note: &[u8]) -> Result<()> {
        let fail = |e| outcome("write", format!("{RETIRED}/{run}"), e);
        let open = || self.root.open_dir(RETIRED.as_bytes());
        let dir = match open() {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                self.root.create_dir(RETIRED.as_bytes(), DIR_MODE).map_err(fail)?;
                self.root.sync().map_err(fail)?;
                open().map_err(fail)?
            }
            other => other.map_err(fail)?,
        };
        replace::replace(&*dir, run.to_string().as_bytes(), note, FILE_MODE).map_err(fail)
    }

    /// Removes what a run on its way out left behind.
    fn remove_gone(&self, name: &[u8]) -> Result<()> {
        remove_dir(&*self.runs_dir, name)
            .map_err(|e| outcome("remove", format!("runs/{}", String::from_utf8_lossy(name)), e))
    }

    /// Clears what this gateway's earlier processes left of runs on their way in or out.
    pub(crate) fn clear_passing(&self, passing: &[Vec<u8>]) {
        let Some(gateway) = self.gateway.as_deref() else { return };
        let ours = gateway.id().to_string();
        for name in passing {
            let Ok(dir) = self.runs_dir.open_dir(name) else { continue };
            let holder = lease::read(&*dir).ok().flatten();
            if holder.is_none_or(|lease| lease.holder != ours) {
                continue;
            }
            // Only empty runs go: what another wrote there meanwhile stays.
            if may_hold_something(&dir) {
                let shown = String::from_utf8_lossy(name);
                log::error!(
                    "runs/{shown} was on its way out and holds files: it stays. Give it its run's id as its name again"
                );
            } else if let Err(error) = self.remove_gone(name) {
                log::warn!("a leftover in runs/ stays: {error}");
            }
        }
    }
}

/// Whether its tree has an entry, or may have one.
fn may_hold_something(run_dir: &Arc<dyn Dir>) -> bool {
    match run_dir.open_dir(b"tree") {
        Ok(tree) => holds_something(&*tree).unwrap_or(true),
        Err(e) => e.raw_os_error() != Some(libc::ENOENT),
    }
}

/// Gives a directory another name there, which is free. A store that does not know that flag replaces an empty directory,
/// which is none of ours, and no other.
pub(crate) fn rename_dir(dir: &dyn Dir, from: &[u8], to: &[u8]) -> std::io::Result<()> {
    dir.rename(from, dir, to, Rename::NoReplace).or_else(|e| match e.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => dir.rename(from, dir, to, Rename::Over),
        _ => Err(e),
    })
}
